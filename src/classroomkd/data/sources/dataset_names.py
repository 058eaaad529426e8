"""The names of a Dataset's classes: its own, or those of what it is made of (``Subset``, ``ConcatDataset``)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classroomkd.data.sources.base import first_of
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError, did_you_mean

__all__ = ["by_name", "class_names", "follow_labels", "given_names", "names_of", "own_names"]

_HALVES = re.compile("[\ud800-\udfff]")  # what stands for bytes that are no text


def names_of(value: Any) -> tuple[str, ...] | None:
    """Names as text out of a list, an array, ``{0: "cat"}`` or ``{"cat": 0}``; None for anything else."""
    if isinstance(value, Mapping):
        value = _in_order(value)
    elif isinstance(value, (np.ndarray, Tensor)):
        value = value.tolist()
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, tuple)):
        return None
    return tuple(_text(name) for name in value)


def _in_order(names: Mapping[Any, Any]) -> list[Any] | None:
    if names and all(_is_number(key) for key in names):
        rows = {int(key): name for key, name in names.items()}
    elif names and all(_is_number(row) for row in names.values()):
        rows = {int(row): name for name, row in names.items()}
    else:
        return None
    if len(rows) != len(names) or min(rows) < 0 or max(rows) >= 2 * len(rows):
        return None
    return [rows.get(row, str(row)) for row in range(max(rows) + 1)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _text(name: Any) -> str:
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    if isinstance(name, (tuple, list)):  # synonyms
        name = ", ".join(map(str, name))
    return unicodedata.normalize("NFC", _HALVES.sub("\ufffd", str(name)))


def class_names(dataset: Any, where: str) -> tuple[str, ...] | None:
    """The names in a dataset's ``classes`` or ``class_to_idx``, else those of the datasets that it wraps.

    Raises:
        UserError: datasets put together whose names differ.
    """
    if (own := own_names(dataset)) is not None:
        return own
    if isinstance(several := getattr(dataset, "datasets", None), (list, tuple)):
        return _common(several, where)
    inner = getattr(dataset, "dataset", None)
    if inner is None or inner is dataset:
        return None
    same_items = hasattr(dataset, "indices") or (hasattr(inner, "__len__") and len(inner) == len(dataset))
    return class_names(inner, where) if same_items else None


def own_names(dataset: Any) -> tuple[str, ...] | None:
    """The names that a dataset has itself."""
    listed, numbered = (names_of(getattr(dataset, name, None)) for name in ("classes", "class_to_idx"))
    if listed is not None and numbered is not None and sorted(listed) == sorted(numbered):
        return numbered  # it is what the labels are made with
    return listed or numbered


def given_names(value: Any, where: str) -> tuple[str, ...] | None:
    """Names that the user gave, as text.

    Raises:
        UserError: something that is no list of names.
    """
    if value is None:
        return None
    names = names_of(value)
    if not names:
        raise UserError(f"{where}: classes is {value!r:.80}; give a list of names, or {{0: name, …}}")
    return names


def _common(datasets: Iterable[Any], where: str) -> tuple[str, ...] | None:
    first: tuple[str, ...] | None = None
    for place, dataset in enumerate(datasets):
        names = class_names(dataset, where)
        if first is not None and names is not None and names != first:
            row = next((row for row, pair in enumerate(zip(first, names, strict=False)) if len(set(pair)) > 1), None)
            what = (
                f"has {len(names)} classes, those before it {len(first)}"
                if row is None
                else f"calls class {row} '{names[row]}', those before it '{first[row]}'"
            )
            raise UserError(
                f"{where}: dataset {place} of those put together {what}; give all of them the same classes in the same"
                " order"
            )
        first = first or names
    return first


def follow_labels(names: tuple[str, ...], raw: Tensor, labels: Tensor) -> tuple[str, ...] | None:
    """``names`` of the labels ``raw`` (N,) made those of ``labels`` (N,) of the same items, as a ``target_transform``
    numbers them anew; None where no name belongs to a label."""
    if len(labels) == 0:
        return names
    pairs = [(one, two) for one, two in torch.unique(torch.stack([raw, labels], 1), dim=0).tolist()]
    if all(one == two for one, two in pairs):
        return names
    new = {two: one for one, two in pairs}
    if len(new) < len(pairs) or len({one for one, _ in pairs}) < len(pairs) or max(new.values()) >= len(names):
        return None
    if min(new) < 0 or max(new) >= 2 * len(new):
        return None
    return tuple(names[new[label]] if label in new else str(label) for label in range(max(new) + 1))


def by_name(labels: Tensor, own: tuple[str, ...], names: tuple[str, ...], where: str) -> Tensor:
    """``labels`` (N,) that count through ``own`` as those that count through ``names``; no label stays none.

    Raises:
        UserError: a class that occurs and is not among ``names``.
    """
    known = labels[labels != UNLABELLED]
    if own == names or len(known) == 0 or int(known.max()) >= len(own) or int(known.min()) < 0:
        return labels  # the latter is refused with the range of the labels
    used = [own[label] for label in torch.unique(known).tolist()]
    extra = [name for name in used if name not in names]
    if extra:
        raise UserError(
            f"{where}: class '{extra[0]}'{did_you_mean(extra[0], names)} is not among the {len(names)} classes of the"
            f" training part ({first_of(names)})" + (f", nor are {len(extra) - 1} more" if len(extra) > 1 else "")
        )
    if len(set(own)) < len(own) or len(set(names)) < len(names):
        twice = next(name for name in (*own, *names) if own.count(name) > 1 or names.count(name) > 1)
        raise UserError(f"{where}: the class name '{twice}' occurs twice, so classes cannot meet by name; rename one")
    places = {name: place for place, name in enumerate(names)}
    moved = torch.tensor([places.get(name, UNLABELLED) for name in own], dtype=torch.int64)
    return torch.where(labels == UNLABELLED, labels, moved[labels.clamp_min(0)])
