"""votes: cross-entropy against what the mentors vote for, on samples without a label alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd import methods
from classroomkd.classroom import Answers, Lesson
from classroomkd.tasks.classification.task import Classification

B, C, M = 6, 4, 3
MIXED = torch.tensor([0, -1, 3, -1, 1, -1])


def lesson(mentors: Tensor | None = None, smoothing: float = 0.0) -> Lesson:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(B, C, generator=generator, requires_grad=True)
    said = 2 * torch.randn(M, B, C, generator=generator) if mentors is None else mentors
    return Lesson(torch.zeros(B, 1), MIXED, Answers(student), Answers(said), Classification(smoothing, unlabelled=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_rule(smoothing: float) -> None:
    seen = lesson(smoothing=smoothing)
    assert seen.mentors is not None
    terms = methods.create("votes", weight=0.5, supervised_weight=2.0)(seen)
    voted = seen.mentors.prediction.softmax(-1).mean(0).argmax(-1)
    student, there = seen.student.prediction, MIXED >= 0
    own = F.cross_entropy(student[there], MIXED[there], label_smoothing=smoothing)
    pseudo = F.cross_entropy(student[~there], voted[~there], label_smoothing=smoothing)
    torch.testing.assert_close(terms.values["supervised"], own)
    torch.testing.assert_close(terms.values["distilled"], pseudo)
    share = there.float().mean()  # two labels among sixty pictures are not as loud as all of these
    torch.testing.assert_close(terms.loss(), 2.0 * share * own + 0.5 * pseudo)


def test_only_sure_votes_are_used() -> None:
    said = torch.zeros(M, B, C)
    said[:, 1, 2] = 9.0
    terms = methods.create("votes", confidence=0.9)(lesson(said))
    torch.testing.assert_close(
        terms.values["distilled"], F.cross_entropy(lesson().student.prediction[1:2], torch.tensor([2]))
    )
    assert terms.active is not None
    assert terms.active.squeeze(-1).any(0).tolist() == [False, True, False, False, False, False]
    assert methods.create("votes", confidence=1.0)(lesson(torch.zeros(M, B, C))).values["distilled"] == 0


def test_who_is_not_finite_has_no_vote() -> None:
    said = lesson().mentors.prediction.clone()  # type: ignore[union-attr]
    said[1] = torch.nan
    terms = methods.create("votes")(lesson(said))
    assert terms.active is not None
    assert terms.weight is not None
    assert not terms.active[1].any()
    torch.testing.assert_close(terms.weight[0, 1], torch.tensor([0.5]))
    voted = said[[0, 2]].softmax(-1).mean(0).argmax(-1)
    there = MIXED < 0
    torch.testing.assert_close(
        terms.values["distilled"], F.cross_entropy(lesson().student.prediction[there], voted[there])
    )
