"""No step of any method waits for the device: nothing is read from a tensor, no shape depends on one's values."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch
from cases import KINDS, few, rules
from rooms import B, batch, by_main, classroom, said, targets
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from classroomkd.classroom import PlainContext

WAITING = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "bincount",
}
INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_"}
# On a CPU alone a gated mentor is asked about the samples that need it: asking costs nothing there.
GATE = "classroom/mentor.py"
CASES = [case for kind in KINDS for case in few(rules(kind), kind)]


class Questions(TorchDispatchMode):
    """Where a step would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if masks or name in WAITING:
            own = [f for f in traceback.extract_stack() if "/classroomkd/" in f.filename]
            if not any(f.filename.endswith(GATE) for f in own):
                self.asked.append(f"{name} at {own[-1].filename}:{own[-1].lineno}" if own else name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "name", "given"), CASES)
def test_no_step_waits_for_the_device(kind: str, name: str, given: dict[str, Any]) -> None:
    room = classroom(name, given, said(kind=kind), kind=kind)
    context = PlainContext(room, torch.optim.SGD(by_main(room).values(), lr=1e-4, momentum=0.9, foreach=False))
    inputs: Tensor = batch()[0]
    shown = {
        "inputs": inputs,
        "target": targets(B, kind),
        "ids": torch.arange(B) * 7 + 3,
        "views": torch.zeros(B).long(),
    }
    room.method.step(context, shown)  # what is made once may ask
    with Questions() as found:
        for _ in range(max(2, room.method.period)):
            room.method.step(context, shown)
    assert not found.asked


def test_a_question_is_found() -> None:
    with Questions() as found:
        x = torch.arange(3.0)
        x.sum().item(), x[x > 1], bool(x[0] == 0), x.nonzero()
    assert [line.split(" at ")[0] for line in found.asked] == [
        "_local_scalar_dense",
        "index",
        "_local_scalar_dense",
        "nonzero",
    ]
