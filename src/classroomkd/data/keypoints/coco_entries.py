"""The entries of a COCO file, checked one by one: ids, numbers, the persons' category, pictures, annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from classroomkd.data.joint_names import standard_name
from classroomkd.data.keypoints.checks import count_skips
from classroomkd.data.keypoints.people import Floats
from classroomkd.data.skeleton import Skeleton, from_category
from classroomkd.errors import UserError, did_you_mean

__all__ = [
    "Listed",
    "check_categories",
    "chosen_category",
    "joints_of",
    "listed_pictures",
    "numbers",
    "whole",
    "whole_id",
]

_LARGEST = 10**7  # pixels of a side


class Listed(NamedTuple):
    """A picture as its file lists it; height and width are 0 where it does not say them."""

    id: int
    file: str
    height: int
    width: int


def whole_id(value: Any) -> int | None:
    """A whole number, also written as text or as 501.0; None for anything else."""
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62 else None


def chosen_category(
    read: Mapping[str, Any], where: str, notes: list[str], wanted: Any = None, skeleton: Skeleton | None = None
) -> tuple[int, str, Skeleton, bool]:
    """Id, name and skeleton of the persons' category, and whether it says which joints swap in a mirror.

    Args:
        read: the file.
        where: its name.
        notes: takes what had to be guessed.
        wanted: id or name of the category.
        skeleton: for whom boxes are enough: of this skeleton, where no category has keypoints.

    Raises:
        UserError: no such category, or several.
    """
    listed = [c for c in read["categories"] if isinstance(c, Mapping)]
    jointed = [c for c in listed if c.get("keypoints") and isinstance(c["keypoints"], list)]
    able = jointed or (listed if skeleton is not None else [])
    if wanted is not None:
        found = [c for c in able if str(wanted) in (str(c.get("name")), str(c.get("id")))]
        names = [str(c.get("name")) for c in able]
        if len(found) != 1:
            raise UserError(
                f"data: {where}: data.options.category: '{wanted}' is no category with keypoints"
                f"{did_you_mean(str(wanted), names)}; there are {_called(able)}"
            )
    else:
        used = {whole_id(entry.get("category_id")) for entry in read["annotations"] if isinstance(entry, Mapping)}
        found = able if len(able) == 1 else [c for c in able if whole_id(c.get("id")) in used]
        if len(found) != 1 and jointed and skeleton is not None:  # whose joints the asker has
            found = [c for c in jointed if tuple(map(standard_name, map(str, c["keypoints"]))) == skeleton.standard]
        if len(found) != 1 and not jointed:
            found = [c for c in able if str(c.get("name")).casefold() in ("person", "people", "human")]
    if len(found) != 1:
        raise UserError(
            f"data: {where}: exactly one category must have keypoints, there is"
            + (
                f" {len(able)} of them ({_called(able)}); data.options.category names the one that counts"
                if able
                else " none; the file of keypoints is called person_keypoints_…, not instances_…; of people"
                " who have boxes alone data.options.skeleton says which joints there are"
            )
        )
    category = found[0]
    title, number = str(category.get("name", "category")), whole_id(category.get("id"))
    if number is None:
        raise UserError(f"data: {where}: category {category.get('name')!r:.40} needs a whole number as its id")
    if not jointed:
        assert skeleton is not None
        return number, title, skeleton, True
    own: list[str] = []
    try:
        made = from_category(category, own)
    except UserError as error:
        raise UserError(f"data: {where}: {error}") from error
    notes += [f"{where}: {note}" for note in own]
    return number, title, made, any(category.get(key) is not None for key in ("flip_pairs", "flip_idx"))


def _called(categories: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{c.get('name')} (id {c.get('id')})" for c in categories) or "none"


def check_categories(
    entries: Sequence[Mapping[str, Any]], categories: Sequence[Any], person: int, where: str, notes: list[str]
) -> None:
    """Every annotation is of a category that the file has; a note about those of others than ``person``.

    Raises:
        UserError: naming the first that is not.
    """
    known = {number for c in categories if isinstance(c, Mapping) and (number := whole_id(c.get("id"))) is not None}
    strange = next((entry for entry in entries if entry["category_id"] not in known), None)
    if strange is not None:
        raise UserError(
            f"data: {where}: annotation {strange.get('id')} has category_id {strange['category_id']}, which the file's"
            f" categories ({', '.join(map(str, sorted(known)))}) lack"
        )
    jointed = {whole_id(c["id"]) for c in categories if isinstance(c, Mapping) and "id" in c and c.get("keypoints")}
    others = [entry for entry in entries if entry["category_id"] != person]
    without = [str(entry.get("id")) for entry in others if entry["category_id"] not in jointed]
    count_skips(where, "annotations of categories without joints", without, notes)
    more = [str(entry.get("id")) for entry in others if entry["category_id"] in jointed]
    count_skips(where, "annotations of the other categories with joints", more, notes)


def listed_pictures(images: Sequence[Any], where: str) -> list[Listed]:
    """The pictures of the file.

    Raises:
        UserError: naming the first that lacks something.
    """
    pictures = []
    for entry in images:
        number = whole_id(entry.get("id")) if isinstance(entry, Mapping) else None
        try:
            name = entry["file_name"]
            height, width = (0 if entry.get(side) is None else int(float(entry[side])) for side in ("height", "width"))
            if not isinstance(name, str) or (number is None and not isinstance(entry["id"], int)):
                raise ValueError(name)
        except OverflowError as error:
            raise UserError(f"data: {where}: image {number} cannot have so many pixels: {entry!r:.80}") from error
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise UserError(
                f"data: {where}: every image needs id (a whole number) and file_name, and whole numbers as width and"
                f" height where it has them; {entry!r:.80}"
            ) from error
        if number is None:
            raise UserError(f"data: {where}: the id of image {name!r:.60} is too large")
        if max(height, width) > _LARGEST:
            raise UserError(f"data: {where}: image {number} cannot have so many pixels: {entry!r:.80}")
        if any(entry.get(side) is not None and value < 1 for side, value in (("height", height), ("width", width))):
            raise UserError(f"data: {where}: image {number} is {width}x{height} pixels")
        pictures.append(Listed(number, name, *((height, width) if height and width else (0, 0))))
    if len({picture.id for picture in pictures}) < len(pictures):
        raise UserError(f"data: {where}: two images have the same id; give each its own")
    return pictures


def whole(entry: Any, where: str) -> Mapping[str, Any]:
    """An annotation that has what it needs, its ids as whole numbers.

    Raises:
        UserError: naming it.
    """
    if not isinstance(entry, Mapping):
        raise UserError(f"data: {where}: {entry!r:.60} is no annotation")
    lacking = [key for key in ("image_id", "category_id", "bbox") if entry.get(key) is None]
    if lacking:
        raise UserError(f"data: {where}: annotation {entry.get('id')} has no {lacking[0]}; it needs one")
    ids = {key: whole_id(entry[key]) for key in ("id", "image_id", "category_id") if entry.get(key) is not None}
    for key, number in ids.items():
        if number is None:
            raise UserError(
                f"data: {where}: annotation {entry.get('id')!r:.40}: {key} is {entry[key]!r:.40}; it needs a whole"
                " number"
            )
    if entry.get("iscrowd", 0) not in (0, 1, None):
        raise UserError(
            f"data: {where}: annotation {entry.get('id')}: iscrowd is {entry['iscrowd']!r:.40}; it is 0 or 1"
        )
    return {**entry, **ids}


def numbers(rows: Sequence[Any], width: int, entries: Sequence[Mapping[str, Any]], what: str, where: str) -> Floats:
    """``rows`` as (n, width) float64; NaN and infinity pass.

    Raises:
        UserError: naming the first entry with something else.
    """
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


def joints_of(entries: Sequence[Mapping[str, Any]], skeleton: Skeleton, title: str, where: str) -> Floats:
    """(n, K, 3); without keypoints, all zero.

    Raises:
        UserError: naming the first with another number of joints than the category ``title`` has.
    """
    count = len(skeleton)
    rows = [entry.get("keypoints") or [0] * (3 * count) for entry in entries]
    wrong = next((place for place, row in enumerate(rows) if isinstance(row, list) and len(row) != 3 * count), None)
    if wrong is not None:
        raise UserError(
            f"data: {where}: annotation {entries[wrong].get('id')} has {len(rows[wrong])} numbers in keypoints, but the"
            f" category '{title}' has {count} joints, which makes {3 * count}; the skeleton does not match"
        )
    return numbers(rows, 3 * count, entries, "keypoints", where).reshape(len(rows), count, 3)
