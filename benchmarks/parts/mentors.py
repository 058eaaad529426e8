"""Goal 5: six mentors' forward passes made fast, over the same six as they come.

    python benchmarks/parts/mentors.py [--rounds 21] [--compile]     # batch 64, 32x32, 100 classes, untrained
    python benchmarks/parts/mentors.py --rates     # operations a second of each, beside those of a matrix product

All variants in one process, interleaved in rotating order, one thread, CPU time, large blocks kept; a figure is the
median over rounds of the ratio to ``naive`` of the same round, with quartiles, and ``wall`` its median by the wall
clock. ``again`` is naive a second time (A/A).
bf16 only where the hardware has it, ``torch.compile`` on request (minutes). ``error``: the largest over the six of
|difference| / |answer| (norms over a batch).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from classroomkd import models
from classroomkd.classroom import Mentor
from classroomkd.train.allocator import keep_large_blocks
from classroomkd.train.optimize import FastMentor, has_bf16, optimize_for_inference

MENTORS = ("resnet32x4", "wrn_40_2", "resnet56", "resnet110", "vgg13", "resnet20")
B, CLASSES, ROUNDS = 64, 100, 21


def variants(compiled: bool) -> dict[str, list[Mentor]]:
    """The six mentors in every form; ``naive`` and ``again`` are the same objects."""
    torch.manual_seed(0)
    naive = [Mentor(models.create(name, CLASSES), name) for name in MENTORS]
    blank = torch.zeros(2, 3, 32, 32)
    found = {"naive": naive, "again": naive, "folded": [optimize_for_inference(m, blank) for m in naive]}
    if compiled:
        found["compiled"] = [optimize_for_inference(m, blank, compile=True) for m in naive]
    if has_bf16("cpu"):
        found["bf16"] = [optimize_for_inference(m, blank, precision="bf16") for m in naive]
        if compiled:
            found["compiled_bf16"] = [optimize_for_inference(m, blank, precision="bf16", compile=True) for m in naive]
    for name, mentors in found.items():
        wanted = "bf16" if "bf16" in name else "fp32"
        assert all(not isinstance(m, FastMentor) or m.precision == wanted for m in mentors), name
    return found


def _error(mentors: list[Mentor], naive: list[Mentor], inputs: Tensor) -> float:
    worst = 0.0
    for fast, plain in zip(mentors, naive, strict=True):
        expected = plain(inputs).prediction
        worst = max(worst, ((fast(inputs).prediction - expected).norm() / expected.norm()).item())
    return worst


def interleaved(cases: Mapping[str, Callable[[], object]], base: str, rounds: int) -> dict[str, dict[str, float]]:
    """By case, median and quartiles over rounds of its CPU time over the base's in that round; the wall's median."""
    for case in cases.values():
        case()
    names = list(cases)
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in names if name != base}
    for turn in range(rounds):
        took = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            cpu, wall = time.process_time(), time.perf_counter()
            cases[name]()
            took[name] = time.process_time() - cpu, time.perf_counter() - wall
        for name in ratios:
            ratios[name].append((took[name][0] / took[base][0], took[name][1] / took[base][1]))
    found = {}
    for name, values in ratios.items():
        low, middle, high = statistics.quantiles([cpu for cpu, _ in values], n=4)
        found[name] = {"median": middle, "q1": low, "q3": high, "wall": statistics.median(wall for _, wall in values)}
    return {name: {key: round(value, 3) for key, value in row.items()} for name, row in found.items()}


def measure(rounds: int = ROUNDS, compiled: bool = False) -> dict[str, dict[str, Any]]:
    """By variant: ``median``, ``q1``, ``q3`` of its CPU time over naive, the ``wall``'s median, and its ``error``."""
    torch.set_num_threads(1)
    keep_large_blocks()
    forms = variants(compiled)
    inputs = torch.randn(B, 3, 32, 32)

    def ask(mentors: list[Mentor]) -> Callable[[], object]:
        return lambda: [mentor(inputs) for mentor in mentors]

    found: dict[str, dict[str, Any]] = dict(
        interleaved({name: ask(mentors) for name, mentors in forms.items()}, "naive", rounds)
    )
    for name, row in found.items():
        row["error"] = float(f"{_error(forms[name], forms['naive'], inputs):.1e}")
    return found


def rates(repeat: int = 5) -> dict[str, float]:
    """GFLOPS of each mentor made fast in float32 on one thread, best of some; of all six, of a 2048² product."""
    torch.set_num_threads(1)
    keep_large_blocks()
    inputs, blank, square = torch.randn(B, 3, 32, 32), torch.zeros(2, 3, 32, 32), torch.randn(2048, 2048)

    def best(work: Callable[[], object]) -> float:
        def once() -> float:
            start = time.process_time()
            work()
            return time.process_time() - start

        return min(once() for _ in range(repeat + 1))

    done, took = {}, {}
    for name in MENTORS:
        mentor = Mentor(models.create(name, CLASSES), name)
        with FlopCounterMode(display=False) as counted:
            mentor(inputs)
        done[name] = counted.get_total_flops()
        took[name] = best(partial(optimize_for_inference(mentor, blank), inputs))
    found = {name: done[name] / took[name] for name in MENTORS}
    found["all six"] = sum(done.values()) / sum(took.values())
    found["a matrix product"] = 2 * len(square) ** 3 / best(lambda: square @ square)
    return {name: round(rate / 1e9, 1) for name, rate in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rates", action="store_true")
    options = parser.parse_args()
    print(json.dumps(rates() if options.rates else measure(options.rounds, options.compile), indent=1))


if __name__ == "__main__":
    main()
