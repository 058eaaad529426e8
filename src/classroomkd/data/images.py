"""Labelled images as the engine sees them: pixels, parts, image sets.

Shapes: N images of a part, B of a batch, C channels (3), H and W the sides after the geometry rule of
``classroomkd.data.geometry``, or of the canvases around persons (``classroomkd.data.keypoints``), K joints. Pixels are
``uint8`` until the last moment; normalising is the engine's business.
"""

from __future__ import annotations

import copy
import hashlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor

from classroomkd.data.targets import CLASS, KEYPOINTS, UNLABELLED
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.data.keypoints.people import People
    from classroomkd.data.skeleton import Skeleton
    from classroomkd.data.targets import TargetKind

__all__ = ["ImageSet", "MemoryPixels", "Part", "Pixels", "ReadPixels"]

Device = torch.device | str


class Pixels(Protocol):
    """The ``uint8`` pixels of N images, all of one shape, wherever they are kept."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image as fetched."""
        ...

    @property
    def decodes(self) -> bool:
        """Whether fetching decodes files, in any thread and by nothing but the index: worth doing ahead."""
        ...

    @property
    def device(self) -> torch.device:
        """Where fetched images are."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> Tensor:
        """The images ``index`` (B,) int64 -> (B, C, H, W) uint8 on ``device``."""
        ...

    def to(self, device: Device) -> Pixels:
        """The same pixels, fetched onto ``device``."""
        ...


class MemoryPixels:
    """Pixels held in one ``uint8`` tensor (N, C, H, W), of ``shape`` (C, H, W) each, on the tensor's ``device``."""

    decodes = False

    def __init__(self, images: Tensor) -> None:
        assert images.dtype == torch.uint8, images.dtype
        assert images.dim() == 4, images.shape
        self.images = images
        _, channels, height, width = images.shape
        self.shape = channels, height, width
        self.device = images.device
        self._moved: weakref.WeakValueDictionary[str, MemoryPixels] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, index: Tensor) -> Tensor:
        """The images ``index`` (B,) int64 -> (B, C, H, W) uint8; a new tensor."""
        return self.images.index_select(0, index.to(self.device))

    def to(self, device: Device) -> MemoryPixels:
        """The same pixels on ``device``; parts that share pixels get one copy between them."""
        name = str(torch.device(device))
        if name == str(self.device):
            return self
        moved = self._moved.get(name)
        if moved is None:
            moved = self._moved[name] = MemoryPixels(self.images.to(device))
        return moved

    def __reduce__(self) -> tuple[type[MemoryPixels], tuple[Tensor]]:
        return MemoryPixels, (self.images,)


class ReadPixels:
    """Pixels of ``shape`` (C, H, W) that are read each time they are fetched, and given on ``device``."""

    def __init__(self, shape: tuple[int, int, int], device: Device) -> None:
        self.shape = shape
        self.device = torch.device(device)

    def to(self, device: Device) -> Self:
        """The same pixels, fetched onto ``device``."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        return moved

    def _moved(self, images: Tensor) -> Tensor:
        """``images`` on ``device``, without waiting for a GPU."""
        if self.device.type == "cuda":
            return images.pin_memory().to(self.device, non_blocking=True)
        return images.to(self.device)


@dataclass(frozen=True, eq=False)
class Part:
    """The images of one part (train, val or test) with their targets and ids.

    ``target`` has N rows, of the kind ``target_kind`` (see ``classroomkd.data.targets``); joints (N, K, 3) are x and y
    in pixels of the input and v; the class of a picture that has no label is ``UNLABELLED``, and so is every v of
    persons without joints. ``ids`` (N,) int64: index in the full source in its stable order, before any split or skip;
    ``rows`` (N,) int64: rows of ``pixels``, which several parts may share.
    """

    pixels: Pixels
    target: Tensor
    ids: Tensor
    rows: Tensor
    target_kind: TargetKind = CLASS

    def __post_init__(self) -> None:
        self._check_target()
        for name in ("ids", "rows"):
            value: Tensor = getattr(self, name)
            assert value.dtype == torch.int64, (name, value.dtype)
            assert value.shape == self.target.shape[:1], (name, value.shape, self.target.shape)

    def _check_target(self) -> None:
        shape, (_, height, width) = tuple(self.target.shape[1:]), self.pixels.shape
        if self.target_kind.name == "mask":
            assert shape == (height, width), (shape, self.pixels.shape)
            assert not self.target.is_floating_point(), self.target.dtype
            assert self.target_kind.fill >= torch.iinfo(self.target.dtype).min, (self.target_kind, self.target.dtype)
        elif self.target_kind.name == "image":
            times = shape[-1] // width
            assert shape[-2:] == (times * height, times * width), (shape, self.pixels.shape)
            assert self.target.dtype == torch.uint8, self.target.dtype

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        shape = "x".join(str(side) for side in self.pixels.shape)
        return f"Part({len(self)} images of {shape} in {type(self.pixels).__name__} on {self.rows.device})"

    @property
    def labelled(self) -> Tensor:
        """Which samples have a label, (N,) bool: a class, or of persons joints (v of all is -1 where they have none);
        all of them where targets are something else."""
        if self.target_kind == KEYPOINTS:
            return (self.target[..., 2] != UNLABELLED).any(-1)
        if self.target_kind != CLASS or self.target.dim() > 1:
            return torch.ones(len(self), dtype=torch.bool, device=self.target.device)
        return self.target != UNLABELLED

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places ``index`` (B,) of this part -> pixels (B, C, H, W) uint8, target (B, …), ids (B,), on the part's
        device."""
        index = index.to(self.rows.device)
        return self.pixels.fetch(self.rows[index]), self.target[index], self.ids[index]

    def subset(self, index: Tensor) -> Part:
        """The part made of the places ``index`` (n,) int64, in that order; pixels are shared, not copied."""
        index = index.to(self.rows.device)
        return replace(self, target=self.target[index], ids=self.ids[index], rows=self.rows[index])

    def to(self, device: Device) -> Part:
        """The same part with pixels fetched onto ``device``."""
        target, ids, rows = (value.to(device) for value in (self.target, self.ids, self.rows))
        return replace(self, pixels=self.pixels.to(device), target=target, ids=ids, rows=rows)

    def share(self) -> None:
        """Move the tensors to shared memory; pixels that are in files stay there."""
        tensors = [self.target, self.ids, self.rows]
        pieces = getattr(self.pixels, "pieces", (self.pixels,))
        tensors += [piece.images for piece in pieces if isinstance(piece, MemoryPixels)]
        for tensor in tensors:
            tensor.share_memory_()  # type: ignore[no-untyped-call]

    def digest(self) -> str:
        """SHA-256 (hex) of which samples with which targets this part holds, in order.

        With the set's ``fingerprint`` it is the key of anything trained on this part: the fingerprint alone does not
        know about limits, splits and subsets.
        """
        total = hashlib.sha256(self.ids.cpu().numpy().astype("<i8").tobytes())
        target = self.target.cpu().contiguous().numpy()
        total.update(target.astype(target.dtype.newbyteorder("<")).tobytes())
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One data set, split: what ``classroomkd.data.load`` returns.

    ``classes`` is empty where nobody has named them. ``mean`` and ``std`` belong to the train part, per channel after
    channels were repeated, for pixels scaled to 0..1; ``views`` names the default view definition; ``fingerprint`` is
    the SHA-256 of the source's content (it does not depend on limit, split or hidden labels: see ``Part.digest``);
    ``notes`` are sentences the user should read.

    Of persons: ``classes`` are the joints' names, ``skeleton`` what is known about them, ``people`` where each sample
    is in its picture, ``input`` (H, W) the size of a network's input (pixels are larger canvases, which
    ``Views.eval_view`` and ``Views.render`` bring to it). ``metric`` names the score that counts.

    ``resize`` names the rule that brought whole pictures to their size (``classroomkd.data.geometry``), where it is
    known; ``resized`` is False where all had it before. ``names`` are the files of training samples without a label, by
    id, where they are files: relative to their folder, where all lie in one.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    val: Part
    test: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]
    views: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    people: People | None = None
    input: tuple[int, int] | None = None
    metric: str = "accuracy"
    resize: str | None = None
    resized: bool = True
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def target_kind(self) -> TargetKind:
        """What its samples' targets are."""
        return self.train.target_kind

    @property
    def unlabelled(self) -> int:
        """How many training samples have no label."""
        return len(self.train) - int(self.train.labelled.sum())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a network gets: every image, or the crop of a person."""
        shape = self.train.pixels.shape
        return shape if self.input is None else (shape[0], *self.input)

    def to(self, device: Device) -> ImageSet:
        """The same set with every part on ``device``."""
        return self.map(lambda part: part.to(device))

    def share(self) -> ImageSet:
        """The same set, its tensors moved to shared memory: a process that is started with it copies none of them.

        Raises:
            UserError: no room there.
        """
        try:
            for part in (self.train, self.val, self.test):
                part.share()
        except RuntimeError as error:
            raise UserError(
                f"data: they do not fit into shared memory ({error}); enlarge /dev/shm (docker run --shm-size)"
            ) from error
        return self

    def map(self, change: Callable[[Part], Part]) -> ImageSet:
        """The same set with each part replaced by ``change(part)``."""
        return replace(self, train=change(self.train), val=change(self.val), test=change(self.test))
