"""What may be said about data, checked before anything is read. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from classroomkd.errors import UserError, did_you_mean

__all__ = ["ENDLESS_VIEWS", "IMAGE_VIEWS", "PARTS", "PERSON_VIEWS", "SPATIAL_VIEWS", "DataSpec", "parse"]

PARTS = ("train", "val", "test")
# The tables of views need torch; these are their names.
IMAGE_VIEWS = ("crop_flip", "crop", "flip", "none", "resized_crop", "randaugment", "mixup")
ENDLESS_VIEWS = ("resized_crop", "randaugment", "mixup")  # of images; those of persons depend on their options
# Those that move targets which lie on the pixels, by the kind of target (``data.targets``).
SPATIAL_VIEWS = {
    "mask": ("crop_flip", "crop", "flip", "none", "resized_crop", "randaugment"),
    "image": ("crop_flip", "crop", "flip", "none"),
}
PERSON_VIEWS = ("person", "person_mpii", "person_flip", "none")


@dataclass(frozen=True)
class DataSpec:
    """The keys of ``data:`` in a recipe; see ``docs`` of ``load`` for what each means.

    ``source`` or ``train``/``val``/``test`` hold a source's name (or, from Python, a ``torch.utils.data.Dataset``).
    """

    source: Any = None
    train: Any = None
    val: Any = None
    test: Any = None
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    limit: int | None = None
    test_limit: int | None = None
    size: int | tuple[int, int] | None = None
    views: str | None = None
    view_seed: int = 0
    unreadable: str = "refuse"
    options: Mapping[str, Any] = field(default_factory=dict)


def _whole(least: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return None if good else f"give a whole number of at least {least}"

    return check


def _optional(check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    return lambda value: None if value is None else check(value)


def _fraction(value: Any) -> str | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1
    return None if good else "give a number from 0 to below 1"


def _choice(*choices: str) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        return None if value in choices else f"give one of {', '.join(choices)}{did_you_mean(str(value), choices)}"

    return check


def _views(value: Any) -> str | None:
    return _choice(*dict.fromkeys(IMAGE_VIEWS + PERSON_VIEWS))(value)


def _size(value: Any) -> str | None:
    least = _whole(8)
    if isinstance(value, (list, tuple)) and len(value) == 2 and not any(least(side) for side in value):
        return None
    return "give a whole number of at least 8, or [height, width] for pose" if least(value) else None


def _mapping(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "give a mapping of option: value"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "val_fraction": _fraction,
    "test_fraction": _fraction,
    "split_seed": _whole(0),
    "limit": _optional(_whole(1)),
    "test_limit": _optional(_whole(1)),
    "size": _optional(_size),
    "views": _optional(_views),
    "view_seed": _whole(0),
    "unreadable": _choice("refuse", "skip"),
    "options": _mapping,
}


def parse(spec: Any) -> DataSpec:
    """A ``DataSpec`` from a string, a mapping, a pydantic model, a Dataset or a (train, test) pair of Datasets.

    Raises:
        UserError: for unknown keys, wrong types or a missing source; all mistakes in one message.
    """
    if isinstance(spec, DataSpec):
        return spec
    if hasattr(spec, "model_dump"):
        spec = {key: value for key, value in spec.model_dump().items() if value is not None}
    if isinstance(spec, tuple) and len(spec) in (2, 3):
        spec = dict(zip(("train", "test") if len(spec) == 2 else PARTS, spec, strict=True))
    if not isinstance(spec, Mapping):
        spec = {"source": spec}
    return _from_mapping(spec)


def _from_mapping(spec: Mapping[str, Any]) -> DataSpec:
    known = [entry.name for entry in fields(DataSpec)]
    wrong = [f"data.{key}: unknown key{did_you_mean(str(key), known)}" for key in spec if key not in known]
    for key, check in _CHECKS.items():
        if key in spec:
            complaint = check(spec[key])
            if complaint:
                wrong.append(f"data.{key}: {spec[key]!r} does not fit; {complaint}")
    named = [part for part in PARTS if spec.get(part) is not None]
    if spec.get("source") is None and "train" not in named:
        wrong.append("data: no source; say data: puppets, or {source: imagefolder:DIR}, or {train: …, test: …}")
    if spec.get("source") is not None and named:
        wrong.append(f"data: both 'source' and '{named[0]}' are given; use source alone, or train, val and test")
    if wrong:
        raise UserError("\n".join(wrong))
    size = spec.get("size")
    return DataSpec(**{**spec, "size": tuple(size)} if isinstance(size, list) else spec)
