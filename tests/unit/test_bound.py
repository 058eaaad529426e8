"""ClassroomKD's bound: mentors together never pull harder at a sample than its label could; nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_method import classroom
from classroomkd import methods, tasks
from classroomkd.classroom import Answers, Lesson, Task
from classroomkd.data.skeleton import Skeleton
from classroomkd.functional.bound import STEEPEST
from classroomkd.functional.classroom import bound_of
from classroomkd.tasks.pose.coding import Heatmap, SimCC
from classroomkd.tasks.pose.task import Pose

B, C = 16, 8
OWN = bound_of("sample")
NATIVE: dict[str, Any] = {"normalise": "native", "floor": 1.0}  # weights that sum to more than 1, which pull harder


def said(far: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A student that has been carried away ``far``, three mentors of whom one has its classes shuffled, labels."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(C, (B,), generator=generator)
    right = 8.0 * F.one_hot(target, C)
    mentors = torch.stack([right, right, right.roll(3, 1)]) + torch.randn(3, B, C, generator=generator)
    student = far * torch.randn(B, C, generator=generator)
    return student.double().requires_grad_(), mentors.double(), target


def pulls(student: Tensor, loss: Tensor) -> Tensor:
    """The gradient of every sample's own part, (B, …)."""
    return B * torch.autograd.grad(loss, student, retain_graph=True)[0]


@pytest.mark.parametrize("far", [0.1, 3.0, 100.0, 1e4])
def test_mentors_never_pull_harder_than_a_label(far: float) -> None:
    student, mentors, target = said(far)
    bound = pulls(student, classroom(student, mentors, target, **NATIVE).distilled).norm(dim=1)
    free = pulls(student, classroom(student, mentors, target, bound=0, **NATIVE).distilled).norm(dim=1)
    most = OWN * STEEPEST
    torch.testing.assert_close(bound, free.clamp_max(most))
    label = pulls(student, F.cross_entropy(student, target)).norm(dim=1)
    assert float(label.max()) <= STEEPEST + 1e-9
    if far >= 100:
        assert float(free.max()) > 10 * most  # what there was before
    own = pulls(student, classroom(student, mentors, target).distilled).norm(dim=1)
    assert float(own.max()) <= most + 1e-9


def test_the_direction_of_the_pull_stays_and_quiet_samples_are_left_alone() -> None:
    student, mentors, target = said(20.0)
    bound, free = (pulls(student, classroom(student, mentors, target, bound=b).distilled) for b in (None, 0))
    torch.testing.assert_close(F.normalize(bound), F.normalize(free))
    close = said(0.5)[0]
    near = close.detach() + torch.zeros(3, B, C)
    near[:2] += 0.05 * F.one_hot(target, C)
    terms, plain = (classroom(close, near, target, bound=b) for b in (None, 0))
    assert torch.equal(terms.distilled, plain.distilled)
    assert terms.distilled.item() > 0


def test_only_sample_has_a_bound_of_its_own() -> None:
    student, mentors, target = said(20.0)
    for rule in ("batch", "rank"):
        own, free, given = (classroom(student, mentors, target, rule=rule, bound=b).distilled for b in (None, 0, 0.1))
        assert torch.equal(own, free)
        assert given.item() < free.item()
    one, two = (pulls(student, classroom(student, mentors, target, bound=b).distilled).norm(dim=1) for b in (0.5, 1.0))
    torch.testing.assert_close(one.max() * 2, two.max())


def lesson(task: Task, student: Tensor, mentors: Tensor, target: Tensor) -> Lesson:
    return Lesson(torch.zeros(len(target), 1), target, Answers(student), Answers(mentors), task)


def test_the_method_has_it_too() -> None:
    student, mentors, target = said(50.0)
    task = tasks.create("classification")
    for bound in (None, 0.0, 0.5):
        ours = methods.create("classroomkd", bound=bound)(lesson(task, student, mentors, target))
        assert torch.equal(ours.values["distilled"], classroom(student, mentors, target, bound=bound).distilled)
    with torch.no_grad():  # without a gradient there is nothing to bound
        assert methods.create("classroomkd")(lesson(task, student, mentors, target)).values["distilled"].isfinite()


@pytest.mark.parametrize(
    "coding", [SimCC((16, 16), 3, split=1.0), Heatmap((16, 16), 3, loss="kl"), Heatmap((16, 16), 3)]
)
def test_joint_by_joint(coding: SimCC | Heatmap) -> None:
    """Each joint's pull is bounded by its own loss's longest gradient; a squared error has none and is left alone."""
    generator = torch.Generator().manual_seed(2)
    target = torch.cat([1 + 13 * torch.rand(B, 3, 2, generator=generator), torch.full((B, 3, 1), 2.0)], -1)
    task = Pose(coding, Skeleton("three", ("nose", "left_hand", "right_hand"), (), (0.079,) * 3, (), ()))
    student = (20 * torch.randn(B, *coding.answer_shape, generator=generator)).requires_grad_()
    mentors = (20 * coding.ideal(target)).expand(3, *student.shape)
    own, free = (
        B * 3 * torch.autograd.grad(
            methods.create("classroomkd", bound=b)(lesson(task, student, mentors, target)).values["distilled"], student
        )[0].flatten(2).norm(dim=-1)
        for b in (None, 0)
    )  # fmt: skip
    if task.steepest is None:
        assert torch.equal(own, free)
    else:
        torch.testing.assert_close(own, free.clamp_max(OWN * task.steepest), rtol=1e-4, atol=1e-5)
        assert bool((free > own).any())
        label = task.supervised(student, target)
        steep = torch.autograd.grad(label.sum(), student)[0].flatten(2).norm(dim=-1)
        assert float(steep.max()) <= task.steepest * (1 + 1e-6)


def trained(seed: int, bound: float | None, steps: int = 60, **options: Any) -> list[float]:
    """The share that is right on the last batch, at lr 0.05 with momentum: a student with large features (as those
    of a mobile network without a warm-up), two mentors and one whose classes are shuffled."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(48, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, C))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    centres = torch.randn(C, 48, generator=generator)
    right: list[float] = []
    for _ in range(steps):
        target = torch.randint(C, (32,), generator=generator)
        inputs = 4 * (centres[target] + 0.5 * torch.randn(32, 48, generator=generator))
        sure = 8.0 * F.one_hot(target, C)
        mentors = torch.stack([sure, sure, sure.roll(3, 1)]) + torch.randn(3, 32, C, generator=generator)
        logits = net(inputs)
        loss = classroom(logits, mentors, target, bound=bound, **options).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append(float((logits.argmax(1) == target).float().mean()) if loss.isfinite() else 0.0)
    return right


def test_a_student_with_a_shuffled_mentor_trains() -> None:
    """Native weights without the bound: some seeds end at chance or in NaN; else all learn what the labels say."""
    seeds = range(4)
    assert min(trained(seed, None)[-1] for seed in seeds) > 0.9
    assert min(trained(seed, None, **NATIVE)[-1] for seed in seeds) > 0.9
    assert min(trained(seed, 0, **NATIVE)[-1] for seed in seeds) < 0.5
