"""What scores without labels are made of: no best epoch, calibration, and the words for them."""

from __future__ import annotations

import math

import pytest
import torch

from classroomkd.functional import disagreement, vote
from classroomkd.report.vocabulary import figure_name, vocabulary
from classroomkd.train.progress import Progress
from classroomkd.train.scoring import Score, calibration_error


def test_calibration_error_is_the_distance_of_confidence_from_being_right() -> None:
    p = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    logits = torch.stack([p, 1 - p], -1).log()
    target = torch.tensor([0, 0, 0, 1, 0, 1])  # 3 of 4 where it says 0.9, 1 of 2 where it says 0.6
    assert calibration_error(logits, target) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
    assert calibration_error(logits[:0], target[:0]) == 0
    sure = torch.tensor([[100.0, -100.0]])
    assert calibration_error(sure, torch.tensor([0])) == pytest.approx(0)
    assert calibration_error(sure, torch.tensor([1])) == pytest.approx(1)


def test_without_labels_no_epoch_is_the_best() -> None:
    progress = Progress(chooses=False)
    for epoch, value in enumerate((0.2, 0.9, 0.5), 1):
        progress.score(Score(value, 1.0, [], 10), epoch, {"w": torch.zeros(1)})
    assert [score.value for score in progress.history] == [0.2, 0.9, 0.5]
    assert progress.best[1] == -1
    assert progress.best_weights is None


def test_the_metric_has_its_words() -> None:
    say = vocabulary("classification", "agreement")
    assert (say.metric, say.title) == ("agreement", "Agreement with the mentors' vote")
    assert say.heading == "agreement %"
    assert figure_name("agreement with timm:resnet18.a1") == "agreement with timm:resnet18.a1"
    assert figure_name("AP_gtbox:AP50") == "AP50_gtbox"


def test_disagreement_is_the_mean_distance_of_the_mentors_to_their_vote() -> None:
    logits = torch.randn(3, 5, 4, dtype=torch.float64) * 3
    p, together = logits.softmax(-1), vote(logits)
    expected = (p * (p.log() - together.log())).sum(-1).mean(0)
    assert torch.allclose(disagreement(logits), expected)
    assert float(disagreement(logits[:1].expand(3, 5, 4)).max()) == pytest.approx(0, abs=1e-12)
    apart = torch.tensor([[[60.0, -60.0]], [[-60.0, 60.0]]])
    assert float(disagreement(apart)) == pytest.approx(math.log(2))


def test_mentors_that_are_not_finite_do_not_disagree() -> None:
    logits = torch.randn(3, 2, 4)
    logits[0, 0, 1] = math.nan
    logits[:, 1] = math.inf
    found = disagreement(logits)
    assert float(found[0]) == pytest.approx(float(disagreement(logits[1:, :1])))
    assert bool(found[1].isnan())
    without = torch.tensor([[[0.3, 0.1, -math.inf]], [[0.3, 0.1, 2.0]]])  # one knows two classes of three
    assert bool(disagreement(without).isfinite())
