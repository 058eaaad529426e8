"""The look before the first step: a method's pass over some samples, by which nothing but its own buffers changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classroomkd.classroom.lesson import Lesson
from classroomkd.classroom.method import Method
from classroomkd.classroom.pool import MentorPool
from classroomkd.classroom.step import Batch
from classroomkd.classroom.trainees import Peers
from classroomkd.errors import UserError

__all__ = ["look", "refuse_unprepared"]


class Looking(Protocol):
    """A classroom, as far as its method's look needs one; ``looking``: whether it is at it."""

    method: Method
    peers: Peers
    looking: bool

    @property
    def student(self) -> nn.Module:
        """The network being taught."""
        ...

    @property
    def mentors(self) -> MentorPool:
        """The frozen networks that teach."""
        ...

    @property
    def collect(self) -> Callable[..., Lesson]:
        """Everybody's answers to a batch."""
        ...


def look(classroom: Looking, batches: Iterable[Any], lesson: Callable[[Batch], Lesson] | None = None) -> None:
    """Have a classroom's method look at samples (:meth:`Method.prepare`), where it needs to.

    Nobody is trained. The trainees answer in evaluation mode but for BatchNorm, which acts as ``needs.prepare_norm``
    says. Modes, running statistics, generators and counts are afterwards what they were.

    Args:
        classroom: whose method.
        batches: mappings as ``lesson`` takes them; or pairs of inputs and target. They are gone through until
            ``needs.prepare`` samples have been seen, whole batches.
        lesson: everybody's answers to a batch; None: the classroom's own.

    Raises:
        UserError: no batch.
    """
    needs = classroom.method.needs
    if not needs.prepare:
        return
    seen = _Seen(batches, needs.prepare)
    with _untouched(classroom):
        classroom.method.prepare(_Look(lesson or _collected(classroom)), seen)
    if not seen.samples:
        raise UserError("classroom.prepare: the loader gave no batch")
    classroom.method.prepared = True


def refuse_unprepared(classroom: Looking) -> None:
    """Stop a step whose method has not looked yet, outside of its look.

    Raises:
        UserError: naming the call that is missing.
    """
    method = classroom.method
    if method.needs.prepare and not method.prepared and not classroom.looking:
        raise UserError(
            f"method '{type(method).__name__}' looks at training samples before it teaches: call "
            "classroom.prepare(loader) once before the first step, or load the state of a classroom that has"
        )


class _Seen:
    """Batches until they hold so many samples; can be gone through as often as they can."""

    def __init__(self, batches: Iterable[Any], most: int) -> None:
        self.batches, self.most, self.samples = batches, most, 0

    def __iter__(self) -> Iterator[Batch]:
        self.samples = 0
        for batch in self.batches:
            told: Batch = batch if isinstance(batch, Mapping) else {"inputs": batch[0], "target": batch[1]}
            self.samples += len(told["inputs"] if "inputs" in told else told["ids"])
            yield told
            if self.samples >= self.most:
                return


class _Look:
    """See :class:`~classroomkd.classroom.step.LookContext`."""

    def __init__(self, lesson: Callable[[Batch], Lesson]) -> None:
        self._lesson = lesson

    @torch.no_grad()
    def lesson(self, batch: Batch) -> Lesson:
        return self._lesson(batch)


def _collected(classroom: Looking) -> Callable[[Batch], Lesson]:
    """The answers of a classroom to a batch, which follows the networks to their device."""

    def lesson(batch: Batch) -> Lesson:
        device = next(classroom.student.parameters(), torch.empty(0)).device
        inputs, target = batch["inputs"].to(device), batch.get("target")
        target = target.to(device) if isinstance(target, Tensor) else target
        known = {key: batch.get(key) for key in ("ids", "views", "extra_sizes")}
        return classroom.collect(inputs, target, **known)

    return lesson


@contextmanager
def _untouched(classroom: Looking) -> Iterator[None]:
    """Inside, trainees stand as they are to be looked at; afterwards as they stood."""
    networks = [classroom.student, *classroom.peers.networks.values()]
    modules: list[nn.Module] = [module for network in networks for module in network.modules()]
    modes = [module.training for module in modules]
    buffers = [(buffer, buffer.clone()) for network in networks for buffer in network.buffers()]
    pool = classroom.mentors
    counts = pool.forwards, pool.answered
    devices = {p.device for network in networks for p in network.parameters() if p.device.type == "cuda"}
    by_batch = classroom.method.needs.prepare_norm == "batch"
    try:
        classroom.looking = True
        for module in modules:
            module.training = by_batch and isinstance(module, _BatchNorm)
        with torch.random.fork_rng(sorted(devices, key=str)):
            yield
    finally:
        classroom.looking = False
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        pool.forwards, pool.answered = counts
