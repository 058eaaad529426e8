"""A memory of every training sample: one unit vector for each network, and the draw of samples of other classes.

Shapes: N samples, B of them in a batch, d the vectors' length, K draws for each. A row is a sample's place in the
memory; row N stands for all samples that the register does not hold, and is zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.functional import draw, wide

__all__ = ["Memory"]


class Memory(nn.Module):
    """Vectors of all training samples, found by id.

    Args:
        ids, labels: ``(N,)`` of the training samples, whole numbers.
        networks: how many networks are remembered.
        size: d.
        draws: the largest K; at most as many as the smallest choice of other samples that any class has.
        momentum: what is kept of a row when its sample is seen again, in [0, 1).
        label: the method, for messages.

    Raises:
        UserError: ids that are not unique, a single class, ids and labels of different number.
    """

    ids: Tensor
    by_class: Tensor
    first: Tensor
    count: Tensor
    rows: Tensor

    def __init__(
        self, ids: Tensor, labels: Tensor, networks: int, size: int, draws: int, momentum: float, label: str
    ) -> None:
        super().__init__()
        if len(ids) != len(labels):
            raise UserError(f"{label}: the register names {len(ids)} ids and {len(labels)} labels; give one of each")
        ids, order = ids.detach().to("cpu", torch.int64).sort()
        repeated = len(ids) - len(set(ids.tolist()))
        if repeated:
            raise UserError(f"{label}: {repeated} id(s) of the register are given twice; every sample needs its own")
        _, place, counts = labels.detach().to("cpu")[order].unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        if len(counts) < 2:
            raise UserError(f"{label} compares samples of different classes; the register holds {len(counts)} class")
        self.samples, self.momentum = len(ids), momentum
        self.draws = min(draws, self.samples - int(counts.max()))
        nothing = torch.zeros(1, dtype=torch.int64)
        parts = {
            "ids": ids,
            "by_class": place.argsort(stable=True),  # rows, one class after the other
            "first": torch.cat([(counts.cumsum(0) - counts)[place], nothing]),  # where a row's own class begins there
            "count": torch.cat([counts[place], nothing]),  # and how many rows it has
        }
        for name, part in parts.items():
            self.register_buffer(name, part, persistent=False)  # follows from the register
        sources = [torch.Generator().manual_seed(network) for network in range(networks)]
        rows = [torch.rand(self.samples + 1, size, generator=source) - 0.5 for source in sources]
        self.register_buffer("rows", F.normalize(torch.stack(rows), dim=-1))
        self.rows[:, -1] = 0.0
        self._waiting: tuple[Tensor, Tensor] | None = None
        self.register_state_dict_pre_hook(_settled)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_dropped)  # type: ignore[no-untyped-call]

    def find(self, ids: Tensor) -> Tensor:
        """The rows ``(B,)`` of samples by id; N for those the register does not hold."""
        place = torch.searchsorted(self.ids, ids).clamp_max(self.samples - 1)
        return place.where(self.ids[place] == ids, self.samples)

    def others(self, ids: Tensor, rows: Tensor, step: int) -> Tensor:
        """K rows of other classes for each sample, ``(B, K)``, drawn with replacement by a hash of (id, step)."""
        keys = ids.unsqueeze(1) * self.draws + torch.arange(self.draws, device=ids.device)
        first, count = self.first[rows].unsqueeze(1), self.count[rows].unsqueeze(1)
        choice = self.samples - count
        place = torch.minimum((draw(keys, step, 0) * choice).to(torch.int64), choice - 1)  # the product may round up
        return self.by_class[place + count * (place >= first)]

    def compare(self, vectors: Tensor, network: int, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Products of vectors ``(B, d)`` with their own rows ``(B,)``, and with others, shaped as :meth:`counted`."""
        memory = wide(self.rows[network])
        own = (vectors * memory[rows]).sum(1)
        if self._all():
            return own, vectors @ memory[:-1].T
        return own, torch.bmm(memory[others], vectors.unsqueeze(2)).squeeze(2)

    def counted(self, others: Tensor, like: Tensor) -> Tensor:
        """How often each of the products counts: ``(B, N)`` with every row, ``(B, K)`` ones with the drawn alone.

        One product with the whole memory is smaller than the drawn rows themselves up to N = K · d. Its gradient also
        does not depend on the order of additions, as that of gathered rows would on a GPU.
        """
        if not self._all():
            return like.new_ones(others.shape)
        return like.new_zeros(len(others), self.samples).scatter_add_(1, others, like.new_ones(others.shape))

    def _all(self) -> bool:
        return self.samples <= self.draws * self.rows.shape[-1]

    def expect(self, rows: Tensor, vectors: Tensor) -> None:
        """Keep rows ``(B,)`` and unit vectors ``(B, networks, d)`` without gradient, until :meth:`settle`."""
        self._waiting = rows, vectors

    @torch.no_grad()
    def settle(self) -> None:
        """Move the rows that are expected towards their vectors; of a sample that comes twice, the last one counts."""
        if self._waiting is None:
            return
        (rows, vectors), self._waiting = self._waiting, None
        later = (rows.unsqueeze(1) == rows).triu(1).any(1)
        rows = rows.masked_fill(later, self.samples)
        vectors = vectors.transpose(0, 1).to(self.rows.dtype)
        moved = self.momentum * self.rows[:, rows] + (1 - self.momentum) * vectors
        self.rows.index_copy_(1, rows, F.normalize(moved, dim=-1))
        self.rows[:, -1] = 0.0


def _settled(memory: nn.Module, *_: object) -> None:
    """What is saved holds what the last lesson left."""
    assert isinstance(memory, Memory)
    memory.settle()


def _dropped(memory: nn.Module, *_: object) -> None:
    """What is loaded does not know the lessons before."""
    assert isinstance(memory, Memory)
    memory._waiting = None
