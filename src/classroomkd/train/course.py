"""How far a training has come: what a checkpoint keeps of it, how it is taken up again, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from classroomkd.train import checkpoint
from classroomkd.train.metrics_log import Log
from classroomkd.train.scoring import Score

if TYPE_CHECKING:
    from classroomkd.train.gradient_scale import Scale
    from classroomkd.train.step import StepRunner
    from classroomkd.train.step_cost import Cost
    from classroomkd.train.watch import Found

__all__ = ["Course", "Result"]


@dataclass
class Course:
    """What a training has gathered beside its weights.

    Attributes:
        history: scores on the validation part, one an exam.
        best: the best of them, and after which epoch.
        best_weights: the network's then, on the CPU.
        spent: seconds, earlier attempts included.
        log: ``metrics.jsonl``.
        saved: when the last checkpoint was written, by ``time.perf_counter``.
    """

    history: list[Score] = field(default_factory=list)
    best: tuple[float, int] = (-1.0, -1)
    best_weights: dict[str, torch.Tensor] | None = None
    spent: float = 0.0
    log: Log = field(default_factory=lambda: Log(None, 0))
    saved: float = 0.0

    def state(
        self, context: StepRunner, cost: Cost, record: dict[str, Any], epoch: int, batch: int, *, ended: bool
    ) -> dict[str, Any]:
        """A checkpoint's content, after ``epoch`` whole epochs and ``batch`` batches of the next.

        Where the training has ``ended``, only what the files of a finished network are made of: nothing is taught any
        more, so the optimiser's and the method's own state (a memory of every sample) are left out.
        """
        scaler, learner = context.runtime.scaler, context.learner.state_dict()
        return {
            "epoch": epoch,
            "batch": batch,
            "lines": self.log.stored(),
            "step": context.classroom.steps,
            "learner": {k: v for k, v in learner.items() if not (ended and k.startswith("method."))},
            "optimizer": None if ended else context.raw_optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "ema": context.averaged.state_dict() if context.averaged is not None else None,
            "record": record,
            "rng": checkpoint.rng_state(context.runtime.device),
            "threads": torch.get_num_threads(),
            "best": list(self.best),
            "best_weights": self.best_weights,
            "history": [[s.accuracy, s.loss, s.samples, s.per_class] for s in self.history],
            "seconds": self.spent,
            "cost": cost.state(),
        }

    def restore(self, state: dict[str, Any], context: StepRunner, cost: Cost) -> tuple[int, int, int | None]:
        """Take a checkpoint up; whole epochs, batches of the next, and lines of the log that are done."""
        # A running sum's order depends on the number of threads; the same bits need the same number.
        torch.set_num_threads(state["threads"])
        ended = state["optimizer"] is None
        context.learner.load_state_dict(state["learner"], strict=not ended)
        if not ended:
            context.raw_optimizer.load_state_dict(state["optimizer"])
        scaler = context.runtime.scaler
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(state["scaler"])
        if context.averaged is not None and state["ema"] is not None:
            context.averaged.load_state_dict(state["ema"])
        context.record.restore(state["record"], context.runtime.is_zero)
        checkpoint.set_rng_state(state["rng"], context.runtime.device)
        context.classroom.steps = state["step"]
        self.best, self.best_weights = (state["best"][0], int(state["best"][1])), state["best_weights"]
        self.history = [Score(a, loss, per_class, n) for a, loss, n, per_class in state["history"]]
        self.spent = state["seconds"]
        cost.restore(state["cost"])
        return int(state["epoch"]), int(state.get("batch", 0)), state.get("lines")


@dataclass(frozen=True)
class Result:
    """What a finished training leaves; the student holds its last raw weights."""

    val: list[Score]
    best_epoch: int
    best: dict[str, torch.Tensor] | None
    ema: dict[str, torch.Tensor] | None
    teaching: dict[str, Any]
    steps: int
    seconds: float
    cost: dict[str, float]
    scale: Scale | None = None
    not_finite: Found = field(default_factory=dict)
    left_out: int = 0  # samples of an epoch that no step saw
