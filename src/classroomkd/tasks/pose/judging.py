"""From decoded answers to scores: which figures a data set's people allow, and the one that counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from classroomkd.data.skeleton import Skeleton
from classroomkd.errors import UserError, did_you_mean
from classroomkd.tasks.pose import pck
from classroomkd.tasks.pose.oks import by_visibility, keypoint_ap, oks_nms
from classroomkd.tasks.pose.results import person_scores
from classroomkd.tasks.pose.spec import BY_JOINT
from classroomkd.tasks.pose.truth import Floats, Ints, Predictions, Truth

if TYPE_CHECKING:
    from classroomkd.data.keypoints.people import People, Persons

__all__ = ["METRICS", "allowed", "answered", "as_truth", "check_metric", "check_scored", "judge", "truth_of"]

_NOWHERE = -1e6
METRICS = ("AP_gtbox", "AP_detector", "PCKh@0.5", "PCK@0.2", "PCK@0.2_box", "PCK@0.05_box")
Judged = tuple[float, list[float | None], dict[str, float]]


def check_metric(metric: str, boxes: str) -> None:
    """Whether there is such a metric, and the test part's boxes (``gt`` or ``detector``) allow it.

    Raises:
        UserError: naming the option.
    """
    if metric not in METRICS:
        near = did_you_mean(metric, METRICS)
        raise UserError(f"data.options.metric: there is no '{metric}'{near}; there are {', '.join(METRICS)}")
    if boxes == "detector" and metric != "AP_detector":
        raise UserError(
            f"data.options.metric: with a detector's boxes the test part's score is AP_detector, not '{metric}'; leave "
            "out metric, or boxes"
        )


def truth_of(people: People, ids: ArrayLike, *, bare: bool = False) -> Truth:
    """Every annotation of the pictures of these samples; with ``bare`` of the test part's pictures without one, too.

    Pictures go by :attr:`People.numbers`: two files may give two pictures the same id.
    """
    looked_at = np.unique(people.persons.picture[people.rows(ids)])
    if bare:
        looked_at = np.union1d(looked_at, people.bare)
    return as_truth(people.truth(ids, bare=bare), people.numbers, people.numbers[looked_at])


def as_truth(known: Persons, numbers: Ints, looked_at: Ints) -> Truth:
    """Annotations as a scorer takes them.

    Args:
        known: their ``picture`` is a place in ``numbers``.
        numbers: what the pictures are called.
        looked_at: the pictures that were looked at, by that.
    """
    # A box or an area that is not finite (such people were left out and counted): no target, as one without joints.
    sound = np.isfinite(known.box).all(-1) & np.isfinite(known.area)
    joints = np.where(sound[:, None, None], known.joints, 0.0)
    box, area = np.where(sound[:, None], known.box, 0.0), np.where(sound, known.area, 0.0)
    return Truth(numbers[known.picture], joints, area, box, known.crowd, images=looked_at)


def answered(people: People, ids: ArrayLike, answers: ArrayLike, skeleton: Skeleton) -> Predictions:
    """Answers (N, K, 3) in input pixels and scores as persons in their pictures, which go by :attr:`People.numbers`.

    A person's score is its box's times the mean of its joints' scores above 0.2; of several answers for one person in
    a detector's boxes the best stays (OKS-NMS 0.9).
    """
    placed, rows = people.to_image(ids, answers), people.rows(ids)
    score, image = person_scores(placed[..., 2], people.score[rows]), people.numbers[people.persons.picture[rows]]
    if people.persons.detector[rows].any():  # a detector's boxes
        height, width = people.size
        area = people.step[rows] ** 2 * (height - 1) * (width - 1)  # of the crop: the box, widened, as HRNet has it
        stay = oks_nms(image, placed, score, area, skeleton.sigmas)
        placed, score, image = placed[stay], score[stay], image[stay]
    return Predictions(image, placed, score)


def check_scored(metric: str, people: People, skeleton: Skeleton, parts: Mapping[str, ArrayLike]) -> None:
    """Whether the metric can be computed on every part that is scored, before anything is trained for it.

    A part where no joint has a label is no mistake: its score is not there, which is shown as a dash.

    Args:
        metric: the figure that counts.
        people: of the data.
        skeleton: K joints.
        parts: the samples' ids (N,) of the parts, by their names.

    Raises:
        UserError: naming the part and the metrics that its people allow.
    """
    for part, ids in parts.items():
        known = people.of(ids)
        labelled = (known.joints[..., 2] > 0) & ~known.crowd[:, None]
        if metric.startswith("AP") or not labelled.any() or _countable(metric, known, skeleton, labelled):
            continue
        able = [name for name in METRICS if name in _REFERENCES and _countable(name, known, skeleton, labelled)]
        kind = "AP_detector" if people.boxes == "detector" else "AP_gtbox"
        raise UserError(
            f"data.options.metric: '{metric}' cannot be computed on the {part} part: none of its {len(known)} persons"
            f" has {_NEEDS[metric]}; data.options.metric takes one of {', '.join([kind, *able])} here"
        )


def _countable(metric: str, known: Persons, skeleton: Skeleton, labelled: NDArray[np.bool_]) -> bool:
    """Whether there is a labelled joint of somebody whose size is known."""
    size = allowed(metric, known, skeleton)
    return bool((labelled & (np.isfinite(size) & (size > 0))[:, None]).any())


def judge(
    people: People,
    skeleton: Skeleton,
    ids: Tensor,
    decoded: Tensor,
    *,
    metric: str,
    test: bool = False,
    answers_to: Sequence[bool] | None = None,
) -> Judged:
    """Score decoded answers; figures that need labels are left out where the samples (a detector's boxes) have none.

    Args:
        people: of the data.
        skeleton: K joints.
        ids: (N,) samples.
        decoded: (N, K, 3) x, y in input pixels and a score.
        metric: the figure that counts, one of :data:`METRICS`; ``AP_detector`` is ``AP_gtbox`` where the samples' boxes
            are the annotations'.
        test: whether these are the test part, whose pictures without a sample count.
        answers_to: (K,) which joints a network knows; it is scored on these alone. None: all.

    Returns:
        The metric's value, NaN where there is nobody to judge; by joint the share of places that PCK, PCKh or PCK by
        the box's side finds right (None: no label); every figure that these people allow, by name.

    Raises:
        UserError: a metric that these people do not allow.
    """
    keys, places = ids.to("cpu").numpy(), decoded.detach().to("cpu").double().numpy()
    places = np.nan_to_num(places, nan=_NOWHERE, posinf=_NOWHERE, neginf=_NOWHERE)  # a training that has diverged
    knows = np.ones(len(skeleton), bool) if answers_to is None else np.asarray(answers_to, bool)
    known = people.of(keys)
    figures: dict[str, float] = {}
    tables: dict[str, pck.JointTable] = {}
    judged = replace(known, joints=np.where((knows & ~known.crowd[:, None])[..., None], known.joints, 0.0))
    for name in _REFERENCES:
        size = allowed(name, known, skeleton)
        if (np.isfinite(size)[:, None] & (judged.joints[..., 2] > 0)).any():
            tables[name] = _table(
                name, people.to_image(keys, places), judged, skeleton, _REFERENCES[name](known, skeleton)
            )
            figures |= tables[name].scores
    kind = f"AP_{'detector' if known.detector.any() else 'gtbox'}"
    if knows.any():
        few, own = _only(people, knows), _part_of(skeleton, knows)
        truth, answers = truth_of(few, keys, bare=test), answered(few, keys, places[:, knows], own)
        ap = keypoint_ap(truth, answers, own.sigmas)
        figures |= {(kind if name == "AP" else f"{kind}:{name}"): value for name, value in ap.items()}
        for name, table in by_visibility(truth, answers, own.sigmas).items():
            figures[f"{kind}:{name}"] = table["AP"]
    figures = {name: value for name, value in figures.items() if not np.isnan(value)}
    metric = metric.replace("AP_detector", kind)
    if metric not in figures and (judged.joints[..., 2] > 0).any() and answers_to is None:
        raise UserError(f"metric '{metric}': these people allow {', '.join(figures)}")
    value = figures.get(metric, np.nan)
    shown = next((tables[name] for name in (metric, *BY_JOINT) if name in tables), None)
    by_joint = [np.nan if shown is None else shown.joints[joint] for joint in skeleton.joints]
    # COCO's -1 says that there was nobody to judge: no score.
    return np.nan if value < 0 else value, [None if np.isnan(x) else float(x) for x in by_joint], figures


def _only(people: People, knows: NDArray[np.bool_]) -> People:
    """The same people with some of their joints alone."""
    if knows.all():
        return people
    persons, others = (replace(some, joints=some.joints[:, knows]) for some in (people.persons, people.others))
    return replace(people, persons=persons, others=others)


def _part_of(skeleton: Skeleton, knows: NDArray[np.bool_]) -> Skeleton:
    """Some joints of a skeleton, as far as scores ask."""
    if knows.all():
        return skeleton
    places = np.flatnonzero(knows)
    return Skeleton(
        skeleton.name, tuple(skeleton.joints[k] for k in places), (), tuple(skeleton.sigmas[k] for k in places), (), ()
    )


def _torso(known: Persons, skeleton: Skeleton) -> Floats:
    try:
        return pck.torso(known.joints, skeleton)
    except UserError:  # a skeleton without shoulders or hips
        return np.full(len(known), np.nan)


# What each of PCK's metrics is a share of, image pixels (N,), NaN where it is not known.
_REFERENCES: dict[str, Callable[[Persons, Skeleton], Floats]] = {
    "PCKh@0.5": lambda known, skeleton: known.head * pck.HEAD_SHARE,
    "PCK@0.2": _torso,
    "PCK@0.2_box": lambda known, skeleton: pck.box_side(known.box),
    "PCK@0.05_box": lambda known, skeleton: pck.box_side(known.box),
}


_NEEDS = {
    "PCKh@0.5": "a head whose size is known (MPII's)",
    "PCK@0.2": "a torso: a shoulder and the hip of the other side, both labelled",
    "PCK@0.2_box": "a box with a size",
    "PCK@0.05_box": "a box with a size",
}


def _threshold(metric: str) -> tuple[float, str]:
    """The share that a metric's name has behind ``@``, and what stands behind that."""
    share, _, by = metric.partition("@")[2].partition("_")
    return float(share), by


def allowed(metric: str, known: Persons, skeleton: Skeleton) -> Floats:
    """Up to which distance (N,) from its place a joint is right, image pixels; NaN where ``metric`` does not say it."""
    if metric not in _REFERENCES:
        return np.full(len(known), np.nan)
    return _REFERENCES[metric](known, skeleton) * _threshold(metric)[0]


def _table(name: str, predicted: Floats, known: Persons, skeleton: Skeleton, reference: Floats) -> pck.JointTable:
    """The joints of ``known`` that have a label, measured against ``reference`` (N,)."""
    share, by = _threshold(name)
    if name.startswith("PCKh"):
        return pck.pckh(predicted, known.joints, known.head, share, skeleton=skeleton)
    return pck.pck(predicted, known.joints, reference, share, skeleton=skeleton, by=by or "torso")
