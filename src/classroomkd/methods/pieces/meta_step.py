"""A meta step: what the nets that weight the mentors learn from how a student fares who was taught by them (mmkd)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd.classroom import Answers, Lesson, StepContext, masked_mean
from classroomkd.functional.bilevel import Loss, hypergradient
from classroomkd.methods.pieces.hard_buffer import HardBuffer, mistaken, recorded, rows_of

__all__ = ["MetaAdam", "MetaTraining", "agreed", "same_noise"]

Seen = tuple[Tensor, Tensor | None]  # what the nets for logits and for features are shown


class MetaAdam:
    """Adam on φ, whose parameters may appear only with the first lesson, and whose state survives a checkpoint.

    Args:
        lr, weight_decay: of ``torch.optim.Adam``; the decay is added to the gradient.
    """

    def __init__(self, lr: float, weight_decay: float) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self._adam: torch.optim.Adam | None = None
        self._saved: dict[str, Any] | None = None

    def step(self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
        """One update; the parameters' ``grad`` is None before and after."""
        if self._adam is None:
            # Fused kernels count steps on the device, so nothing waits for it.
            fused = parameters[0].device.type in ("cpu", "cuda")
            self._adam = torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=fused)
            if self._saved is not None:
                self._adam.load_state_dict(self._saved)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any] | None:
        """For a checkpoint; None before the first update."""
        return self._saved if self._adam is None else self._adam.state_dict()

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Take over a copy of a state, at the next update."""
        self._adam, self._saved = None, None if state is None else copy.deepcopy(dict(state))


def agreed(gradients: Sequence[Tensor], reduce: Callable[[Tensor], Tensor] | None) -> list[Tensor]:
    """The mean over ranks, which differ by rounding at most; zeros where anything is not finite."""
    flat = torch.cat([g.reshape(-1) for g in gradients])
    if reduce is not None:
        both = reduce(torch.cat([flat, flat.new_ones(1)]))
        flat = both[:-1] / both[-1]
    flat = torch.where(flat.isfinite().all(), flat, 0.0)
    parts = torch.split(flat, [g.numel() for g in gradients])
    return [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]


@contextmanager
def same_noise(seed: int, device: torch.device) -> Iterator[None]:
    """The same random numbers on every rank inside (dropout), and the old state afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


class MetaTraining:
    """When and how φ learns, with all that must survive a checkpoint.

    Args:
        tap: where features are read; None = nowhere.
        every: steps from one meta step to the next.
        capacity: of the buffer.
        lr, weight_decay: of Adam on φ.
        virtual_steps: on the mentors' terms, before the one on the student's own loss.
        corrected: other samples for the outer loss than for the steps, what the nets are shown as it is before the
            steps (so that the gradient is exact), Nesterov's adjoint, running statistics untouched; False: as released.
    """

    def __init__(
        self,
        tap: str | None,
        every: int,
        capacity: int,
        lr: float,
        weight_decay: float,
        virtual_steps: int,
        corrected: bool,
    ) -> None:
        self.tap, self.every, self.virtual_steps, self.corrected = tap, every, virtual_steps, corrected
        self.buffer, self.adam = HardBuffer(capacity), MetaAdam(lr, weight_decay)
        self.taught = self.batch = 0  # steps so far; the largest batch of all ranks

    def remember(self, lesson: Lesson) -> int:
        """Count a step and feed the buffer; how many samples a meta step takes now, 0 = none is due."""
        rows = [lesson.all_gather(x.detach()) for x in rows_of(lesson, self.tap)]
        self.taught, self.batch = self.taught + 1, max(self.batch, len(rows[0]))
        self.buffer.add(rows, lesson.all_gather(mistaken(lesson)), self.taught)
        size = min(self.batch, self.buffer.count // 2 if self.corrected else self.buffer.count)
        return size if self.taught % self.every == 0 and size >= min(self.batch, 2) else 0

    def learn(
        self,
        context: StepContext,
        lesson: Lesson,
        size: int,
        meta: Sequence[nn.Parameter],
        see: Callable[[Lesson], Seen],
        matching: Callable[[Lesson, Seen], Tensor],
    ) -> None:
        """One meta step.

        Args:
            context: of the step.
            lesson: the step's own, for its task.
            size: samples of a virtual step.
            meta: φ.
            see: what the nets are shown of a lesson, without gradients.
            matching: the mentors' terms of a lesson by what the nets were shown, with a gradient to φ.
        """
        rows = self.buffer.sample(2 * size if self.corrected else size, self.taught)
        inner, outer = [x[:size] for x in rows], [x[-size:] for x in rows]
        kept: list[Seen] = []

        def taught(on: Lesson) -> Tensor:
            if not kept or not self.corrected:
                kept[:] = [see(on)]
            return matching(on, kept[0])

        def own(on: Lesson) -> Tensor:
            return masked_mean(on.task.supervised(on.student.prediction, on.target), on.task.mask(on.target))

        def matched() -> Tensor:
            return taught(recorded(inner, lesson, context.student(inner[0]), self.recall(inner)))

        def alone(rows: Sequence[Tensor]) -> Loss:
            return virtual(lambda: own(recorded(rows, lesson, context.student(rows[0]), None)))

        def virtual(compute: Callable[[], Tensor]) -> Loss:
            return lambda theta: context.functional(theta, compute)

        state = context.inner()
        steps = [virtual(matched)] * self.virtual_steps + [alone(inner)]
        with same_noise(self.taught, rows[0].device):
            result = hypergradient(
                steps,
                alone(outer),
                state.parameters,
                state.momentum,
                meta,
                state.rule,
                "exact" if self.corrected else "heavy_ball",
            )
            self.adam.step(meta, agreed(result.gradients, lesson.reduce))
            if not self.corrected:
                with torch.no_grad():
                    matched()  # moves the running statistics, once

    def recall(self, rows: Sequence[Tensor]) -> Answers:
        """What the mentors say about rows of the buffer: what they said when these were put there."""
        return Answers(rows[2].movedim(1, 0), {} if self.tap is None else {self.tap: tuple(rows[3:])})

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "taught": self.taught,
            "batch": self.batch,
            "buffer": self.buffer.state(),
            "adam": self.adam.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self.taught, self.batch = state["taught"], state["batch"]
        self.buffer.load(state["buffer"])
        self.adam.load(state["adam"])
