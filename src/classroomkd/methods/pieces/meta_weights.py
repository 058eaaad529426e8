"""Weights of the mentors that a meta step learns: one small net for logits, one for features (mmkd).

Shapes: K mentors, B samples, N samples of all ranks, U units, C bins. What the nets are shown carries no gradient;
the weights carry one to the nets' parameters, φ, where gradients are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.classroom import ClassInfo, Lesson, Task
from classroomkd.errors import UserError
from classroomkd.functional import finite_logits, wide
from classroomkd.methods.pieces.divergences import Divergence
from classroomkd.methods.pieces.hints import Hints
from classroomkd.methods.pieces.sharing import squared_errors
from classroomkd.methods.pieces.weightings import Weighed, Weighting

__all__ = ["FeatureWeights", "LogitWeights", "WeightNet", "at_smaller_size", "hint_distance", "similarities"]

_EPS = 1e-6


class WeightNet(nn.Module):
    """Two layers from what is known of a unit to one score a mentor; none with a single mentor, whose score is 0.

    Where the width is not known before, it is built at its first use: from a fixed seed, so that all ranks and a run
    taken up again begin alike, and by a state that holds it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        self.late = True  # built at its first use, not in setup

    @property
    def width(self) -> int | None:
        """Of its input; None while it is not built."""
        return next(self.layers.parameters()).shape[1] if len(self.layers) else None

    def build(self, width: int, hidden: int, mentors: int) -> None:
        """``width`` → ``hidden``, ReLU, → ``mentors``, initialised as torch's linear layers are."""
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, mentors))

    def forward(self, x: Tensor, mentors: int, hidden: int) -> Tensor:
        """``(…, width)`` to scores ``(…, mentors)``."""
        if mentors == 1:
            return x.new_zeros((*x.shape[:-1], 1))
        if not len(self.layers):
            with torch.random.fork_rng(devices=()):
                torch.default_generator.manual_seed(x.shape[-1])
                self.build(x.shape[-1], hidden, mentors)
            self.layers.to(x.dtype)
        weight = next(self.layers.parameters())
        if weight.device != x.device:  # built, or loaded, before its device was known
            self.layers.to(x.device)
        scores: Tensor = self.layers(x.to(weight.dtype))
        return scores.to(x.dtype)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        first = state_dict.get(f"{prefix}layers.0.weight")
        if first is not None and self.late and self.width != first.shape[1]:
            self.build(first.shape[1], first.shape[0], len(state_dict[f"{prefix}layers.2.bias"]))
            self.layers.to(first)
        elif first is None and self.late:
            self.layers = nn.Sequential()  # the state is from before its first use
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _shares(scores: Tensor, known: Tensor) -> Tensor:
    """Softmax of scores ``(…, K)`` over the mentors who count: ``(K, …)``, 0 for the others."""
    scores = scores.movedim(-1, 0).masked_fill(~known & known.any(0), -torch.inf)
    return torch.softmax(scores, 0) * known


class LogitWeights(Weighting):
    """w(b) = softmax net([z_1; …; z_K; z_s]), the student's logits held constant; the hidden layer has half its width.

    Args:
        standardised: each network's logits of a sample are brought to mean 0 and variance 1, so that a network with
            large logits neither saturates the net nor drowns the others. False: as they come (the release).
    """

    order_matters = True
    distributions = True

    def __init__(self, *, standardised: bool = True) -> None:
        super().__init__()
        self.standardised = standardised
        self.net = WeightNet()

    def setup(self, info: ClassInfo) -> None:
        """Build the net where the number of classes is known and an answer is nothing but their logits."""
        mentors = len(info.mentors)
        if info.shapes is not None and mentors > 1 and _is_vector(info.task, info.shapes.classes):
            width = (mentors + 1) * info.shapes.classes
            self.net.build(width, width // 2, mentors)
            self.net.late = False

    @torch.no_grad()
    def see(self, lesson: Lesson, mentors: Tensor) -> Tensor:
        """What the net is shown, ``(B, U, (K + 1)·C)``, from mentors' logits that hold no NaN."""
        task = lesson.task
        theirs, own = task.distributions(mentors), task.distributions(lesson.student.prediction.detach())
        logits = torch.cat([torch.cat([wide(t), wide(o).unsqueeze(0)]) for t, o in zip(theirs, own, strict=True)], -1)
        logits = finite_logits(logits)  # (K + 1, B, U, C)
        if self.standardised:
            logits = logits - logits.mean(-1, keepdim=True)
            logits = logits / (logits.square().mean(-1, keepdim=True).sqrt() + _EPS)
        return logits.movedim(0, -2).flatten(-2)

    def weigh(self, seen: Tensor, known_MBU: Tensor) -> Tensor:
        """``(K, B, U)``, with a gradient to φ; sums to 1 over the mentors who count."""
        return _shares(self.net(seen, len(known_MBU), seen.shape[-1] // 2), known_MBU)

    def forward(self, lesson: Lesson, mentors: Tensor, known_MBU: Tensor, divergence: Divergence) -> Weighed:
        """See :class:`Weighting`."""
        return Weighed(self.weigh(self.see(lesson, mentors), known_MBU))


def _is_vector(task: Task, classes: int) -> bool:
    """Whether answers of this task are ``(B, classes)``."""
    try:
        task.check(torch.zeros(1, classes), torch.zeros(1, dtype=torch.int64))
    except UserError:
        return False
    return True


class FeatureWeights(nn.Module):
    """v(b) = softmax net(how alike sample b is to the others, by each mentor's features and by the student's).

    Args:
        tap: where features are read.
        summarised: the net is shown :func:`similarities`, whose width does not depend on the batch. False: the rows of
            the raw Gram matrices in the batch's order, as the release; the first batch then fixes the width, and v is 0
            on batches of another size.
    """

    hidden = 32  # of the summarised net; the raw one has half its width

    def __init__(self, tap: str, *, summarised: bool = True) -> None:
        super().__init__()
        self.tap, self.summarised = tap, summarised
        self.net = WeightNet()

    def setup(self, info: ClassInfo) -> None:
        """Build the net where its width does not depend on the batch."""
        mentors = len(info.mentors)
        if self.summarised and info.shapes is not None and mentors > 1:
            self.net.build(3 * mentors + 2, self.hidden, mentors)
            self.net.late = False

    @torch.no_grad()
    def see(self, lesson: Lesson) -> Tensor:
        """What the net is shown: ``(B, 3K + 2)``, or ``(B, N·(K + 1))`` of raw rows."""
        assert lesson.mentors is not None
        maps = [*lesson.mentors.features[self.tap], lesson.student.features[self.tap]]
        flat = [wide(x.detach()).flatten(1) for x in maps]
        if self.summarised:
            return similarities(flat, lesson.all_gather)
        return torch.cat([x @ lesson.all_gather(x).T for x in flat], 1)

    def weigh(self, seen: Tensor, counts_MB: Tensor) -> Tensor:
        """``(K, B)``, with a gradient to φ; sums to 1 over the mentors who count."""
        if not self.summarised and self.net.width not in (None, seen.shape[-1]):
            return torch.zeros_like(counts_MB, dtype=seen.dtype)
        hidden = self.hidden if self.summarised else seen.shape[-1] // 2
        return _shares(self.net(seen, len(counts_MB), hidden), counts_MB)


def at_smaller_size(info: ClassInfo) -> ClassInfo:
    """The shapes with the mentors' maps as small as the student's where they are larger."""
    if info.shapes is None:
        return info
    mentors = {}
    for tap, theirs in info.shapes.mentors.items():
        _, height, width = info.shapes.student[tap]
        mentors[tap] = tuple((c, min(h, height), min(w, width)) for c, h, w in theirs)
    return replace(info, shapes=replace(info.shapes, mentors=mentors))


def hint_distance(hints: Hints, lesson: Lesson, known_MBU: Tensor, weight_MB: Tensor) -> Tensor:
    """mean_b Σ_k v_k mean (r_k(F_s) − F_k)², a scalar; a mentor's map is averaged down to its projector's size."""
    assert lesson.mentors is not None
    ours, theirs = hints.projected(lesson), lesson.mentors.features[hints.tap]
    fitted = [
        f if f.shape == o.shape else F.adaptive_avg_pool2d(f, (o.shape[2], o.shape[3]))
        for f, o in zip(theirs, ours, strict=True)
    ]
    far = squared_errors(ours, fitted, known_MBU.any(-1))
    return lesson.mean((weight_MB * far).sum(0), lesson.task.distill_mask(lesson.target).any(-1))


@torch.no_grad()
def similarities(networks: Sequence[Tensor], everywhere: Callable[[Tensor], Tensor]) -> Tensor:
    """How each network sees a sample among the others, from the cosines between its features; ``(B, 3K + 2)``.

    By network the mean and the largest cosine with the other samples; by mentor also the correlation of these cosines
    with the student's. All lie in [-1, 1], whatever the batch's size and the features' scale, and the others' order
    does not matter. A sample without features has cosine 0; what needs more samples than there are is 0.

    Args:
        networks: K mentors and, last, the student, each ``(B, D)``.
        everywhere: concatenates over ranks.
    """
    units = [F.normalize(x, dim=1).nan_to_num(0.0) for x in networks]
    cosines = torch.stack([x @ everywhere(x).T for x in units])  # (K + 1, B, N)
    own, samples = torch.stack([x.square().sum(1) for x in units]), cosines.shape[2]
    mean = (cosines.sum(2) - own) / max(samples - 1, 1)
    # A sample is as near to itself as to any other, so without it the largest is the second.
    nearest = cosines.topk(2).values[..., 1] if samples > 1 else torch.zeros_like(mean)
    centred, diagonal = cosines - mean.unsqueeze(2), own - mean
    variance = ((centred * centred).sum(2) - diagonal * diagonal).clamp_min(0)
    together = (centred * centred[-1]).sum(2) - diagonal * diagonal[-1]
    alike = (together / ((variance * variance[-1]).sqrt() + _EPS)).clamp(-1, 1)[:-1]
    columns = torch.stack([mean, nearest], 1).flatten(0, 1)
    return torch.cat([columns, float(samples > 2) * alike]).T
