"""dgkd: the sum over the mentors that stay, and that draws belong to the step alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.classroom import ClassInfo, Classroom
from classroomkd.errors import UserError
from classroomkd.methods import create
from classroomkd.tasks import create as task

B, C, T = 6, 5, 5.0


class Says(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(B, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.logits = nn.Parameter(3 * drawn)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[: len(x)]


def room(mentors: int, **options: Any) -> Classroom:
    return Classroom(Says(9), [ck.Mentor(Says(m), f"m{m}") for m in range(mentors)], create("dgkd", **options))


def far(mentor: int) -> Tensor:
    """T² · KL(mentor ‖ student), a mean over samples."""
    mentors, student = F.log_softmax(Says(mentor).logits / T, -1), F.log_softmax(Says(9).logits / T, -1)
    return T * T * F.kl_div(student, mentors, log_target=True, reduction="batchmean")


IMAGES, LABELS = torch.zeros(B, 3, 2, 2), torch.arange(B) % C


def test_the_loss_is_the_sum_over_those_who_stay() -> None:
    """By the release's defaults no label is read; ``unit`` is the mean."""
    classroom = room(3)
    lesson = classroom(IMAGES, LABELS)
    asked = classroom.method.eligible(torch.ones(3, B, dtype=torch.bool), None, 0)
    stay = lesson.active.all(1).nonzero().flatten().tolist()
    assert len(stay) == 2
    torch.testing.assert_close(lesson.loss, far(stay[0]) + far(stay[1]))
    assert lesson.weight[..., 0].sum(0).unique().tolist() == [2.0]
    assert torch.equal(asked.all(1), lesson.active.all(1)), "who keeps silent need not run"

    lesson = room(3, drop=0, normalise="unit", weight=0.3, supervised_weight=0.7)(IMAGES, LABELS)
    expected = 0.7 * F.cross_entropy(Says(9).logits, LABELS) + 0.3 * (far(0) + far(1) + far(2)) / 3
    torch.testing.assert_close(lesson.loss, expected)


def test_a_draw_belongs_to_the_step_and_the_seed_and_is_fair() -> None:
    weighting = create("dgkd", drop=2).weighting
    drawn = torch.stack([weighting.stays(4, step, torch.device("cpu")) for step in range(2000)])
    assert (drawn.sum(1) == 2).all()
    torch.testing.assert_close(drawn.float().mean(0), torch.full((4,), 0.5), atol=0.04, rtol=0)
    again = create("dgkd", drop=2, seed=1).weighting
    assert torch.equal(drawn[7], weighting.stays(4, 7, torch.device("cpu")))
    assert any(not torch.equal(drawn[s], again.stays(4, s, torch.device("cpu"))) for s in range(20))


def test_one_mentor_is_never_left_out() -> None:
    lesson = room(1)(IMAGES, LABELS)
    torch.testing.assert_close(lesson.loss, far(0))


def test_to_drop_everybody_is_refused() -> None:
    method = create("dgkd", drop=3)
    with pytest.raises(UserError, match="drop 3 of 3 mentors leaves nobody to teach; give it a drop below 3"):
        method.setup(ClassInfo(task("classification"), ["a", "b", "c"]))


def test_matched_strength_averages() -> None:
    """All mentors together as loud as the label."""
    lesson = room(3, drop=0, **dict(create("dgkd").matched))(IMAGES, LABELS)
    expected = F.cross_entropy(Says(9).logits, LABELS) + (far(0) + far(1) + far(2)) / 3
    torch.testing.assert_close(lesson.loss, expected)
