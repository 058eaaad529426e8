"""Datasets from Python: ``py:package.module:factory`` and ``torch.utils.data.Dataset`` objects.

A dataset gives (image, label) for an index (where there is no label None, or the image alone), has a length, and gives
the same image each time: augmentation belongs to the views, which can be replayed. It is read once into memory when it
fits ``BUDGET``, else item by item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from classroomkd._foreign import call_factory, load_factory
from classroomkd.data.images import ImageSet, MemoryPixels, Pixels
from classroomkd.data.sources.base import Raw, Request, Source, fingerprint, first_of
from classroomkd.data.sources.dataset_labels import (
    NO_LABEL,
    ImagesAlone,
    Unreadable,
    check_range,
    check_steady,
    item,
    labels_agree,
    stored_labels,
)
from classroomkd.data.sources.dataset_names import by_name, class_names, follow_labels, given_names
from classroomkd.data.sources.dataset_pixels import DatasetPixels, item_pixels, sides_of
from classroomkd.data.spec import PARTS
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError

__all__ = ["BUDGET", "DatasetPixels", "dataset_source", "from_returned", "open_python"]

BUDGET = 2 * 2**30
"""Bytes of pixels up to which a dataset is kept in memory."""

_SAMPLED = 256  # items whose pixels enter the fingerprint of a dataset that is not in memory


def open_python(argument: str, request: Request) -> Source | ImageSet:
    """Call the factory ``package.module:name`` with ``data.options`` as keywords; the current folder comes first."""
    spec = f"py:{argument}"
    factory = load_factory(spec, trust_code=request.trust_code, what="data")
    name = argument.rpartition(":")[2]
    return from_returned(call_factory(spec, factory, dict(request.options), {}), request, f"data: {spec}", name=name)


def from_returned(value: Any, request: Request, where: str, *, name: str | None = None) -> Source | ImageSet:
    """What a factory may return: a Dataset, (train, test), (train, val, test), a dict of those names (and
    ``classes``), an ImageSet."""
    if isinstance(value, (ImageSet, Source)):
        return value
    classes = given_names(request.classes, where)
    if isinstance(value, tuple) and len(value) in (2, 3):
        value = dict(zip(("train", "test") if len(value) == 2 else PARTS, value, strict=True))
    if isinstance(value, Mapping):
        unknown = [str(key) for key in value if key not in (*PARTS, "classes")]
        if unknown or "train" not in value:
            raise UserError(
                f"{where}: a dict of datasets has the keys train, val, test and classes, train at least; got"
                f" {', '.join(map(str, value))}"
            )
        classes = classes or given_names(value.get("classes"), where)
        parts = {part: value[part] for part in PARTS if value.get(part) is not None}
    else:
        parts = {"train": value}
    return dataset_source(parts, request, name=name or type(parts["train"]).__name__, classes=classes, where=where)


def dataset_source(
    parts: Mapping[str, Any],
    request: Request,
    *,
    name: str,
    classes: tuple[str, ...] | None = None,
    where: str = "data",
) -> Source:
    """A source from datasets by part; a lone ``train`` is to be split.

    Raises:
        UserError: for objects that are no datasets, items that do not fit, and labels outside the classes.
    """
    read = {
        part: _read(dataset, request, f"{where}: {part}" if len(parts) > 1 else where)
        for part, dataset in parts.items()
    }
    shown, raws, moved = _meet(read, classes, where)
    shapes = {part: raw.pixels.shape for part, raw in raws.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"{where}: parts differ in shape ({shapes}); set data.size to one size for all")
    side = max(raws["train"].pixels.shape[1:])
    named: dict[str, Raw] = {"all": raws["train"]} if list(raws) == ["train"] else raws
    prints = [f"{part}={one.print}" for part, one in read.items()]
    return Source(
        name, shown, named, "crop_flip" if side <= 64 else "resized_crop",
        fingerprint(" ".join([*shown, *prints, *moved])), tuple(note for one in read.values() for note in one.notes),
    )  # fmt: skip


@dataclass(frozen=True)
class _Read:
    """One dataset as a part, its fingerprint, the names that its labels count through, and what to tell."""

    raw: Raw
    print: str
    names: tuple[str, ...] | None
    notes: list[str]


def _meet(
    read: Mapping[str, _Read], classes: tuple[str, ...] | None, where: str
) -> tuple[tuple[str, ...], dict[str, Raw], list[str]]:
    """The classes of all parts, the parts with labels that count through them, and what was moved, as text.

    Parts meet by name. Names that were given are new ones for the same numbers, unless they are the part's own in
    another order.
    """
    names = classes or next((one.names for one in read.values() if one.names is not None), None)
    raws, known, moved = {}, [], []
    for part, one in read.items():
        has_label = one.raw.target != NO_LABEL
        target = torch.where(has_label, one.raw.target, UNLABELLED)
        if names is not None and one.names is not None and (classes is None or set(classes) == set(one.names)):
            target = by_name(target, one.names, names, f"{where}: {part}")
            if one.names != names:
                moved.append(f"{part} counts through {one.names}")
        raws[part] = replace(one.raw, target=target)
        known.append(target[has_label])
    count = check_range(torch.cat(known), names, where)
    return names or tuple(str(label) for label in range(count)), raws, moved


def _read(dataset: Any, request: Request, where: str) -> _Read:
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise UserError(
            f"{where}: a {type(dataset).__name__} has no length or no items by index; give a map-style Dataset"
        )
    if not request.labels:
        dataset = ImagesAlone(dataset)
    count, size, resize, skips = len(dataset), request.size, request.resize, request.unreadable == "skip"
    if count == 0:
        raise UserError(f"{where}: the dataset is empty")

    def read(row: int) -> tuple[Tensor, int]:
        image, label = item(dataset, row, where)
        return item_pixels(image, size, resize, f"{where}: item {row}"), label

    channels, height, width = check_steady(read, count, where, skips=skips)
    reader = DatasetPixels(dataset, size=size, resize=resize, shape=(channels, height, width), where=where)
    stored, keep = stored_labels(dataset), list(range(count))
    pixels: Pixels = reader
    sides: Counter[tuple[int, int]] = Counter()
    in_memory = count * channels * height * width <= BUDGET
    if in_memory or skips:
        images, target, keep = _everything(reader, sides, in_memory=in_memory, skips=skips)
        pixels = MemoryPixels(images) if in_memory else reader.only(keep)
    elif stored is not None and labels_agree(dataset, stored, where):
        target = stored
    else:
        target = torch.tensor([item(dataset, row, where)[1] for row in range(count)], dtype=torch.int64)
    if in_memory:
        text = fingerprint(f"dataset size={size}", images, target)
    else:
        some = [keep[place * len(keep) // min(len(keep), _SAMPLED)] for place in range(min(len(keep), _SAMPLED))]
        seen = [item(dataset, row, where)[0] for row in some]
        sampled = torch.stack([reader.image(row, image) for row, image in zip(some, seen, strict=True)])
        sides = Counter(map(sides_of, seen))
        text = fingerprint(f"dataset size={size} count={count}", sampled, target)
    places = torch.tensor(keep, dtype=torch.int64)
    notes = []
    if len(keep) < count:
        left = [str(row) for row in sorted(set(range(count)) - set(keep))]
        notes.append(f"{where}: {len(left)} unreadable item{'s' if len(left) > 1 else ''} skipped: {first_of(left)}")
    names = class_names(dataset, where)
    raw = stored_labels(dataset, of_names=True) if names is not None else None
    known = target != NO_LABEL
    if (
        names is not None
        and raw is not None
        and (names := follow_labels(names, raw[places][known], target[known])) is None
    ):
        notes.append(
            f"{where}: the labels are not those of the dataset's targets (a target_transform?), so its class names are"
            " not used; give classes"
        )
    return _Read(Raw(pixels, target, places, count, sides=sides), text, names, notes)


def _everything(
    reader: DatasetPixels, sides: Counter[tuple[int, int]], *, in_memory: bool, skips: bool
) -> tuple[Tensor, Tensor, list[int]]:
    """Read all items: the images (n, C, H, W) where they are to be kept, the labels (n,), the rows that can be
    read; their (height, width) are counted in ``sides``."""
    count = len(reader)
    images = torch.empty((count if in_memory else 0, *reader.shape), dtype=torch.uint8)
    target = torch.empty(count, dtype=torch.int64)
    keep: list[int] = []
    for row in range(count):
        try:
            image, label = item(reader.dataset, row, reader.where)
            pixels = reader.image(row, image)
        except Unreadable:
            if not skips:
                raise
            continue
        if in_memory:
            images[len(keep)] = pixels
        target[len(keep)] = label
        sides[sides_of(image)] += 1
        keep.append(row)
    return images[: len(keep)], target[: len(keep)], keep
