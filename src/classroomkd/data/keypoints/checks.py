"""What can be wrong with annotated persons: refused where the whole file is wrong, else skipped, counted and listed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from classroomkd.data.joint_names import mirror_pairs, numbered, one_sided, side_of
from classroomkd.data.keypoints.annotation_file import AnnotationFile
from classroomkd.data.keypoints.people import Floats
from classroomkd.data.skeleton import Skeleton
from classroomkd.errors import UserError

__all__ = ["SMALLEST", "check_flags", "check_flip_pairs", "count_skips", "note_mirror", "sanitize", "usable"]

SMALLEST = 8.0
"""A person whose box is nowhere as long as this many pixels shows nothing to learn."""

FURTHEST = 1e7
"""Pixels; a joint further out than this is a mistake."""

_SHOWN = 20  # of what was left out, by name
_ENOUGH = 20  # people that have both joints of a distance, before anything is concluded from it
_UNLIKE = 0.3  # share by which the distances of mirrored joints may differ


def count_skips(where: str, what: str, names: Sequence[str], notes: list[str]) -> None:
    """A note about ``names`` that were left out, if any."""
    if names:
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        notes.append(f"{where}: {len(names)} {what} left out: {shown}")


def check_flags(listing: AnnotationFile) -> None:
    """v is 0, 1 or 2.

    Raises:
        UserError: naming the first annotation where it is not.
    """
    flags = listing.persons.joints[..., 2]
    wrong = ~np.isin(flags, (0, 1, 2))
    if wrong.any():
        row, joint = (int(place) for place in np.argwhere(wrong)[0])
        raise UserError(
            f"data: {listing.where}: annotation {listing.persons.annotation[row]} has v = {flags[row, joint]:g} at"
            f" joint {joint}; v is 0 (not labelled), 1 (hidden) or 2 (visible)"
        )


def sanitize(listing: AnnotationFile, notes: list[str]) -> NDArray[np.bool_]:
    """Which annotations (n,) have labelled coordinates that are not finite; these lose their joints, in place. What
    stands at joints without a label becomes 0."""
    joints = listing.persons.joints
    labelled = joints[..., 2] > 0
    with np.errstate(invalid="ignore"):
        sound = (np.abs(joints[..., :2]) < FURTHEST).all(-1)  # false for NaN, too
    broken = (labelled & ~sound).any(-1)
    joints[broken] = 0
    joints[~labelled] = 0
    names = [str(name) for name in listing.persons.annotation[broken]]
    count_skips(listing.where, "people with coordinates that are not finite were", names, notes)
    return np.asarray(broken)


def usable(
    listing: AnnotationFile,
    regions: Floats,
    names: Sequence[str],
    *,
    learn: bool,
    notes: list[str],
    jointless: NDArray[np.bool_] | None = None,
    broken: NDArray[np.bool_] | None = None,
    area: Floats | None = None,
) -> NDArray[np.bool_]:
    """Which of the regions (n, 4) can be cropped, and, where ``jointless`` says who has none, learned from.

    People without joints are not worth a note in a part that is only scored: COCO has many of them.
    """
    n = len(regions)
    none = np.zeros(n, bool)
    jointless, broken = none if jointless is None else jointless, none if broken is None else broken
    size = regions[:, 2:]
    finite = np.isfinite(regions).all(1)
    reasons = {
        "people without a labelled joint": jointless,
        "boxes that are not finite": ~finite,
        "boxes outside the image or without a size": ~(size >= 0).all(1),
        f"people smaller than {SMALLEST:g} pixels": ~(size.max(1, initial=0) >= SMALLEST - 1),
        "people whose area is not above 0": np.zeros(n, bool) if area is None else ~(area > 0),
    }
    left = ~broken
    for what, wrong in reasons.items():
        gone = left & wrong
        if learn or wrong is not jointless:
            count_skips(listing.where, what, [names[int(row)] for row in np.flatnonzero(gone)], notes)
        left &= ~wrong
    return np.asarray(left)


def check_flip_pairs(skeleton: Skeleton, joints: Floats, where: str, title: str = "") -> None:
    """Whether the pairs that swap in a mirror fit the labels (n, K, 3); ``title`` is what the file calls the skeleton.

    Two joints called left and right of the same part must be a pair. And a body is as long on one side as on the
    other: the median distance between two joints, over the people that show both, must be about that between their
    mirrored joints, whatever the pose.

    Raises:
        UserError: naming the pair that does not fit.
    """
    swap = skeleton.swap
    for place, other in mirror_pairs(skeleton.joints):
        if swap[place] != other and side_of(skeleton.joints[place]) is not None:
            joint, partner = skeleton.joints[place], skeleton.joints[other]
            raise UserError(
                f"data: {where}: flip_pairs of '{title or skeleton.name}' do not swap {joint} with {partner} (but with"
                f" {skeleton.joints[swap[place]]}); flip_pairs count joints from 0"
            )
    distance, counted = _distances(joints)
    mirrored = distance[np.ix_(swap, swap)]
    sure = counted & counted[np.ix_(swap, swap)] & ~np.eye(len(swap), dtype=bool)
    sure &= np.array(swap)[:, None] != np.arange(len(swap))  # a pair's own distance is its mirrored one
    with np.errstate(invalid="ignore"):
        unlike = np.abs(distance - mirrored) / np.maximum(distance, mirrored)
    shares = [float(np.median(unlike[k][sure[k]])) if sure[k].sum() >= 3 else 0.0 for k in range(len(swap))]
    worst = int(np.argmax(shares))
    if shares[worst] > _UNLIKE:
        raise UserError(
            f"data: {where}: flip_pairs of '{title or skeleton.name}' swap {skeleton.joints[worst]} with"
            f" {skeleton.joints[swap[worst]]}, but in the labels their distances to the other joints differ by"
            f" {shares[worst]:.0%}; flip_pairs count joints from 0"
        )


def note_mirror(skeleton: Skeleton, notes: list[str]) -> None:
    """Say where mirrored views would keep sides as they are, because no pairs are known."""
    paired = {place for pair in skeleton.flip_pairs for place in pair}
    alone = one_sided(skeleton.joints, paired)
    if not paired and len(skeleton) > 1:
        what = f"the {len(skeleton)} joints ({', '.join(skeleton.joints[:4])}, …) have no left and right by their names"
    elif alone or (alone := numbered(skeleton.joints, paired)):
        what = f"{len(alone)} joints ({', '.join(alone[:4])}{', …' if len(alone) > 4 else ''}) have no partner"
    else:
        return
    notes.append(
        f"views mirror the pictures, and {what}, so these keep their names in a mirror image; where some are left and"
        f" right, give the category flip_pairs (or flip_idx), or set data.options.flip: 0"
    )


def _distances(joints: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Median distance (K, K) between joints, in sizes of the person, and where enough people show both."""
    labelled = (joints[..., 2] > 0) & np.isfinite(joints[..., :2]).all(-1)
    enough = np.flatnonzero(labelled.sum(1) >= 4)[:2000]
    joints, labelled = joints[enough], labelled[enough]
    place = np.where(labelled[..., None], joints[..., :2], np.nan)
    count = joints.shape[1]
    if len(joints) < _ENOUGH:
        return np.zeros((count, count)), np.zeros((count, count), bool)
    spread = np.nanmax(place, 1) - np.nanmin(place, 1)
    place = place / np.maximum(np.hypot(spread[:, 0], spread[:, 1]), 1e-6)[:, None, None]
    distance, counted = np.zeros((count, count)), np.zeros((count, count), bool)
    for k in range(count):
        away = np.hypot(*np.moveaxis(place - place[:, k : k + 1], -1, 0))
        counted[k] = np.isfinite(away).sum(0) >= _ENOUGH
        distance[k, counted[k]] = np.nanmedian(away[:, counted[k]], 0)
    return distance, counted
