"""Replayable augmentation: ``pixels = f(view seed, sample id, view id)``, batched, on the pixels' device, bit for bit
the same alone or in any batch.

Finite spaces are enumerated: with crop offsets ``dy, dx`` in 0..2·pad (pad = 4: 0..8) and ``flip`` in 0..1,
``crop_flip`` has the view id ``(dy * 9 + dx) * 2 + flip`` (0..161; the untouched image is 80), ``crop`` has ``dy * 9
+ dx`` (0..80; 40), ``flip`` has 0..1 (0), ``none`` has 0. Their pixels do not depend on the view seed.
``resized_crop``, ``randaugment`` and ``mixup`` are unbounded; their view 0 is the untouched image. Views of persons,
which move the joints with the pixels, are in ``classroomkd.data.views.keypoints``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd.data import hashing
from classroomkd.data.spec import IMAGE_VIEWS, PERSON_VIEWS
from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.data.images import ImageSet, Part

__all__ = ["CropFlip", "FixedViews", "Views", "make_views", "view_names"]

# Streams of random numbers; a new purpose gets a new number.
_PICK, _SLOT, _ROUND = 11, 12, 13


class Views:
    """A space of views. Subclasses give ``apply``; ``count`` is its size, None when unbounded; ``identity`` the view
    that changes nothing.

    ``definition`` is the canonical text with every parameter and the code's version: part of a bank's key. ``mixes``
    says whether a view shows further samples: those of the part named by :meth:`over`.
    """

    name: str
    count: int | None
    identity: int
    definition: str
    view_seed: int
    mixes: bool = False

    def pick(self, run_seed: int, ids: Tensor, epoch: int) -> Tensor:
        """The views of this epoch: ids (B,) int64 -> view ids (B,) int64, uniform, a pure function of the three
        arguments."""
        if self.count == 1:
            return torch.zeros_like(ids)
        return self._draw(hashing.keys(run_seed, _PICK, epoch, ids))

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Augment ``pixels`` (B, C, H, W) uint8 of samples ``ids`` (B,) by ``views`` (B,) -> (B, C, H, W) uint8."""
        raise NotImplementedError

    def look(
        self, pixels: Tensor, target: Tensor, ids: Tensor, views: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The views of stored ``pixels`` and ``target`` (B, …) as a network of input ``size`` (H, W) gets them.

        Whole images have one size and targets that do not move: there ``size`` changes nothing, and whoever wants
        another size resizes the result. Persons are rendered at ``size``, and their joints are in its pixels.
        """
        return self.apply(pixels, ids, views), target

    def plain(self, pixels: Tensor, target: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`look` gives for the untouched image: what scores are measured on."""
        return pixels, target

    def over(self, part: Part) -> Views:
        """The same space for the samples of ``part``; only views that mix differ by it."""
        return self

    def ready(self, ids: Tensor, views: Tensor) -> Views:
        """The same space with all pixels at hand that :meth:`look` needs beside the samples' own at ``ids`` (B,) and
        ``views`` (B,); may be called in a thread ahead."""
        return self

    def _draw(self, key: Tensor) -> Tensor:
        """A view id for every key; the unbounded space's 0 (the untouched image) is never drawn."""
        if self.count is None:
            return hashing.below(key, 2**31 - 1) + 1
        return hashing.below(key, self.count)


class CropFlip(Views):
    """Zero padding by ``pad``, a crop of the old size at (dy, dx), and a mirror image when ``flip``; all combinations
    enumerated."""

    def __init__(self, name: str, *, view_seed: int, image_size: tuple[int, int], pad: int, flip: bool) -> None:
        self.name = name
        self.view_seed = view_seed
        self.pad = pad
        self.flips = 2 if flip else 1
        self.image_size = image_size
        side = 2 * pad + 1
        self.count = side * side * self.flips
        self.identity = (pad * side + pad) * self.flips
        height, width = image_size
        self.definition = f"{name} pad={pad} fill=0 flip={int(flip)} size={height}x{width} count={self.count} code=1"
        self._tables: dict[torch.device, Tensor] = {}

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``. ``ids`` are not used: the view says it all."""
        assert tuple(pixels.shape[-2:]) == self.image_size, (tuple(pixels.shape), self.image_size)
        if self.count == 1:
            return pixels.clone()
        batch, channels, height, width = pixels.shape
        table = self._table(pixels.device)
        place = table[views.to(pixels.device)]  # B, H·W
        if self.pad:
            pixels = torch.nn.functional.pad(pixels, [self.pad] * 4)
        flat = pixels.flatten(2)
        # One flat gather: about ten times faster than cropping image by image.
        moved = flat.gather(2, place.unsqueeze(1).expand(-1, channels, -1))
        return moved.view(batch, channels, height, width)

    def _table(self, device: torch.device) -> Tensor:
        """(count, H·W) int64: for each view, the place in the padded image of every pixel of the result."""
        if device not in self._tables:
            height, width = self.image_size
            side, padded = 2 * self.pad + 1, width + 2 * self.pad
            y = torch.arange(side).view(-1, 1, 1, 1, 1) + torch.arange(height).view(1, 1, 1, -1, 1)
            column = torch.arange(width)
            columns = torch.stack([column, column.flip(0)])[: self.flips]
            x = torch.arange(side).view(1, -1, 1, 1, 1) + columns.view(1, 1, self.flips, 1, width)
            self._tables[device] = (y * padded + x).reshape(self.count or 0, height * width).to(device)
        return self._tables[device]


class FixedViews(Views):
    """``V`` fixed views of every sample out of ``base``: slot 0..V-1 stands for a base view that depends on (view
    seed, id, slot).

    In a finite base the V views of a sample differ and are spread over the space: slot s draws from the s-th of V
    equal arcs of the enumeration, turned by a random offset per sample, so each slot by itself is uniform.
    """

    def __init__(self, base: Views, V: int) -> None:
        if V < 1:
            raise UserError(f"views={V}: give at least 1 view per sample")
        if base.count is not None and base.count < V:
            raise UserError(
                f"views={V}: '{base.name}' has only {base.count} views; give at most {base.count}, or use all"
                f" of them (exact)"
            )
        self.base = base
        self.name = f"{base.name} x{V}"
        self.count = V
        self.identity = -1  # a slot is no particular view; -1 is never picked
        self.view_seed = base.view_seed
        self.mixes = base.mixes
        self.definition = f"fixed V={V} view_seed={base.view_seed} code=1 of [{base.definition}]"

    def base_views(self, ids: Tensor, slots: Tensor) -> Tensor:
        """The base view ids (B,) behind ``slots`` (B,) of samples ``ids`` (B,)."""
        key = hashing.keys(self.view_seed, _SLOT, ids, slots)
        if self.base.count is None:
            return self.base._draw(key)
        assert self.count is not None
        turn = hashing.below(hashing.keys(self.view_seed, _SLOT, ids), self.base.count)
        start = slots * self.base.count // self.count
        length = (slots + 1) * self.base.count // self.count - start
        return (turn + start + hashing.below(key, length)) % self.base.count

    def slot(self, run_seed: int, epoch: int) -> int:
        """The slot of an epoch: every one once per round of V epochs, in an order of its own for every (run seed,
        round). All samples share it, so that an epoch's stored answers lie in one piece; the views behind it are
        each sample's own."""
        assert self.count is not None
        turn, place = divmod(epoch, self.count)
        order = hashing.keys(run_seed, _ROUND, turn, torch.arange(self.count)).argsort(stable=True)
        return int(order[place])

    def pick(self, run_seed: int, ids: Tensor, epoch: int) -> Tensor:
        """The epoch's :meth:`slot` for every sample: (B,) -> (B,)."""
        return torch.full_like(ids, self.slot(run_seed, epoch))

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``; ``views`` (B,) are slots."""
        ids, views = ids.to(pixels.device), views.to(pixels.device)
        return self.base.apply(pixels, ids, self.base_views(ids, views))

    def look(
        self, pixels: Tensor, target: Tensor, ids: Tensor, views: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``Views.look``; ``views`` (B,) are slots."""
        ids, views = ids.to(pixels.device), views.to(pixels.device)
        return self.base.look(pixels, target, ids, self.base_views(ids, views), size)

    def plain(self, pixels: Tensor, target: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """See ``Views.plain``."""
        return self.base.plain(pixels, target, size)

    def over(self, part: Part) -> Views:
        """See ``Views.over``."""
        assert self.count is not None
        return FixedViews(self.base.over(part), self.count) if self.mixes else self

    def ready(self, ids: Tensor, views: Tensor) -> Views:
        """See ``Views.ready``; ``views`` (B,) are slots."""
        assert self.count is not None
        return FixedViews(self.base.ready(ids, self.base_views(ids, views)), self.count) if self.mixes else self


def _crop_flip(pad: int, flip: bool) -> Callable[[str, int, tuple[int, int]], Views]:
    def make(name: str, view_seed: int, image_size: tuple[int, int]) -> Views:
        return CropFlip(name, view_seed=view_seed, image_size=image_size, pad=pad, flip=flip)

    return make


def _resized_crop(name: str, view_seed: int, image_size: tuple[int, int]) -> Views:
    from classroomkd.data.views.resized_crop import ResizedCrop

    return ResizedCrop(name, view_seed=view_seed, image_size=image_size)


def _randaugment(name: str, view_seed: int, image_size: tuple[int, int]) -> Views:
    from classroomkd.data.views.randaugment import RandAugment

    return RandAugment(name, view_seed=view_seed, image_size=image_size)


def _mixup(name: str, view_seed: int, image_size: tuple[int, int]) -> Views:
    from classroomkd.data.views.mixup import Mixup

    return Mixup(name, view_seed=view_seed, image_size=image_size)


_TABLE: dict[str, Callable[[str, int, tuple[int, int]], Views]] = {
    "crop_flip": _crop_flip(4, True),
    "crop": _crop_flip(4, False),
    "flip": _crop_flip(0, True),
    "none": _crop_flip(0, False),
    "resized_crop": _resized_crop,
    "randaugment": _randaugment,
    "mixup": _mixup,
}


assert tuple(_TABLE) == IMAGE_VIEWS


def view_names(task: str = "classification") -> tuple[str, ...]:
    """The names ``make_views`` knows for ``task``."""
    return PERSON_VIEWS if task == "pose" else IMAGE_VIEWS


def make_views(name: str, *, view_seed: int, image_size: tuple[int, int], people: ImageSet | None = None) -> Views:
    """The view space ``name`` for images of ``image_size`` (H, W), or for the persons of the image set ``people``.

    Raises:
        UserError: for an unknown name, and for views of images where persons are asked for (or the reverse).
    """
    persons = people is not None and people.people is not None
    names = PERSON_VIEWS if persons else IMAGE_VIEWS
    if name not in names:
        of = " of persons" if persons else ""
        raise UserError(
            f"data.views: there is no view space{of} '{name}'{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    if people is not None and people.people is not None:
        from classroomkd.data.views.keypoints import person_views

        return person_views(name, people, view_seed=view_seed, image_size=image_size)
    return _TABLE[name](name, view_seed, image_size)
