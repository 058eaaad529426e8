"""What weighted methods share: answers made finite, weighted means, errors of features, weights from gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from classroomkd.classroom import Lesson
from classroomkd.functional import gram_weights, wide
from classroomkd.functional.bound import restraint

__all__ = ["heard", "idle_features", "shortest", "spread", "squared_errors", "weighted_mean"]

_NOTHING = 1e-6  # of a weight of 1


@torch.no_grad()
def heard(lesson: Lesson, units_BU: Tensor) -> tuple[Tensor, Tensor]:
    """The mentors' answers, made finite (or ``-inf``) where they are not, and who counts where, ``(M, B, U)`` bool.

    Who rules out the true class does not count; where none is known, who rules out what the mentors agree on.
    """
    assert lesson.mentors is not None
    answers = lesson.mentors.prediction
    log = lesson.task.log_credibility(answers, lesson.agreed)
    return lesson.task.blanked(answers, log.isnan()), (log > -torch.inf) & units_BU  # false for NaN too


def weighted_mean(weight_MBU: Tensor, far: Tensor, units_BU: Tensor, lesson: Lesson, bound: float = 0.0) -> Tensor:
    """Σ_m w_m D_m, a scalar, over all ranks.

    Args:
        weight_MBU: the mentors' weights.
        far: D, ``(M, B, U)``, whose sum is averaged over the units; or ``(M,)`` of the batch, which the weights'
            averages over the units multiply.
        units_BU: bool, units that count.
        lesson: the batch.
        bound: how hard the mentors may pull at a unit, in longest gradients of its label's loss (:func:`restraint`);
            0 = as hard as they like. D of the batch has no units to bound.
    """
    if far.dim() > 1:
        pull, steepest = (weight_MBU * far).sum(0), lesson.task.steepest
        if bound and steepest is not None:
            pull = pull * restraint(pull, lesson.student.prediction, bound * steepest)
        return lesson.mean(pull, units_BU)
    sums = torch.stack([*weight_MBU.where(units_BU, 0.0).flatten(1).sum(1), units_BU.sum()])
    if lesson.reduce is not None:
        sums = lesson.reduce(sums)
    return (sums[:-1] / sums[-1].clamp_min(1) * far).sum()


def squared_errors(projected: Sequence[Tensor], theirs: Sequence[Tensor], counts_MB: Tensor) -> Tensor:
    """The mean over channels and space of (ours - theirs)², ``(M, B)``, in float32 at least.

    Args:
        projected: M tensors ``(B, channels, H, W)`` or ``(B, channels)``, the student's.
        theirs: the mentors', of the same shapes.
        counts_MB: bool; 0 and no gradient where false, whatever the features hold there.
    """
    errors = []
    for ours, mentor, counts in zip(projected, theirs, counts_MB, strict=True):
        counts = counts.view(-1, *[1] * (ours.dim() - 1))
        # The difference is selected, not the square: the gradient of a square of NaN is NaN even times 0.
        errors.append(torch.where(counts, wide(ours) - wide(mentor), 0.0).square().flatten(1).mean(1))
    return torch.stack(errors)


def shortest(
    sums: Tensor,
    counts: Tensor,
    cap: float | None,
    reduce: Callable[[Tensor], Tensor] | None,
    mean: bool = True,
    unit: bool = False,
) -> Tensor:
    """Weights ``(M,)`` of the mentors' gradients whose mix is shortest, over all ranks (:func:`gram_weights`).

    Args:
        sums: ``(M, D)``, each mentor's gradient added up over this rank's samples.
        counts: ``(M,)``, on how many units each mentor counts; one who counts nowhere has no part.
        cap: the largest weight.
        reduce: sums a tensor over ranks.
        mean: divide the sums by the counts.
        unit: see :func:`gram_weights`.
    """
    both = torch.cat([wide(sums), counts[:, None].to(wide(sums).dtype)], 1)
    if reduce is not None:
        both = reduce(both)
    sums, counts = both[:, :-1], both[:, -1:]
    return gram_weights(sums / counts.clamp_min(1) if mean else sums, cap, counts[:, 0] > 0, unit)


def spread(weight_M: Tensor, known_MBU: Tensor) -> Tensor:
    """One weight a mentor, shared among those who count on each unit: ``(M, B, U)``, sums to 1 where anyone does.

    Where those who count hold next to nothing of the weight, they count the same.
    """
    weight = weight_M.view(-1, *[1] * (known_MBU.dim() - 1)) * known_MBU
    total = weight.sum(0)
    even = known_MBU / known_MBU.sum(0).clamp_min(1)
    return torch.where(total > _NOTHING, weight / total.clamp_min(_NOTHING), even)


def idle_features(options: Mapping[str, Any], keys: Mapping[str, Any], when: str) -> list[str]:
    """For :meth:`Method.idle` of a method that reads no features: what was set about them, one sentence each.

    Args:
        options: the method's, as given.
        keys: those about features, with their defaults.
        when: what they act with.
    """
    return [f"{key} acts only with {when}" for key, usual in keys.items() if options.get(key, usual) != usual]
