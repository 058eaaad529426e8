"""kdml: one teacher, frozen or trained, and students that teach each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import methods
from classroomkd.classroom import Answers, Classroom, Lesson, PlainContext
from classroomkd.classroom.trainees import who_gave
from classroomkd.errors import UserError
from classroomkd.tasks.classification.task import Classification

C, N = 4, 6
OPTIONS = {"temperature": 3.0, "mutual_temperature": 2.0, "weight": 0.6, "mutual_weight": 0.7, "supervised_weight": 0.5}
ORDERS = ("jacobi", "gauss_seidel")
exact = {"rtol": 1e-12, "atol": 1e-12}


def network(seed: int, width: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Tanh(), nn.Linear(width, C)).double()


def batch(seed: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 3, 2, 2, generator=generator, dtype=torch.float64)
    return x, torch.randint(C, (N,), generator=generator)


def room(teacher: str = "online", peers: int = 2, task: Classification | None = None, **options: Any) -> Classroom:
    """A student from seed 0, peers b, c, … from 1 on, and the teacher, from seed 7."""
    made = methods.create("kdml", **{"teacher": teacher, "ramp": 0.0, **options})
    given = {name: network(1 + i) for i, name in enumerate("bcde"[:peers])}
    if teacher == "frozen":
        return Classroom(network(0), [network(7, 9)], made, task=task, peers=given)
    return Classroom(network(0), [], made, task=task, peers={"t": network(7, 9), **given}, teachers=["t"])


def step(classroom: Classroom, batches: int = 1) -> Lesson:
    context = PlainContext(classroom, torch.optim.SGD(classroom.parameters(), lr=0.1, momentum=0.9))
    for number in range(batches):
        x, y = batch(9 + number)
        lesson = classroom.method.step(context, {"inputs": x, "target": y})
    return lesson


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def kl(target: Tensor, own: Tensor, t: float) -> Tensor:
    return t**2 * F.kl_div((own / t).log_softmax(-1), (target / t).softmax(-1), reduction="batchmean")


def by_hand(order: str, online: bool, batches: int) -> list[Tensor]:
    """Weights of the teacher and three students, every optimiser its own, one backward pass a network."""
    teacher, *students = network(7, 9), *(network(i) for i in range(3))
    nets = [teacher, *students]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in nets]
    for number in range(batches):
        x, y = batch(9 + number)
        said = [net(x) for net in nets]
        targets = [z.detach() for z in said]
        for k, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            if k == 0 and not online:
                continue
            loss = F.cross_entropy(said[k], y)
            if k > 0:
                others = [kl(targets[j], said[k], 2.0) for j in (1, 2, 3) if j != k]
                loss = 0.5 * loss + 0.6 * kl(targets[0], said[k], 3.0) + 0.7 / 2 * sum(others)
            loss.backward()
            if order == "gauss_seidel":
                optimizer.step()
                targets[k] = net(x).detach()
        for optimizer in optimizers:
            if order == "jacobi":
                optimizer.step()
            optimizer.zero_grad()
    return [weights(net) for net in nets]


@pytest.mark.parametrize("teacher", ["online", "frozen"])
@pytest.mark.parametrize("order", ORDERS)
def test_both_orders_are_the_step_written_by_hand(order: str, teacher: str) -> None:
    one = room(teacher, order=order, **OPTIONS)
    step(one, 3)
    first = one.peers.networks["t"] if teacher == "online" else one.mentors.mentors[0].module
    others = [net for name, net in one.peers.networks.items() if name != "t"]
    expected = by_hand(order, teacher == "online", 3)
    for own, other in zip([first, one.student, *others], expected, strict=True):
        torch.testing.assert_close(weights(own), other, **exact)
    assert one.steps == 3


class _Open(Classification):
    """A task whose divergence would let a gradient through to those who teach."""

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        return (student.unsqueeze(0) - mentors).square().sum(-1, keepdim=True)


@pytest.mark.parametrize("task", [Classification(), _Open()], ids=["classes", "open"])
def test_no_gradient_reaches_the_teacher_or_through_targets_a_peer(task: Classification) -> None:
    one = room(task=task)
    lesson = one(*batch())
    trainees = {"": one.student, **{f"{k}.": v for k, v in one.peers.networks.items()}}
    for trainee, own in trainees.items():
        others = [p for p in one.parameters() if all(p is not mine for mine in own.parameters())]
        loss = torch.stack([value for name, value in lesson.terms.items() if name.rpartition(".")[0] == trainee[:-1]])
        found = torch.autograd.grad(loss.sum(), others, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found)
    assert [name for name in lesson.terms if name.startswith("t.")] == ["t.supervised"]


def test_terms_have_their_names_and_nobody_but_a_frozen_teacher_has_a_record() -> None:
    own = ["supervised", "distilled", "mutual"]
    online, frozen = room(peers=1)(*batch()), room("frozen", peers=1)(*batch())
    assert list(online.terms) == [*own, "t.supervised", *(f"b.{name}" for name in own)]
    assert list(frozen.terms) == [*own, *(f"b.{name}" for name in own)]
    assert online.weight is None
    assert frozen.weight is not None
    assert torch.equal(frozen.weight, torch.ones(1, N, dtype=torch.float64))


@pytest.mark.parametrize("given", [{}, {"temperature": 2.0, "weight": 0.3, "supervised_weight": 0.9}])
def test_one_student_and_a_frozen_teacher_are_kd_to_the_bit(given: dict[str, Any]) -> None:
    full = {"temperature": 4.0, "weight": 1.0, "supervised_weight": 1.0, **given}
    one, kd = room("frozen", peers=0, **given), Classroom(network(0), [network(7, 9)], methods.create("kd", **full))
    lesson, other = step(one, 3), step(kd, 3)
    assert list(lesson.terms) == list(other.terms)
    assert torch.equal(lesson.loss, other.loss)
    assert torch.equal(weights(one.student), weights(kd.student))


def test_one_student_and_an_online_teacher_are_kd_from_what_it_says_by_then() -> None:
    one = room(peers=0)
    lesson = step(one)
    kd = Classroom(network(0), [network(7, 9)], methods.create("kd", weight=1.0, supervised_weight=1.0))
    other = step(kd)
    assert torch.equal(lesson.terms["distilled"], other.terms["distilled"])
    assert torch.equal(weights(one.student), weights(kd.student))
    assert not torch.equal(weights(one.peers.networks["t"]), weights(network(7, 9)))  # it has learned


@pytest.mark.parametrize("teacher", ["online", "frozen"])
def test_who_taught_whom(teacher: str) -> None:
    one = room(teacher, peers=1, weight=0.5, mutual_weight=2.0)
    terms = one(*batch()).outcome
    assert terms is not None
    name = "t" if teacher == "online" else one.mentors.names[0]
    found = who_gave(terms, one.mentors.names, one.peers.networks)
    values = {key: value.detach() for key, value in terms.values.items()}
    expected = {
        ("student", name): 0.5 * values["distilled"],
        ("student", "b"): 2.0 * values["mutual"],
        ("b", name): 0.5 * values["b.distilled"],
        ("b", "student"): 2.0 * values["b.mutual"],
    }
    assert found.keys() == expected.keys()
    for pair, value in expected.items():
        torch.testing.assert_close(found[pair], value)


def test_without_what_peers_say_each_student_learns_as_if_alone_with_the_teacher() -> None:
    one = room("frozen", peers=2, mutual_weight=0.0)
    step(one, 2)
    for seed, net in enumerate([one.student, *one.peers.networks.values()]):
        kd = Classroom(network(seed), [network(7, 9)], methods.create("kd", weight=1.0, supervised_weight=1.0))
        step(kd, 2)
        torch.testing.assert_close(weights(net), weights(kd.student), **exact)


def test_without_what_the_teacher_says_it_is_dml() -> None:
    one = room(peers=2, weight=0.0, order="gauss_seidel")
    dml = Classroom(
        network(0), (), methods.create("dml", order="gauss_seidel"), peers={"b": network(1), "c": network(2)}
    )
    step(one, 2)
    step(dml, 2)
    for name in ("b", "c"):
        torch.testing.assert_close(weights(one.peers.networks[name]), weights(dml.peers.networks[name]), **exact)
    torch.testing.assert_close(weights(one.student), weights(dml.student), **exact)


@pytest.mark.parametrize("order", ORDERS)
def test_an_online_teacher_learns_as_if_alone(order: str) -> None:
    one, alone = room(order=order), Classroom(network(7, 9), (), "none")
    step(one, 3)
    step(alone, 3)
    torch.testing.assert_close(weights(one.peers.networks["t"]), weights(alone.student), **exact)


def test_permuting_peers_permutes_everything() -> None:
    nets = {"b": network(1), "c": network(2), "t": network(7, 9)}
    rooms = []
    for order in (("b", "c", "t"), ("t", "c", "b")):
        peers = {name: copy.deepcopy(nets[name]) for name in order}
        made = methods.create("kdml", ramp=0.0)
        rooms.append(Classroom(network(0), (), made, peers=peers, teachers=["t"]))
        step(rooms[-1], 2)
    torch.testing.assert_close(weights(rooms[0].student), weights(rooms[1].student), **exact)
    for name in nets:
        torch.testing.assert_close(*(weights(one.peers.networks[name]) for one in rooms), **exact)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("still", ["b", "t"])
def test_a_trainee_that_does_not_require_gradients_stays(still: str, order: str) -> None:
    one = room(order=order)
    for p in list(one.peers.networks[still].parameters())[:2]:
        p.requires_grad_(False)
    before = [p.detach().clone() for p in one.peers.networks[still].parameters()]
    step(one)
    after = list(one.peers.networks[still].parameters())
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, False]


def test_what_students_say_to_each_other_rises_to_its_weight() -> None:
    one = room(ramp=0.1, mutual_weight=2.0)
    one.epochs = 100
    for epoch, factor in ((0.0, 0.1), (4.5, 1.0), (50.0, 2.0)):
        one.epoch = epoch
        outcome = one(*batch()).outcome
        assert outcome is not None
        assert outcome.coefficients["mutual"] == outcome.coefficients["b.mutual"] == pytest.approx(factor)
        assert outcome.coefficients["distilled"] == 1.0


def test_matched_strength_has_no_ramp_and_keeps_what_peers_say_where_the_teacher_is_silent() -> None:
    made = methods.create("kdml", teacher="frozen", strength="matched")
    silent = nn.Sequential(network(7, 9), _Nothing())
    lesson = Classroom(network(0), [silent], made, peers={"b": network(1)})(*batch())
    assert lesson.outcome is not None
    assert float(lesson.outcome.coefficients["mutual"]) == 1.0
    assert float(lesson.terms["distilled"].detach()) == 0.0


class _Nothing(nn.Module):
    """What a broken network says."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan)


def test_a_batch_of_one_and_samples_without_labels() -> None:
    x, y = batch()
    assert room()(x[:1], y[:1]).loss.isfinite()
    made = methods.create("kdml", ramp=0.0)
    peers = {"b": network(1), "t": network(7, 9)}
    some = Classroom(network(0), (), made, peers=peers, teachers=["t"], unlabelled=True)
    lesson, wide = some(x, torch.where(torch.arange(N) < 2, y, -1)), some(x, None)
    assert lesson.loss.isfinite()
    for term in ("distilled", "mutual", "b.distilled"):  # they need no labels
        torch.testing.assert_close(lesson.terms[term], wide.terms[term])
    assert float(wide.terms["t.supervised"].detach()) == 0.0


def test_another_methods_teacher_is_nobodys_peer() -> None:
    made = methods.compose([("kdml", {"ramp": 0.0}), ("dml", {})])
    peers = {"b": network(1), "t": network(7, 9)}
    lesson = Classroom(network(0), (), made, peers=peers, teachers=["t"])(*batch())
    assert torch.equal(lesson.terms["mutual"], lesson.terms["dml.mutual"])
    assert [name for name in lesson.terms if name.startswith("t.")] == ["t.supervised"]


def test_the_members_of_an_ensemble_are_the_students() -> None:
    one = room()
    assert one.members == [one.student, *(one.peers.networks[name] for name in "bc")]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "needs at least 1 peer"),
        ({"peers": {"b": network(1)}}, "trains 1 teacher.s. beside the student, got none; pass teachers="),
        ({"peers": {"b": network(1)}, "teachers": ["t"]}, "names 't', which is no peer; there are b"),
        ({"peers": {"b": network(1), "c": network(2)}, "teachers": ["b", "c"]}, "trains 1 teacher.s.*, got 2"),
        ({"peers": {"b": network(1)}, "teachers": ["b"], "method": "dml"}, "trains no teacher.s.*, got 1"),
    ],
)
def test_teachers_that_will_not_do(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Classroom(network(0), (), **{"method": "kdml", **given})


def test_an_answer_of_the_teacher_that_is_not_finite_is_not_taught() -> None:
    one = room("frozen", peers=1)
    lesson = one.collect(*batch())
    assert lesson.mentors is not None
    lesson.mentors.prediction[0, 0] = torch.nan
    kept = one.collect(*(x[1:] for x in batch()))
    first, second = one.method(lesson), one.method(kept)
    for term in ("distilled", "b.distilled"):
        torch.testing.assert_close(first.values[term] * N, second.values[term] * (N - 1), **exact)


def test_what_acts_on_nothing_is_said() -> None:
    idle = methods.method_class("kdml").idle
    assert idle({}) == idle({"teacher": "frozen", "mentor": 1}) == []
    assert idle({"mentor": "big"}) == ["mentor acts with teacher: frozen only"]
    assert idle({"mutual_weight": 0, "ramp": 0.5}) == ["ramp acts with mutual_weight above 0 only"]


def test_features_of_answers_are_none() -> None:
    lesson = room().collect(*batch())
    assert isinstance(lesson.peers["t"], Answers)
    assert lesson.teachers == ("t",)
