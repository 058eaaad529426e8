"""The pool of mentors: asked together, answered from a store where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor

from classroomkd.classroom.batches import taking
from classroomkd.classroom.gating import ask_where, knows
from classroomkd.classroom.lesson import Answers
from classroomkd.classroom.mentor import Mentor, Resize, Statistics
from classroomkd.errors import UserError

__all__ = ["AnswerStore", "MentorPool", "Sights"]

Sights = Mapping[tuple[int, int], Tensor]  # by (H, W), the same views drawn at another size, in the student's space
# Answers of mentors (M', B, …), their places, sample ids (B,), and who was asked about what (M', B), None = everything.
Watch = Callable[[Answers, Sequence[int], Tensor, Tensor | None], None]


class AnswerStore(Protocol):
    """Stored mentor answers, keyed by (sample id, view id); see ``classroomkd.bank``."""

    @property
    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], ...]]:
        """By tap, the stored shape of every mentor's activation of one sample."""
        ...

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """``(M, B, C)`` predictions of all mentors for these samples and views."""
        ...

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        """All mentors' activations at a tap for these samples and views."""
        ...


class MentorPool:
    """All mentors of a classroom: asked together, answered from a store where one is attached.

    Not an ``nn.Module`` on purpose: mentors must not appear in the student's checkpoint, its optimiser, or DDP.
    """

    def __init__(self, mentors: Sequence[Mentor], mean: Statistics | None, std: Statistics | None) -> None:
        self.mentors = list(mentors)
        self.mean, self.std = mean, std
        self.store: AnswerStore | None = None
        self.taps: tuple[str, ...] = ()  # what the method reads
        self.resize: Resize | None = None  # the task's
        # Network passes made so far, and samples that went through them: counts, so that cost can be proved.
        self.forwards, self.answered = 0, 0
        names = [m.name for m in self.mentors]
        for i, mentor in enumerate(self.mentors):
            if names.count(mentor.name) > 1:
                mentor.name = f"{mentor.name}-{i}"

    def __len__(self) -> int:
        return len(self.mentors)

    def __iter__(self) -> Iterator[Mentor]:
        return iter(self.mentors)

    @property
    def names(self) -> list[str]:
        """Mentors' names, in order."""
        return [m.name for m in self.mentors]

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast every mentor, as ``nn.Module._apply`` does."""
        for mentor in self.mentors:
            mentor._apply(fn)  # type: ignore[no-untyped-call]

    def prepared(self, mentor: Mentor, inputs: Tensor) -> Tensor:
        """Inputs of the student's space in a mentor's."""
        return mentor.prepare(inputs, self.mean, self.std, self.resize)

    @torch.no_grad()
    def ask(
        self,
        inputs: Tensor,
        ids: Tensor | None = None,
        views: Tensor | None = None,
        only: Sequence[int] | None = None,
        gate: Callable[[Tensor], Tensor | None] | None = None,
        target: Tensor | None = None,
        extra_sizes: Sights | None = None,
        watch: Watch | None = None,
    ) -> Answers | None:
        """Everyone's answers, ``(M, B, …)``, or those of the mentors in ``only``; None when there are no mentors.

        ``gate`` is :meth:`Method.eligible` but for who knows a sample's class; where it says False nobody is asked
        and the answer is NaN. Of samples without a label (-1) all are asked, since what they agree on may count.
        None: every mentor runs on every sample. ``extra_sizes`` has the same views drawn at
        other sizes, for mentors that have one. ``watch`` is shown the answers.

        Raises:
            UserError: mentors whose predictions differ in shape, naming them; one that needs views drawn at its size.
        """
        if not self.mentors:
            return None
        places = range(len(self.mentors)) if only is None else only
        if self.store is not None and ids is not None and views is not None:
            features = {tap: self.store.features(tap, ids, views) for tap in self.taps}
            stored = Answers(self.store.lookup(ids, views), features)
            stored = stored if only is None else stored.of(only)
            if watch is not None:
                watch(stored, places, ids, None)
            return stored
        answers = []
        asked = [self.mentors[i] for i in places]
        where = self._gated(asked, gate, target)
        for i, mentor in enumerate(asked):
            forward, seen = partial(self._forward, mentor), inputs
            if extra_sizes is not None and mentor.size is not None:
                seen = extra_sizes.get(mentor.size, inputs)
            answers.append(forward(seen) if where is None else ask_where(forward, seen, where[i]))
            self.forwards += 1
        shapes = [tuple(a.prediction.shape) for a in answers]
        if len(set(shapes)) > 1:
            odd = next(i for i, s in enumerate(shapes) if s != shapes[0])
            raise UserError(
                f"mentor '{asked[odd].name}' answers with shape {shapes[odd]}, mentor '{asked[0].name}' with "
                f"{shapes[0]}: all mentors and the student must know the same classes"
            )
        taps = [tap for tap in answers[0].features if all(tap in a.features for a in answers)]
        together = Answers(
            torch.stack([a.prediction for a in answers]), {tap: tuple(a.features[tap] for a in answers) for tap in taps}
        )
        if watch is not None and ids is not None:
            watch(together, places, ids, where)
        return together

    def _forward(self, mentor: Mentor, inputs: Tensor) -> Answers:
        self.answered += len(inputs)
        seen = self.prepared(mentor, inputs)
        with taking(f"mentor '{mentor.name}'", seen):
            return cast(Answers, mentor(seen))

    @staticmethod
    def _gated(
        asked: Sequence[Mentor], gate: Callable[[Tensor], Tensor | None] | None, target: Tensor | None
    ) -> Tensor | None:
        """``(M, B)`` bool: who is asked about what; None = everybody everything."""
        if gate is None or target is None or target.dim() != 1 or target.is_floating_point():
            return None
        count = next((m.num_classes for m in asked if m.classes is not None), 0)
        if count:
            where = gate(knows([m.classes for m in asked], count, target))
        else:
            where = gate(torch.ones(len(asked), len(target), dtype=torch.bool))
        return None if where is None else where | (target < 0).to(where.device)

    @torch.no_grad()
    def one(
        self, mentor: int, inputs: Tensor, extra_sizes: Sights | None = None, rows: Tensor | None = None
    ) -> Answers:
        """A single mentor's answers to inputs in the student's space (to some ``rows`` of them), asked now."""
        self.forwards += 1
        size = self.mentors[mentor].size
        seen = inputs if extra_sizes is None or size is None else extra_sizes.get(size, inputs)
        return self._forward(self.mentors[mentor], seen if rows is None else seen[rows.to(seen.device)])

    def head(self, mentor: int, tap: str, value: Tensor) -> Tensor:
        """Mentor's prediction with its activation at a tap replaced; see :meth:`Mentor.head`."""
        return self.mentors[mentor].head(tap, value)
