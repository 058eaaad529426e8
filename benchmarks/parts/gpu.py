"""Row 13: on a GPU, the warm step over the student alone, both as CUDA graphs (resnet8x4 and mobilenetv2; the worse).

Inside a graph: normalised inputs at hand, forward, the bank's rows gathered on the device by ids that change between
replays, loss, record, backward, fused update. The clock is the wall, with the device waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from classroomkd import methods, models
from classroomkd.bank import LOGITS, RowStore, SlabBank
from classroomkd.classroom import Classroom, PlainContext
from classroomkd.engine.record import Record
from parts.figures import Figure, Found, Plan, Skipped
from parts.setting import StandIn, images, stores

__all__ = ["rows"]

B, CLASSES, REPLAYS = 64, 100, 50


def _graphed(student: str, bank: SlabBank | None, samples: int) -> Callable[[], None]:
    """A whole step as one graph; calling it replays it on other samples."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    network = models.create(student, CLASSES).to(device, memory_format=torch.channels_last)
    mentors = [] if bank is None else [StandIn() for _ in bank.stores]
    room = Classroom(network, mentors, methods.create("none" if bank is None else "classroomkd"), store=bank)
    room.to(device)
    context = PlainContext(room, torch.optim.SGD(room.parameters(), lr=1e-3, momentum=0.9, fused=True))
    record = Record(len(mentors), CLASSES, device)
    batch = {
        "inputs": torch.randn(B, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last),
        "target": torch.randint(CLASSES, (B,), device=device),
        "ids": torch.randint(samples, (B,), device=device),
        "views": torch.zeros(B, dtype=torch.int64, device=device),
    }

    def step() -> None:
        record.add(room.method.step(context, batch))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay() -> None:
        for _ in range(REPLAYS):
            batch["ids"].random_(samples)
            graph.replay()
        torch.cuda.synchronize()

    return replay


def rows(plan: Plan) -> Found:
    """See the module."""
    if not torch.cuda.is_available():
        raise Skipped("no GPU was at hand")
    samples = plan.size(50_000, 1000)
    part = images(samples, CLASSES)
    made = stores(plan.folder / f"slabs-{CLASSES}", samples, CLASSES, 1)
    bank = SlabBank([{LOGITS: RowStore.at(s[LOGITS].folder)} for s in made], part.ids, torch.device("cuda"))
    bank.begin(0)
    worst, found = None, Found()
    for student in ("resnet8x4", "mobilenetv2"):
        cases = {
            "alone": _graphed(student, None, samples),
            "warm": _graphed(student, bank, samples),
            "again": _graphed(student, None, samples),
        }
        took: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(plan.turns(21) + 1):
            names = list(cases)
            for name in names[turn % 3 :] + names[: turn % 3]:
                start = time.perf_counter()
                cases[name]()
                if turn:
                    took[name].append(time.perf_counter() - start)
        figure = Figure(
            [a / b for a, b in zip(took["warm"], took["alone"], strict=True)],
            again=[a / b for a, b in zip(took["again"], took["alone"], strict=True)],
            note=f"{student}, the worse of two; wall time",
        )
        if worst is None or figure.entry(0)["median"] > worst.entry(0)["median"]:
            worst = figure
    assert worst is not None
    found.figures["gpu_warm_over_alone"] = worst
    found.missing["gpu_cifar100_minutes"] = "classroomkd run recipes/classroomkd/cifar100.yaml, with CIFAR-100 at hand"
    return found
