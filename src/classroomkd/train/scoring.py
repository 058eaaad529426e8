"""Evaluation of a network on a part of the data, of classifiers by class, and mentors' held-out calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.classroom import Calibration, Mentor, prediction_of
from classroomkd.errors import UserError
from classroomkd.train.inputs import Inputs

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views

__all__ = ["Score", "answers", "calibration_error", "calibration_of", "each_answer", "evaluate"]


@dataclass(frozen=True)
class Score:
    """How a network did on a part.

    Attributes:
        value: the task's first metric, in its unit: accuracy as a fraction in 0..1, or what the task's runner says.
        loss: the mean supervised loss, nats.
        per_class: the first metric, or the closest there is, by class or joint; None where nothing was to be judged.
        samples: how many.
        more: further metrics by name.
    """

    value: float
    loss: float
    per_class: list[float | None]
    samples: int
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """The name that ``value`` has in files."""
        return self.value


def _batches(part: Part, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(part), size):
        pixels, target, _ = part.batch(torch.arange(start, min(start + size, len(part))))
        yield pixels, target


@torch.no_grad()
def each_answer(
    network: nn.Module,
    part: Part,
    inputs: Inputs,
    batch_size: int = 256,
    views: Views | None = None,
    mirror: bool = False,
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Batch by batch a network's answers ``(B, …)`` (float32) on the un-augmented samples of a part, with ``mirror``
    those on their mirror images, and the targets ``(B, …)``.

    ``views`` says what an un-augmented sample looks like, at a mentor's own size too; None: as it is stored.
    """
    trained = [layer for layer in network.modules() if layer.training]  # some may be frozen in evaluation mode
    network.eval()

    def ask(pixels: Tensor) -> Tensor:
        x = inputs(pixels)
        if isinstance(network, Mentor):
            prediction: Tensor = network(network.prepare(x, inputs.mean, inputs.std)).prediction
            return prediction.float()
        return prediction_of(network(x)).float()

    try:
        for pixels, target in _batches(part, batch_size):
            if views is not None:
                pixels, target = views.eval_view(pixels, target, network.size if isinstance(network, Mentor) else None)
            answer = ask(pixels)
            yield answer, ask(pixels.flip(-1)) if mirror else None, target.to(answer.device)
    finally:
        for layer in trained:
            layer.training = True


def answers(
    network: nn.Module, part: Part, inputs: Inputs, batch_size: int = 256, views: Views | None = None
) -> tuple[Tensor, Tensor]:
    """A network's answers ``(N, …)`` (float32) and the targets ``(N, …)`` of a whole part; see :func:`each_answer`."""
    predictions, _, targets = zip(*each_answer(network, part, inputs, batch_size, views), strict=True)
    return torch.cat(predictions), torch.cat(targets)


def score(logits: Tensor, target: Tensor, classes: int) -> Score:
    """Accuracy, mean cross-entropy and accuracy by class of logits ``(N, C)``."""
    if logits.shape[-1] != classes:
        raise UserError(f"the network answers {logits.shape[-1]} classes, the data has {classes}")
    if logits.device.type == "mps":  # no float64 there
        logits, target = logits.to("cpu"), target.to("cpu")
    right = (logits.argmax(-1) == target).double()
    hits = torch.zeros(classes, dtype=torch.float64, device=target.device).index_add_(0, target, right)
    count = torch.bincount(target, minlength=classes).double()
    shares = (hits / count).tolist()
    n = [int(c) for c in count.tolist()]
    per_class = [share if k else None for share, k in zip(shares, n, strict=True)]
    return Score(float(right.mean()), float(F.cross_entropy(logits, target)), per_class, len(target))


def evaluate(network: nn.Module, part: Part, inputs: Inputs, classes: int, batch_size: int = 256) -> Score:
    """Score a network on a part; see :func:`answers` and :func:`score`."""
    return score(*answers(network, part, inputs, batch_size), classes)


def calibration_of(logits_MNC: Tensor, target: Tensor) -> Calibration:
    """Held-out calibration of mentors from their logits on the validation part.

    The temperature of each mentor minimises its cross-entropy there (golden-section over 2⁻⁴ … 2⁴, on the device);
    the ceiling is its mean probability of the true class, by class (a class without held-out samples: overall mean).
    """
    if logits_MNC.device.type == "mps":  # no float64 there
        logits_MNC, target = logits_MNC.to("cpu"), target.to("cpu")
    logits, (mentors, _, classes) = logits_MNC.double(), logits_MNC.shape

    def cost(log_t: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits / log_t.exp2().view(-1, 1, 1), -1)
        return -log_p.gather(-1, target.expand(mentors, -1).unsqueeze(-1)).mean((1, 2))

    low = torch.full((mentors,), -4.0, dtype=torch.float64, device=logits.device)
    high, golden = -low, (5**0.5 - 1) / 2
    for _ in range(40):
        a, b = high - golden * (high - low), low + golden * (high - low)
        left = cost(a) < cost(b)
        low, high = torch.where(left, low, a), torch.where(left, b, high)
    p = logits.softmax(-1).gather(-1, target.expand(mentors, -1).unsqueeze(-1)).squeeze(-1)
    sums = torch.zeros(mentors, classes, dtype=p.dtype, device=p.device).index_add_(1, target, p)
    count = torch.bincount(target, minlength=classes)
    ceiling = torch.where(count > 0, sums / count.clamp_min(1), p.mean(1, keepdim=True))
    return Calibration(((low + high) / 2).exp2().float(), ceiling.float().clamp_min(1e-6))


def calibration_error(logits: Tensor, target: Tensor, bins: int = 15) -> float:
    """Expected calibration error of logits ``(N, C)``: how far confidence is from being right, in 0..1.

    Samples are put into ``bins`` of equal width by the probability of the class that is answered; the mean over samples
    of |share that is right - mean probability| of their bin.
    """
    sure, said = logits.double().cpu().softmax(-1).max(-1)
    right = (said == target.cpu()).double()
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    apart = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right - sure)
    return float(apart.abs().sum() / max(len(target), 1))


def as_json(value: Score) -> dict[str, Any]:
    """A score as plain data."""
    plain = {
        "accuracy": value.value,
        "score": value.value,
        "loss": value.loss,
        "per_class": value.per_class,
        "samples": value.samples,
    }
    return plain | ({"metrics": dict(value.more)} if value.more else {})
