"""Filling stores before a training: every answer of a view space that is not stored yet, view by view."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from classroomkd.bank.rows import RowStore
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.data.views.base import Views

__all__ = ["SHARE", "fill"]

SHARE = 64  # positions that go to one shard together; fixed, so that shards agree whatever their batch size


def fill(
    stores: Mapping[str, RowStore],
    ask: Callable[[Tensor], Mapping[str, Tensor]],
    part: Part,
    space: Views,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    size: tuple[int, int] | None = None,
    device: torch.device | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    on_answers: Callable[[Mapping[str, Tensor], Tensor], None] | None = None,
) -> int:
    """Have one mentor answer what is missing in its stores, and store it.

    It can be killed at any moment and called again: whole rows stay, others are asked again. A row that has a checksum
    counts as there; one that was damaged since is found by ``verify`` or when it is read.

    Args:
        stores: by kind (``logits``, taps), open for writing, of the same views and samples.
        ask: uint8 pixels (B, channels, H, W) to answers by kind, each (B, …). B is smaller than ``batch_size`` only in
            the last batch of a view.
        part: the samples, in the order of the stores' positions.
        space: the views; its ``count`` is the stores' V.
        batch_size: samples per question.
        shard: (k, K): only the k-th of K equal shares; the K together are everything.
        size: (H, W) at which the mentor sees the views; None: the student's.
        device: where the views are drawn, the same as in training; None: where the part's pixels are.
        progress: called with ``{"done", "all", "seconds", "left"}`` after each batch: rows of this share now there, all
            that were missing in it, seconds so far, and seconds left (None before the first batch).
        on_answers: called with a batch's answers by kind, (B, …), and the samples' ids (B,), before they are stored.

    Returns:
        How many samples were asked (0: all was there).

    Raises:
        UserError: a view space without bound.
        RunStopped: no space left on the disk; what is stored stays good.
    """
    if space.count is None:
        raise UserError(f"bank: the view space '{space.name}' has no bound; use views=V or off")
    for store in stores.values():
        assert (store.views, store.samples) == (space.count, len(part)), (store, space.count, len(part))
    k, shards = shard
    assert 0 <= k < shards, shard
    space = space.over(part)
    assert space.count is not None
    positions = torch.arange(len(part))
    mine = (positions // SHARE) % shards == k
    todo = sum(int(_gone(stores, view, mine).any(0).sum()) for view in range(space.count)) if progress else 0
    done, started = 0, time.perf_counter()
    for view in range(space.count):
        gone = _gone(stores, view, mine)
        wanted = positions[gone.any(0)]
        for start in range(0, len(wanted), batch_size):
            index = wanted[start : start + batch_size]
            if not len(index):  # nothing is lacking: one empty piece
                continue
            pixels, target, ids = (value.to(device or value.device) for value in part.batch(index))
            answers = ask(space.render(pixels, target, ids, torch.full_like(ids, view), size)[0])
            if on_answers is not None:
                on_answers(answers, ids)
            for row, (kind, store) in enumerate(stores.items()):
                # Only what this kind lacks: a row that is there keeps its bytes.
                lacking = gone[row, index]
                if lacking.any():
                    chosen = index[lacking]
                    store.write(torch.full_like(chosen, view), chosen, answers[kind].to("cpu")[lacking])
            done += len(index)
            if progress:
                seconds = time.perf_counter() - started
                left = seconds / done * max(todo - done, 0)
                progress({"done": done, "all": todo, "seconds": round(seconds, 2), "left": round(left, 2)})
    for store in stores.values():
        store.flush()
    return done


def _gone(stores: Mapping[str, RowStore], view: int, mine: Tensor) -> Tensor:
    """(kinds, N) bool: which rows of this share each kind lacks in a view."""
    gone = torch.zeros(len(stores), len(mine), dtype=torch.bool)
    for row, store in enumerate(stores.values()):
        gone[row, store.missing(view)] = True
    return gone & mine
