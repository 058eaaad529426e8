"""The method ``classroomkd`` is the pure function: every rule with every option, on random logits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from by_method import classroom
from classroomkd import functional, methods, tasks
from classroomkd.classroom import Answers, Calibration, Lesson
from classroomkd.methods.pieces.credibility import credited
from classroomkd.tasks.classification.task import Classification

B, C, M = 8, 5, 3
CHOICES: dict[str, tuple[Any, ...]] = {
    "gate": (None, "hard", "strict", "soft", "argmax", "none"),
    "mentoring": (True, False),
    "fixed_temperature": (None, 2.5),
    "soft": (None, 0.2),
    "normalise": ("native", "unit"),
    "supervised": (None, "credibility", "one"),
}


def said() -> tuple[Tensor, Tensor, Tensor]:
    """Student, mentors and labels; the first mentor is ahead, the last is the student's twin, so that ties count."""
    torch.manual_seed(0)
    student = torch.randn(B, C, dtype=torch.float64)
    mentors = 2 * torch.randn(M, B, C, dtype=torch.float64)
    mentors[-1] = student
    target = torch.randint(C, (B,))
    mentors[0] += 2 * torch.nn.functional.one_hot(target, C)
    return student, mentors, target


@pytest.mark.filterwarnings("ignore:functional.classroom:DeprecationWarning")
@pytest.mark.parametrize("rule", ["sample", "batch", "rank"])
def test_method_is_the_function(rule: str) -> None:
    student, mentors, target = said()
    lesson = Lesson(torch.zeros(B, 1), target, Answers(student), Answers(mentors), tasks.create("classification"))
    different: dict[str, set[float]] = {}
    for values in itertools.product(*CHOICES.values()):
        given = dict(zip(CHOICES, values, strict=True))
        ours = methods.create("classroomkd", rule=rule, tau=5.0, floor=1, **given)(lesson)
        options = {("supervised_weight" if k == "supervised" else k): v for k, v in given.items()}
        theirs = functional.classroom(student, mentors, target, rule=rule, tau=5.0, **options)
        for name in ("supervised", "distilled"):
            torch.testing.assert_close(ours.values[name], getattr(theirs, name), msg=lambda m, g=given: f"{g}: {m}")
        torch.testing.assert_close(ours.loss(), theirs.loss)
        for name in ("weight", "temperature", "active"):  # by another path to the same numbers, so not to the bit
            one, other = getattr(ours, name).squeeze(-1), getattr(theirs, name)
            torch.testing.assert_close(one, other, msg=lambda m, g=given: f"{g}: {m}")
        for key, value in given.items():
            different.setdefault(f"{key}={value}", set()).add(theirs.loss.item())
    for key, values in CHOICES.items():  # every option does something on these logits, or the comparison is empty
        assert len({frozenset(different[f"{key}={v}"]) for v in values}) > 1, key
    gates = {frozenset(different[f"gate={v}"]) for v in ("hard", "strict", "soft", "argmax", "none")}
    # Ranks are never equal, so nobody ties; by shares the best mentor is the only one who is ahead.
    assert len(gates) == {"sample": 5, "batch": 4, "rank": 4}[rule]


@pytest.mark.parametrize("rule", ["sample", "batch", "rank"])
def test_the_students_part_is_weighted_by_its_credibility_unless_told(rule: str) -> None:
    student, mentors, target = said()
    default = classroom(student, mentors, target, rule=rule).supervised
    own = torch.nn.functional.cross_entropy(student, target, reduction="none")
    chance = (-own).exp()
    weight = {"sample": chance, "batch": (-own).mean().exp(), "rank": chance.mean()}[rule]
    torch.testing.assert_close(default, (weight * own).mean())


class Pairs(Classification):
    """Two units a sample: its class and the next one."""

    def unit_labels(self, target: Tensor) -> Tensor:
        return torch.stack([target, (target + 1) % C], -1)

    def log_credibility(self, answer: Tensor, target: Tensor) -> Tensor:
        units = [functional.log_credibility(answer, topic) for topic in self.unit_labels(target).unbind(-1)]
        return torch.stack(units, -1)


def test_held_out_credibility_is_capped_unit_by_unit() -> None:
    student, mentors, target = said()
    ceiling = torch.rand(M, C, dtype=torch.float64)
    task = Pairs()
    lesson = Lesson(torch.zeros(B, 1), target, Answers(student), Answers(mentors), task)
    lesson.calibration = Calibration(torch.ones(M), ceiling)
    found = credited("held_out", lesson, mentors)
    topics = task.unit_labels(target)
    for m, b, u in itertools.product(range(M), range(B), range(2)):
        own = mentors[m, b].softmax(-1)[topics[b, u]]
        assert found[m, b, u].exp().item() == pytest.approx(min(own.item(), ceiling[m, topics[b, u]].item()))
