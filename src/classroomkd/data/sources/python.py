"""Datasets from Python: ``py:package.module:factory`` and ``torch.utils.data.Dataset`` objects.

A dataset gives (image, label) for an index, has a length, and gives the same image each time: augmentation belongs to
the views, which can be replayed. It is read once into memory when it fits ``BUDGET``, else item by item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classroomkd._foreign import call_factory, load_factory
from classroomkd._limits import TooLarge
from classroomkd.data import decode, geometry
from classroomkd.data.images import Device, ImageSet, MemoryPixels, Pixels, ReadPixels
from classroomkd.data.sources.base import Raw, Request, Source, fingerprint
from classroomkd.data.spec import PARTS
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
    classes: tuple[str, ...] | None = None
    if isinstance(value, tuple) and len(value) in (2, 3):
        value = dict(zip(("train", "test") if len(value) == 2 else PARTS, value, strict=True))
    if isinstance(value, Mapping):
        unknown = [str(key) for key in value if key not in (*PARTS, "classes")]
        if unknown or "train" not in value:
            raise UserError(
                f"{where}: a dict of datasets has the keys train, val, test and classes, train at least; got"
                f" {', '.join(map(str, value))}"
            )
        classes = tuple(value["classes"]) if value.get("classes") is not None else None
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
    raws: dict[str, Raw] = {}
    prints: list[str] = []
    for part, dataset in parts.items():
        raws[part], text = _read(dataset, request, f"{where}: {part}" if len(parts) > 1 else where)
        prints.append(f"{part}={text}")
    highest = max(int(raw.target.max()) for raw in raws.values())
    shown = classes or _class_names(parts.get("train"), highest)
    if highest >= len(shown) or min(int(raw.target.min()) for raw in raws.values()) < 0:
        raise UserError(
            f"{where}: labels must be 0 to {len(shown) - 1} for {len(shown)} classes; the highest is {highest}"
        )
    shapes = {part: raw.pixels.shape for part, raw in raws.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"{where}: parts differ in shape ({shapes}); set data.size to one size for all")
    side = max(raws["train"].pixels.shape[1:])
    named: dict[str, Raw] = {"all": raws["train"]} if list(raws) == ["train"] else raws
    return Source(
        name, shown, named, "crop_flip" if side <= 64 else "resized_crop", fingerprint(" ".join([*shown, *prints]))
    )


def _class_names(dataset: Any, highest: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) > highest:
        return tuple(str(name) for name in names)
    return tuple(str(label) for label in range(highest + 1))


def _read(dataset: Any, request: Request, where: str) -> tuple[Raw, str]:
    """One dataset as a part, and its fingerprint."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise UserError(
            f"{where}: a {type(dataset).__name__} has no length or no items by index; give a map-style Dataset"
        )
    count = len(dataset)
    if count == 0:
        raise UserError(f"{where}: the dataset is empty")
    size, resize = request.size, request.resize
    first = _item_pixels(_item(dataset, 0, where)[0], size, resize, f"{where}: item 0")
    if not torch.equal(first, _item_pixels(_item(dataset, 0, where)[0], size, resize, f"{where}: item 0")):
        raise UserError(
            f"{where}: the dataset gives another image each time it is asked for item 0; take random"
            f" augmentation out of it (data.views does that, so that it can be replayed)"
        )
    channels, height, width = first.shape
    reader = DatasetPixels(dataset, size=size, resize=resize, shape=(channels, height, width), where=where)
    pixels: Pixels = reader
    sides: Counter[tuple[int, int]] = Counter()
    if count * first.numel() <= BUDGET:
        images = torch.empty((count, *first.shape), dtype=torch.uint8)
        target = torch.empty(count, dtype=torch.int64)
        for row in range(count):
            image, target[row] = _item(dataset, row, where)
            images[row] = reader.image(row, image)
            sides[_sides(image)] += 1
        pixels = MemoryPixels(images)
        text = fingerprint(f"dataset size={size}", images, target)
    else:
        target = _labels(dataset, where)
        some = [row * count // min(count, _SAMPLED) for row in range(min(count, _SAMPLED))]
        shown = [_item(dataset, row, where)[0] for row in some]
        sampled = torch.stack([reader.image(row, image) for row, image in zip(some, shown, strict=True)])
        sides.update(map(_sides, shown))
        text = fingerprint(f"dataset size={size} count={count}", sampled, target)
    return Raw(pixels, target, torch.arange(count), count, sides=sides), text


def _item(dataset: Any, row: int, where: str) -> tuple[Any, int]:
    item = dataset[row]
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise UserError(f"{where}: item {row} is a {type(item).__name__}; give (image, label)")
    return item[0], _label(item[1], row, where)


def _label(value: Any, row: int, where: str) -> int:
    try:
        whole = int(value)
    except (TypeError, ValueError):
        whole = None
    if whole is None or whole != value:
        raise UserError(f"{where}: the label of item {row} is {value!r}; give a whole number")
    return whole


def _labels(dataset: Any, where: str) -> Tensor:
    """All labels: from ``targets`` or ``labels`` when the dataset has them (through ``Subset``), else by reading
    every item."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return _labels(dataset.dataset, where)[torch.as_tensor(np.asarray(dataset.indices), dtype=torch.int64)]
    for name in ("targets", "labels"):
        labels = getattr(dataset, name, None)
        if labels is not None and len(labels) == len(dataset):
            return torch.tensor([_label(value, row, where) for row, value in enumerate(labels)], dtype=torch.int64)
    return torch.tensor([_item(dataset, row, where)[1] for row in range(len(dataset))], dtype=torch.int64)


def _item_pixels(image: Any, size: int | None, resize: str, where: str) -> Tensor:
    """One item's image -> (3, H, W) uint8 by the geometry rule ``resize``.

    PIL images of any mode that ``decode`` knows; ``uint8`` or 0..1 float tensors (H, W), (C, H, W); arrays likewise,
    also (H, W, C).

    Raises:
        UserError: naming ``where`` and what would fit.
    """
    if isinstance(image, Image.Image):
        try:
            return torch.from_numpy(geometry.fit_image(decode.to_rgb_or_grey(image), size, resize))
        except (decode.DecodeError, TooLarge) as error:
            raise UserError(f"{where}: {error}") from error
    if isinstance(image, np.ndarray):
        if _channels_last(image):
            image = image.transpose(2, 0, 1)
        image = torch.from_numpy(np.require(image, requirements=("C", "W")))
    if not isinstance(image, Tensor):
        raise UserError(f"{where}: the image is a {type(image).__name__}; give a PIL image, an array or a tensor")
    if image.is_floating_point():
        low, high = (float(value) for value in image.aminmax()) if image.numel() else (0.0, 0.0)
        if not (low >= 0.0 and high <= 1.0):
            raise UserError(
                f"{where}: float pixels go from {low:.3g} to {high:.3g}; give 0 to 1, without Normalize"
                " (the run normalises by the training set's own mean and standard deviation)"
            )
        image = (image * 255).round().to(torch.uint8)
    if image.dim() not in (2, 3):
        raise UserError(
            f"{where}: the image has shape {tuple(image.shape)}; give (height, width) or (channels, height, width)"
        )
    return geometry.fit(image.reshape(1, -1, *image.shape[-2:]), size, resize, where=where)[0]


def _channels_last(image: np.ndarray) -> bool:
    return image.ndim == 3 and image.shape[-1] in (1, 3) and image.shape[0] not in (1, 3)


def _sides(image: Any) -> tuple[int, int]:
    """(height, width) of an item's image that ``_item_pixels`` has taken."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    height, width = image.shape[:2] if isinstance(image, np.ndarray) and _channels_last(image) else image.shape[-2:]
    return int(height), int(width)


class DatasetPixels(ReadPixels):
    """The images of ``dataset``, read in the calling thread each time they are asked for (a foreign dataset need not
    bear threads)."""

    decodes = False  # that is the dataset's own affair

    def __init__(
        self,
        dataset: Any,
        *,
        size: int | None,
        resize: str,
        shape: tuple[int, int, int],
        where: str = "data",
        device: Device = "cpu",
    ) -> None:
        super().__init__(shape, device)
        self.dataset = dataset
        self.size, self.resize = size, resize
        self.where = where

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, index: Tensor) -> Tensor:
        """The images ``index`` (B,) int64 -> (B, C, H, W) uint8 on ``device``."""
        images = [self.image(row, self.dataset[row][0]) for row in index.tolist()]
        return self._moved(torch.stack(images) if images else torch.empty((0, *self.shape), dtype=torch.uint8))

    def image(self, row: int, image: Any) -> Tensor:
        """``image``, item ``row`` of the dataset, as (C, H, W) uint8; refused when its shape is not the others'."""
        pixels = _item_pixels(image, self.size, self.resize, f"{self.where}: item {row}")
        if tuple(pixels.shape) != self.shape:
            raise UserError(
                f"{self.where}: item {row} is {'x'.join(map(str, pixels.shape))}, the first is"
                f" {'x'.join(map(str, self.shape))}; set data.size to one size for all"
            )
        return pixels
