"""ital: a step is the linear learner's, the choice is the mentor's, and the page says what was measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.classroom import Classroom, PlainContext
from classroomkd.functional import teaching
from classroomkd.methods import create

ROOT = Path(__file__).parents[3]
B, C, D = 8, 4, 5
ETA, BETA = 0.1, 3.0
X = torch.randn(B, 3, 1, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
Y = torch.arange(B) % C


class Linear(nn.Module):
    """Fixed features of ``width``, and a linear layer."""

    def __init__(self, seed: int, width: int = D) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.flat = nn.Flatten()
        self.body = nn.Linear(3, width).requires_grad_(requires_grad=False)
        self.act = nn.Tanh()
        self.head = nn.Linear(width, C)
        self.double()

    def features(self, x: Tensor) -> Tensor:
        """What the layer reads, and a 1, (B, width + 1)."""
        h = self.act(self.body(self.flat(x)))
        return torch.cat([h, torch.ones(len(h), 1, dtype=h.dtype)], 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.act(self.body(self.flat(x))))
        return found

    @property
    def weight(self) -> Tensor:
        """With the bias, (C, width + 1)."""
        return torch.cat([self.head.weight, self.head.bias[:, None]], 1).detach().clone()


def room(student: nn.Module, mentor: nn.Module, **options: Any) -> Classroom:
    method = create("ital", step=ETA, sharpness=BETA, **options)
    return Classroom(student, [ck.Mentor(mentor, "m")], method, image_shape=(3, 1, 1))


def scores_of(student: Linear, mentor: Linear) -> Tensor:
    """By the library, from features with a 1."""
    own = teaching.linear_gradients(student.weight, student.features(X), Y)
    losses = teaching.linear_losses(student.weight, student.features(X), Y)
    best = teaching.linear_losses(mentor.weight, mentor.features(X), Y)
    return teaching.imitating_scores(teaching.Gradients(own.outputs, mentor.features(X)), losses, best, ETA)


@pytest.mark.parametrize("seed", range(3))
def test_a_step_with_one_choice_is_the_linear_learners(seed: int) -> None:
    student, mentor = Linear(seed), Linear(seed + 10, D + 2)
    before, chosen = student.weight, teaching.choose(scores_of(student, mentor))
    classroom = room(student, mentor, share=0.01)
    trained = [p for p in classroom.parameters() if p.requires_grad]
    lesson = classroom.method.step(
        PlainContext(classroom, torch.optim.SGD(trained, lr=ETA)), {"inputs": X, "target": Y}
    )
    assert lesson.active[0].nonzero().flatten().tolist() == [int(chosen)]
    gradients = teaching.linear_gradients(before, student.features(X), Y)
    torch.testing.assert_close(student.weight, teaching.aware_update(before, gradients, chosen, ETA, BETA))


def test_the_share_takes_the_least_scores_and_their_mean() -> None:
    student, mentor = Linear(0), Linear(10, D + 2)
    lesson = room(student, mentor, share=0.3)(X, Y)
    best = scores_of(student, mentor).argsort()[:3]  # 2.4 of 8
    assert sorted(lesson.active[0].nonzero().flatten().tolist()) == sorted(best.tolist())
    own = teaching.linear_losses(student.weight, student.features(X), Y)
    torch.testing.assert_close(lesson.terms["supervised"], own[best].mean())
    assert (lesson.weight[0] == lesson.active[0].double()).all()


def test_all_chosen_and_no_weight_is_the_student_alone() -> None:
    student, mentor = Linear(0), Linear(10)
    lesson = room(student, mentor, share=1.0, weight=0.0)(X, Y)
    torch.testing.assert_close(lesson.loss, nn.functional.cross_entropy(student(X), Y))


def test_a_batch_of_one_is_a_plain_step() -> None:
    student, mentor = Linear(0), Linear(10)
    lesson = room(student, mentor)(X[:1], Y[:1])
    torch.testing.assert_close(lesson.loss, nn.functional.cross_entropy(student(X[:1]), Y[:1]))


def test_all_mentors_choose_by_the_mean_of_their_scores() -> None:
    student, mentors = Linear(0), [Linear(10, D + 2), Linear(11)]
    method = create("ital", step=ETA, sharpness=BETA, share=0.3, mentor="all")
    named = [ck.Mentor(net, f"m{place}") for place, net in enumerate(mentors)]
    lesson = Classroom(student, named, method, image_shape=(3, 1, 1))(X, Y)
    best = (scores_of(student, mentors[0]) + scores_of(student, mentors[1])).argsort()[:3]
    assert sorted(lesson.active[0].nonzero().flatten().tolist()) == sorted(best.tolist())
    assert torch.equal(lesson.weight.sum(0), lesson.active[1].double())


def test_what_the_mentor_cannot_judge_is_chosen_last() -> None:
    class Broken(Linear):
        def forward(self, x: Tensor) -> Tensor:
            said = super().forward(x)
            return torch.where((torch.arange(len(x)) % 2 == 0).unsqueeze(1), torch.nan, said)

    lesson = room(Linear(0), Broken(10), share=1.0)(X, Y)
    assert lesson.loss.isfinite()
    assert lesson.active[0].tolist() == [False, True] * 4


def test_nobody_is_chosen_by_a_mentor_that_cannot_judge_anything() -> None:
    class Silent(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.nan

    lesson = room(Linear(0), Silent(10))(X, Y)
    lesson.loss.backward()
    assert not lesson.active.any()
    assert lesson.terms["supervised"] == lesson.terms["aware"] == 0


def test_the_page_has_the_values_that_the_command_wrote() -> None:
    example = runpy.run_path(str(ROOT / "examples" / "ital.py"))
    found = json.loads((ROOT / "benchmarks" / "results" / "ital.json").read_text())
    page = (ROOT / "docs" / "methods" / "ital.md").read_text()
    assert example["table"](found) in page
    assert example["table"](found, "accuracy") in page
    assert f"{found['rounds']:,} rounds" in page
    assert found["seeds"] == 10
