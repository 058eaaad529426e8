"""Items and labels of a Dataset: read one by one, checked, and those of ``targets`` only where the items agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classroomkd.data import decode
from classroomkd.data.sources.dataset_names import own_names
from classroomkd.errors import UserError

__all__ = [
    "NO_LABEL",
    "ImagesAlone",
    "Unreadable",
    "check_range",
    "check_steady",
    "given",
    "item",
    "labels_agree",
    "stored_labels",
]

NO_LABEL = -(2**63)
"""Stands for None among the labels of a Dataset, whose own -1 may be a mistake."""

_READS = 128  # of a few items, to notice that they are random: a mirror image in one of ten is missed once in 10^6
_ROWS = 32
_PATIENCE = 3.0  # seconds, after two reads of each item
_MOST_COMPARED = 1024


class Unreadable(UserError):
    """An item that the dataset itself cannot give."""


class ImagesAlone:
    """The images of a dataset without its labels and its names of classes."""

    def __init__(self, dataset: Any) -> None:
        self._of = dataset

    def __len__(self) -> int:
        return len(self._of)

    def __getitem__(self, row: int) -> Any:
        value = self._of[row]
        return (value[0], None) if isinstance(value, (tuple, list)) and value else value


def item(dataset: Any, row: int, where: str) -> tuple[Any, int]:
    """(image, label) of item ``row``; the label is ``NO_LABEL`` where the dataset gives an image alone, or None.

    Raises:
        Unreadable: the dataset raised something.
        UserError: it gave something else.
    """
    value = given(dataset, row, where)
    return value[0], NO_LABEL if value[1] is None else label_of(value[1], row, where)


def given(dataset: Any, row: int, where: str) -> Sequence[Any]:
    """Item ``row`` as the dataset gives it: image, label (None where it has none) and what may follow.

    Raises:
        Unreadable: the dataset raised something.
        UserError: it gave something else.
    """
    try:
        value = dataset[row]
    except Exception as error:
        raise unreadable(row, where, error) from error
    if isinstance(value, (Image.Image, np.ndarray, Tensor)):
        return value, None
    if not isinstance(value, (tuple, list)) or not value:
        raise UserError(f"{where}: item {row} is a {type(value).__name__}; give (image, label), or an image alone")
    return value if len(value) > 1 else (value[0], None)


def unreadable(row: int, where: str, error: Exception) -> Unreadable:
    """The error for item ``row``, whose reading raised ``error``."""
    kind = "" if isinstance(error, (OSError, decode.DecodeError)) else f"{type(error).__name__}: "
    return Unreadable(
        f"{where}: item {row} cannot be read: {kind}{decode.reason(error)}. Mend or remove it, or set data.unreadable:"
        " skip"
    )


def label_of(value: Any, row: int, where: str) -> int:
    """A label as a number: whole numbers of any kind, also in an array or tensor of one.

    Raises:
        UserError: naming the item.
    """
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        value = value.item() if np.prod(tuple(value.shape)) == 1 else value.tolist()
    if isinstance(value, (list, tuple)):
        raise UserError(
            f"{where}: the label of item {row} is a row of {len(value)} numbers (one-hot?); give the number of the"
            " class, as argmax gives it"
        )
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != value:
        raise UserError(f"{where}: the label of item {row} is {value!r}; give a whole number")
    if not -(2**63) <= whole < 2**63:
        raise UserError(f"{where}: the label of item {row} is {whole}; labels must be 0 to K-1 for K classes")
    return whole


def check_range(labels: Tensor, names: tuple[str, ...] | None, where: str) -> int:
    """How many classes the ``labels`` (N,) of all parts count through; of those items that have one.

    Raises:
        UserError: numbers below 0 or beyond the names, or numbers that are no places (ids, years).
    """
    if len(labels) == 0:
        return 0 if names is None else len(names)
    low, high = int(labels.min()), int(labels.max())
    different = torch.unique(labels)
    count = len(names) if names is not None else len(different)
    rule = f"{where}: labels must be 0 to {count - 1} for {count} classes (0..K\N{MINUS SIGN}1)"
    first = ", ".join(map(str, different[:4].tolist())) + (", …" if len(different) > 4 else "")
    if low < 0:
        absent = ". A picture without a label has None" if low == -1 else ""
        raise UserError(f"{rule}; the lowest is {low} (there are {first}){absent}")
    if low == 1 and high == count:
        raise UserError(f"{rule}; they go from {low} to {high}: subtract 1")
    if names is not None and high >= count:
        raise UserError(f"{rule}; the highest is {high}")
    if names is None and high >= 2 * len(different):
        raise UserError(
            f"{rule}; there are {len(different)} different ones from {low} to {high} ({first}). Give each its place in"
            " the list of classes"
        )
    return count if names is not None else high + 1


def check_steady(read: Callable[[int], tuple[Tensor, int]], count: int, where: str, *, skips: bool) -> tuple[int, ...]:
    """Read a few of ``count`` items many times: a dataset that is random shows itself. Gives the shape of the first.

    Raises:
        UserError: naming the item that changed; an item that cannot be read, unless those are skipped.
    """
    begun = time.perf_counter()
    chosen = [place * count // min(count, _ROWS) for place in range(min(count, _ROWS))]
    first: dict[int, tuple[Tensor, int]] = {}
    for row in chosen:
        try:
            first[row] = read(row)
        except Unreadable:
            if not skips:
                raise
    if not first:
        raise UserError(f"{where}: none of {len(chosen)} items could be read, of {count}; the first says: {_why(read)}")
    for again in range(max(2, _READS // len(first))):
        if again >= 2 and time.perf_counter() - begun > _PATIENCE:
            break
        for row, (pixels, label) in first.items():
            now, its_label = read(row)
            what = "image" if not torch.equal(pixels, now) else "label" if label != its_label else ""
            if what:
                raise UserError(
                    f"{where}: the dataset gives another {what} each time it is asked for item {row}; take random"
                    " augmentation out of it (data.views does that, so that it can be replayed)"
                )
    return tuple(next(iter(first.values()))[0].shape)


def _why(read: Callable[[int], tuple[Tensor, int]]) -> str:
    try:
        read(0)
    except Unreadable as error:
        return str(error)
    return "nothing"


def stored_labels(dataset: Any, *, of_names: bool = False) -> Tensor | None:
    """The labels (N,) in a dataset's ``targets`` or ``labels``, also through ``Subset``, ``ConcatDataset`` and wrappers
    of the same length; None where there are none. They may be others than its items have: a ``target_transform``
    does not change them. ``of_names``: those of the dataset inside that has the names of the classes."""
    if not of_names or own_names(dataset) is not None:
        for name in ("targets", "labels"):
            if (own := _numbers(getattr(dataset, name, None), len(dataset))) is not None:
                return own
        if of_names:
            return None
    if isinstance(several := getattr(dataset, "datasets", None), (list, tuple)):
        each = [stored_labels(one, of_names=of_names) for one in several]
        return torch.cat([one for one in each if one is not None]) if all(one is not None for one in each) else None
    inner = getattr(dataset, "dataset", None)
    if inner is None or inner is dataset or (below := stored_labels(inner, of_names=of_names)) is None:
        return None
    if (indices := getattr(dataset, "indices", None)) is not None:
        return below[torch.as_tensor(np.asarray(indices), dtype=torch.int64)]
    return below if len(below) == len(dataset) else None


def _numbers(values: Any, count: int) -> Tensor | None:
    """``values`` as labels of ``count`` items, None where they are none."""
    try:
        array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError):
        return None
    if array.shape != (count,) or array.dtype.kind not in "iufb":
        return None
    whole = array.astype(np.int64)
    return torch.from_numpy(whole) if np.array_equal(whole, array) else None


def labels_agree(dataset: Any, stored: Tensor, where: str) -> bool:
    """Whether the items have the ``stored`` (N,) labels: one of every class at least, and some spread evenly."""
    _, first = np.unique(stored.numpy(), return_index=True)
    spread = np.arange(min(len(stored), _ROWS)) * len(stored) // min(len(stored), _ROWS)
    rows = np.unique(np.concatenate([first[:_MOST_COMPARED], spread])).tolist()
    return all(item(dataset, row, where)[1] == int(stored[row]) for row in rows)
