"""A space of views: ``pixels = f(view seed, sample id, view id)``, bit for bit the same alone or in any batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from classroomkd._renamed import OldName, adopt_old_names
from classroomkd.data import rng
from classroomkd.data.targets import CLASS, TargetKind

if TYPE_CHECKING:
    from classroomkd.data.images import Part

__all__ = ["Views"]

_APART = 2**20  # above how often an epoch shows a sample
_PICK = 11  # a stream of random numbers; every purpose has its own


class Views:
    """A space of views. Subclasses give ``apply``; ``count`` is its size, None when unbounded; ``identity`` the view
    that changes nothing.

    ``definition`` is the canonical text with every parameter and the code's version: part of a bank's key. ``mixes``
    says whether a view shows further samples: those of the part named by :meth:`over`. ``target_kind`` says what
    targets are; a space that moves such as lie on the pixels has ``move``.
    """

    name: str
    count: int | None
    identity: int
    definition: str
    view_seed: int
    mixes: bool = False
    target_kind: TargetKind = CLASS

    look, plain, ready = OldName("render"), OldName("eval_view"), OldName("prefetch")

    def __init__(
        self,
        name: str,
        view_seed: int,
        image_size: tuple[int, int],
        *,
        count: int | None = None,
        identity: int = 0,
        target_kind: TargetKind = CLASS,
        tables: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.name, self.view_seed, self.image_size = name, view_seed, image_size
        self.count, self.identity, self.target_kind = count, identity, target_kind
        self._tables = dict(tables or {})
        self._tables_on: dict[torch.device, dict[str, Tensor]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        adopt_old_names(cls)

    def pick(self, run_seed: int, ids: Tensor, epoch: int, draw: Tensor | None = None) -> Tensor:
        """The views of this epoch: ids (B,) int64 -> view ids (B,) int64, uniform, a pure function of the arguments.

        ``draw`` (B,) int64 is how often a sample was shown before in this epoch, where that may be.
        """
        if self.count == 1:
            return torch.zeros_like(ids)
        first = self._draw(rng.tensor_keys(run_seed, _PICK, epoch, ids))
        if draw is None:
            return first
        return torch.where(draw == 0, first, self._draw(rng.tensor_keys(run_seed, _PICK, epoch, ids, draw)))

    def others(self, run_seed: int, ids: Tensor, epoch: int, number: int, draw: Tensor | None = None) -> Tensor:
        """Further views of this epoch beside :meth:`pick`'s: ids (B,) -> view ids (number, B), a pure function of the
        arguments."""
        first = torch.zeros_like(ids) if draw is None else draw
        return torch.stack([self.pick(run_seed, ids, epoch, first + n * _APART) for n in range(1, number + 1)])

    @property
    def moves_targets(self) -> bool:
        """Whether what is to be learned of a sample lies on its pixels, so that every view has its own."""
        return self.target_kind.spatial

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Augment ``pixels`` (B, C, H, W) uint8 of samples ``ids`` (B,) by ``views`` (B,) -> (B, C, H, W) uint8."""
        raise NotImplementedError

    def render(
        self, pixels: Tensor, target: Tensor, ids: Tensor, views: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The views of stored ``pixels`` and ``target`` (B, …) as a network of input ``size`` (H, W) gets them.

        Whole images have one size and targets that do not move: there ``size`` changes nothing, and whoever wants
        another size resizes the result. Targets that lie on the pixels (masks, images) are moved as the pixels are.
        Persons are rendered at ``size``, and their joints are in its pixels.
        """
        shown = self.apply(pixels, ids, views)
        return shown, self.move(target, ids, views) if self.target_kind.spatial else target

    def move(self, target: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Targets that lie on the pixels, moved as :meth:`apply` moves these: masks (B, H, W) or images (B, C, s·H,
        s·W), of any integers; what comes from outside the picture is ``target_kind.fill``."""
        raise NotImplementedError

    def eval_view(self, pixels: Tensor, target: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`render` gives for the untouched image: what scores are measured on."""
        return pixels, target

    def over(self, part: Part) -> Views:
        """The same space for the samples of ``part``; only views that mix differ by it."""
        return self

    def prefetch(self, ids: Tensor, views: Tensor) -> Views:
        """The same space with all pixels at hand that :meth:`render` needs beside the samples' own at ``ids`` (B,) and
        ``views`` (B,); may be called in a thread ahead."""
        return self

    def _table(self, name: str, device: torch.device) -> Tensor:
        """The table ``name`` on ``device``; all of them are copied there once."""
        if device not in self._tables_on:
            self._tables_on[device] = {key: table.to(device) for key, table in self._tables.items()}
        return self._tables_on[device][name]

    def _draw(self, key: Tensor) -> Tensor:
        """A view id for every key; the unbounded space's 0 (the untouched image) is never drawn."""
        if self.count is None:
            return rng.below(key, 2**31 - 1) + 1
        return rng.below(key, self.count)
