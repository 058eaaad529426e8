"""COCO's ``person_keypoints`` JSON, of any skeleton, and a detector's boxes in COCO's results format.

``images`` [{id, file_name, width, height}], ``categories`` (one with ``keypoints``), ``annotations`` [{id, image_id,
category_id, bbox, area, iscrowd, keypoints: x, y, v for every joint}]. Coordinates count pixels from 0, v is 0 (not
labelled), 1 (hidden) or 2 (visible). Boxes count pixels, x to x + width - 1, as HRNet reads them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classroomkd.data.keypoints.annotation_file import AnnotationFile, boxed, read_json
from classroomkd.data.keypoints.checks import count_skips
from classroomkd.data.keypoints.files import Store
from classroomkd.data.keypoints.people import AREA_SHARE, Floats, Persons, Picture
from classroomkd.data.skeleton import Skeleton, from_category
from classroomkd.errors import UserError

__all__ = ["read_coco", "read_detections"]

_LARGEST = 10**7  # pixels of a side


def read_coco(data: bytes, store: Store, where: str, notes: list[str]) -> tuple[Skeleton, AnnotationFile, int]:
    """The skeleton, the listing and the person category's id of the annotation file ``where``.

    Raises:
        UserError: naming the file, the annotation and the remedy.
    """
    read = read_json(data, where)
    if not isinstance(read, Mapping) or not all(
        isinstance(read.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise UserError(
            f"data: {where} is no COCO annotation file: it needs the lists images, annotations and categories"
        )
    person, skeleton = _category(read["categories"], where)
    pictures = _pictures(read["images"], where)
    place = {picture.id: row for row, picture in enumerate(pictures)}
    listed = [_whole(entry, where) for entry in read["annotations"]]
    mine = [entry for entry in listed if entry["category_id"] == person]
    _categories(listed, read["categories"], person, where, notes)
    strange = next((entry for entry in mine if entry["image_id"] not in place), None)
    if strange is not None:
        raise UserError(
            f"data: {where}: annotation {strange.get('id')} is of image {strange['image_id']}, which the file does not"
            " list; the file is incomplete"
        )
    numbers = [entry.get("id", row) for row, entry in enumerate(mine)]
    if len(set(numbers)) < len(numbers):
        twice, _ = Counter(numbers).most_common(1)[0]
        raise UserError(f"data: {where}: two annotations have the id {twice}; give each its own")
    rows = np.array([place[entry["image_id"]] for entry in mine], np.int64)
    boxes = _numbers([entry["bbox"] for entry in mine], 4, mine, "bbox", where)
    areas = _numbers([[_or_nan(entry.get("area"))] for entry in mine], 1, mine, "area", where)[:, 0]
    if np.isnan(areas).any():
        notes.append(f"{where}: {int(np.isnan(areas).sum())} annotations have no area; 0.53 of their box is taken")
    persons = Persons.of(
        rows,
        boxes,
        _joints(mine, skeleton, where),
        boxed(boxes, pictures, rows),
        area=np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3] * AREA_SHARE, areas),
        crowd=[bool(entry.get("iscrowd", 0)) for entry in mine],
        annotation=numbers,
    )
    digest = hashlib.sha256(data).hexdigest()
    return skeleton, AnnotationFile(where, pictures, persons, store, digest), person


def read_detections(data: bytes, where: str, person: int, listing: AnnotationFile, notes: list[str]) -> Persons:
    """A detector's boxes of the pictures of ``listing``: [{bbox, score, image_id, category_id}].

    Raises:
        UserError: naming the file and the remedy.
    """
    read = read_json(data, where)
    if not isinstance(read, list) or not all(
        isinstance(entry, Mapping) and {"bbox", "score", "image_id"} <= entry.keys() for entry in read
    ):
        raise UserError(
            f"data: {where} is no list of detections: every entry needs bbox, score, image_id and category_id"
        )
    strange = next((entry["image_id"] for entry in read if not _is_id(entry["image_id"])), None)
    if strange is not None:
        raise UserError(f"data: {where}: image_id is {strange!r:.40}; it needs a whole number")
    mine = [entry for entry in read if entry.get("category_id", person) == person]
    if not mine:
        raise UserError(
            f"data: {where}: none of its {len(read)} boxes has category_id {person}, the person of {listing.where}"
        )
    place = {picture.id: row for row, picture in enumerate(listing.pictures)}
    known = [entry for entry in mine if entry["image_id"] in place]
    if not known:
        raise UserError(
            f"data: {where}: its boxes are of other images than {listing.where}, e.g. {mine[0]['image_id']}; give the"
            " detections of that part"
        )
    if len(known) < len(mine):
        notes.append(
            f"{where}: {len(mine) - len(known)} of {len(mine)} boxes are of images that {listing.where} does not list,"
            " and were left out"
        )
    boxes = _numbers([entry["bbox"] for entry in known], 4, known, "bbox", where)
    score = _numbers([[entry["score"]] for entry in known], 1, known, "score", where)[:, 0]
    rows = np.array([place[entry["image_id"]] for entry in known], np.int64)
    broken = ~(np.isfinite(boxes).all(1) & np.isfinite(score))
    count_skips(
        where, "boxes that are not finite", [str(known[row]["image_id"]) for row in np.flatnonzero(broken)], notes
    )
    rows, boxes, score = rows[~broken], boxes[~broken], score[~broken]
    region = boxed(boxes, listing.pictures, rows)
    return Persons.detected(rows, boxes, score, region, listing.persons.joints.shape[1])


def _category(categories: Sequence[Any], where: str) -> tuple[int, Skeleton]:
    """Id and skeleton of the one category that has keypoints."""
    jointed = [
        c for c in categories if isinstance(c, Mapping) and c.get("keypoints") and isinstance(c["keypoints"], list)
    ]
    if len(jointed) != 1:
        count = f"{len(jointed)} of them ({', '.join(str(c.get('name')) for c in jointed)})" if jointed else "none"
        raise UserError(
            f"data: {where}: exactly one category must have keypoints, there is {count}; the file of keypoints is"
            " called person_keypoints_…, not instances_…"
        )
    if not _is_id(jointed[0].get("id")):
        raise UserError(f"data: {where}: category {jointed[0].get('name')!r:.40} needs a whole number as its id")
    try:
        return int(jointed[0]["id"]), from_category(jointed[0])
    except UserError as error:
        raise UserError(f"data: {where}: {error}") from error


def _pictures(images: Sequence[Any], where: str) -> tuple[Picture, ...]:
    pictures = []
    for entry in images:
        try:
            picture = Picture(int(entry["id"]), str(entry["file_name"]), int(entry["height"]), int(entry["width"]))
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise UserError(
                f"data: {where}: every image needs id, file_name, width and height; {entry!r:.80}"
            ) from error
        if not _is_id(picture.id):
            raise UserError(f"data: {where}: the id of image {picture.file!r:.60} is too large")
        if max(picture.height, picture.width) > _LARGEST:
            raise UserError(f"data: {where}: image {picture.id} cannot have so many pixels: {entry!r:.80}")
        if min(picture.height, picture.width) < 1:
            raise UserError(f"data: {where}: image {picture.id} is {picture.width}x{picture.height} pixels")
        pictures.append(picture)
    if len({picture.id for picture in pictures}) < len(pictures):
        raise UserError(f"data: {where}: two images have the same id; give each its own")
    return tuple(pictures)


def _whole(entry: Any, where: str) -> Mapping[str, Any]:
    """An annotation that has what it needs, or an error that names it."""
    if isinstance(entry, Mapping):
        lacking = [key for key in ("image_id", "category_id", "bbox", "keypoints") if entry.get(key) is None]
        # An instance of another category has no keypoints.
        if lacking not in ([], ["keypoints"]):
            raise UserError(f"data: {where}: annotation {entry.get('id')} has no {lacking[0]}; it needs one")
        for key in ("id", "image_id", "category_id"):
            if key in entry and not _is_id(entry[key]):
                raise UserError(
                    f"data: {where}: annotation {entry.get('id')!r:.40}: {key} is {entry[key]!r:.40}; it needs a whole"
                    " number"
                )
        if entry.get("iscrowd", 0) not in (0, 1, None):
            raise UserError(
                f"data: {where}: annotation {entry.get('id')}: iscrowd is {entry['iscrowd']!r:.40}; it is 0 or 1"
            )
        return entry
    raise UserError(f"data: {where}: {entry!r:.60} is no annotation")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62


def _or_nan(value: Any) -> Any:
    return np.nan if value is None else value


def _categories(
    listed: Sequence[Mapping[str, Any]], categories: Sequence[Any], person: int, where: str, notes: list[str]
) -> None:
    known = {entry["id"] for entry in categories if isinstance(entry, Mapping) and _is_id(entry.get("id"))}
    strange = next((entry for entry in listed if entry["category_id"] not in known), None)
    if strange is not None:
        raise UserError(
            f"data: {where}: annotation {strange.get('id')} has category_id {strange['category_id']}, which the file's"
            f" categories ({', '.join(map(str, sorted(known, key=str)))}) lack"
        )
    others = [str(entry.get("id")) for entry in listed if entry["category_id"] != person]
    count_skips(where, "annotations of categories without joints", others, notes)


def _numbers(rows: Sequence[Any], width: int, entries: Sequence[Mapping[str, Any]], what: str, where: str) -> Floats:
    """``rows`` as (n, width) float64; NaN and infinity pass."""
    count = f"{width} numbers" if width > 1 else "a number"
    for row, entry in zip(rows, entries, strict=True):
        if (
            not isinstance(row, list)
            or len(row) != width
            or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in row)
        ):
            name = entry.get("id", f"of image {entry['image_id']}")
            raise UserError(f"data: {where}: annotation {name}: {what} is {row!r:.60}; it needs {count}")
    try:
        return np.array(rows, np.float64).reshape(len(rows), width)
    except OverflowError as error:  # a whole number of hundreds of digits
        raise UserError(f"data: {where}: {what}: a number is too large for coordinates") from error


def _joints(entries: Sequence[Mapping[str, Any]], skeleton: Skeleton, where: str) -> Floats:
    """(n, K, 3); without keypoints, all zero."""
    count = len(skeleton)
    rows = [entry.get("keypoints") or [0] * (3 * count) for entry in entries]
    wrong = next((place for place, row in enumerate(rows) if isinstance(row, list) and len(row) != 3 * count), None)
    if wrong is not None:
        raise UserError(
            f"data: {where}: annotation {entries[wrong].get('id')} has {len(rows[wrong])} numbers in keypoints, but the"
            f" category '{skeleton.name}' has {count} joints, which makes {3 * count}; the skeleton does not match"
        )
    return _numbers(rows, 3 * count, entries, "keypoints", where).reshape(len(rows), count, 3)
