"""COCO's ``person_keypoints`` JSON, of any skeleton, and a detector's boxes in COCO's results format.

``images`` [{id, file_name, width, height}] (the files' sizes where these are missing), ``categories`` (one with
``keypoints``), ``annotations`` [{id, image_id, category_id, bbox, area, iscrowd, keypoints: x, y, v for every joint}].
Coordinates count pixels from 0, v is 0 (not labelled), 1 (hidden) or 2 (visible). Boxes count pixels, x to x + width -
1, as HRNet reads them. Ids are whole numbers, also as text or as 501.0.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classroomkd.data.decode import DecodeError
from classroomkd.data.keypoints.annotation_file import AnnotationFile, boxed, read_json
from classroomkd.data.keypoints.checks import count_skips
from classroomkd.data.keypoints.coco_entries import (
    Listed,
    check_categories,
    chosen_category,
    joints_of,
    listed_pictures,
    numbers,
    whole,
    whole_id,
)  # fmt: skip
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.people import AREA_SHARE, UNKNOWN_SIZE, Persons, Picture
from classroomkd.data.keypoints.placing import Placed
from classroomkd.data.skeleton import Skeleton
from classroomkd.errors import UserError

__all__ = ["CocoFile", "Place", "read_coco", "read_detections"]

Place = Callable[[Sequence[str]], Placed]


@dataclass(frozen=True, eq=False)
class CocoFile:
    """What an annotation file holds: the persons' category (id and name), its skeleton, whether it says itself which
    joints swap in a mirror, and the persons; ``unsaid`` (n,): those without ``keypoints``; ``boxes_alone``: no category
    has joints."""

    category: int
    title: str
    skeleton: Skeleton
    paired: bool
    listing: AnnotationFile
    unsaid: NDArray[np.bool_]
    boxes_alone: bool = False


def read_coco(
    data: bytes,
    store: Files,
    where: str,
    notes: list[str],
    *,
    category: Any = None,
    skeleton: Skeleton | None = None,
    place: Place | None = None,
) -> CocoFile:
    """The annotation file ``where``.

    Args:
        data: its bytes.
        store: where its pictures are, if ``place`` does not say it.
        where: its name, for messages.
        notes: takes what had to be guessed or left out.
        category: id or name of the category that counts, where several have keypoints.
        skeleton: for whom boxes are enough: of this skeleton, where no category has keypoints.
        place: from the names as they are written to where the pictures are.

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
    person, title, skeleton, paired = chosen_category(read, where, notes, category, skeleton)
    listed = listed_pictures(read["images"], where)
    found = place([picture.file for picture in listed]) if place is not None else Placed(store, {})
    pictures = tuple(_picture(entry, found) for entry in listed)
    row_of = {picture.id: row for row, picture in enumerate(pictures)}
    entries = [whole(entry, where) for entry in read["annotations"]]
    check_categories(entries, read["categories"], person, where, notes)
    mine = [entry for entry in entries if entry["category_id"] == person]
    strange = next((entry for entry in mine if entry["image_id"] not in row_of), None)
    if strange is not None:
        raise UserError(
            f"data: {where}: annotation {strange.get('id')} is of image {strange['image_id']}, which the file does not"
            " list; the file is incomplete"
        )
    names = [row if entry.get("id") is None else entry["id"] for row, entry in enumerate(mine)]
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise UserError(f"data: {where}: two annotations have the id {twice}; give each its own")
    rows = np.array([row_of[entry["image_id"]] for entry in mine], np.int64)
    boxes = numbers([entry["bbox"] for entry in mine], 4, mine, "bbox", where)
    areas = numbers([[_or_nan(entry.get("area"))] for entry in mine], 1, mine, "area", where)[:, 0]
    if np.isnan(areas).any():
        notes.append(f"{where}: {int(np.isnan(areas).sum())} annotations have no area; 0.53 of their box is taken")
    persons = Persons.of(
        rows,
        boxes,
        joints_of(mine, skeleton, title, where),
        boxed(boxes, pictures, rows),
        area=np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3] * AREA_SHARE, areas),
        crowd=[bool(entry.get("iscrowd", 0)) for entry in mine],
        annotation=names,
    )
    listing = AnnotationFile(where, pictures, persons, found.store, hashlib.sha256(data).hexdigest())
    unsaid = np.array([not entry.get("keypoints") for entry in mine], bool)
    alone = not any(isinstance(c, Mapping) and c.get("keypoints") for c in read["categories"])
    return CocoFile(person, title, skeleton, paired, listing, unsaid, alone)


def _picture(entry: Listed, found: Placed) -> Picture:
    """A picture by its name in the store; its size is the file's where the annotations do not say it."""
    name = found.files.get(entry.file, entry.file)
    if entry.height:
        return Picture(entry.id, name, entry.height, entry.width)
    try:
        return Picture(entry.id, name, *found.store.size(name))
    except (DecodeError, UserError):
        return Picture(entry.id, name, *UNKNOWN_SIZE)


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
    strange = next((entry["image_id"] for entry in read if whole_id(entry["image_id"]) is None), None)
    if strange is not None:
        raise UserError(f"data: {where}: image_id is {strange!r:.40}; it needs a whole number")
    read = [
        {**entry, "image_id": whole_id(entry["image_id"]), "category_id": whole_id(entry.get("category_id", person))}
        for entry in read
    ]
    mine = [entry for entry in read if entry["category_id"] == person]
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
    boxes = numbers([entry["bbox"] for entry in known], 4, known, "bbox", where)
    score = numbers([[entry["score"]] for entry in known], 1, known, "score", where)[:, 0]
    rows = np.array([place[entry["image_id"]] for entry in known], np.int64)
    broken = ~(np.isfinite(boxes).all(1) & np.isfinite(score))
    count_skips(
        where, "boxes that are not finite", [str(known[row]["image_id"]) for row in np.flatnonzero(broken)], notes
    )
    rows, boxes, score = rows[~broken], boxes[~broken], score[~broken]
    region = boxed(boxes, listing.pictures, rows)
    return Persons.detected(rows, boxes, score, region, listing.persons.joints.shape[1])


def _or_nan(value: Any) -> Any:
    return np.nan if value is None else value
