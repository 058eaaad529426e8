"""PCK and PCKh: the share of joints that are near enough, measured against the size of the body or the head.

Sources: the MPII evaluation as HRNet's and the stacked hourglass' repositories have it (arithmetic below); PCK as for
LSP. All values are fractions in 0..1. Does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classroomkd.data.keypoints.heads import HEAD_SHARE, head_from_scale, head_size
from classroomkd.data.skeleton import MPII, Skeleton
from classroomkd.errors import UserError
from classroomkd.tasks.pose.truth import Floats

__all__ = [
    "HEAD_SHARE", "HRNET_AT_01", "JointTable", "box_side", "head_from_scale", "head_size", "pck", "pckh", "torso",
]  # fmt: skip

HRNET_AT_01 = "PCKh@0.11 (HRNet's 'Mean@0.1')"
_NOT_IN_MEAN = ("pelvis", "thorax")
_GROUPS = {"Head": ("head_top",)} | {
    part.capitalize(): (f"left_{part}", f"right_{part}")
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
}


@dataclass(frozen=True)
class JointTable:
    """A score with what it is made of.

    Attributes:
        scores: name of a figure to its value, the headline first. NaN where there is no labelled joint.
        groups: left and right together, at the first threshold (PCKh; empty for PCK).
        joints: by joint, at the first threshold.
        counts: labelled joints behind each of ``joints``.
        people: how many were scored.
        left_out: how many were not: they have labelled joints and no reference (NaN, or not above 0).
    """

    scores: dict[str, float]
    groups: dict[str, float]
    joints: dict[str, float]
    counts: dict[str, int]
    people: int
    left_out: int


def pckh(
    predicted: ArrayLike, joints: ArrayLike, head: ArrayLike, threshold: float = 0.5, *, skeleton: Skeleton = MPII
) -> JointTable:
    """MPII's score: a joint is right when its error is at most ``threshold`` of 0.6 head-box diagonals.

    Pelvis and thorax are left out of the means, which weigh joints by how often they are labelled; a group is the
    plain mean of left and right. Three figures: at ``threshold``, at a true 0.1, and at 0.11, which HRNet's code calls
    'Mean@0.1' (place 11 of a grid of 0.01 that starts at 0). Coordinates may be 0- or 1-based, both the same.

    Args:
        predicted: (N, K, 2 or 3), px; a number that is not finite is a miss.
        joints: (N, K, 3), px and v; v = 0 does not count.
        head: (N,) diagonal of the head box, px: :func:`head_size`, else :func:`head_from_scale`.
        threshold: of the headline.
        skeleton: K joints, found by their names.
    """
    far, labelled, left_out = _errors(predicted, joints, np.asarray(head, np.float64) * HEAD_SHARE, skeleton)
    mean = np.array([j not in _NOT_IN_MEAN for j in skeleton.standard])
    scores = {f"PCKh@{threshold:g}": threshold, "PCKh@0.1": 0.1, HRNET_AT_01: float(np.arange(0, 0.51, 0.01)[11])}
    by_joint = _shares(far <= threshold, labelled, skeleton)
    groups, by_name = {}, dict(zip(skeleton.standard, by_joint.values(), strict=True))
    for name, members in _GROUPS.items():
        known = [by_name[j] for j in members if not np.isnan(by_name.get(j, np.nan))]
        if any(j in by_name for j in members):
            groups[name] = sum(known) / len(known) if known else float("nan")
    return JointTable(
        {name: _share((far <= t)[:, mean], labelled[:, mean]) for name, t in scores.items()},
        groups, by_joint, _counts(labelled, skeleton), len(far), left_out,
    )  # fmt: skip


def pck(
    predicted: ArrayLike, joints: ArrayLike, reference: ArrayLike, threshold: float = 0.2, *, skeleton: Skeleton,
    by: str = "torso",
) -> JointTable:  # fmt: skip
    """A joint is right when its error is at most ``threshold`` of the person's ``reference``.

    One figure, over all labelled joints of all people: "PCK@0.2" when the reference is the torso, else the name says
    what it is ("PCK@0.2_box").

    Args:
        predicted: (N, K, 2 or 3), px; a number that is not finite is a miss.
        joints: (N, K, 3), px and v; v = 0 does not count.
        reference: (N,), px: :func:`torso`, :func:`box_side`, …
        threshold: share of the reference.
        skeleton: names of the K joints.
        by: what the reference is.
    """
    far, labelled, left_out = _errors(predicted, joints, np.asarray(reference, np.float64), skeleton)
    name = f"PCK@{threshold:g}" + ("" if by == "torso" else f"_{by}")
    right = far <= threshold
    counts = _counts(labelled, skeleton)
    return JointTable(
        {name: _share(right, labelled)}, {}, _shares(right, labelled, skeleton), counts, len(far), left_out
    )


def torso(joints: ArrayLike, skeleton: Skeleton) -> Floats:
    """Left shoulder to right hip (N,), px; the other diagonal where one of them is not labelled, NaN where neither is.

    Raises:
        UserError: a skeleton without shoulders or hips.
    """
    known = np.asarray(joints, np.float64)
    size = np.full(len(known), np.nan)
    for pair in (("right_shoulder", "left_hip"), ("left_shoulder", "right_hip")):
        ends = [skeleton.find(j) for j in pair]
        if None in ends:
            missing = pair[ends.index(None)]
            raise UserError(f"skeleton '{skeleton.name}' has no {missing}, so no torso: measure PCK by the box")
        a, b = (known[:, end] for end in ends)
        size = np.where((a[:, 2] > 0) & (b[:, 2] > 0), np.hypot(*(a - b)[:, :2].T), size)
    return size


def box_side(boxes: ArrayLike) -> Floats:
    """The longer side (N,) of boxes (N, 4) x, y, width, height."""
    return np.asarray(np.asarray(boxes, np.float64)[:, 2:].max(1))


def _errors(
    predicted: ArrayLike, joints: ArrayLike, reference: Floats, skeleton: Skeleton
) -> tuple[Floats, NDArray[np.bool_], int]:
    """Errors in references (N', K) (infinite where nothing finite was predicted), labels (N', K), people left out."""
    guess, known = np.asarray(predicted, np.float64), np.asarray(joints, np.float64)
    wanted = (len(known), len(skeleton))
    if guess.shape[:2] != wanted or known.shape != (*wanted, 3) or reference.shape != wanted[:1]:
        raise UserError(
            f"skeleton '{skeleton.name}' has {len(skeleton)} joints: predicted {guess.shape}, joints {known.shape} and "
            f"reference {reference.shape} must be (N, {len(skeleton)}, 2), (N, {len(skeleton)}, 3) and (N,)"
        )
    usable = np.isfinite(reference) & (reference > 0)
    labelled = known[..., 2] > 0
    left_out = int((~usable & labelled.any(1)).sum())
    away = guess[usable, :, :2] - known[usable, :, :2]
    away = np.where(np.isfinite(away), away, np.inf)
    return np.hypot(away[..., 0], away[..., 1]) / reference[usable, None], labelled[usable], left_out


def _share(right: NDArray[np.bool_], labelled: NDArray[np.bool_]) -> float:
    count = int(labelled.sum())
    return int((right & labelled).sum()) / count if count else float("nan")


def _shares(right: NDArray[np.bool_], labelled: NDArray[np.bool_], skeleton: Skeleton) -> dict[str, float]:
    return {j: _share(right[:, k], labelled[:, k]) for k, j in enumerate(skeleton.joints)}


def _counts(labelled: NDArray[np.bool_], skeleton: Skeleton) -> dict[str, int]:
    return dict(zip(skeleton.joints, labelled.sum(0).tolist(), strict=True))
