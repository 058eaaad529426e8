"""Batches that hold samples with labels and without in a given ratio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from classroomkd.data import Part
from classroomkd.errors import UserError

__all__ = ["Mixing", "check_ratio"]


def check_ratio(part: Part, ratio: float | None, batch_size: int) -> None:
    """Refuse ``train.unlabelled_ratio`` where there is nothing to mix.

    Raises:
        UserError: no sample of ``part`` has a label, or all have one; batches of one.
    """
    if ratio is None:
        return
    if batch_size < 2:
        raise UserError("train.unlabelled_ratio: a batch of one has one kind; set train.batch_size to 2 or more")
    labelled = int(part.labelled.sum())
    if 0 < labelled < len(part):
        return
    why = "has a label" if not labelled else "is without a label"
    more = "give some a label" if not labelled else "add pictures (data.unlabelled: images:DIR)"
    raise UserError(f"train.unlabelled_ratio = {ratio:g}: no training image {why}; leave the key out, or {more}")


class Mixing:
    """The order of an epoch whose batches hold ``ratio`` samples without a label to one with a label.

    Of a batch of B, B · ratio / (1 + ratio) (rounded; one of each kind at least) are without a label. An epoch shows
    all samples of the kind that needs more batches once, in a random order; of the other kind it shows all, again and
    again, each time in another order. In a last, smaller batch both are fewer in proportion.

    Args:
        part: the training samples.
        batch_size: samples of a batch.
        ratio: above 0.
        drop_last, whole_batch: as :class:`~classroomkd.train.inputs.Batches` takes them.

    Attributes:
        sizes: samples of each batch.
        dropped: samples of the kind that needs more batches that an epoch leaves out.

    Raises:
        UserError: a batch of one; no sample with a label, or none without.
    """

    def __init__(
        self, part: Part, batch_size: int, ratio: float, drop_last: bool | None = None, whole_batch: bool = False
    ) -> None:
        check_ratio(part, ratio, batch_size)
        some = min(max(math.floor(batch_size * ratio / (1 + ratio) + 0.5), 1), batch_size - 1)
        labelled = part.labelled.cpu()
        kinds = [
            (torch.nonzero(~labelled).flatten(), some),
            (torch.nonzero(labelled).flatten(), batch_size - some),
        ]
        # The longer kind needs more batches; both need the same where their numbers are as their shares.
        (self._long, self._each), (self._short, self._others) = sorted(kinds, key=lambda kind: -len(kind[0]) / kind[1])
        full, rest = divmod(len(self._long), self._each)
        others = max(1, math.floor(rest * self._others / self._each + 0.5)) if rest else 0
        last = rest + others
        drop = (whole_batch and 4 * last < batch_size) if drop_last is None else drop_last
        self._rest = (rest, others) if rest and not drop else (0, 0)
        self.sizes = [batch_size] * full + ([last] if rest and not drop else [])
        self.dropped = rest if drop else 0
        self._full = full

    def order(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Places in the part, batch after batch of an epoch, and how often that sample was shown before in it."""
        long, short = torch.randperm(len(self._long), generator=generator), []
        needed, length = self._full * self._others + self._rest[1], 0
        while length < needed:
            short.append(torch.randperm(len(self._short), generator=generator))
            length += len(self._short)
        again = torch.arange(needed) // len(self._short)
        shown = torch.cat(short)[:needed]
        places, draws = [], []
        for batch, size in enumerate(self.sizes):
            mine, theirs = (self._each, self._others) if batch < self._full else self._rest
            spread = _spread(mine, size)
            place, draw = torch.empty(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
            first, other = batch * self._each, batch * self._others
            place[spread] = self._long[long[first : first + mine]]
            place[~spread] = self._short[shown[other : other + theirs]]
            draw[~spread] = again[other : other + theirs]
            places.append(place)
            draws.append(draw)
        return torch.cat(places), torch.cat(draws)


def _spread(count: int, size: int) -> Tensor:
    """``count`` of ``size`` places, evenly spread, so that all ranks' shares hold both kinds; (size,) bool."""
    steps = torch.arange(size + 1) * count // size
    return steps[1:] > steps[:-1]
