"""What one training step costs over the student alone, for every method: mentors online, and answers from the bank.

    python benchmarks/step_cost.py     # resnet8, batch 64, five mentors, made-up pixels; a quarter of an hour

All variants in one process, interleaved in rotating order, one thread, CPU time; the figure is the median over rounds
of the ratio to the student alone in the same round, with quartiles; the A/A row (the student alone twice) says what the
machine can resolve. Untrained networks: what they say does not change what it costs. Writes ``results/step_cost.json``.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classroomkd import methods, models, tasks
from classroomkd.classroom import Classroom, Mentor, PlainContext
from classroomkd.tasks import offering
from classroomkd.train.allocator import keep_large_blocks
from classroomkd.train.meter import Record

HERE = Path(__file__).parent
MENTORS = ("resnet20", "wrn_16_1", "mobilenetv2", "vgg8", "resnet8")
B, CLASSES, ROUNDS = 64, 10, 9
OPTIONS: dict[str, dict[str, Any]] = {"mmkd": {"meta_every": 10**6}}  # meta steps: meta_step.py


class Stored:
    """Answers in memory, looked up by id and view as the bank does; activations are of one view, in half precision."""

    def __init__(self, mentors: int, shapes: Mapping[str, tuple[tuple[int, ...], ...]]) -> None:
        self.answers = torch.randn(4, 512, mentors, CLASSES).half()
        self.shapes = shapes
        self.maps = {tap: [torch.randn(512, *shape).half() for shape in found] for tap, found in shapes.items()}

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        return self.answers[views, ids].permute(1, 0, 2).float()

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        return tuple(found[ids].float() for found in self.maps[tap])


def variant(name: str, options: dict[str, Any], stored: bool) -> Callable[[], None]:
    """One method's whole step: lesson, terms, record, backward, update."""
    torch.manual_seed(0)
    student = models.create("resnet8", CLASSES).to(memory_format=torch.channels_last)
    teachers = [
        Mentor(models.create(m, CLASSES).to(memory_format=torch.channels_last), f"{m}-{i}")
        for i, m in enumerate(MENTORS)
    ]
    room = Classroom(
        student,
        teachers,
        methods.create(name, **options),
        task=tasks.create("classification"),
        image_shape=(3, 32, 32),
        scores=[0.5 + 0.01 * i for i in range(len(teachers))],
        register=(torch.arange(512), torch.arange(512) % CLASSES),
        taught=[m == MENTORS[-1] for m in MENTORS],  # TAKD's student learns from the last of the chain
    )
    room.progress = 0.0  # a schedule's factor costs the same at any time
    if stored:
        room.mentors.store = Stored(len(teachers), {} if room.shapes is None else room.shapes.mentors)
    optimizer = torch.optim.SGD(room.parameters(), lr=1e-3, momentum=0.9, fused=True)
    context, record = PlainContext(room, optimizer), Record(len(teachers), CLASSES, torch.device("cpu"))
    ids = torch.randint(512, (B,))
    batch = {
        "inputs": torch.randn(B, 3, 32, 32).contiguous(memory_format=torch.channels_last),
        "target": ids % CLASSES,
        "ids": ids,
        "views": torch.randint(4, (B,)),
    }

    def step() -> None:
        record.add(room.method.step(context, batch))

    return step


def main() -> None:
    torch.set_num_threads(1)
    keep_large_blocks()
    cases: dict[str, Callable[[], None]] = {
        "student alone": variant("none", {}, False),
        "student alone again (A/A)": variant("none", {}, False),
    }
    for name in methods.names():
        entry = methods.entries()[name]
        if name == "none" or "classification" not in offering(entry.asks):
            continue
        if methods.create(name).needs.takes_peers:
            continue  # its steps are those of several networks
        for options in [{"rule": r} for r in entry.rules] or [{}]:
            label = " ".join([name, *options.values()])
            label += " (between meta steps)" if name in OPTIONS else ""
            cases[f"{label}, bank"] = variant(name, options | OPTIONS.get(name, {}), True)
            cases[f"{label}, online"] = variant(name, options | OPTIONS.get(name, {}), False)
    for step in cases.values():
        step()
    names = list(cases)
    ratios: dict[str, list[float]] = {n: [] for n in names}
    wall: dict[str, list[float]] = {n: [] for n in names}
    for i in range(ROUNDS):
        took = {}
        for name in names[i % len(names) :] + names[: i % len(names)]:
            cpu, clock = time.process_time(), time.perf_counter()
            for _ in range(2):
                cases[name]()
            took[name] = time.process_time() - cpu
            wall[name].append((time.perf_counter() - clock) / 2)
        for name in names:
            ratios[name].append(took[name] / took[names[0]])
    rows = []
    for name in names[1:]:
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        rows.append(
            {
                "step": name,
                "median": round(middle, 3),
                "q1": round(low, 3),
                "q3": round(high, 3),
                "wall_ms": round(1000 * statistics.median(wall[name]), 1),
            }
        )
        print(f"{name:32s} {middle:.3f} [{low:.3f} {high:.3f}]")
    (HERE / "results").mkdir(exist_ok=True)
    result = {
        "command": "python benchmarks/step_cost.py",
        "machine": f"{platform.machine()}, one thread, torch {torch.__version__}",
        "student": "resnet8", "mentors": MENTORS, "batch": B, "rounds": ROUNDS, "rows": rows,
    }  # fmt: skip
    (HERE / "results" / "step_cost.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
