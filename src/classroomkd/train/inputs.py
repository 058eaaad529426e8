"""From uint8 pixels to a network's inputs, and the order in which training sees the samples."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.train.mixing import Mixing

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import TrainSpec

    # Pixels, target, ids and views; further views; and the space with what else these show.
    _Found = tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, Views]

__all__ = [
    "Batches",
    "Inputs",
    "batch_sizes",
    "check_views",
    "extra_size_key",
    "extra_size_of",
    "left_out",
    "shared",
    "uneven",
    "updates",
]

_SIGHT = "pixels at "


def extra_size_key(size: tuple[int, int]) -> str:
    """Where a batch keeps its views drawn at another (H, W)."""
    return f"{_SIGHT}{size[0]}x{size[1]}"


def extra_size_of(key: str) -> tuple[int, int] | None:
    """The (H, W) of a :func:`extra_size_key`; None for a batch's other keys."""
    if not key.startswith(_SIGHT):
        return None
    height, width = key.removeprefix(_SIGHT).split("x")
    return int(height), int(width)


class Inputs:
    """Normalise: ``(B, C, H, W)`` uint8 to float, (x / 255 − mean) / std, on the training device.

    Args:
        mean, std: per channel, pixels in 0..1.
        device: where inputs go.
        channels_last: memory format of the result, faster for convolutions on most devices.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], device: torch.device, channels_last: bool = True
    ) -> None:
        self.mean, self.std = tuple(mean), tuple(std)
        scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, -1, 1, 1)
        self._scale = scale
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.device = device

    def __call__(self, pixels: Tensor) -> Tensor:
        """Inputs of a batch of pixels (uint8, or floats already in 0..255)."""
        pixels = pixels.to(self.device, non_blocking=True)
        x = torch.addcmul(self._shift, pixels.to(torch.float32), self._scale)
        return x.contiguous(memory_format=self._format)


def batch_sizes(samples: int, batch: int, drop_last: bool | None, whole_batch: bool) -> tuple[list[int], int]:
    """How many samples each batch of an epoch has, and how many are left out; see :class:`Batches`."""
    full, rest = divmod(samples, batch)
    drop = (rest == 1 or (whole_batch and 4 * rest < batch)) if drop_last is None else drop_last
    return [batch] * full + ([rest] if rest and not drop else []), rest if drop else 0


def shared(size: int, world: int) -> tuple[int, ...]:
    """How many samples of a batch each rank has."""
    return tuple(size * (rank + 1) // world - size * rank // world for rank in range(world))


def uneven(batch_size: int, world: int) -> str:
    """What to say of a batch size that ranks cannot share evenly."""
    less = batch_size - batch_size % world
    near = [str(size) for size in (less, less + world) if size]
    return (
        f"train.batch_size={batch_size} is shared by {world} processes and does not divide by their number; set "
        f"train.batch_size={' or '.join(near)}, or start another number of processes"
    )


def left_out(dropped: int, samples: int, spec: TrainSpec) -> str | None:
    """A sentence about samples that an epoch leaves out; None where there are none."""
    if not dropped:
        return None
    why = "a batch of one has no statistics" if dropped == 1 else "too few for a batch of their own"
    why = "train.drop_last=true" if spec.drop_last is True else f"{why}; train.drop_last=false keeps them"
    return f"every epoch leaves out {dropped} of {samples} training samples, each time others: {why}"


def updates(batches: int, spec: TrainSpec) -> int:
    """Steps of the optimiser in a training of so many batches an epoch."""
    return -(-batches // spec.accumulate) * spec.epochs


def check_views(number: int, views: Views, who: str) -> None:
    """Refuse a step of several views of each sample where there are not so many, or where they would not do.

    Args:
        number: of views.
        views: the space.
        who: who asks, for the message.

    Raises:
        UserError: fewer views than that; views that mix samples, or whose targets move with the picture.
    """
    if number < 2:
        return
    if views.count is not None and views.count < number:
        there = "one view of a sample" if views.count == 1 else f"{views.count} views of a sample"
        raise UserError(
            f"{who}: a step shows {number} views of each sample, and {views.name} has {there}; set data.views "
            f"(crop_flip), bank=views=V with V of {number} or more, or views: 1"
        )
    if views.mixes or views.moves_targets:
        why = "mix samples" if views.mixes else "move what is to be learned with the picture"
        raise UserError(f"{who}: a step shows {number} views of each sample, and {views.name} views {why}; views: 1")


class Batches:
    """The training order: a fresh permutation per (seed, epoch), the same on every machine and for any rank count; with
    ``ratio`` one of each kind of sample (:class:`~classroomkd.train.mixing.Mixing`).

    Args:
        part: the training samples.
        views: the augmentation; where it mixes samples, partners are drawn from ``part``.
        batch_size: samples of a step over all ranks together.
        seed: the run's seed.
        drop_last: leave out a last, smaller batch; None = where it would hold a single sample (BatchNorm), or, with
            ``whole_batch``, less than a quarter of a batch.
        whole_batch: whether the method compares the samples of a batch with each other.
        ratio: samples without a label to one with a label in every batch; None: all samples alike.
        rank, world: this rank takes its contiguous share of every batch. Where shares differ or hold a single sample,
            ranks are filled up to the same number, two at least, with other samples of the epoch.
        sizes: (H, W) at which mentors want the same views drawn, beside the student's.
        size: (H, W) at which whoever is taught wants them; None: the data's.
        shown: how many views of each sample a batch shows; above 1 its pixels are ``(shown, B, …)``.
        device: where views are drawn; None: where the part fetches its pixels. What the part decodes from files is
            fetched one batch ahead.

    Attributes:
        sizes: samples of each batch, over all ranks.
        dropped: samples that an epoch leaves out.

    Raises:
        UserError: a batch size that the ranks cannot share evenly.
    """

    def __init__(
        self,
        part: Part,
        views: Views,
        batch_size: int,
        seed: int,
        *,
        drop_last: bool | None = None,
        whole_batch: bool = False,
        ratio: float | None = None,
        rank: int = 0,
        world: int = 1,
        sizes: Sequence[tuple[int, int]] = (),
        size: tuple[int, int] | None = None,
        shown: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.device, self.shown = device, shown
        self.others, self.size = tuple(sizes), size
        if batch_size % world:
            raise UserError(uneven(batch_size, world))
        self.part, self.views, self.seed = part, views.over(part), seed
        self.batch_size = min(batch_size, len(part))
        self.rank, self.world = rank, world
        self.mixing = None if ratio is None else Mixing(part, self.batch_size, ratio, drop_last, whole_batch)
        if self.mixing is None:
            self.sizes, self.dropped = batch_sizes(len(part), self.batch_size, drop_last, whole_batch)
        else:
            self.sizes, self.dropped = self.mixing.sizes, self.mixing.dropped

    def __len__(self) -> int:
        return len(self.sizes)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[dict[str, Any]]:
        """Batches of one epoch after the first ``done``: ``pixels`` (uint8, augmented), ``target``, ``ids``, ``views``.

        Where ranks are filled up, ``shares`` says how many samples of the batch are each rank's own; they come first.
        """
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        draws: Tensor | None = None
        if self.mixing is None:
            order = torch.randperm(len(self.part), generator=generator).to(self.part.rows.device)
        else:
            order, draws = (value.to(self.part.rows.device) for value in self.mixing.order(generator))
        starts = list(itertools.accumulate(self.sizes, initial=0))
        shares = [shared(size, self.world) for size in self.sizes]
        places = [
            tuple(self._place(value, start, own) for value in (order, draws) if value is not None)
            for start, own in zip(starts, shares, strict=False)
        ]
        for own, (fetched, further, space) in zip(shares[done:], self._fetched(places[done:], epoch), strict=True):
            batch = self._drawn(fetched, further, space)
            if len(batch["ids"]) > own[self.rank] or len(set(own)) > 1:
                batch["shares"] = own
            yield batch

    def spread(self, samples: int) -> Iterator[dict[str, Any]]:
        """Batches of so many samples (all, of fewer), evenly spaced in the order of their ids, each in the view of the
        first epoch. Every rank is given all of them."""
        rows = torch.argsort(self.part.ids.cpu(), stable=True)
        count = min(samples, len(rows))
        rows = rows[torch.arange(count) * len(rows) // max(count, 1)].to(self.part.rows.device)
        places = [(some,) for some in torch.tensor_split(rows, -(-count // self.batch_size))]
        for found in self._fetched(places, 0):
            yield self._drawn(*found)

    def _drawn(self, fetched: tuple[Tensor, Tensor, Tensor, Tensor], further: Tensor, space: Views) -> dict[str, Any]:
        """A batch of what was fetched, its views drawn at every size that is wanted."""
        device = self.device or fetched[0].device
        pixels, target, ids, views = (value.to(device, non_blocking=True) for value in fetched)
        shown, moved = space.render(pixels, target, ids, views, self.size)
        if len(further):
            more = (space.render(pixels, target, ids, one.to(device), self.size)[0] for one in further)
            shown = torch.stack([shown, *more])
        batch: dict[str, Any] = {"pixels": shown, "target": moved, "ids": ids, "views": views}
        for other in self.others:
            batch[extra_size_key(other)], _ = space.render(pixels, target, ids, views, other)
        return batch

    def _place(self, order: Tensor, start: int, shares: Sequence[int]) -> Tensor:
        """This rank's samples of the batch that begins at ``start``, and those that fill it up.

        These are its own of the epoch's first batch (whose answers are at hand), or in the first batch what follows.
        """
        first, own = start + sum(shares[: self.rank]), shares[self.rank]
        most = max(2, *shares) if self.world > 1 else own
        spare = self.rank * self.sizes[0] // self.world if start else first + own
        filling = [(spare + n) % self.sizes[0] for n in range(most - own)]
        return torch.cat([order[first : first + own], order[filling]]) if filling else order[first : first + own]

    def _pinned(self, value: Tensor) -> Tensor:
        """A tensor in memory that a GPU reads while the host goes on; as it is where there is nothing to bring."""
        away = self.device is not None and self.device.type == "cuda" and value.device.type == "cpu"
        return value.pin_memory() if away else value

    def _fetched(self, places: Sequence[tuple[Tensor, ...]], epoch: int) -> Iterator[_Found]:
        """The part's batches at ``places`` (with how often each sample was shown before in this epoch, where that may
        be); while one is used, a thread decodes the next."""

        def fetch(place: tuple[Tensor, ...]) -> _Found:
            pixels, target, ids = self.part.batch(place[0])
            views = self.views.pick(self.seed, ids, epoch, *(draw.to(ids.device) for draw in place[1:]))
            fetched = (self._pinned(pixels), self._pinned(target), self._pinned(ids), self._pinned(views))
            draws = (draw.to(ids.device) for draw in place[1:])
            more = self.views.others(self.seed, ids, epoch, self.shown - 1, *draws) if self.shown > 1 else ids[:0]
            return fetched, more, self.views.prefetch(ids, views)

        if not self.part.pixels.decodes:
            yield from map(fetch, places)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batch") as pool:
            ahead: deque[Future[_Found]] = deque()
            for place in places:
                ahead.append(pool.submit(fetch, place))
                if len(ahead) > 1:
                    yield ahead.popleft().result()
            yield from (last.result() for last in ahead)
