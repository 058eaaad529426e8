"""one and pcl: branches of one student, their ensembles and their averages."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import methods, models
from classroomkd.classroom import Classroom, PlainContext
from classroomkd.classroom.averaged import Averaged
from classroomkd.classroom.schedule import Rampup
from classroomkd.errors import UserError

C, B = 4, 6
SHAPE = (3, 32, 32)
exact = {"rtol": 1e-9, "atol": 1e-9}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.create("convnet4", num_classes=C).double()


def room(name: str, starts: int | None = 5, **options: Any) -> Classroom:
    made = methods.create(name, **options)
    others = [network(starts + i if starts else 0) for i in range(made.needs.branches - 1)]
    torch.manual_seed(11)
    classroom = Classroom(network(0), [], made, image_shape=SHAPE, branches=others if starts is not None else None)
    classroom.epochs, classroom.epoch = 300, 30.0
    return classroom.double()


def batch(views: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(views, B, *SHAPE, generator=generator, dtype=torch.float64)
    return x if views > 1 else x[0], torch.randint(C, (B,), generator=generator)


def kl(target: Tensor, own: Tensor, t: float) -> Tensor:
    return t**2 * F.kl_div((own / t).log_softmax(-1), (target.detach() / t).softmax(-1), reduction="batchmean")


@pytest.mark.parametrize("length", [80, 0.25])
def test_the_ramp_is_the_published_one(length: float) -> None:
    """w(0) = 0.0067, w(80) = 1, no step at 80; the re-implementation's is 1 at epoch 1 and about 0 at 3."""
    ramp, at = Rampup(epochs=length), 1.0 if length > 1 else 1 / 320
    assert ramp(0.0, 0.0) == pytest.approx(0.0067, abs=5e-5)
    for epoch in (1.0, 3.0, 40.0, 79.0, 80.0, 200.0):
        expected = math.exp(-5 * (1 - epoch / 80) ** 2) if epoch < 80 else 1.0
        assert ramp(epoch, min(epoch * at, 1.0) if length <= 1 else 0.0) == pytest.approx(expected)
    assert ramp(3.0, 3 / 320) < 0.02


def test_one_is_its_rule() -> None:
    classroom = room("one", ramp=80.0, temperature=2.0, weight=0.7, supervised_weight=0.5)
    classroom.epochs, classroom.epoch = 300, 40.0
    x, y = batch()
    lesson = classroom(x, y)
    answers = [one.prediction for one in lesson.trainees]
    method: Any = classroom.method
    scores = F.batch_norm(
        method.gate(lesson.student.features["@stage:-2"]), None, None, method.norm.weight, method.norm.bias, True
    )
    gates = scores.relu().softmax(1)
    ensemble = sum(gates[:, i : i + 1] * answers[i] for i in range(3))
    loss = 0.5 * F.cross_entropy(ensemble, y)
    for z in answers:
        loss = loss + 0.5 * F.cross_entropy(z, y) + math.exp(-5 * 0.25) * 0.7 * kl(ensemble, z, 2.0)
    torch.testing.assert_close(lesson.loss, loss, **exact)
    assert lesson.outcome is not None
    given = lesson.outcome.parts
    torch.testing.assert_close(given["branch-2.ensemble"]["ensemble"], kl(ensemble, answers[1], 2.0).detach(), **exact)


def test_pcl_is_its_rule_with_a_view_for_each_branch() -> None:
    classroom = room("pcl", ramp=0.0, temperature=2.0, weight=0.7, mean_weight=0.3, supervised_weight=0.5)
    assert classroom.averaged is not None
    for p in classroom.averaged.networks["branch-2"].parameters():
        p.data.mul_(1.1)  # the shared trunk, too
    x, y = batch(3)
    own = copy.deepcopy(classroom)
    lesson = classroom(x, y)
    nets = [own.student, *own.peers.networks.values()]
    answers = [net(view) for net, view in zip(nets, x, strict=True)]
    assert own.averaged is not None
    means = own.averaged.answers(tuple(x))
    for a, b in zip(lesson.averaged.values(), means, strict=True):
        torch.testing.assert_close(a, b, **exact)
    for one, z in zip(lesson.trainees, answers, strict=True):
        torch.testing.assert_close(one.prediction, z, **exact)
    method: Any = classroom.method
    ensemble = method.head(torch.cat([one.features["@penultimate"] for one in lesson.trainees], 1))
    loss = 0.5 * F.cross_entropy(ensemble, y)
    for i, z in enumerate(answers):
        others = torch.stack([kl(m, z, 2.0) for j, m in enumerate(means) if j != i]).mean()
        loss = loss + 0.5 * F.cross_entropy(z, y) + 0.7 * kl(ensemble, z, 2.0) + 0.3 * others
    torch.testing.assert_close(lesson.loss, loss, **exact)


def test_identical_branches_on_identical_views_hear_nothing_from_averages_at_first() -> None:
    """The average is a copy: its answer is their own."""
    classroom = room("pcl", starts=0, views=1)
    lesson = classroom(*batch())
    assert lesson.terms["means"].abs() < 1e-12
    context = PlainContext(classroom, torch.optim.SGD(classroom.parameters(), lr=0.1))
    x, y = batch()
    for _ in range(3):
        lesson = classroom.method.step(context, {"inputs": x, "target": y})
    assert lesson.terms["means"] > 1e-9


@pytest.mark.parametrize("name", ["one", "pcl"])
def test_the_ensemble_and_the_averages_are_targets(name: str) -> None:
    """Its own loss left out, nothing reaches the head through what branches learn from it, and no average learns."""
    classroom = room(name, supervised_weight=0.0, ramp=0.0)
    lesson = classroom(*batch())
    lesson.loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in classroom.method.parameters())
    assert all(p.grad is not None for p in classroom.trained_with("branch-3"))
    if classroom.averaged is not None:
        every = [p for net in classroom.averaged.networks.values() for p in net.parameters()]
        assert not any(p.requires_grad or p.grad is not None for p in every)


@pytest.mark.parametrize("name", ["one", "pcl"])
def test_stopping_a_branch_stops_only_it(name: str) -> None:
    classroom = room(name)
    for p in classroom.trained_with("branch-2"):
        p.requires_grad_(False)
    classroom(*batch()).loss.backward()
    assert all(p.grad is None for p in classroom.trained_with("branch-2"))
    assert all(p.grad is not None for p in classroom.trained_with("branch-3"))
    assert all(p.grad is not None for p in classroom.student.parameters())


@pytest.mark.parametrize("name", ["one", "pcl"])
def test_a_branch_is_exported_as_the_plain_network(name: str) -> None:
    classroom = room(name)
    classroom(*batch())
    plain = network(3)
    for net in classroom.branched.values():
        assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in plain.parameters())
        plain.load_state_dict(net.state_dict())
        x = batch()[0]
        torch.testing.assert_close(plain.eval()(x), net.eval()(x), **exact)


@pytest.mark.parametrize("name", ["one", "pcl"])
def test_a_batch_of_one(name: str) -> None:
    x, y = batch()
    assert room(name)(x[:1], y[:1]).loss.isfinite()


@pytest.mark.parametrize("buffers", ["copy", "own"])
def test_averages_move_by_the_published_rule(buffers: Any) -> None:
    one, two = network(0), network(1)
    first, second = network(7), network(8)
    averaged = Averaged({"a": one})
    x = batch()[0]
    for g, live in enumerate((one, two, first, second)):
        before = [p.clone() for p in averaged.networks["a"].parameters()]
        averaged.answers((x,))
        stats = [b.clone() for b in averaged.networks["a"].buffers()]
        averaged.update({"a": live}, decay=0.6, buffers=buffers)
        phi = min(1 - 1 / (g + 1), 0.6)
        pairs = zip(averaged.networks["a"].parameters(), before, live.parameters(), strict=True)
        for now, was, new in pairs:
            torch.testing.assert_close(now, phi * was + (1 - phi) * new, **exact)
        expected = live.buffers() if buffers == "copy" else stats
        assert all(torch.equal(a, b) for a, b in zip(averaged.networks["a"].buffers(), expected, strict=True))


def test_a_loop_of_ones_own_gives_one_view_or_one_for_each() -> None:
    classroom = room("pcl")
    x, y = batch()
    same = classroom(x, y)
    assert len({one.prediction.data_ptr() for one in same.trainees}) == 3
    stacked = classroom(x.expand(3, *x.shape), y)
    for a, b in zip(same.trainees, stacked.trainees, strict=True):
        torch.testing.assert_close(a.prediction, b.prediction, **exact)


def test_what_they_cannot_have_is_refused() -> None:
    with pytest.raises(UserError, match="one view for all of them, or one for each"):
        methods.create("pcl", branches=3, views=2)
    with pytest.raises(UserError, match=r"cuts the student into branches.*pass image_shape="):
        Classroom(network(0), [], "one")
    with pytest.raises(UserError, match=r"has 2 branch\(es\) beside the student, branches= has 1"):
        Classroom(network(0), [], "one", image_shape=SHAPE, branches=[network(1)])
    with pytest.raises(UserError, match="cannot be combined with 'dml'"):
        methods.compose([("one", {}), ("dml", {})])


def test_mentors_teach_the_student_beside_branches() -> None:
    both = methods.compose([("one", {}), ("kd", {})])
    classroom = Classroom(network(0), [network(4)], both, image_shape=SHAPE).double()
    lesson = classroom(*batch())
    assert {"kd.distilled", "branch-2.ensemble", "ensemble.supervised"} <= lesson.terms.keys()
    assert classroom.method.has_head
    assert classroom.together(batch()[0]) is not None
