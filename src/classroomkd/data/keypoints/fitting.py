"""Whether labels, boxes and pictures belong together: what is measured in other units, or written in another order.

Such files are of the right form, and a student of theirs learns nothing. What is found is a note: a set may be odd.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classroomkd.data.keypoints.annotation_file import AnnotationFile
from classroomkd.data.keypoints.crops import crop
from classroomkd.data.keypoints.people import UNKNOWN_SIZE, Floats

__all__ = ["UNFIT", "note_fit", "note_size"]

UNFIT = "labels, boxes and pictures do not fit together"

_ENOUGH = 5  # persons, before anything is concluded from them
_JOINTS_OUT = 0.1  # share of the labelled joints outside of their person's crop
_BOXES_OUT = 0.25  # share of the boxes that lie outside of their picture
_FILL = 0.2  # joints that spread over less of their box than this
_UPRIGHT = 0.8  # width of a box over its height, below which persons are higher than wide
_MOST = 0.9  # of the joints or boxes that another reading has to explain


def note_fit(listing: AnnotationFile, size: tuple[int, int], padding: float, roomy: bool, notes: list[str]) -> None:
    """Say where joints lie outside their crops, boxes outside their pictures, or joints in a corner of their boxes.

    Args:
        listing: of one part.
        size: (H, W) of the input.
        padding: of the boxes.
        roomy: whether boxes may reach out of the picture, as MPII's do.
        notes: takes what is found, with what it looks like.
    """
    every = listing.persons
    people = every.take(np.flatnonzero(~every.crowd & np.isfinite(every.box).all(1)))
    joints, box = people.joints, people.box
    labelled = (joints[..., 2] > 0) & np.isfinite(joints[..., :2]).all(-1)
    some = np.flatnonzero(labelled.any(1))
    people, joints, box, labelled = people.take(some), joints[some], box[some], labelled[some]
    if len(people) < _ENOUGH:
        return
    place = joints[..., :2]
    sides = np.array([[p.width, p.height] for p in listing.pictures], np.float64)[people.picture]
    boxes_out = _share_out(box, sides, 0.5 if roomy else 0.9)
    joints_out = 1 - _share_in(place, labelled, people.region, size, padding)
    filled = _fill(place, labelled, box)
    corners = _as_corners(place, labelled, box, sides)
    found = []
    if joints_out >= _JOINTS_OUT:
        found.append(f"{joints_out:.0%} of the labelled joints lie outside of their person's crop")
    if boxes_out >= _BOXES_OUT:
        found.append(f"{boxes_out:.0%} of the boxes lie outside of their picture")
    if filled < _FILL:
        found.append(f"the joints of a person spread over {filled:.0%} of the box")
    if small := bool((np.abs(box) <= 1).all()):
        found.append("no box is larger than a pixel")
    if not found and not corners:
        return
    swapped = _share_in(place[..., ::-1], labelled, people.region, size, padding)
    looks = [
        (bool((np.abs(place[labelled]) <= 1).all()), "joints look like shares of the picture (0..1), and not pixels"),
        (small, "boxes look like shares of the picture (0..1), and not pixels"),
        (corners, "boxes look like corners (x1, y1, x2, y2), and not x, y, width, height"),
        (joints_out > _JOINTS_OUT and swapped >= _MOST, "x and y of the joints look swapped"),
        (
            float(np.median(box[:, 2:].max(1) / sides.max(1))) > 4,
            "boxes look too large: MPII's scale is height / 200",
        ),
    ]
    guess = "; ".join(text for is_so, text in looks if is_so)
    what = ", ".join(found) or "read as corners, every box holds its joints"
    notes.append(f"{listing.where}: {UNFIT}: {what}{f' ({guess})' if guess else ''}; look at the file")


def note_size(listing: AnnotationFile, size: tuple[int, int], notes: list[str]) -> None:
    """Say where the input (H, W) is wider than high and the persons are not: the field often writes width first."""
    region = listing.persons.region[(listing.persons.region[:, 2:] > 0).all(1)]
    if len(region) < _ENOUGH or size[1] <= size[0]:
        return
    aspect = float(np.median(region[:, 2] / region[:, 3]))
    if aspect < _UPRIGHT:
        notes.append(
            f"data.size: {list(size)} is height {size[0]} and width {size[1]}, wider than high, but a person's box here"
            f" is {aspect:.2g} times as wide as high; data.size: {list(size[::-1])} fits them better"
        )


def _share_in(
    place: Floats, labelled: NDArray[np.bool_], region: Floats, size: tuple[int, int], padding: float
) -> float:
    """Share of the labelled joints (n, K, 2) inside the crops of the regions (n, 4); 1 where none can be cropped."""
    with np.errstate(invalid="ignore"):
        origin, step = crop(region, size, padding)
        sound = np.isfinite(region).all(1) & (region[:, 2:] >= 0).all(1) & (step > 0)
        own = (place[sound] - origin[sound, None]) / step[sound, None, None]
    inside = ((own >= 0) & (own <= np.array([size[1] - 1, size[0] - 1]))).all(-1)
    count = int(labelled[sound].sum())
    return float((inside & labelled[sound]).sum()) / count if count else 1.0


def _share_out(box: Floats, sides: Floats, least: float) -> float:
    """Share of the boxes (n, 4) of which less than ``least`` lies in pictures of these sides (n, 2)."""
    known = (sides != np.array(UNKNOWN_SIZE[::-1])).any(1) & (box[:, 2:] > 0).all(1)
    if not known.any():
        return 0.0
    low, high = np.maximum(box[known, :2], 0), np.minimum(box[known, :2] + box[known, 2:], sides[known])
    inside = np.clip(high - low, 0, None).prod(1) / box[known, 2:].prod(1)
    return float((inside < least).mean())


def _fill(place: Floats, labelled: NDArray[np.bool_], box: Floats) -> float:
    """Median of how much of the longer side of a box its joints spread over; 1 where too few are labelled."""
    many = (labelled.sum(1) >= 4) & (box[:, 2:].max(1) > 0)
    if many.sum() < _ENOUGH:
        return 1.0
    low, high = _spread(place[many], labelled[many])
    return float(np.median((high - low).max(1) / box[many, 2:].max(1)))


def _spread(place: Floats, labelled: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Corners (n, 2) each of the labelled joints (n, K, 2)."""
    low = np.where(labelled[..., None], place, np.inf).min(1)
    high = np.where(labelled[..., None], place, -np.inf).max(1)
    return low, high


def _as_corners(place: Floats, labelled: NDArray[np.bool_], box: Floats, sides: Floats) -> bool:
    """Whether boxes hold their joints and lie in their pictures when they are read as two corners, and not as they are
    meant."""
    low, high = _spread(place, labelled)
    slack = 0.1 * (high - low) + 1
    fits = (box[:, 2:] > box[:, :2]).all(1) & (box[:, 2:] <= sides + 1).all(1)
    fits &= (low >= box[:, :2] - slack).all(1) & (high <= box[:, 2:] + slack).all(1)
    loose = np.median(box[:, 2:] / np.maximum(box[:, 2:] - box[:, :2], 1))
    return bool(fits.mean() >= _MOST and loose > 1.2)
