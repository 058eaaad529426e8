"""ctslmkt: mutual answers and relations, and everybody's earlier self."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import methods
from classroomkd.classroom import Classroom, Lesson, Mentor, PlainContext
from classroomkd.classroom.trainees import who_gave
from classroomkd.errors import UserError
from classroomkd.functional import rkd_angle, rkd_distance

C, N, WIDTH = 4, 6, 5
exact = {"rtol": 1e-12, "atol": 1e-12}


class Net(nn.Module):
    """Its features can be turned without a change of its answers."""

    def __init__(self, seed: int, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.head = nn.Linear(12, width), nn.Linear(width, C)
        self.turn: Tensor = torch.eye(width, dtype=torch.float64)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        seen = self.first(x.flatten(1)).tanh() @ self.turn
        answer: Tensor = self.head(seen)
        return answer


def batch(seed: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 3, 2, 2, generator=generator, dtype=torch.float64)
    return x, torch.randint(C, (N,), generator=generator)


def room(seeds: tuple[int, ...] = (0, 1), widths: tuple[int, ...] = (WIDTH, WIDTH), **options: Any) -> Classroom:
    """A student and peers b, c, …; the earlier self of each from ten seeds on."""
    student, *others = (Net(seed, width) for seed, width in zip(seeds, widths, strict=True))
    names = ("student", *"bcde"[: len(others)])
    selves = [
        Mentor(Net(seed + 10, width), f"{name}-self") for name, seed, width in zip(names, seeds, widths, strict=True)
    ]
    made = methods.create("ctslmkt", **options)
    peers = dict(zip(names[1:], others, strict=True))
    return Classroom(student, selves, made, peers=peers, image_shape=(3, 2, 2)).double()


def features(net: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(net, Net)
    return net.first(x.flatten(1)).tanh() @ net.turn


def kl(target: Tensor, own: Tensor, t: float) -> Tensor:
    return F.kl_div((own / t).log_softmax(-1), (target / t).softmax(-1), reduction="batchmean")


def by_hand(nets: list[Net], selves: list[Net], x: Tensor, y: Tensor, said: list[Tensor], k: int) -> Tensor:
    """L_k with factors 0.5 (labels), 0.6 (others: 0.7, 3, 5) and 0.8 (self), from targets ``said``."""
    z, others = nets[k](x), [j for j in range(len(nets)) if j != k]
    total = 0.5 * F.cross_entropy(z, y) + 0.8 * kl(selves[k](x).detach(), z, 3.0)
    for j in others:
        theirs = features(nets[j], x).detach()
        mutual = 0.7 * 2.0**2 * kl(said[j], z, 2.0)
        mutual = mutual + 3 * rkd_distance(features(nets[k], x), theirs) + 5 * rkd_angle(features(nets[k], x), theirs)
        total = total + 0.6 * mutual / len(others)
    return total


OPTIONS = {
    "supervised_weight": 0.5, "weight": 0.6, "response": 0.7, "distance": 3.0, "angle": 5.0, "self_weight": 0.8,
    "temperature": 2.0, "self_temperature": 3.0,
}  # fmt: skip


@pytest.mark.parametrize("order", ["jacobi", "gauss_seidel"])
@pytest.mark.parametrize(("seeds", "widths"), [((0, 1), (5, 5)), ((0, 1, 2), (5, 4, 7))])
def test_both_orders_are_the_step_written_by_hand(order: str, seeds: tuple[int, ...], widths: tuple[int, ...]) -> None:
    """Peers of other widths, too: relations have no width."""
    one = room(seeds, widths, order=order, **OPTIONS)
    nets = [copy.deepcopy(net) for net in (one.student, *one.peers.networks.values())]
    selves = [Net(seed + 10, width) for seed, width in zip(seeds, widths, strict=True)]
    x, y = batch()
    context = PlainContext(one, torch.optim.SGD(one.parameters(), lr=0.1))
    one.method.step(context, {"inputs": x, "target": y})
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]
    said = [net(x).detach() for net in nets]
    if order == "jacobi":
        for loss in [by_hand(nets, selves, x, y, said, k) for k in range(len(nets))]:  # type: ignore[arg-type]
            loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    else:
        for k, optimizer in enumerate(optimizers):
            by_hand(nets, selves, x, y, said, k).backward()  # type: ignore[arg-type]
            optimizer.step()
            optimizer.zero_grad()
            said[k] = nets[k](x).detach()
    for own, other in zip((one.student, *one.peers.networks.values()), nets, strict=True):
        for mine, expected in zip(own.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, expected, **exact)


def test_identical_peers_have_nothing_to_say_to_each_other() -> None:
    lesson = room((3, 3))(*batch())
    for name in ("response", "distance", "angle", "b.response", "b.distance", "b.angle"):
        torch.testing.assert_close(lesson.terms[name], torch.zeros((), dtype=torch.float64), **exact)
    assert lesson.terms["self"] > 0.001


def relations(lesson: Lesson) -> list[Tensor]:
    return [lesson.terms[name] for name in ("distance", "angle", "b.distance", "b.angle")]


def test_the_order_of_the_batch_changes_no_relation() -> None:
    one, (x, y) = room(), batch()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(relations(one(x, y)), relations(one(x[order], y[order])), strict=True):
        torch.testing.assert_close(mine, other, **exact)
    assert min(relations(one(x, y))) > 1e-4


def test_turning_all_of_a_peers_features_changes_no_relation() -> None:
    one, (x, y) = room(), batch()
    before = relations(one(x, y))
    peer = one.peers.networks["b"]
    assert isinstance(peer, Net)
    peer.turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2)).double())[0]
    for mine, other in zip(before, relations(one(x, y)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_an_earlier_self_never_changes_and_is_its_own_trainees_alone() -> None:
    one, (x, y) = room(), batch()
    before = [copy.deepcopy(m.module.state_dict()) for m in one.mentors.mentors]
    context = PlainContext(one, torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1))
    for _ in range(3):
        lesson = one.method.step(context, {"inputs": x, "target": y})
    for mentor, was in zip(one.mentors.mentors, before, strict=True):
        assert all(torch.equal(value, was[name]) for name, value in mentor.module.state_dict().items())
    assert lesson.active is not None
    assert lesson.active.all(1).flatten().tolist() == [True, False], "the student hears its own"
    swapped = room(selves={"student": "b-self", "b": "student-self"})(x, y)
    assert swapped.active is not None
    assert swapped.active.all(1).flatten().tolist() == [False, True]
    assert not torch.equal(swapped.terms["self"], room()(x, y).terms["self"])


def test_no_target_carries_a_gradient() -> None:
    one = room((0, 1, 2), (5, 5, 5))
    lesson = one(*batch())
    for name, net in {"": one.student, **{f"{k}.": v for k, v in one.peers.networks.items()}}.items():
        others = [p for p in one.parameters() if all(p is not mine for mine in net.parameters())]
        mine = [value for term, value in lesson.terms.items() if term.rpartition(".")[0] == name[:-1]]
        found = torch.autograd.grad(torch.stack(mine).sum(), others, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found)


def test_parts_that_count_nothing_are_not_computed() -> None:
    """Without relations no features are read; without the earlier self no mentor is asked: what is left is dml."""
    made = methods.create("ctslmkt", distance=0.0, angle=0.0, self_weight=0.0, order="jacobi")
    x, y = batch()
    nets = [Net(0), Net(1)]
    one = Classroom(nets[0], (), made, peers={"b": nets[1]})(x, y)
    other = Classroom(nets[0], (), methods.create("dml"), peers={"b": nets[1]})(x, y)
    torch.testing.assert_close(one.loss, other.loss, **exact)
    assert made.needs.features == {}


def test_angles_are_of_the_first_samples_alone() -> None:
    x, y = batch()
    few, one = room(angle_samples=4)(x, y), room()
    mine, theirs = (features(net, x[:4]) for net in (one.student, one.peers.networks["b"]))
    torch.testing.assert_close(few.terms["angle"], rkd_angle(mine, theirs), **exact)
    torch.testing.assert_close(few.terms["distance"], one(x, y).terms["distance"], **exact)


def test_whose_self_a_mentor_is_must_be_clear() -> None:
    peers, made = {"b": Net(1)}, methods.create("ctslmkt")
    with pytest.raises(UserError, match=r"2 trainees \(student, b\) and 1 mentor\(s\) \(Net\): say whose earlier self"):
        Classroom(Net(0), [Net(2)], made, peers=peers, image_shape=(3, 2, 2))
    for wrong in ({"student": "Net"}, {"student": "Net", "b": "nobody"}):
        made = methods.create("ctslmkt", selves=wrong)
        with pytest.raises(UserError, match="selves names a mentor for every trainee"):
            Classroom(Net(0), [Net(2)], made, peers=peers, image_shape=(3, 2, 2))


def test_who_taught_whom_is_said_of_every_term() -> None:
    one = room((0, 1, 2), (5, 4, 7), **OPTIONS)
    terms = one(*batch()).outcome
    assert terms is not None
    trainees = ("student", "b", "c")
    for name, value in terms.values.items():
        owner, _, term = name.rpartition(".")
        if term == "supervised":
            continue
        parts = terms.parts[name]
        learner = owner or "student"
        assert set(parts) == ({f"{learner}-self"} if term == "self" else set(trainees) - {learner})
        torch.testing.assert_close(torch.stack(list(parts.values())).sum(), value.detach())
    found = who_gave(terms, one.mentors.names, one.peers.networks)
    pairs = {(learner, teacher) for learner in trainees for teacher in trainees if learner != teacher}
    assert set(found) == pairs | {(learner, f"{learner}-self") for learner in trainees}
    whole = sum(terms.coefficients[name] * v.detach() for name, v in terms.values.items() if "supervised" not in name)
    torch.testing.assert_close(torch.stack(list(found.values())).sum(), torch.as_tensor(whole))
