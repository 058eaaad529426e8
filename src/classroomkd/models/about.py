"""What a student's file says of itself, checked once: its metadata are JSON that anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter

from classroomkd._limits import MOST_PIXELS
from classroomkd._stored import Damaged, parse_json, trusted

__all__ = ["REMEDY", "Described", "Preprocessing", "classes", "described", "preprocessing"]

REMEDY = "export it again, or take another copy"
Finite = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=2**16)]
Resize = Literal["crop", "letterbox", "pad", "stretch"]


class Preprocessing(BaseModel):
    """Mean and std of pixels in 0..1 by channel; the shape (C, H, W) of an input and the rule that brings pictures to
    it, where they are said."""

    mean: Annotated[list[Finite], Field(min_length=1)]
    std: list[Annotated[Finite, Field(gt=0)]]
    shape: Annotated[list[Side], Field(min_length=3, max_length=3)] | None = None
    resize: Resize | None = None


_CLASSES: TypeAdapter[list[str]] = TypeAdapter(Annotated[list[str], Field(min_length=1)])
_PREPROCESSING = TypeAdapter(Preprocessing)
_SIZE: TypeAdapter[Any] = TypeAdapter(Side | list[Side] | None)


class Described(NamedTuple):
    """See :class:`classroomkd.export.Student`."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, int, int]
    size: int | None
    resize: str | None


def described(path: Path, about: Mapping[str, str]) -> Described:
    """What every student's metadata say.

    Raises:
        UserError: of another form, or values that no student has.
    """
    known = preprocessing(path, about["preprocessing"])
    names = classes(path, about["classes"])
    with trusted(f"{path}: its metadata 'preprocessing'", REMEDY):
        if known.shape is None:
            raise Damaged("lack the shape of an input")
        channels, height, width = known.shape
        if len(known.mean) != channels or height * width > MOST_PIXELS:
            raise Damaged(f"do not fit together: {len(known.mean)} means, an input of {known.shape}")
    with trusted(f"{path}: its metadata 'data_size'", REMEDY):
        size = parse_json(about.get("data_size", "null"), _SIZE)
    own = size if isinstance(size, int) else None
    return Described(names, tuple(known.mean), tuple(known.std), (channels, height, width), own, known.resize)


def classes(path: str | Path, text: str) -> tuple[str, ...]:
    """The metadata ``classes`` of a student or a mentor, in the order of its answers.

    Raises:
        UserError: of another form, or a name twice.
    """
    with trusted(f"{path}: its metadata 'classes'", REMEDY):
        names = parse_json(text, _CLASSES)
        if len(set(names)) < len(names):
            raise Damaged("have a name twice")
    return tuple(names)


def preprocessing(path: str | Path, text: str) -> Preprocessing:
    """The metadata ``preprocessing`` of a student or a mentor.

    Raises:
        UserError: of another form.
    """
    with trusted(f"{path}: its metadata 'preprocessing'", REMEDY):
        known = parse_json(text, _PREPROCESSING)
        if len(known.mean) != len(known.std):
            raise Damaged(f"do not fit together: {len(known.mean)} means, {len(known.std)} deviations")
        return known
