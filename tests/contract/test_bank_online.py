"""Stored answers teach what live ones teach: every method, any kind of answer, several views, samples in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import KINDS, few, rules
from rooms import B, M, batch, by_main, classroom, said, targets
from torch import Tensor

from classroomkd import bank
from classroomkd.classroom import Classroom, PlainContext

VIEWS = 2
IDS = torch.arange(B) * 7 + 3  # 38 at most; the register knows 60
# Of three batches, which samples come in which order, and what view of each.
ORDERS = torch.stack([torch.randperm(B, generator=torch.Generator().manual_seed(i)) for i in range(3)])
SHOWN = torch.tensor([[0] * B, [1] * B, [0, 1, 1, 0, 1, 0]])
CASES = [case for kind in KINDS for case in few(rules(kind), kind)]


def taught(room: Classroom, kind: str, store: bank.FillOnMissCache | None = None) -> dict[str, Tensor]:
    """The losses of some steps with what follows each of them, and what is trained or remembered then."""
    x, y = batch(VIEWS * B)[0], targets(B, kind)
    context = PlainContext(room, torch.optim.SGD(by_main(room).values(), lr=1e-4, momentum=0.9))
    found = {}
    for step in range(len(ORDERS) if room.method.period == 1 else 2 * room.method.period + 1):
        order, views = ORDERS[step % len(ORDERS)], SHOWN[step % len(ORDERS)]
        if store is not None:
            store.stage(IDS[order], views, lambda mentor, rows: pytest.fail("everything is stored"))
        shown = {"inputs": x[views * B + order], "target": y[order], "ids": IDS[order], "views": views}
        found[f"loss {step}"] = room.method.step(context, shown).loss
    found |= dict(room.named_parameters()) | dict(room.named_buffers())
    return {key: value.detach() for key, value in found.items()}


@pytest.mark.parametrize(("kind", "name", "given"), CASES)
def test_bank_equals_online(kind: str, name: str, given: dict[str, Any], tmp_path: Path) -> None:
    answers = said(n=VIEWS * B, kind=kind)
    room = classroom(name, given, answers, kind=kind)
    if room.method.needs.mentors == 0:
        return
    asks, room.method.mentor_indices = room.method.mentor_indices, None
    everything = room.mentors.ask(batch(VIEWS * B)[0])
    room.method.mentor_indices = asks
    assert everything is not None

    def stored(what: str, mentor: int, value: Tensor) -> bank.RowStore:
        one, other = value.split(B)
        assert (one != other).flatten(1).any(1).all()  # each sample's views have answers of their own
        folder, codec = tmp_path / f"{what.strip('@').replace(':', '')}-{mentor}", bank.Dense(value.shape[1:])
        made = bank.RowStore.open(folder, {}, kind=what, views=VIEWS, samples=B, codec=codec, write=True)
        made.write(torch.arange(VIEWS).repeat_interleave(B), torch.arange(B).repeat(VIEWS), value)
        return made

    values = {bank.LOGITS: everything.prediction} | {t: everything.features[t] for t in room.method.needs.features}
    stores = [{what: stored(what, m, value[m]) for what, value in values.items()} for m in range(M)]
    slabs = bank.EpochCache(stores, IDS, torch.device("cpu"))
    for view in range(VIEWS):
        slabs.begin(view)
    exact = bank.FillOnMissCache(stores, IDS, torch.device("cpu"))
    online = taught(room, kind)
    for store, staged in ((slabs, None), (exact, exact)):
        told = classroom(name, given, answers, store=store, kind=kind)
        found = taught(told, kind, staged)
        assert told.mentors.forwards == 0
        # To the bit, as is promised of two runs on one machine: the same lessons, of the same shapes.
        torch.testing.assert_close(found, online, rtol=0, atol=0)
