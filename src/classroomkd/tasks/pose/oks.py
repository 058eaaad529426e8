"""Average precision over object keypoint similarity (OKS), COCO's score for pose, in numpy. Does not import torch.

Source: the COCO API's keypoint evaluation; the ten figures equal pycocotools' to the last bit (``official.py`` runs
pycocotools itself). Here sigmas and joints are arguments, so any skeleton has an OKS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classroomkd.tasks.pose.matching import AREAS, MAX_FOUND, THRESHOLDS, Pairs, match
from classroomkd.tasks.pose.truth import Floats, Ints, Predictions, Truth, as_ids, check_together, same_joints

__all__ = ["FIGURES", "Predictions", "Truth", "by_visibility", "keypoint_ap", "oks", "oks_nms"]

FIGURES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
_RECALLS = np.linspace(0.0, 1.0, 101)
_TINY = np.spacing(1)
_CHUNK = 1 << 15  # pairs of a person and an answer at once: a few tens of MB


def keypoint_ap(truth: Truth, answers: Predictions, sigmas: Sequence[float]) -> dict[str, float]:
    """COCO's ten figures, fractions in 0..1; -1 (as in pycocotools) where no person is of that size.

    Of an image's answers the 20 best count; M is 32² to 96² px², L is above. Equal scores keep the order of
    images by id, then that of ``answers``.

    Args:
        truth: what is there.
        answers: what was answered.
        sigmas: (K,) of the skeleton.

    Raises:
        UserError: an answer for an image that is not in ``truth.images``, or numbers of joints that differ.
    """
    assert truth.images is not None
    assert truth.crowd is not None
    check_together(truth, answers, sigmas)
    of_image = np.searchsorted(truth.images, answers.image)
    order = np.lexsort((-answers.score, of_image))
    of_image = of_image[order]
    best = np.arange(len(order)) - np.searchsorted(of_image, of_image) < MAX_FOUND
    order, of_image = order[best], of_image[best]
    people = np.argsort(np.searchsorted(truth.images, truth.image), kind="stable")
    starts = np.searchsorted(truth.image[people], truth.images)
    counts = np.append(starts[1:], len(people)) - starts

    each = counts[of_image]  # pairs of every answer, one after the other
    answer = np.repeat(np.arange(len(order)), each)
    within = np.arange(len(answer)) - np.repeat(np.cumsum(each) - each, each)
    person = starts[of_image[answer]] + within
    joints, area, box = truth.joints[people], truth.area[people], truth.box[people]
    labelled = (joints[..., 2] > 0).sum(1)
    similar = _similarity(
        answers.joints[order][..., :2].reshape(-1, len(sigmas), 2), joints, area, box, sigmas, answer, person
    )

    crowd = truth.crowd[people]
    outside = (area < AREAS[:, :1]) | (area > AREAS[:, 1:])
    ignored = outside | crowd | (labelled == 0)
    matched, void = match(Pairs(similar, of_image, starts, counts, ignored, crowd))
    size = answers.areas()[order]
    void |= ~matched & ((size < AREAS[:, :1]) | (size > AREAS[:, 1:]))[:, None]

    by_score = np.argsort(-answers.score[order], kind="stable")
    precision, recall = [], []
    for a in range(len(AREAS)):
        p, r = _curves(matched[a][:, by_score], void[a][:, by_score], int((~ignored[a]).sum()))
        precision.append(p)
        recall.append(r)
    half, most = np.flatnonzero(THRESHOLDS == 0.5), np.flatnonzero(THRESHOLDS == 0.75)
    values = []
    for of_all, of_medium, of_large in (precision, recall):
        parts = (of_all, of_all[half], of_all[most], of_medium, of_large)
        values += [float(np.mean(part.ravel())) for part in parts]
    return dict(zip(FIGURES, values, strict=True))


def by_visibility(truth: Truth, answers: Predictions, sigmas: Sequence[float]) -> dict[str, dict[str, float]]:
    """:func:`keypoint_ap` with only the ``visible`` (v = 2) and only the ``hidden`` (v = 1) joints as labelled.

    A person left without a joint is no target then. Areas, and with them M and L, stay what they were.
    """
    tables = {}
    for name, value in (("visible", 2), ("hidden", 1)):
        joints = truth.joints.copy()
        joints[..., 2] = np.where(joints[..., 2] == value, joints[..., 2], 0)
        tables[name] = keypoint_ap(replace(truth, joints=joints), answers, sigmas)
    return tables


def oks(xy: ArrayLike, joints: ArrayLike, area: ArrayLike, sigmas: Sequence[float]) -> Floats:
    """OKS of answer n with person n: mean over labelled joints of exp(-d² / (2 · area · (2 sigma)²)).

    Args:
        xy: (N, K, 2), px.
        joints: (N, K, 3), px and v.
        area: (N,), px².
        sigmas: (K,).

    Returns:
        (N,) in 0..1, NaN for a person without a labelled joint.
    """
    at, known, size = (np.asarray(x, np.float64) for x in (xy, joints, area))
    same_joints(sigmas, known, "a person")
    assert at.shape == (*known.shape[:2], 2), "one answer a person"
    assert size.shape == known.shape[:1], "one area a person"
    pairs = np.arange(len(known))
    similar = _similarity(at, known, size, np.zeros((len(known), 4)), sigmas, pairs, pairs)
    return np.where((known[..., 2] > 0).any(1), similar, np.nan)


def oks_nms(
    image: ArrayLike, xy: ArrayLike, score: ArrayLike, area: ArrayLike, sigmas: Sequence[float], threshold: float = 0.9
) -> Ints:
    """Non-maximum suppression: an answer goes when a better one of its image has an OKS above ``threshold`` with it.

    All joints count, at the mean of the two areas (HRNet's rule; there the area is that of the enlarged box).

    Args:
        image: (N,) ids.
        xy: (N, K, 2 or 3), px.
        score: (N,).
        area: (N,), px².
        sigmas: (K,).
        threshold: 0..1.

    Returns:
        Places of the answers that stay, ascending.
    """
    ids, at, rank, size = as_ids(image), np.asarray(xy, np.float64)[..., :2], np.asarray(score), np.asarray(area, float)
    variance = (2 * same_joints(sigmas, at, "an answer")) ** 2
    order = np.lexsort((-rank, ids))
    stays = []
    for group in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        while len(group):
            first, group = group[0], group[1:]
            stays.append(first)
            far = ((at[group] - at[first]) ** 2).sum(-1)
            mean = (size[group] + size[first]) / 2 + _TINY
            group = group[np.exp(-far / variance / mean[:, None] / 2).mean(1) <= threshold]
    return np.sort(np.array(stays, np.int64))


def _similarity(
    xy: Floats, joints: Floats, area: Floats, box: Floats, sigmas: Sequence[float], answer: Ints, person: Ints
) -> Floats:
    """OKS (P,) of pairs; to a person without labelled joints the distance is that to the box, doubled about its centre.

    Pairs are grouped by the number of labelled joints and these moved to the front: so the sum over joints runs over
    the same contiguous numbers as in the COCO API, and rounds alike.
    """
    labelled = joints[..., 2] > 0
    front, number = np.argsort(~labelled, axis=1, kind="stable"), labelled.sum(1)
    variance = (np.asarray(sigmas, np.float64) * 2) ** 2
    low, high = box[:, :2] - box[:, 2:], box[:, :2] + box[:, 2:] * 2
    similar = np.zeros(len(answer))
    for n in np.unique(number[person]):
        pairs = np.flatnonzero(number[person] == n)
        for rows in np.split(pairs, range(_CHUNK, len(pairs), _CHUNK)):
            who, places = person[rows], front[person[rows], : n or None]
            at = xy[answer[rows][:, None], places]
            if n:
                away = at - joints[who[:, None], places, :2]
            else:
                away = np.maximum(0, low[who, None] - at) + np.maximum(0, at - high[who, None])
            e = (away[..., 0] ** 2 + away[..., 1] ** 2) / variance[places] / (area[who, None] + _TINY) / 2
            similar[rows] = np.sum(np.exp(-np.ascontiguousarray(e)), axis=1) / e.shape[1]
    return similar


def _curves(matched: NDArray[np.bool_], void: NDArray[np.bool_], people: int) -> tuple[Floats, Floats]:
    """Precision (T, 101) at the recalls and the last recall (T,) of answers (T, N), best first; -1 without people."""
    if people == 0:
        return np.full((len(THRESHOLDS), len(_RECALLS)), -1.0), np.full(len(THRESHOLDS), -1.0)
    right = np.cumsum(matched & ~void, axis=1).astype(np.float64)
    wrong = np.cumsum(~matched & ~void, axis=1).astype(np.float64)
    precision, last = np.zeros((len(right), len(_RECALLS))), np.zeros(len(right))
    if right.shape[1]:
        recall, share = right / people, right / (wrong + right + _TINY)
        share = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
        for t, row in enumerate(recall):
            at = np.searchsorted(row, _RECALLS, side="left")
            reached = at < len(row)
            precision[t, reached] = share[t, at[reached]]
        last = recall[:, -1]
    return precision, last
