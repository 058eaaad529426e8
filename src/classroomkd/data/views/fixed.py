"""A few fixed views of every sample, out of any space: what a bank of ``views=V`` stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd.data import rng
from classroomkd.data.views.base import Views
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.data.images import Part

__all__ = ["FixedViews"]

_SLOT, _ROUND = 12, 13  # streams of random numbers


class FixedViews(Views):
    """``V`` fixed views of every sample out of ``base``: slot 0..V-1 stands for a base view that depends on (view
    seed, id, slot).

    In a finite base the V views of a sample differ and are spread over the space: slot s draws from the s-th of V
    equal arcs of the enumeration, turned by a random offset per sample, so each slot by itself is uniform.
    """

    count: int

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
        self.target_kind = base.target_kind
        self.definition = f"fixed V={V} view_seed={base.view_seed} code=1 of [{base.definition}]"

    def base_views(self, ids: Tensor, slots: Tensor) -> Tensor:
        """The base view ids (B,) behind ``slots`` (B,) of samples ``ids`` (B,)."""
        key = rng.tensor_keys(self.view_seed, _SLOT, ids, slots)
        if self.base.count is None:
            return self.base._draw(key)
        turn = rng.below(rng.tensor_keys(self.view_seed, _SLOT, ids), self.base.count)
        start = slots * self.base.count // self.count
        length = (slots + 1) * self.base.count // self.count - start
        return (turn + start + rng.below(key, length)) % self.base.count

    def slot(self, run_seed: int, epoch: int) -> int:
        """The slot of an epoch: every one once per round of V epochs, in an order of its own for every (run seed,
        round). All samples share it, so that an epoch's stored answers lie in one piece; the views behind it are
        each sample's own."""
        turn, place = divmod(epoch, self.count)
        order = rng.tensor_keys(run_seed, _ROUND, turn, torch.arange(self.count)).argsort(stable=True)
        return int(order[place])

    def pick(self, run_seed: int, ids: Tensor, epoch: int, draw: Tensor | None = None) -> Tensor:
        """The epoch's :meth:`slot` for every sample: (B,) -> (B,); also where it is shown again, as that slot's answers
        are at hand."""
        return torch.full_like(ids, self.slot(run_seed, epoch))

    def others(self, run_seed: int, ids: Tensor, epoch: int, number: int, draw: Tensor | None = None) -> Tensor:
        """The slots behind the epoch's, in a circle: (B,) -> (number, B)."""
        slot = self.slot(run_seed, epoch)
        return torch.stack([torch.full_like(ids, (slot + n) % self.count) for n in range(1, number + 1)])

    @property
    def moves_targets(self) -> bool:
        """See ``Views.moves_targets``."""
        return self.base.moves_targets

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``; ``views`` (B,) are slots."""
        ids, views = ids.to(pixels.device), views.to(pixels.device)
        return self.base.apply(pixels, ids, self.base_views(ids, views))

    def render(
        self, pixels: Tensor, target: Tensor, ids: Tensor, views: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``Views.render``; ``views`` (B,) are slots."""
        ids, views = ids.to(pixels.device), views.to(pixels.device)
        return self.base.render(pixels, target, ids, self.base_views(ids, views), size)

    def move(self, target: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.move``; ``views`` (B,) are slots."""
        ids, views = ids.to(target.device), views.to(target.device)
        return self.base.move(target, ids, self.base_views(ids, views))

    def eval_view(self, pixels: Tensor, target: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """See ``Views.eval_view``."""
        return self.base.eval_view(pixels, target, size)

    def over(self, part: Part) -> Views:
        """See ``Views.over``."""
        return FixedViews(self.base.over(part), self.count) if self.mixes else self

    def prefetch(self, ids: Tensor, views: Tensor) -> Views:
        """See ``Views.prefetch``; ``views`` (B,) are slots."""
        return FixedViews(self.base.prefetch(ids, self.base_views(ids, views)), self.count) if self.mixes else self
