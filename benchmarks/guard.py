"""The guard against regressions: counts that must not change, and a few ratios of a tiny set-up; seconds.

    python benchmarks/guard.py                     # compare with guard.json; exit code 1 when something is worse
    python benchmarks/guard.py --repeat 30 --write # measure anew and commit: medians, spread and tolerance
    python benchmarks/guard.py --repeat 30         # count its false alarms, into results/guard.json

Counts (mentors' forwards, bytes of a row, rows read, operations launched) say more than clocks and are compared
exactly. Ratios are medians of interleaved rounds on one thread in CPU time. A ratio fails only upwards, beyond a
tolerance that ``--write`` derives from its repeats, and only when it fails three times in a row. On a machine that the
limits were not measured on, a ratio may be twice the committed one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from bench import machine
from parts import exact, loss
from parts.figures import Plan, quartiles, ratios
from parts.setting import StandIn, images, slab_bank, stores, training
from peers.rounds import measure
from torch.utils._python_dispatch import TorchDispatchMode

from classroomkd import models
from classroomkd.bank import LOGITS, Dense, FillOnMissCache, RowStore, TopK
from classroomkd.bank.table import Table
from classroomkd.classroom import Answers, Classroom, Lesson
from classroomkd.train.allocator import keep_large_blocks
from classroomkd.train.meter import Record

__all__ = ["ALARMS", "FILE", "TRIES", "compare", "counts", "limits", "timings"]

FILE = Path(__file__).resolve().parent / "guard.json"
ALARMS = FILE.parent / "results" / "guard.json"
SAMPLES, CLASSES, B, ROUNDS, TRIES = 256, 100, 32, 15, 3
ELSEWHERE, OTHER_TORCH = 2.0, 1.1  # times the committed ratio, or number of operations, where it was not measured


class Launches(TorchDispatchMode):
    """How many operations were launched."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _rows_read() -> Iterator[list[int]]:
    """Rows that stores read meanwhile, whatever for."""
    read, blocks, found = Table.read, Table.blocks, [0]

    def counted(self: Table, v: Any, p: Any) -> Any:
        found[0] += len(p)
        return read(self, v, p)

    def counted_blocks(self: Table, *args: Any) -> Iterator[Any]:
        for block in blocks(self, *args):
            found[0] += len(block[0])
            yield block

    Table.read, Table.blocks = counted, counted_blocks  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Table.read, Table.blocks = read, blocks  # type: ignore[method-assign]


def launches(mentors: int) -> int:
    """Operations of ``classroomkd``'s loss with its backward to the logits, and of the record."""
    room = Classroom(models.create("resnet8", CLASSES), [StandIn() for _ in range(mentors)], "classroomkd")
    logits, target = torch.randn(B, CLASSES, requires_grad=True), torch.randint(CLASSES, (B,))
    record = Record(mentors, CLASSES, torch.device("cpu"))
    lesson = Lesson(logits, target, Answers(logits), Answers(torch.randn(mentors, B, CLASSES)), room.task)
    with Launches() as seen:
        lesson.conclude(room.method(lesson))
        lesson.loss.backward()
        record.add(lesson)
    return seen.count


def counts(folder: Path) -> dict[str, Any]:
    """What is counted; the same on every machine."""
    found: dict[str, Any] = {}
    part = images(SAMPLES, CLASSES)
    room = Classroom(models.create("resnet8", 10), [models.create("resnet8", 10) for _ in range(3)], "average")
    pixels, target = torch.randn(4, 3, 32, 32), torch.randint(10, (4,))
    room(pixels, target)
    found["mentor forwards of an online step, three mentors"] = room.mentors.forwards
    codecs = {"dense, 100 classes": Dense((CLASSES,)), "top-50 of 1000": TopK(1000, 50)}
    found |= {f"bytes of a row, {name}": codec.row_bytes for name, codec in codecs.items()}
    made = stores(folder / "slab", SAMPLES, CLASSES, 2, mentors=3)
    found["bytes of a store, 2 views of 256"] = made[0][LOGITS].nbytes
    bank = slab_bank(made, part)
    with _rows_read() as rows:
        bank.begin(0)
        found["rows read for a slab, three mentors of 256"] = rows[0]
        bank.lookup(part.ids[:B], torch.zeros(B, dtype=torch.int64))
        bank.begin(0)
        found["rows read afterwards"] = rows[0] - found["rows read for a slab, three mentors of 256"]
    warm = training("resnet8", part, 2, CLASSES, bank=bank, batch=B)
    warm.some(3)
    found["mentor forwards of three warm steps"] = warm.context.classroom.mentors.forwards
    miss = FillOnMissCache([{LOGITS: RowStore.at(s[LOGITS].folder)} for s in made], part.ids, torch.device("cpu"))
    with _rows_read() as rows:
        miss.stage(part.ids[:B], torch.zeros(B, dtype=torch.int64), lambda m, at: {})
        found["rows read for a batch of 32, exact, three mentors"] = rows[0]
    found["mentor forwards of exact, 60 samples, 40 epochs"] = round(
        exact.asked(Plan(folder), 60, 40, 1, batch=60)[0] * 40 * 60
    )
    few, many = launches(2), launches(6)
    found["operations that four more mentors add to the loss"] = many - few
    return found


def at_most() -> dict[str, int]:
    """Counts that depend a little on torch's version, and may only fall."""
    return {"operations of loss, backward and record": launches(6)}


def timings(folder: Path) -> dict[str, float]:
    """The ratios, each the median over rounds."""
    part = images(SAMPLES, CLASSES)
    bank = slab_bank(stores(folder / "timed", SAMPLES, CLASSES, 2), part)
    warm = training("convnet8", part, 2, CLASSES, bank=bank, batch=B)
    alone = training("convnet8", part, 2, CLASSES, batch=B)
    steps = measure({"alone": partial(alone.some, 2), "warm": partial(warm.some, 2)}, ROUNDS)
    fused, loop = loss._forms()
    forms = measure({"loop": partial(_often, loop), "fused": partial(_often, fused)}, ROUNDS)
    ids, views = part.ids[:64], torch.zeros(64, dtype=torch.int64)
    bank.begin(0)
    rows = torch.randn(SAMPLES, 6, CLASSES).half()

    def gather() -> None:
        rows.index_select(0, ids).transpose(0, 1).float()

    reads = measure(
        {"gather": partial(_often, gather, 200), "lookup": partial(_often, partial(bank.lookup, ids, views), 200)},
        ROUNDS,
    )
    pairs = {
        "warm step over the student alone, convnet8, batch 32": (steps["warm"], steps["alone"]),
        "fused loss over a loop over the mentors": (forms["fused"], forms["loop"]),
        "lookup of 64 over a bare gather": (reads["lookup"], reads["gather"]),
    }
    return {name: quartiles(ratios(a, b).values)["median"] for name, (a, b) in pairs.items()}


def _often(work: Any, times: int = 5) -> None:
    for _ in range(times):
        work()


def limits(committed: dict[str, Any]) -> dict[str, float]:
    """By ratio, the limit on this machine."""
    here = committed["machine"] == machine()
    return {name: row["limit"] if here else ELSEWHERE * row["median"] for name, row in committed["ratios"].items()}


def compare(committed: dict[str, Any], folder: Path) -> list[str]:
    """What is worse than committed, in words."""
    most = committed["at_most"]
    if committed["torch"] != torch.__version__:
        most = {name: int(OTHER_TORCH * count) for name, count in most.items()}
    worse = [
        f"{name}: {found}, committed {committed['counts'].get(name)}"
        for name, found in counts(folder).items()
        if found != committed["counts"].get(name)
    ]
    worse += [
        f"{name}: {found}, committed at most {most.get(name, 0)}"
        for name, found in at_most().items()
        if found > most.get(name, 0)
    ]
    bounds = limits(committed)
    failing: dict[str, list[float]] = {}
    for attempt in range(TRIES):
        found = timings(folder)
        high = {n: x for n, x in found.items() if x > bounds.get(n, 0.0)}
        failing = {n: [*failing.get(n, []), x] for n, x in high.items() if attempt == 0 or n in failing}
        if not failing:
            break
    for name, values in failing.items():
        worse.append(f"{name}: {', '.join(f'{x:.3f}' for x in values)}, limit {bounds.get(name, 0.0):.4g}")
    return worse


def written(repeats: list[dict[str, float]], folder: Path, load: tuple[float, float]) -> dict[str, Any]:
    """The content of ``guard.json``: the limit of a ratio is its median and half as much again as the furthest repeat
    lies from it, at least 15 %."""
    made: dict[str, Any] = {}
    for name in repeats[0]:
        values = sorted(found[name] for found in repeats)
        middle = statistics.median(values)
        tolerance = max(0.15, 1.5 * (values[-1] / middle - 1))
        limit = middle * (1 + tolerance)
        made[name] = {
            "median": round(middle, 4),
            "least": round(values[0], 4),
            "most": round(values[-1], 4),
            "tolerance": round(tolerance, 3),
            "limit": round(limit, 4),
        }
    return {
        "command": "python benchmarks/guard.py --repeat 30 --write",
        "repeats": len(repeats),
        "load": [round(x, 1) for x in load],
        "machine": machine(),
        "torch": torch.__version__,
        "counts": counts(folder),
        "at_most": at_most(),
        "ratios": made,
    }


def main(words: list[str] | None = None) -> int:
    """Compare, or measure anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1, help="how often; with --write, at least 2")
    parser.add_argument("--write", action="store_true", help="replace guard.json")
    parser.add_argument("--out", type=Path, default=ALARMS, help="where repeats are counted; results/guard.json")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_large_blocks()  # as the command line does
    alarms, load = 0, os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        if given.write:
            if given.repeat < 2:
                parser.error("--write needs --repeat, of 2 at least (30)")
            repeats = [timings(Path(name)) for _ in range(given.repeat)]
            made = written(repeats, Path(name), (load, os.getloadavg()[0]))
            FILE.write_text(json.dumps(made, indent=1) + "\n")
            print(json.dumps(made["ratios"], indent=1))
            return 0
        committed = json.loads(FILE.read_text())
        for turn in range(given.repeat):
            worse = compare(committed, Path(name) / str(turn))
            alarms += bool(worse)
            for line in worse:
                print(line)
    print(f"{alarms} alarms in {given.repeat} repeats")
    if given.repeat > 1:
        made = {
            "command": f"python benchmarks/guard.py --repeat {given.repeat}",
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine(),
            "load": [round(x, 1) for x in (load, os.getloadavg()[0])],
            "repeats": given.repeat,
            "alarms": alarms,
            "limits": limits(committed),
        }
        given.out.write_text(json.dumps(made, indent=1) + "\n")
    return int(alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
