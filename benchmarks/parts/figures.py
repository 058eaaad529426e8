"""What is measured and how well it should come out: the table of goals, and the form of a measured figure.

A figure's name that begins with ``at_least_`` is a lower bound; every other goal is an upper one.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["GOALS", "Figure", "Found", "Goal", "Plan", "Skipped", "five", "quartiles", "ratios", "verdict"]

Times = Sequence[tuple[float, float]]  # by round: CPU and wall seconds


@dataclass(frozen=True)
class Goal:
    """One figure of the table: its row, name, bound, and what it is in words."""

    row: int
    name: str
    goal: float
    what: str


GOALS = tuple(
    Goal(*line)
    for line in (
        (1, "warm_over_alone_resnet8x4", 1.02, "warm step over the student alone, resnet8x4"),
        (1, "warm_over_alone_mobilenetv2", 1.02, "warm step over the student alone, mobilenetv2"),
        (1, "warm_over_alone_1000_classes", 1.03, "warm step over the student alone, mobilenetv2, 1000 classes"),
        (2, "at_least_naive_over_warm_fp32_resnet8x4", 5.0, "naive step over our warm step, resnet8x4, fp32"),
        (2, "at_least_naive_over_warm_bf16_resnet8x4", 8.5, "naive step over our warm step, resnet8x4, bf16"),
        (2, "at_least_naive_over_warm_fp32_mobilenetv2", 18.0, "naive step over our warm step, mobilenetv2"),
        (3, "training_over_alone_one_run", 1.15, "training with filling over the student alone, mobilenetv2, one run"),
        (3, "training_over_alone_five_runs", 1.05, "the same, five runs sharing the bank"),
        (4, "exact_forwards_240_epochs", 0.53, "exact: mentor forwards done over E·n, 240 epochs"),
        (4, "exact_forwards_five_trainings", 0.14, "exact: the same over five trainings"),
        (5, "mentors_bf16_over_naive", 0.45, "six mentors online over naive fp32: eager bf16"),
        (5, "mentors_bf16_error", 5e-3, "its relative error"),
        (5, "mentors_compiled_over_naive", 0.42, "six mentors online over naive fp32: compiled, best precision"),
        (5, "mentors_fp32_over_naive", 0.85, "six mentors online over naive fp32: fp32 only"),
        (5, "mentors_fp32_error", 1e-6, "its relative error"),
        (6, "online_over_classroomkd_loop", 0.46, "our online step over the ClassroomKD authors' loop, mobilenetv2"),
        (6, "warm_over_classroomkd_loop", 0.06, "our warm step over the ClassroomKD authors' loop, mobilenetv2"),
        (7, "average_over_camkd_loop", 0.45, "our average step, online, over CA-MKD's loop"),
        (7, "kd_over_torchdistill", 0.60, "our kd step, online, over torchdistill's own"),
        (8, "loss_share_of_step", 0.01, "loss and bookkeeping of classroomkd, share of the step (B 128, M 6, C 100)"),
        (8, "loss_fused_over_loop", 0.5, "fused loss over a loop over the mentors"),
        (9, "bank_read_over_files", 1 / 200, "bank read of a batch, warm, over one file per sample"),
        (9, "bank_cold_ms_per_64", 0.1, "bank read of 64, cold with read-ahead, ms of wall time"),
        (10, "at_least_crops_over_pil", 10.0, "batched crop and flip over per-image PIL, samples per CPU-second"),
        (11, "memory_warm_over_alone_mb", 80.0, "peak memory of a warm training over the student alone, MB"),
        (11, "memory_32_over_8_views_mb", 10.0, "the same, V = 32 over V = 8, MB (24 more slabs are 1,440)"),
        (
            12,
            "at_least_accuracy_views_8_points",
            -0.3,
            "accuracy, views=8 less online (or exact: below), points; lower 95 %",
        ),
        (12, "exact_loss_difference", 0.0, "exact less online in the stored precision: largest difference of losses"),
        (13, "gpu_warm_over_alone", 1.03, "GPU: warm step over the student alone, both as CUDA graphs"),
        (13, "gpu_cifar100_minutes", 3.0, "GPU: the CIFAR-100 recipe, 240 epochs, six mentors, minutes"),
    )
)


class Skipped(Exception):
    """A row or figure that cannot be measured here; says why."""


@dataclass
class Plan:
    """What a row is asked for.

    Attributes:
        folder: for temporary files; on a disk.
        rounds: instead of the row's own number; None = that.
        quick: sizes so small that only the plumbing is tried.
        compiled: measure what torch.compile makes, too (minutes).
        clones: folders of peers' repositories by name (``classroomkd``, ``camkd``).
        peer_python: interpreter of the environment that peers' packages are installed in.
        data: folder of CIFAR-100, for the recipe that a GPU runs.
        mentors: folder of that recipe's mentors' checkpoints; None = untrained.
    """

    folder: Path
    rounds: int | None = None
    quick: bool = False
    compiled: bool = False
    clones: dict[str, Path] = field(default_factory=dict)
    peer_python: str | None = None
    data: Path | None = None
    mentors: Path | None = None

    def turns(self, own: int) -> int:
        """Rounds to make, where the row's own number is ``own``."""
        return 3 if self.quick else self.rounds or own

    def size(self, own: int, quick: int) -> int:
        """A size, or a smaller one where only the plumbing is tried."""
        return quick if self.quick else own


@dataclass
class Figure:
    """Values by round, and what stands beside them in the table.

    Attributes:
        values: the figure itself, by round.
        wall: the same by the wall clock.
        again: the base over itself (A/A).
        note: one sentence a reader needs.
    """

    values: Sequence[float]
    wall: Sequence[float] = ()
    again: Sequence[float] = ()
    note: str = ""
    rounds: int | None = None  # where not as many as there are values

    def entry(self, goal: float) -> dict[str, float]:
        """Its line in ``latest.json``."""
        return {**quartiles(self.values), "goal": goal}

    def about(self) -> dict[str, Any]:
        """What is known of it besides."""
        made: dict[str, Any] = {"rounds": self.rounds or len(self.values)}
        if self.wall:
            made["wall"] = quartiles(self.wall)["median"]
        if self.again:
            made["again"] = quartiles(self.again)
        return made | ({"note": self.note} if self.note else {})


@dataclass
class Found:
    """What a row measured, and what it could not (name to reason)."""

    figures: dict[str, Figure] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, rounded to four digits."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {key: float(f"{x:.4g}") for key, x in (("median", middle), ("q1", low), ("q3", high))}


def five(quartiles: Mapping[str, float]) -> list[float]:
    """Five values that have these quartiles, for what another script has summed up."""
    low, middle, high = (quartiles[key] for key in ("q1", "median", "q3"))
    return [low, low, middle, high, high]


def ratios(this: Times, that: Times, again: Times = (), extra: tuple[float, float] = (0.0, 0.0)) -> Figure:
    """This over that by round; ``again`` is that a second time, ``extra`` seconds (CPU, wall) are added to this."""
    cpu, wall = ([(a[clock] + extra[clock]) / b[clock] for a, b in zip(this, that, strict=True)] for clock in (0, 1))
    return Figure(cpu, wall, [a[0] / b[0] for a, b in zip(again, that, strict=False)])


def verdict(name: str, entry: dict[str, float], again: dict[str, float] | None) -> str:
    """``met``, ``met within noise``, ``not met``, or ``void`` where the A/A comparison is too wide to tell either.

    Noise is what the base over itself shows, and one per cent.
    """
    lower = name.startswith("at_least_")
    short = entry["goal"] - entry["median"] if lower else entry["median"] - entry["goal"]
    scale = abs(entry["goal"])
    if again is not None and max(again["q3"] - 1, 1 - again["q1"]) > 0.03 and abs(short) < 0.05 * scale:
        return "void"
    if short <= 0:
        return "met"
    slack = 0.0 if again is None else (abs(again["median"] - 1) + 0.01) * scale
    return "met within noise" if short <= slack else "not met"
