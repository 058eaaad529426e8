"""Interleaved rounds, ratios with quartiles, and the JSON every script here prints.

One process and one thread; all steps take turns in rotating order, back and forth, and a ratio is formed within each
round, so what the machine does meanwhile falls on both sides. The clock is the process's CPU time; wall-clock ratios
lie beside.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["Owing", "Step", "arguments", "commit_of", "measure", "publish", "start"]

Step = Callable[[], Any]
STOCK = "_stock_allocator"


@dataclass(frozen=True)
class Owing:
    """A step, and what comes ``once`` in so many steps: every step bears its share of that."""

    step: Step
    once: Step
    every: int

    def __call__(self) -> Any:
        return self.step()

    def share(self) -> tuple[float, float]:
        """CPU and wall seconds a step, of the median of four times."""
        took = [_timed(self.once) for _ in range(4)]
        cpu, wall = (statistics.median(times) / self.every for times in zip(*took, strict=True))
        return cpu, wall


def arguments(about: str | None, *, clone: bool = False) -> argparse.ArgumentParser:
    """What every script takes."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    if clone:
        parser.add_argument("clone", type=Path, help="folder of the peer's repository")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=50_000, help="images that batches are drawn from")
    parser.add_argument("--work", type=Path, help="folder for temporary files: the bank's stores")
    parser.add_argument(
        "--allocator",
        choices=("kept", "stock", "both"),
        default="both",
        help="glibc told to keep large blocks (both sides), left as it is (both sides), or one process for each",
    )
    parser.add_argument("--bf16", choices=("auto", "on"), default="auto", help="auto: where the processor has it")
    return parser


def start(args: argparse.Namespace) -> None:
    """Set the process up before the first tensor; with ``--allocator both``, run one process for each and stop."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))  # where the package is not installed
    if args.allocator == "both":
        kept, stock = (_child(kind) for kind in ("kept", "stock"))
        for part in ("ratios", "wall_ratios", "cpu_ms"):
            kept[part] |= {name + STOCK: value for name, value in stock[part].items()}
        kept["command"] = _command()
        loads = [run["settings"]["load_before"] for run in (kept, stock)]
        kept["settings"] |= {"allocator": "both", "load_before": loads}
        print(json.dumps(kept, indent=1))
        raise SystemExit(0)
    torch.set_num_threads(1)
    args.folder = Path(tempfile.mkdtemp(dir=args.work))
    atexit.register(shutil.rmtree, args.folder, ignore_errors=True)
    args.bf16 = args.bf16 == "on" or bool(torch.cpu._is_avx512_bf16_supported())
    args.load_before = [round(x, 2) for x in os.getloadavg()]
    if args.allocator == "kept":
        from classroomkd.train.allocator import keep_large_blocks

        if not keep_large_blocks():
            raise SystemExit("this machine's allocator cannot be set: run with --allocator stock")


def _child(allocator: str) -> dict[str, Any]:
    command = [sys.executable, *sys.argv, "--allocator", allocator]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _command() -> str:
    return shlex.join(["python", *sys.argv])


def measure(steps: Mapping[str, Step], rounds: int, warm_up: int = 2) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of every step in every round."""
    for step in steps.values():
        for _ in range(warm_up):
            step()
    names = list(steps)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        turn = names[first:] + names[:first]
        for name in turn if i % 2 == 0 else reversed(turn):  # nobody always comes after the same one
            took[name].append(_timed(steps[name]))
    for name, step in steps.items():
        if isinstance(step, Owing):
            cpu, wall = step.share()
            took[name] = [(a + cpu, b + wall) for a, b in took[name]]
    return took


def _timed(work: Step) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def publish(
    took: Mapping[str, list[tuple[float, float]]],
    pairs: Mapping[str, tuple[str, str]],
    peer: Mapping[str, str],
    settings: Mapping[str, Any],
    args: argparse.Namespace,
) -> None:
    """Print the JSON: for every name in ``pairs`` (this, over that), the median and quartiles of the ratio by round."""
    result = {
        "ratios": {name: _ratio(took[a], took[b], 0) for name, (a, b) in pairs.items()},
        "wall_ratios": {name: _ratio(took[a], took[b], 1) for name, (a, b) in pairs.items()},
        "cpu_ms": {name: round(1000 * statistics.median(t[0] for t in times), 1) for name, times in took.items()},
        "command": _command(),
        "peer": dict(peer),
        "settings": {
            "rounds": args.rounds,
            "batch": args.batch,
            "samples": args.samples,
            "allocator": args.allocator,
            "clock": "process_time, one thread",
            "torch": torch.__version__,
            "machine": platform.machine(),
            "bf16_in_hardware": bool(torch.cpu._is_avx512_bf16_supported()),
            "load_before": args.load_before,
            **settings,
        },
    }
    print(json.dumps(result, indent=1))


def _ratio(ours: list[tuple[float, float]], theirs: list[tuple[float, float]], clock: int) -> dict[str, float]:
    values = [a[clock] / b[clock] for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(middle, 4), "q1": round(low, 4), "q3": round(high, 4)}


def commit_of(clone: Path) -> str:
    """The commit a clone is at, and whether its files were changed."""
    git = ["git", "-C", str(clone)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--stat", "HEAD"], capture_output=True, text=True, check=True).stdout
    return commit + (" with changed files" if changed.strip() else "")
