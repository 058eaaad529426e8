"""DWPose's mentors' terms on the scale of the released loss, and their fading."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pose_pieces import answers, people
from torch import Tensor

from classroomkd import methods
from classroomkd.classroom import Answers, ClassInfo, Lesson, Shapes
from classroomkd.data.skeleton import COCO
from classroomkd.tasks.pose.coding import SimCC
from classroomkd.tasks.pose.task import Pose

B, SIZE = 64, (256, 192)
TASK = Pose(SimCC(SIZE, 17), COCO)


def lesson(method: Any, progress: float = 0.0) -> Lesson:
    target, maps = people(B, SIZE), {"@stage:-1": (8, 8, 6)}
    method.setup(ClassInfo(TASK, ["big"], None, Shapes(896, maps, {tap: (shape,) for tap, shape in maps.items()})))
    torch.manual_seed(0)
    student = Answers(
        answers(TASK.coding, target).requires_grad_(), {"@stage:-1": torch.randn(B, 8, 8, 6).requires_grad_()}
    )
    mentor = Answers(answers(TASK.coding, target, 1, seed=2), {"@stage:-1": (torch.randn(B, 8, 8, 6),)})
    return Lesson(torch.zeros(B, 3, 1, 1), target, student, mentor, TASK, progress=progress)


def released(student: Tensor, mentor: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """mmpose: KLDiscretLoss (sum over the batch, mean over bins, beta 10, softened labels) and KDLoss, both over K."""
    own, logits, axes = student.new_zeros(()), student.new_zeros(()), (slice(0, 384), slice(384, None))
    label = TASK.coding.ideal(target)
    for axis in axes:
        log_q = F.log_softmax(10 * student[..., axis], -1)
        p_label, p_mentor = ((10 * x[..., axis]).softmax(-1) for x in (label, mentor))
        own = own + F.kl_div(log_q, p_label, reduction="none").mean(-1).sum() / 17
        logits = logits + F.kl_div(log_q, p_mentor, reduction="none").sum((1, 2)).mean() / 17
    return own, logits


def pull(term: Tensor, on: Tensor) -> float:
    (found,) = torch.autograd.grad(term, on, retain_graph=True)
    return found.norm().item()


def test_the_balance_is_the_released_one() -> None:
    """Of 256 x 192 crops, 64 a device; with 0.1 and 7e-5 beside our own loss it was 6.9 times less."""
    method = methods.create("dwpose", task="pose")
    made = lesson(method)
    terms = method(made)
    assert made.mentors is not None
    own, logits = released(made.student.prediction, made.mentors.prediction[0], made.target)
    answer = made.student.prediction
    theirs = 0.1 * pull(logits, answer) / pull(own, answer)
    ours = (
        terms.coefficients["distilled"]
        * pull(terms.values["distilled"], answer)
        / pull(terms.values["supervised"], answer)
    )
    assert ours == pytest.approx(theirs, rel=0.1)
    feature = made.student.features["@stage:-1"]
    fea = 7e-5 * (method.hints.projected(made)[0] - made.mentors.features["@stage:-1"][0]).square().sum() / B  # type: ignore[union-attr,operator]
    theirs = pull(fea, feature) / pull(own, answer)
    ours = terms.coefficients["hints"] * pull(terms.values["hints"], feature) / pull(terms.values["supervised"], answer)
    assert ours == pytest.approx(theirs, rel=0.1)


def test_it_fades_by_the_share_of_the_training_that_is_over() -> None:
    method: Any = methods.create("dwpose", task="pose")
    for progress in (0.0, 0.25, 1.0):
        terms = method(lesson(method, progress))
        assert terms.coefficients["distilled"] == pytest.approx((1 - progress) * 0.69)
        assert terms.coefficients["hints"] == pytest.approx((1 - progress) * 4.8e-4)
        assert terms.coefficients["supervised"] == 1.0
        method.hints.projectors = torch.nn.ModuleList()
    still = methods.create("dwpose", task="pose", schedule="constant")
    assert still(lesson(still, 0.5)).coefficients["distilled"] == pytest.approx(0.69)
