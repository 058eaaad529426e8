"""Peers in a classroom: who answers, who learns from whom, in which order, in a loop of one's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import methods
from classroomkd.classroom import Classroom, Lesson, Method, Needs, PlainContext, Terms
from classroomkd.classroom.trainees import joined, who_gave
from classroomkd.errors import UserError
from classroomkd.tasks.classification.task import Classification

C, N = 4, 6


def network(seed: int, width: int = 5, norm: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(12, width)]
    layers += [nn.BatchNorm1d(width)] if norm else []
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(width, C)).double()


def batch(seed: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 3, 2, 2, generator=generator, dtype=torch.float64)
    return x, torch.randint(C, (N,), generator=generator)


def room(method: str | Method = "dml", peers: int = 2, norm: bool = False, **options: Any) -> Classroom:
    made = methods.create(method, **options) if isinstance(method, str) else method
    given = {name: network(1 + i, norm=norm) for i, name in enumerate("bcde"[:peers])}
    return Classroom(network(0, norm=norm), (), made, peers=given)


def step(classroom: Classroom, lr: float = 0.1, batches: int = 1) -> Lesson:
    context = PlainContext(classroom, torch.optim.SGD(classroom.parameters(), lr=lr, momentum=0.9))
    for number in range(batches):
        x, y = batch(9 + number)
        lesson = classroom.method.step(context, {"inputs": x, "target": y})
    return lesson


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_peers_answer_with_gradient_and_their_terms_have_their_names() -> None:
    one = room()
    lesson = one(*batch())
    assert list(lesson.peers) == ["b", "c"]
    assert all(answers.prediction.requires_grad for answers in lesson.trainees)
    assert list(lesson.terms) == ["supervised", "mutual", "b.supervised", "b.mutual", "c.supervised", "c.mutual"]
    torch.testing.assert_close(lesson.loss, torch.stack(list(lesson.terms.values())).sum())
    assert {name.split(".")[0] for name, _ in one.named_parameters()} == {"reader", "peers"}


class _Open(Classification):
    """A task whose divergence would let a gradient through to those who teach."""

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        return (student.unsqueeze(0) - mentors).square().sum(-1, keepdim=True)


@pytest.mark.parametrize("task", [Classification(), _Open()], ids=["classes", "open"])
def test_no_target_carries_a_gradient(task: Classification) -> None:
    peers = {"b": network(1), "c": network(2)}
    one = Classroom(network(0), (), "dml", task=task, peers=peers)
    lesson = one(*batch())
    for trainee, network_ in {"": one.student, **{f"{k}.": v for k, v in one.peers.networks.items()}}.items():
        others = [p for p in one.parameters() if all(p is not own for own in network_.parameters())]
        own = lesson.terms[f"{trainee}supervised"] + lesson.terms[f"{trainee}mutual"]
        found = torch.autograd.grad(own, others, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found)
        assert all(p.grad is None for p in others)


def by_hand(order: str, batches: int) -> list[Tensor]:
    """Deep mutual learning of three networks at T = 2, every optimiser its own, one backward pass a network."""
    nets = [network(i) for i in range(3)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in nets]
    for number in range(batches):
        x, y = batch(9 + number)
        said = [net(x) for net in nets]
        targets = [z.detach() for z in said]
        for k, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            loss = F.cross_entropy(said[k], y)
            for j in range(3):
                if j != k:
                    p, log_q = (targets[j] / 2).softmax(-1), (said[k] / 2).log_softmax(-1)
                    loss = loss + 0.7 / 2 * 4 * F.kl_div(log_q, p, reduction="batchmean")
            loss.backward()
            if order == "gauss_seidel":
                optimizer.step()
                targets[k] = net(x).detach()
        for optimizer in optimizers:
            if order == "jacobi":
                optimizer.step()
            optimizer.zero_grad()
    return [weights(net) for net in nets]


@pytest.mark.parametrize("order", ["jacobi", "gauss_seidel"])
def test_a_step_is_the_one_written_by_hand(order: str) -> None:
    one = room(order=order, temperature=2.0, weight=0.7)
    step(one, batches=3)
    for own, expected in zip([one.student, *one.peers.networks.values()], by_hand(order, 3), strict=True):
        torch.testing.assert_close(weights(own), expected, rtol=1e-12, atol=1e-12)
    assert one.steps == 3


def test_the_orders_differ_and_the_first_trainee_does_not() -> None:
    a, b = room(order="jacobi"), room(order="gauss_seidel")
    step(a)
    step(b)
    assert torch.equal(weights(a.student), weights(b.student))
    assert not torch.equal(weights(a.peers.networks["b"]), weights(b.peers.networks["b"]))


@pytest.mark.parametrize("order", ["jacobi", "gauss_seidel"])
def test_a_batch_counts_once_in_running_statistics(order: str) -> None:
    one = room(order=order, norm=True)
    before = [copy.deepcopy(net).train() for net in (one.student, *one.peers.networks.values())]
    step(one)
    for net, old in zip((one.student, *one.peers.networks.values()), before, strict=True):
        old(batch()[0])
        for key, buffer in net.named_buffers():
            torch.testing.assert_close(buffer, dict(old.named_buffers())[key])


def test_permuting_peers_permutes_everything() -> None:
    nets = {"b": network(1), "c": network(2)}
    one = Classroom(network(0), (), "dml", peers=copy.deepcopy(nets))
    other = Classroom(network(0), (), "dml", peers={name: copy.deepcopy(nets[name]) for name in ("c", "b")})
    step(one, batches=2)
    step(other, batches=2)
    torch.testing.assert_close(weights(one.student), weights(other.student), rtol=1e-12, atol=1e-12)
    for name in nets:
        same = weights(one.peers.networks[name]), weights(other.peers.networks[name])
        torch.testing.assert_close(*same, rtol=1e-12, atol=1e-12)


def test_a_peer_that_does_not_require_gradients_stays() -> None:
    one = room()
    for p in list(one.peers.networks["b"].parameters())[:2]:
        p.requires_grad_(False)
    before = [p.detach().clone() for p in one.peers.networks["b"].parameters()]
    step(one)
    after = list(one.peers.networks["b"].parameters())
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, False]


def test_equal_networks_have_nothing_to_teach_each_other() -> None:
    one = Classroom(network(0), (), "dml", peers={"b": network(0)})
    lesson = one(*batch())
    assert float(lesson.terms["mutual"].detach()) == float(lesson.terms["b.mutual"].detach()) == 0.0


def test_none_with_peers_is_none_without() -> None:
    one, other = room("none"), Classroom(network(0), (), "none")
    step(one, batches=2)
    step(other, batches=2)
    assert list(one.state_dict()) == list(other.state_dict())
    assert torch.equal(weights(one.student), weights(other.student))


def test_the_schedule_acts_on_what_peers_teach_in_both_orders() -> None:
    for order in ("jacobi", "gauss_seidel"):
        one = room(order=order, schedule={"after": {"epochs": 2}})
        one.epochs, one.epoch = 4, 0
        alone = Classroom(network(0), (), "none")
        step(one)
        step(alone)
        torch.testing.assert_close(weights(one.student), weights(alone.student), rtol=1e-12, atol=1e-12)


def test_a_batch_of_one_and_samples_without_labels() -> None:
    one = room()
    x, y = batch()
    assert one(x[:1], y[:1]).loss.isfinite()
    some = Classroom(network(0), (), methods.create("dml"), peers={"b": network(1)}, unlabelled=True)
    lesson = some(x, torch.where(torch.arange(N) < 2, y, -1))
    wide = some(x, None)
    assert lesson.loss.isfinite()
    torch.testing.assert_close(lesson.terms["mutual"], wide.terms["mutual"])  # it needs no labels
    assert float(wide.terms["supervised"].detach()) == 0.0


@pytest.mark.parametrize(
    ("peers", "sentence"),
    [
        ({}, "needs at least 1 peer"),
        ({"student": network(1)}, "called 'student'"),
        ({"b.c": network(1)}, "letters, digits"),
        ({"b": 3}, "not a network"),
        ({"b": nn.Sequential(nn.Flatten(), nn.Linear(12, C + 1)).double()}, "same question"),
        ({"b": network(1).requires_grad_(False)}, "no parameter of peer 'b' can be trained"),
    ],
)
def test_peers_that_will_not_do(peers: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Classroom(network(0), (), "dml", peers=peers)(*batch())


def test_trainees_share_nothing() -> None:
    net, shared = network(0), network(1)
    for peers, mentors in (({"b": net}, []), ({"b": shared, "c": shared}, []), ({"b": shared}, [shared])):
        with pytest.raises(UserError, match="share"):
            Classroom(net, mentors, "dml", peers=peers)


class _Two(Method):
    """A method of one peer exactly, for the limit."""

    needs = Needs(mentors=0, peers=(1, 1))

    def loss(self, lesson: Lesson) -> Terms:
        own = lesson.mean(lesson.task.supervised(lesson.student.prediction, lesson.target), lesson.target[:, None] >= 0)
        return joined({"student": Terms({"supervised": own})})


def test_more_peers_than_the_method_takes() -> None:
    with pytest.raises(UserError, match="takes at most 1"):
        room(_Two(), peers=2)


def test_kd_beside_dml_brings_each_trainees_own_loss_once() -> None:
    made = methods.compose([("kd", {}), ("dml", {})])
    assert made.needs.peers == (1, None)
    one = Classroom(network(0), [network(7)], made, peers={"b": network(1)})
    lesson = one(*batch())
    assert list(lesson.terms) == ["supervised", "distilled", "dml.mutual", "b.supervised", "b.dml.mutual"]
    with pytest.raises(UserError, match="step of its own"):
        methods.compose([("kd", {}), ("dml", {"order": "gauss_seidel"})])


def test_the_parts_of_a_term_are_what_each_peer_gives_and_add_up_to_it() -> None:
    one = room(peers=3, temperature=2.0)
    lesson = one(*batch())
    outcome = lesson.outcome
    assert outcome is not None
    answers = dict(zip(("student", "b", "c", "d"), lesson.trainees, strict=True))
    for learner, own in answers.items():
        parts = outcome.parts["mutual" if learner == "student" else f"{learner}.mutual"]
        assert set(parts) == set(answers) - {learner}
        torch.testing.assert_close(
            torch.stack(list(parts.values())).sum(), outcome.values[f"{learner}.mutual".removeprefix("student.")]
        )
        log_q = (own.prediction / 2).log_softmax(-1)
        for teacher, part in parts.items():
            far = F.kl_div(log_q, (answers[teacher].prediction / 2).softmax(-1), reduction="batchmean")
            torch.testing.assert_close(part, 4 * far.detach() / 3)
            assert not part.requires_grad


def test_who_taught_whom_has_factors_mentors_and_every_trainee() -> None:
    made = methods.compose([("average", {"weight": 0.5}), ("dml", {"weight": 0.7})])
    one = Classroom(network(0), [network(7), network(8)], made, peers={"b": network(1)})
    terms = one(*batch()).outcome
    assert terms is not None
    found = who_gave(terms, one.mentors.names, one.peers.networks)
    values = {name: value.detach() for name, value in terms.values.items()}
    assert set(found) == {("student", name) for name in (*one.mentors.names, "b")} | {("b", "student")}
    torch.testing.assert_close(found["student", "b"], 0.7 * values["dml.mutual"])
    torch.testing.assert_close(found["b", "student"], 0.7 * values["b.dml.mutual"])
    mentors = sum(found["student", name] for name in one.mentors.names)
    torch.testing.assert_close(mentors, 0.5 * values["distilled"])
    assert who_gave(Terms({"supervised": values["supervised"]}), (), ()) == {}


def test_needs_peers_as_it_was_is_said_to_act_on_nothing() -> None:
    with pytest.warns(DeprecationWarning, match="Needs\\(peers\\)"):
        old = Needs(peers=True)  # type: ignore[arg-type]
    assert old.peers == (0, 0)
