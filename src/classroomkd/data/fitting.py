"""What becomes of the pictures of a source, in words and shares: what ``data.resize`` cuts off or leaves black, and
pixels that use little of their range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from classroomkd.data.geometry import plan
from classroomkd.data.images import MemoryPixels, Part
from classroomkd.data.sources.base import Raw
from classroomkd.data.sources.walking import shown
from classroomkd.data.statistics import DIM, brightest
from classroomkd.errors import UserError

__all__ = ["dim_note", "fitting_notes", "untouched"]

Sides = tuple[int, int]  # (height, width)

_MUCH = 0.4  # share of a picture; 3:2 loses a third, what everybody's photographs do
_SOME = 0.01  # share of the pictures


def untouched(raw: Raw) -> bool:
    """Whether it is known that every picture of a part had its shape already: then all rules give the same pixels."""
    return raw.sides.get(raw.pixels.shape[1:], 0) == len(raw.pixels)


def fitting_notes(raws: Iterable[Raw], resize: str) -> list[str]:
    """A sentence where the rule cuts much off, or leaves black around; none for what is not known."""
    sides: Counter[tuple[Sides, Sides]] = Counter()
    for raw in raws:
        for side, count in raw.sides.items():
            sides[side, raw.pixels.shape[1:]] += count
    return [note for note in (_NOTES[resize](sides) if resize in _NOTES else None,) if note is not None]


def dim_note(parts: Mapping[str, Part], names: Mapping[int, str]) -> str | None:
    """A sentence where pictures are nearly black, which is what values of 10 or 12 bits in 16 become; ``names`` are
    those of images by their ids, where they have some.

    Raises:
        UserError: all pictures of ``train`` are black.
    """
    looked = {k: part for k, part in parts.items() if k == "train" or isinstance(part.pixels, MemoryPixels)}
    seen = {name: brightest(part) for name, part in looked.items()}
    highest, places = seen["train"]
    if not int(highest.max()):
        raise UserError(
            f"data: every pixel of {_counted(len(places), len(parts['train']))} training images is 0{_RANGE}"
        )
    total = sum(len(places) for _, places in seen.values())
    dim = {name: places[highest < DIM] for name, (highest, places) in seen.items()}
    count = sum(len(places) for places in dim.values())
    if count < max(1, _SOME * total):
        return None
    name = next(name for name, places in dim.items() if len(places))
    place = int(dim[name][0])
    value = int(seen[name][0][seen[name][1] == place])
    whole, image = sum(map(len, looked.values())), int(looked[name].ids[place])
    return (
        f"{count} of {_counted(total, whole)} images are nearly black: no pixel above {DIM - 1} of 255 "
        f"(in {shown(names[image]) if image in names else f'image {image}'} {value} at most){_RANGE}"
    )


_RANGE = (
    ". Values count by the range of their type (16 bits by their upper byte, floats 0 to 1 as 0 to 255): scale them to "
    "all of it first, if the pictures are not meant to be so dark"
)


def _counted(count: int, total: int) -> str:
    return f"{count}" if count == total else f"{count} (looked at, of {total})"


def _cut(sides: Counter[tuple[Sides, Sides]]) -> str | None:
    total = sum(sides.values())
    lost = {key: _cut_share(*key) for key in sides}
    much = [key for key, share in lost.items() if share > _MUCH]
    count = sum(sides[key] for key in much)
    if count == 0 or count < _SOME * total:
        return None
    share = sum(lost[key] * sides[key] for key in much) / count
    height, width = max(much, key=lambda key: lost[key])[0]
    return (
        f"resize: crop cuts {share:.0%} on average off {count} of {total} pictures, which are much longer one way (up "
        f"to {width}x{height}, width x height); data.resize: letterbox or stretch keeps all of a picture"
    )


def _cut_share(side: Sides, shape: Sides) -> float:
    return 0.0 if side == shape else 1 - min(side) / max(side)


def _black(sides: Counter[tuple[Sides, Sides]]) -> str | None:
    shares = {key: _black_share(*key) for key in sides}
    some = [key for key, share in shares.items() if share > 0]
    if not some:
        return None
    count, total = sum(sides[key] for key in some), sum(sides.values())
    share = sum(shares[key] * sides[key] for key in some) / count
    small, large = (of(max(side) for side, _ in some) for of in (min, max))
    long = f"{small}" if small == large else f"{small} to {large}"
    height, width = some[0][1]
    return (
        f"resize: pad leaves {count} of {total} pictures, of {long} pixels on the longer side, in black on "
        f"{width}x{height} ({share:.0%} of it); data.resize: crop enlarges them"
    )


def _black_share(side: Sides, shape: Sides) -> float:
    if side == shape:
        return 0.0
    what = plan(*side, shape[0] if shape[0] == shape[1] else None)
    if what.resize is not None:
        return 0.0
    seen = [min(what.factor * have, there) for have, there in zip(side, shape, strict=True)]
    return 1 - seen[0] * seen[1] / (shape[0] * shape[1])


_NOTES = {"crop": _cut, "pad": _black}
