"""What may be said about data, checked before anything is read. Does not import torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from classroomkd._limits import MOST_SIDE
from classroomkd._renamed import warn_old_name
from classroomkd.errors import UserError, did_you_mean

__all__ = [
    "ENDLESS_VIEWS",
    "IMAGE_VIEWS",
    "LABELS",
    "OF_CLASSES",
    "OF_PARTS",
    "OF_PERSONS",
    "PARTS",
    "PERSON_VIEWS",
    "RESIZE",
    "SHARD",
    "SPATIAL_VIEWS",
    "DataSettings",
    "labels_problem",
    "parse",
    "parts_problem",
    "refuse_labels",
    "refuse_parts",
    "shard_numbers",
    "shard_problem",
]

Check = Callable[[Any], str | None]

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
RESIZE = ("crop", "letterbox", "pad", "stretch")  # the first is the default; see ``geometry``
SHARD = "^[1-9][0-9]{0,8}/[1-9][0-9]{0,8}$"
"""The form of ``shard``, as a schema says it; that k is at most n it cannot say."""


@dataclass(frozen=True)
class DataSettings:
    """The keys of ``data:`` in a recipe; see ``docs`` of ``load`` for what each means.

    ``source`` or ``train``/``val``/``test`` hold a source's name (or, from Python, a ``torch.utils.data.Dataset``).
    ``resize`` None is the default where images are whole, and nothing where crops are cut around persons.
    ``scored`` is no key: what alone is to be scored, ``all`` or a part, where nothing is to be trained.
    ``classes``, from Python, are the names of the classes: the source's in the order wanted, or new ones.
    ``labels`` says which training images have a label: ``share``, a fraction of each class, and for pictures without
    labels ``file``, a table of names and classes. ``unlabelled`` is a source, or a list of some: pictures that join the
    training part without a label.
    """

    source: Any = None
    train: Any = None
    val: Any = None
    test: Any = None
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    shard: str | None = None
    limit: int | None = None
    test_limit: int | None = None
    size: int | tuple[int, int] | None = None
    resize: str | None = None
    views: str | None = None
    view_seed: int = 0
    unreadable: str = "refuse"
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: Any = None
    labels: Mapping[str, Any] | None = None
    unlabelled: Any = None
    scored: str | None = None

    @property
    def label_share(self) -> float | None:
        """Share of the labels that training sees; None: all."""
        return None if self.labels is None else self.labels.get("share")

    @property
    def label_file(self) -> Any:
        """The table of names and classes; None: none."""
        return None if self.labels is None else self.labels.get("file")

    def splits(self, parts: Collection[str]) -> bool:
        """Whether what a source that has ``parts`` lacks is to be split off: not for a score of what is there."""
        return self.scored is None or (self.scored != "all" and self.scored not in parts)


def _whole(least: int) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return "must be a whole number"
        return None if value >= least else f"must be at least {least}"

    return check


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _fraction(value: Any) -> str | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "must be a number"
    if not math.isfinite(value):
        return "must be a finite number"
    return "must be at least 0" if value < 0 else None if value < 1 else "must be less than 1"


def _choice(*choices: str) -> Check:
    *most, last = (f"'{choice}'" for choice in choices)
    listed = f"{', '.join(most)} or {last}"

    def check(value: Any) -> str | None:
        return None if value in choices else f"must be {listed}{did_you_mean(str(value), choices)}"

    return check


def _size(value: Any) -> str | None:
    sides = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
    wrong = next((wrong for side in sides if (wrong := _whole(8)(side))), None)
    if wrong is None and max(sides) > MOST_SIDE:
        return f"must be at most {MOST_SIDE}"
    return f"{wrong}, or [height, width] for pose, in this order" if wrong == "must be a whole number" else wrong


def _mapping(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "must be a mapping (key: value)"


LABELS = ("share", "file")  # the keys of ``labels``


def _share(value: Any) -> str | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "must be a number"
    return None if 0 <= value <= 1 else "must be a share from 0 (no label at all) to 1"


def labels_problem(value: Any) -> str | None:
    """What is wrong with a value of ``labels``, as a sentence about it; None where nothing is."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return "must be a mapping, for example {share: 0.1}"
    unknown = [str(key) for key in value if key not in LABELS]
    if unknown:
        return f"has the unknown key '{unknown[0]}'{did_you_mean(unknown[0], LABELS)}; there are {', '.join(LABELS)}"
    given = {key: item for key, item in value.items() if item is not None}
    if not given:
        return f"says nothing; give {' or '.join(LABELS)}, for example {{share: 0.1}}"
    wrong = {key: sentence for key, item in given.items() if (sentence := _LABEL_CHECKS[key](item)) is not None}
    return next((f"{key} {sentence}" for key, sentence in wrong.items()), None)


def _file(value: Any) -> str | None:
    return None if isinstance(value, (str, os.PathLike)) and os.fspath(value) else "must be the path of a file"


_LABEL_CHECKS: dict[str, Check] = {"share": _share, "file": _file}


def _unlabelled(value: Any) -> str | None:
    several = value if isinstance(value, (list, tuple)) else [value]
    wrong = not several or any(isinstance(one, (int, float)) or one is None or one == "" for one in several)
    return "names no source; write images:DIR, or leave it out" if wrong and value is not None else None


def shard_problem(value: Any) -> str | None:
    """What is wrong with a value of ``shard``: None (no shard) and ``k/n`` are right."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(SHARD, value):
        number, shards = shard_numbers(value)
        if number <= shards:
            return None
    return "must be k/n, the k-th of n equal shards, k from 1 to n (for example 1/2), or null"


def shard_numbers(shard: str) -> tuple[int, int]:
    """k and n of a ``shard`` that was checked."""
    number, shards = shard.split("/")
    return int(number), int(shards)


_CHECKS: dict[str, Check] = {
    "val_fraction": _fraction,
    "test_fraction": _fraction,
    "split_seed": _whole(0),
    "shard": shard_problem,
    "limit": _optional(_whole(1)),
    "test_limit": _optional(_whole(1)),
    "size": _optional(_size),
    "resize": _optional(_choice(*RESIZE)),
    "views": _optional(_choice(*dict.fromkeys(IMAGE_VIEWS + PERSON_VIEWS))),
    "view_seed": _whole(0),
    "unreadable": _choice("refuse", "skip"),
    "options": _mapping,
    "labels": labels_problem,
    "unlabelled": _unlabelled,
}


def parts_problem(given: Collection[str]) -> str | None:
    """What is wrong with naming ``given`` of source, train, val and test, as a sentence about ``data:``."""
    if not given:
        return "names no source; write data: puppets, or source: imagefolder:DIR"
    if "source" in given and len(given) > 1:
        other = ", ".join(sorted(set(given) - {"source"}))
        return f"has both 'source' and {other}; use source alone, or train, val and test"
    if "source" not in given and "train" not in given:
        return f"has '{min(given)}' but no 'train'; add train: SOURCE"
    return None


OF_CLASSES = ("labels", "unlabelled")  # keys that only images with a class each have
OF_PERSONS = "a table has classes, and persons have joints: give them in the annotations; leave it out"
OF_PARTS = ("shard", "labels", "unlabelled")  # keys that only the making of parts reads


def refuse_parts(given: Mapping[str, Any]) -> None:
    """Refuse keys that make parts, where the data are a whole ``ImageSet``.

    Raises:
        UserError: ``given`` has one.
    """
    for key in OF_PARTS:
        if given.get(key) is not None:
            raise UserError(
                f"data.{key} = {given[key]!r}: the data are a whole ImageSet, whose parts are made already; give it"
                " where they are made, and leave it out here"
            )


def refuse_labels(wanted: DataSettings, whose: str) -> None:
    """Refuse keys that are about labels of classes, where targets are something else.

    Raises:
        UserError: ``wanted`` has one.
    """
    for key in OF_CLASSES:
        if getattr(wanted, key) is not None:
            raise UserError(f"data.{key}: is for images with a class each, not for {whose}; leave it out")


def parse(spec: Any, **keys: Any) -> DataSettings:
    """A ``DataSettings`` from a string, a mapping, a recipe's section (which was checked), a Dataset or a (train, test)
    pair of Datasets; ``keys`` are more keys of the mapping.

    Raises:
        UserError: for unknown keys, wrong types or a missing source; all mistakes in one message.
    """
    if isinstance(spec, DataSettings):
        return replace(spec, **keys) if keys else spec
    if hasattr(spec, "model_dump"):
        given = {key: value for key, value in spec.model_dump().items() if value is not None}
        return DataSettings(**{**given, **keys})
    if isinstance(spec, tuple) and len(spec) in (2, 3):
        spec = dict(zip(("train", "test") if len(spec) == 2 else PARTS, spec, strict=True))
    spec = {**(spec if isinstance(spec, Mapping) else {"source": spec}), **keys}
    wrong = list(_problems(spec))
    if wrong:
        raise UserError("\n".join(wrong))
    size = spec.get("size")
    return DataSettings(**{**spec, "size": tuple(size)} if isinstance(size, list) else spec)


def _problems(spec: Mapping[str, Any]) -> Iterator[str]:
    known = [entry.name for entry in fields(DataSettings) if entry.name != "scored"]
    for key, value in spec.items():
        if key not in known:
            yield f"data.{key}: unknown key{did_you_mean(str(key), known)}"
        elif key in _CHECKS and (sentence := _CHECKS[key](value)) is not None:
            yield f"data.{key} = {value!r}: {sentence}"
    if sentence := parts_problem([part for part in ("source", *PARTS) if spec.get(part) is not None]):
        yield f"data: {sentence}"


def __getattr__(name: str) -> Any:
    if name == "DataSpec":
        warn_old_name("classroomkd.data.DataSpec", "DataSettings")
        return DataSettings
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
