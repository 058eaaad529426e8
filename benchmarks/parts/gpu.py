"""Row 13: on a GPU, the warm step over the student alone, both as CUDA graphs (resnet8x4 and mobilenetv2; the worse),
and the CIFAR-100 recipe as a user runs it.

Inside a graph: normalised inputs at hand, forward, the bank's rows gathered on the device by ids that change between
replays, loss, record, backward, fused update. The clock is the wall, with the device waited for.

The recipe is timed as a process of its own, from its start to the report: one arm, ``classroomkd``, and one seed, with
a cache of its own, so that filling the bank is inside. Training the mentors is not: they are the files ``NAME.pth`` or
``NAME.safetensors`` in ``--mentors``, or untrained.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from classroomkd import methods, models
from classroomkd.bank import LOGITS, EpochCache, RowStore
from classroomkd.classroom import Classroom, PlainContext
from classroomkd.train.meter import Record
from parts.figures import Figure, Found, Plan, Skipped
from parts.setting import StandIn, images, settle, stores

__all__ = ["command", "minutes", "rows"]

B, CLASSES, REPLAYS = 64, 100, 50
RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "classroomkd" / "cifar100.yaml"
TRIED = ("train.epochs=2", "train.milestones=[1]", "data.limit=400")


def _graphed(student: str, bank: EpochCache | None, samples: int) -> Callable[[], None]:
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
            graph.forward_from_tap()
        torch.cuda.synchronize()

    return replay


def _mentors(given: Path | None, folder: Path) -> tuple[dict[str, tuple[str, Path]], int]:
    """By name, model and checkpoint of the recipe's mentors; how many are untrained, which ``folder`` then holds."""
    found, made = {}, 0
    for entry in yaml.safe_load(RECIPE.read_text())["mentors"]:
        name, model = (entry, entry) if isinstance(entry, str) else (entry["name"], entry["model"])
        files = [] if given is None else [given / f"{name}{kind}" for kind in (".safetensors", ".pth")]
        file = next((f for f in files if f.exists()), None)
        if file is None:
            network, file = models.create(model, CLASSES), folder / f"{name}.pth"
            settle(network)
            torch.save(network.state_dict(), file)
            made += 1
        found[name] = (model, file)
    return found, made


def command(data: Path, mentors: Mapping[str, tuple[str, Path]], out: Path, more: Sequence[str] = ()) -> list[str]:
    """What is timed.

    Args:
        data: the folder of CIFAR-100.
        mentors: by name, model and checkpoint.
        out: the run folder; the cache lies beside it.
        more: further changes to the recipe.
    """
    arms = yaml.safe_load(RECIPE.read_text())["methods"]
    arm = next(a for a in arms if isinstance(a, dict) and a["name"] == "classroomkd")
    listed = [{"name": n, "model": model, "checkpoint": str(file.resolve())} for n, (model, file) in mentors.items()]
    changes = [
        f"data.source=cifar100:{data.resolve()}",
        f"methods={json.dumps([arm])}",
        f"mentors={json.dumps(listed)}",
    ]
    changes += ["seeds=[0]", f"cache={out.parent / 'cache'}", *more]
    return [sys.executable, "-m", "classroomkd", "run", str(RECIPE), *changes, "--out", str(out), "--quiet"]


def minutes(plan: Plan, more: Sequence[str] = ()) -> Found:
    """The recipe's figure; ``more`` are further changes to it."""
    if plan.data is None:
        return Found(missing={"gpu_cifar100_minutes": "where CIFAR-100 lies was not named: --data DIR"})
    torch.manual_seed(0)
    mentors, untrained = _mentors(plan.mentors, plan.folder)
    out = plan.folder / "cifar100"
    start = time.perf_counter()
    done = subprocess.run(command(plan.data, mentors, out, [*(TRIED if plan.quick else ()), *more]), check=False)
    if done.returncode:  # the row's other figure is not lost with it
        return Found(missing={"gpu_cifar100_minutes": f"failed: classroomkd run ended with {done.returncode}"})
    took = (time.perf_counter() - start) / 60
    entry: dict[str, Any] = json.loads((out / "summary.json").read_text())["entries"][0]
    note = (
        f"wall time of the whole command, filling the bank included; its student alone {entry['seconds'] / 60:.2f} "
        f"minutes, {entry['steps']:,} steps; {untrained} of {len(mentors)} mentors untrained"
    )
    return Found({"gpu_cifar100_minutes": Figure([took], note=note)})


def rows(plan: Plan) -> Found:
    """See the module."""
    if not torch.cuda.is_available():
        raise Skipped("no GPU was at hand")
    samples = plan.size(50_000, 1000)
    part = images(samples, CLASSES)
    made = stores(plan.folder / f"slabs-{CLASSES}", samples, CLASSES, 1)
    bank = EpochCache([{LOGITS: RowStore.at(s[LOGITS].folder)} for s in made], part.ids, torch.device("cuda"))
    bank.begin(0)
    worst = None
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
    found = minutes(plan)
    return Found({"gpu_warm_over_alone": worst, **found.figures}, found.missing)
