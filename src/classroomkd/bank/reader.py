"""What a training reads of a bank: an epoch's slab in memory, or single rows that are filled where they miss."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from classroomkd.bank.rows import RowStore
from classroomkd.errors import RunStopped

__all__ = ["Bank", "EpochCache", "FillOnMissCache"]

LOGITS = "logits"
Stores = Sequence[Mapping[str, RowStore]]  # by mentor, in the order of the M axis; by kind: LOGITS and taps
Ask = Callable[[int, Tensor], Mapping[str, Tensor]]  # mentor and rows (B,) of the batch to answers by kind


class Bank(ABC):
    """Stored answers of all mentors; an :class:`~classroomkd.classroom.AnswerStore` that is told of each epoch
    and batch before it is taught.

    Args:
        stores: by mentor and kind.
        ids: ``(N,)`` sample ids by position in the stores.
        device: where answers are wanted.
        pooled: taps whose stored maps are to be averaged over space.
    """

    def __init__(self, stores: Stores, ids: Tensor, device: torch.device, pooled: Collection[str] = ()) -> None:
        self.stores, self.device, self.pooled = stores, device, frozenset(pooled)
        self.samples, self.shape = len(ids), tuple(stores[0][LOGITS].codec.shape)
        at = ids.to("cpu")
        # Many more ids than samples would only be zeros: a gap costs eight bytes.
        self.at = torch.full((int(at.max()) + 1,), -1, dtype=torch.int64)
        self.at[at] = torch.arange(len(at))
        self.shapes: Mapping[str, tuple[tuple[int, ...], ...]] = {
            kind: tuple(s[kind].codec.shape[:1] if kind in self.pooled else s[kind].codec.shape for s in stores)
            for kind in stores[0]
            if kind != LOGITS
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all answers, filled or not."""
        return sum(store.nbytes for stores in self.stores for store in stores.values())

    def begin(self, view: int | None, *coming: int) -> None:  # noqa: B027  # nothing to do is fine
        """An epoch starts; ``view`` is what all its samples show, if they show the same, ``coming`` those of the
        epochs after it, in their order, as many as are known."""

    def stage(self, ids: Tensor, views: Tensor, ask: Ask) -> None:  # noqa: B027
        """A batch is about to be taught; what is not stored may be asked."""

    @abstractmethod
    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """``(M, B, …)`` float32 predictions; NaN for a sample or view that is not there, never another's."""

    @abstractmethod
    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        """All mentors' float32 activations at a tap, ``(B, channels, H, W)`` or ``(B, channels)``."""

    def _given(self, kind: str, values: Tensor) -> Tensor:
        return values.mean((2, 3)) if kind in self.pooled and values.dim() == 4 else values


class EpochCache(Bank):
    """``views=V``: in an epoch every sample is shown in the same view, so the answers of that view are read as one slab
    and kept in memory.

    As many slabs as fit into ``room`` are kept; where all V fit, nothing is read twice. Else the slab whose view is
    shown again last is replaced. Features are read row by row.

    Args:
        room: bytes that slabs may take; one is always held.

    Attributes:
        slabs: ``(M, slabs, N + 1, …)`` float16.
        held: by view, which slab holds it; -1 = none.
    """

    def __init__(
        self,
        stores: Stores,
        ids: Tensor,
        device: torch.device,
        pooled: Collection[str] = (),
        room: int = 32 * 2**20,
    ) -> None:
        super().__init__(stores, ids, device, pooled)
        views, mentors = stores[0][LOGITS].views, len(stores)
        size = 2 * (self.samples + 1) * mentors * max(1, torch.Size(self.shape).numel())
        slabs = min(max(room // size, 1), views)
        # Each mentor's views in one piece, as its store has them; the last row of a view is nobody's.
        shape = (mentors, slabs, self.samples + 1, *self.shape)
        self.slabs = torch.full(shape, torch.nan, dtype=torch.float16, device=device)
        self.held = [-1] * views
        # A sample's row and a view's first one; what is not there lies beyond the last row, which is nobody's.
        self._rows, beyond = self.slabs.flatten(1, 2), slabs * (self.samples + 1)
        self._first = torch.full((views,), beyond, dtype=torch.int64, device=device)
        self._row = self.at.where(self.at >= 0, beyond).to(device)

    def begin(self, view: int | None, *coming: int) -> None:
        """Bring the view's answers into memory, checked, and have the system read the next one's ahead."""
        assert view is not None, "fixed views are shown epoch by epoch"
        if self.held[view] < 0:
            self._load(view, self._choose_slab(coming))
        if coming and self.held[coming[0]] < 0:
            _read_ahead((stores[LOGITS] for stores in self.stores), coming[0])

    def _choose_slab(self, coming: Sequence[int]) -> int:
        """A slab that is free, or that of the view which is shown again last."""
        shown = {slab: view for view, slab in enumerate(self.held) if slab >= 0}
        if len(shown) < self.slabs.shape[1]:
            return len(shown)
        soon = {view: when for when, view in reversed(list(enumerate(coming)))}
        return max(shown, key=lambda slab: soon.get(shown[slab], len(coming)))

    def _load(self, view: int, slab: int) -> None:
        self.held = [-1 if other == slab else other for other in self.held]
        for m, stores in enumerate(self.stores):
            ok = stores[LOGITS].slab(view, self.slabs[m, slab, : self.samples])
            if not bool(ok.all()):
                self._refuse(m, LOGITS, int((~ok).sum()))
        self.held[view] = slab
        each, beyond = self.samples + 1, self._rows.shape[1]
        self._first.copy_(torch.tensor([slab * each if slab >= 0 else beyond for slab in self.held]))

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """See :meth:`Bank.lookup`."""
        row = self._first.index_select(0, views).add_(self._row.index_select(0, ids))
        return self._rows.index_select(1, row.clamp_max_(self._rows.shape[1] - 1)).float()

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Bank.features`."""
        rows, views = self.at[ids.to("cpu")], views.to("cpu")
        answers = []
        for m, stores in enumerate(self.stores):
            values, ok = stores[tap].read(views, rows.clamp_min(0))
            if not bool(ok.all()):
                self._refuse(m, tap, int((~ok).sum()))
            values = values.float().masked_fill((rows < 0).view(-1, *[1] * (values.dim() - 1)), torch.nan)
            answers.append(self._given(tap, values.to(self.device)))
        return tuple(answers)

    def _refuse(self, mentor: int, kind: str, bad: int) -> None:
        store = self.stores[mentor][kind]
        answers, they = ("answer", "is") if bad == 1 else ("answers", "are")
        problem = f"bank: {bad} stored {answers} in {store.folder} {they} missing or damaged"
        repair = f"classroomkd bank verify {store.folder} --repair"
        if store.writable:
            raise RunStopped(
                f"{problem}. Run again with --resume: what was found damaged is asked again ({repair} finds the rest "
                "at once)"
            )
        raise RunStopped(
            f"{problem}, and the store cannot be written here. Where it can: {repair}, then bank fill RECIPE"
        )


class FillOnMissCache(Bank):
    """``exact``: any view of a finite space; what is not stored is asked before the step, and stored. Also ``views=V``
    whose slabs would be too large.

    A stored answer and one that was just asked are the same to the bit: both went through the stored precision.
    """

    def __init__(self, stores: Stores, ids: Tensor, device: torch.device, pooled: Collection[str] = ()) -> None:
        super().__init__(stores, ids, device, pooled)
        self.asked = [0] * len(stores)  # by mentor, samples it answered
        self._staged: dict[str, list[Tensor]] = {}

    def begin(self, view: int | None, *coming: int) -> None:
        """Where an epoch shows one view, have the system read it and the next one ahead."""
        for soon in () if view is None else (view, *coming[:1]):
            _read_ahead((store for stores in self.stores for store in stores.values()), soon)

    def stage(self, ids: Tensor, views: Tensor, ask: Ask) -> None:
        """Bring a batch's answers into memory. Waits for the device: a miss is decided on the host."""
        rows, views = self.at[ids.to("cpu")], views.to("cpu")
        assert not bool((rows < 0).any()), "samples that are not in the bank"
        self._staged = {kind: [] for kind in self.stores[0]}
        for m, stores in enumerate(self.stores):
            stored = {kind: store.read(views, rows) for kind, store in stores.items()}
            there = torch.stack([ok for _, ok in stored.values()]).all(0)
            missing = (~there).nonzero().flatten()
            answers = ask(m, missing) if len(missing) else {}
            self.asked[m] += len(missing)
            for kind, (values, _) in stored.items():
                if len(missing):
                    codec = stores[kind].codec
                    answer = answers[kind].to("cpu", torch.float32)
                    if stores[kind].writable:
                        stores[kind].write(views[missing], rows[missing], answer)
                    values[missing] = codec.decode(codec.encode(answer)).to(values.dtype)
                self._staged[kind].append(self._given(kind, values.float().to(self.device)))

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """The staged batch's predictions."""
        assert len(self._staged.get(LOGITS, [ids[:0]])[0]) == len(ids), "a batch that was not staged"
        return torch.stack(self._staged[LOGITS])

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        """The staged batch's activations."""
        assert len(self._staged.get(tap, [ids[:0]])[0]) == len(ids), "a batch that was not staged"
        return tuple(self._staged[tap])


def _read_ahead(stores: Iterable[RowStore], view: int) -> None:
    """Have the system read a view ahead, unless it would push out of memory what is needed before."""
    wanted = list(stores)
    if sum(store.nbytes // store.views for store in wanted) <= _memory() // 4:
        for store in wanted:
            store.read_ahead(view)


def _memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
