"""MPII Human Pose as JSON, the way SimpleBaseline and HRNet use it, with the official scorer's ``.mat`` where it lies
beside it.

A list of {image, center, scale, joints (16 x 2), joints_vis (16)}; coordinates count pixels from 1; a person is 200 *
scale pixels tall. The region is a square of that side around the centre moved down by 15 * scale, as HRNet has it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from classroomkd._limits import check_unpacked
from classroomkd.data import decode
from classroomkd.data.keypoints.annotation_file import AnnotationFile, read_json
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.heads import head_from_scale
from classroomkd.data.keypoints.people import UNKNOWN_SIZE, Floats, Persons, Picture
from classroomkd.data.keypoints.placing import Placed, reason
from classroomkd.data.skeleton import MPII
from classroomkd.errors import UserError

__all__ = ["Official", "read_mpii", "read_official"]

_AREA = 0.22  # of the squared height: what 0.53 of a standing person's box is, about 0.41 as wide as tall
_JOINTS = len(MPII)
_PACKED = 15  # the number of a packed element in a Matlab file
_OFFICIAL = ("headboxes_src", "jnt_missing", "pos_gt_src")
_APART = 2.0  # pixels between the same joint in both files, more than any rounding


class Official(NamedTuple):
    """What the official scorer counts by, of n people: ``heads`` (n,) diagonals of their boxes; ``missing`` (n, 16)
    joints that it leaves out and ``joints`` (n, 16, 2), pixels from 1, where the file has them; ``data``: its bytes."""

    heads: Floats
    missing: NDArray[np.bool_] | None = None
    joints: Floats | None = None
    data: bytes = b""


def read_mpii(
    data: bytes,
    store: Files,
    where: str,
    *,
    base: int = 1,
    official: Official | None = None,
    notes: list[str],
    refuse: bool = True,
    place: Callable[[Sequence[str]], Placed] | None = None,
) -> AnnotationFile:
    """The listing of the annotation file ``where``; ``base`` is the number of the first pixel. Where ``official`` says
    which joints the scorer counts, these have labels and no others. ``place`` says where pictures of these names are,
    if they are not in ``store``. With ``refuse`` off, images that cannot be read
    have an unknown size here and are left out later, as those of every other format.

    Raises:
        UserError: naming the file, the person and the remedy.
    """
    read = read_json(data, where)
    if not isinstance(read, list) or not read:
        raise UserError(f"data: {where} is no MPII annotation file: it needs a list of people")
    joints = np.zeros((len(read), _JOINTS, 3))
    centre, scale = np.zeros((len(read), 2)), np.zeros(len(read))
    for row, entry in enumerate(read):
        joints[row], centre[row], scale[row] = _person(entry, row, where)
    written = sorted({str(entry["image"]) for entry in read})
    store, found = Placed(store, {}) if place is None else place(written)
    names = [found.get(name, name) for name in written]
    sizes = _sizes(store, names, where, refuse)
    pictures = tuple(Picture(number, name, *sizes[name]) for number, name in enumerate(names))
    row_of = {name: row for row, name in enumerate(written)}
    rows = np.array([row_of[str(entry["image"])] for entry in read], np.int64)
    labelled = joints[..., 2] > 0
    limits = np.array([[p.width, p.height] for p in pictures], np.float64)[rows]
    _check_base(joints[..., :2], labelled, limits, base, where)
    joints[..., :2] = np.where(labelled[..., None], joints[..., :2] - base, 0)
    region = np.stack([centre[:, 0] - base, centre[:, 1] + 15 * scale - base, 200 * scale, 200 * scale], 1)
    if official is None:
        notes.append(
            f"{where}: no head boxes of its people (gt_valid.mat); sizes are estimated from each person's scale"
        )
        heads = head_from_scale(scale)
    else:
        heads = official.heads
        _take_official(joints, official, where, notes)
    box = np.concatenate([region[:, :2] - region[:, 2:] / 2, region[:, 2:]], 1)
    inside = (region[:, :2] > -region[:, 2:] / 2).all(1) & (region[:, :2] < limits + region[:, 2:] / 2).all(1)
    region[~inside, 2:] = -1  # nothing of it is in the picture
    persons = Persons.of(rows, box, joints, region, area=_AREA * (200 * scale) ** 2, head=heads)
    truth = data + (b"" if official is None else official.data)
    return AnnotationFile(where, pictures, persons, store, hashlib.sha256(truth).hexdigest())


def _person(entry: Any, row: int, where: str) -> tuple[Floats, Floats, float]:
    """Joints (16, 3), centre (2,) and scale of one entry."""
    try:
        place = np.array(entry["joints"], np.float64)
        seen = np.array(entry["joints_vis"], np.float64)
        centre, scale = np.array(entry["center"], np.float64), float(entry["scale"])
        str(entry["image"])
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"data: {where}: person {row} needs image, center, scale, joints and joints_vis ({error!r})"
        ) from error
    if place.shape != (_JOINTS, 2) or seen.shape != (_JOINTS,) or centre.shape != (2,):
        raise UserError(
            f"data: {where}: person {row} has {len(place)} joints and {len(seen)} in joints_vis; MPII has {_JOINTS}"
        )
    if not np.isin(seen, (0, 1)).all():
        raise UserError(f"data: {where}: person {row} has joints_vis other than 0 and 1")
    return np.concatenate([place, 2 * seen[:, None]], 1), centre, scale


def _sizes(store: Files, names: list[str], where: str, refuse: bool) -> dict[str, tuple[int, int]]:
    missing = [name for name in names if name not in store]
    if missing and refuse:
        raise UserError(
            f"data: {where}: {len(missing)} of {len(names)} images are not in {store.path}/{store.inside}, e.g."
            f" {missing[0]}{reason(store.names(), missing[0])}; data.options.images names their folder; or set"
            " data.unreadable: skip"
        )
    sizes = dict.fromkeys(missing, UNKNOWN_SIZE)
    for name in (name for name in names if name not in sizes):
        try:
            sizes[name] = store.size(name)
        except decode.DecodeError as error:
            if refuse:
                raise UserError(
                    f"data: {store.path}: {name} cannot be decoded: {error}. Mend it, or set data.unreadable: skip"
                ) from error
            sizes[name] = UNKNOWN_SIZE
    return sizes


def _check_base(place: Floats, labelled: Any, limits: Floats, base: int, where: str) -> None:
    """Pixels counted from 1 are never at 0; pixels counted from 0 are never at the picture's width or height."""
    known = labelled[..., None] & np.isfinite(place)
    low = int((known & (place >= 0) & (place < 1)).sum())
    high = int((known & (place > limits[:, None] - 1) & (place <= limits[:, None])).sum())
    if base == 1 and low and not high:
        raise UserError(
            f"data: {where}: {low} coordinates are below 1, so its pixels are counted from 0 (MPII's from 1); set"
            " data.options.base: 0"
        )
    if base == 0 and high and not low:
        raise UserError(
            f"data: {where}: {high} coordinates are in the last pixel's place or beyond, so its pixels are counted"
            " from 1, as MPII's are; leave out data.options.base: 0"
        )


def _take_official(joints: Floats, official: Official, where: str, notes: list[str]) -> None:
    """Give ``joints`` (n, 16, 3), pixels from 0, the labels that the official scorer counts, in place.

    Raises:
        UserError: the two files are not about the same people.
    """
    count = len(official.heads)
    if count != len(joints):
        raise UserError(
            f"data: {where} has {len(joints)} people, the .mat file beside it {count}; they are not of one part"
        )
    if official.missing is None:
        return
    labelled, counts = joints[..., 2] > 0, ~official.missing
    if official.joints is not None:
        there = official.joints - 1
        apart = np.abs(there - joints[..., :2]).max(-1, where=np.isfinite(there), initial=0.0)
        if (wrong := labelled & counts & (apart > _APART)).any():
            row, joint = (int(place) for place in np.argwhere(wrong)[0])
            raise UserError(
                f"data: {where}: {MPII.joints[joint]} of person {row} is {apart[row, joint]:.0f} pixels from where the "
                ".mat file beside it has it; they are not of one part, or data.options.base is wrong"
            )
        new = counts & ~labelled & np.isfinite(there).all(-1)
        joints[new] = np.concatenate([there, np.full((*there.shape[:2], 1), 2.0)], -1)[new]
    dropped = labelled & ~counts
    joints[dropped] = 0
    changed = int(dropped.sum()) + int(((joints[..., 2] > 0) & ~labelled).sum())
    if changed:
        notes.append(f"{where}: {changed} joints have a label in only one of it and gt_valid.mat, which is followed")


def _check_mat(data: bytes) -> None:
    """Count what the packed elements of a Matlab file (version 5) unpack to, without keeping it.

    Raises:
        TooLarge: far more than any annotation.
    """
    order: Literal["little", "big"] = "little" if data[126:128] == b"IM" else "big"
    at = 128
    while at + 8 <= len(data):
        kind, length = (int.from_bytes(data[start : start + 4], order) for start in (at, at + 4))
        if kind == _PACKED:
            unpacker, left, size = zlib.decompressobj(), data[at + 8 : at + 8 + length], 0
            while left and not unpacker.eof:
                size += len(unpacker.decompress(left, 2**20))
                left = unpacker.unconsumed_tail
                check_unpacked(size, length)
        at += 8 + length


def read_official(data: bytes, where: str) -> Official:
    """What ``gt_valid.mat`` holds: ``headboxes_src`` (2, 2, n), ``jnt_missing`` (16, n), ``pos_gt_src`` (16, 2, n).

    Raises:
        UserError: without scipy, or for another file.
    """
    try:
        loadmat = importlib.import_module("scipy.io").loadmat
    except ImportError as error:
        raise UserError(f"data: {where} is a Matlab file: pip install scipy, or take it away to do without") from error
    try:
        _check_mat(data)
        content: Mapping[str, Any] = loadmat(io.BytesIO(data), variable_names=_OFFICIAL)
        boxes = np.asarray(content["headboxes_src"], np.float64)
        if boxes.shape[:2] != (2, 2) or boxes.ndim != 3:
            raise ValueError(f"headboxes_src has the shape {boxes.shape}")
        missing, place = content.get("jnt_missing"), content.get("pos_gt_src")
        if missing is not None and np.shape(missing) != (_JOINTS, boxes.shape[2]):
            raise ValueError(f"jnt_missing has the shape {np.shape(missing)}")
        if place is not None and np.shape(place) != (_JOINTS, 2, boxes.shape[2]):
            raise ValueError(f"pos_gt_src has the shape {np.shape(place)}")
    except Exception as error:
        raise UserError(f"data: {where} is not MPII's gt_valid.mat ({error}); take it away to do without") from error
    return Official(
        np.asarray(np.hypot(*(boxes[1] - boxes[0]))),
        None if missing is None else np.asarray(missing, bool).T,
        None if place is None else np.asarray(place, np.float64).transpose(2, 0, 1),
        data,
    )
