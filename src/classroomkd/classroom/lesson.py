"""One batch seen by everyone: answers, terms and the lesson that holds them.

Shapes: M mentors, B samples, U units a sample, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from classroomkd._renamed import OldName

if TYPE_CHECKING:
    from classroomkd.classroom.task import Task

__all__ = ["Answers", "Calibration", "Lesson", "Terms"]


class _Shared:
    """What holds tensors of a graph: a deep copy holds the same ones, since torch cannot copy those.

    Frameworks that wrap a module copy what it returns, to change tensors in the copy (Fabric, Lightning).
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy.copy(self)


@dataclass
class Answers(_Shared):
    """Outputs for a batch, of one network (``(B, C)`` logits) or of all mentors (``(M, B, C)``).

    ``features`` holds activations by tap: ``(B, channels, H, W)`` for maps and ``(B, channels)`` for pooled ones. Of
    mentors it holds a tuple of M of them, whose shapes may differ (or one ``(M, B, …)`` tensor where they do not).
    """

    prediction: Tensor
    features: Mapping[str, Any] = field(default_factory=dict)

    def of(self, places: Sequence[int]) -> Answers:
        """The answers of some mentors, by their places on the M axis."""
        features = {
            tap: _rows(x, places) if isinstance(x, Tensor) else tuple(x[place] for place in places)
            for tap, x in self.features.items()
        }
        return Answers(_rows(self.prediction, places), features)

    def first(self, rows: int, axis: int) -> Answers:
        """The answers about the first samples, which lie along ``axis`` (0; of all mentors 1)."""
        features = {
            tap: x.narrow(axis, 0, rows) if isinstance(x, Tensor) else tuple(y[:rows] for y in x)
            for tap, x in self.features.items()
        }
        return Answers(self.prediction.narrow(axis, 0, rows), features)


@dataclass(eq=False)
class Calibration(_Shared):
    """Statistics of the mentors on held-out data, for credibilities that memorised training samples do not inflate.

    Attributes:
        temperature: ``(M,)``, the temperature at which each mentor's held-out likelihood is highest.
        ceiling: ``(M, C)``, each mentor's mean held-out probability of the true class, by class.
    """

    temperature: Tensor
    ceiling: Tensor


@dataclass
class Terms(_Shared):
    """What a method makes of a lesson: named, unweighted scalars and the record of who taught.

    Attributes:
        values: scalar loss terms, unweighted.
        coefficients: the factor of each term in the loss, a number or a scalar tensor; missing names count 1.
        weight, temperature, active: ``(M, B, U)`` or None for a method without mentors.
        totals: by term, the sum over the mentors of the weights inside it, a scalar without gradient, by which
            ``strength: matched`` divides; for a mentors' term that is missing it is the sum of ``weight``.
        parts: by term, what each mentor or trainee (``student``, a peer's name) gives of it: scalars without gradient
            that add up to it. For who taught whom; terms may be missing.
    """

    values: dict[str, Tensor]
    coefficients: Mapping[str, float | Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    temperature: Tensor | None = None
    active: Tensor | None = None
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def loss(self) -> Tensor:
        """Σ coefficient · term, a scalar."""
        parts = [self.coefficients.get(name, 1.0) * value for name, value in self.values.items()]
        return torch.stack([p.reshape(()) for p in parts]).sum() if len(parts) > 1 else parts[0].reshape(())


@dataclass
class Lesson(_Shared):
    """One batch: inputs, target, sample ids, view ids, everybody's answers, and, once taught, the terms.

    ``inputs`` are in the student's normalised space, ``(B, channels, H, W)``. ``epoch`` counts from 0, in fractions
    where the loop does; ``progress`` is the share of the training that is over, 0 to 1. ``reduce`` sums over ranks,
    ``join`` concatenates one over ranks, ``heads`` runs a mentor from a tap on; use :meth:`all_gather` and
    :meth:`head`. Under ranks a last batch may give each a different number of samples, even none. ``peers`` has the
    answers, with gradient, of the networks that are trained beside the student, by name; ``teachers`` names those of
    them that are teachers. ``averaged`` has the predictions of averages, by name, the student's first.
    """

    inputs: Tensor
    target: Tensor
    student: Answers
    mentors: Answers | None
    task: Task
    ids: Tensor | None = None
    views: Tensor | None = None
    epoch: float = 0.0
    step: int = 0
    calibration: Calibration | None = None
    reduce: Callable[[Tensor], Tensor] | None = None
    join: Callable[..., Tensor] | None = None
    heads: Callable[[int, str, Tensor], Tensor] | None = None
    shares: tuple[int, ...] | None = None  # samples by rank, where ranks have different numbers
    outcome: Terms | None = None
    progress: float = 0.0
    sample_weight: Tensor | None = None  # (B,), how much each counts in a mean over samples; None: all the same
    peers: Mapping[str, Answers] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    averaged: Mapping[str, Tensor] = field(default_factory=dict)
    _agreed: tuple[Tensor, Tensor, Tensor] | None = field(default=None, repr=False)  # of which answers and target, what
    _loss: Tensor | None = field(default=None, repr=False)  # a field like all: who converts or hooks tensors finds it

    def conclude(self, terms: Terms) -> Lesson:
        """Store what the method made of this lesson and return it."""
        self.outcome = terms
        self._loss = terms.loss()
        return self

    @property
    def trainees(self) -> tuple[Answers, ...]:
        """The student's answers and those of its peers, in order."""
        return (self.student, *self.peers.values())

    def seen_by(self, peer: str) -> Lesson:
        """The lesson with a peer in the student's place, and the student first among its peers, as ``student``."""
        others = {name: answers for name, answers in self.peers.items() if name != peer}
        return replace(self, student=self.peers[peer], peers={"student": self.student, **others})

    def with_answers(self, trainee: str, answers: Answers) -> Lesson:
        """The lesson with other answers of ``student`` or a peer."""
        if trainee == "student":
            return replace(self, student=answers)
        return replace(self, peers={**self.peers, trainee: answers})

    @property
    def agreed(self) -> Tensor:
        """The target with what the mentors agree on where there is no truth (:meth:`Task.agreed`), ``(B, …)``."""
        if self.mentors is None:
            return self.target
        answers, target = self.mentors.prediction, self.target
        if self._agreed is None or self._agreed[0] is not answers or self._agreed[1] is not target:
            self._agreed = answers, target, self.task.agreed(answers, target)
        return self._agreed[2]

    everywhere = OldName("all_gather")

    def all_gather(self, x: Tensor) -> Tensor:
        """``x`` of all ranks, concatenated along its first dimension; itself on one rank.

        Gradients flow to this rank's part, scaled so that averaging them over ranks gives the whole batch's. A method
        whose rule lives on the batch (relations between samples) does not change with the number of ranks by it.
        """
        if self.join is None:
            return x
        return self.join(x) if self.shares is None else self.join(x, self.shares)

    def mean(self, values_BU: Tensor, units_BU: Tensor) -> Tensor:
        """The mean over the units that count, of all ranks together, a scalar; 0 when none does.

        Where samples have weights it is the weighted mean. Averaged over ranks, its value and its gradients are those
        of the whole batch, however unevenly the units that count lie on the ranks.
        """
        values_BU = values_BU.where(units_BU, 0.0)
        if self.sample_weight is None:
            total, count = values_BU.sum(), units_BU.sum()
        else:
            weight = self.sample_weight.view(-1, *[1] * (values_BU.dim() - 1))
            total, count = (weight * values_BU).sum(), (weight * units_BU).sum()
        if self.reduce is None or not (self.task.has_unlabelled_units or self.shares):
            return total / count.clamp_min(1)
        counts = self.reduce(torch.stack([count, torch.ones_like(count)]).to(total.dtype))
        return total * counts[1] / counts[0].clamp_min(1)

    @property
    def labelled(self) -> Tensor:
        """The share of the batch's samples, of all ranks, that have a label; where samples have weights, by these."""
        has = self.task.mask(self.target).flatten(1).any(1)
        dtype = torch.promote_types(self.student.prediction.dtype, torch.float32)
        weight = torch.ones_like(has, dtype=dtype) if self.sample_weight is None else self.sample_weight.to(dtype)
        sums = torch.stack([(weight * has).sum(), weight.sum()])
        if self.reduce is not None:
            sums = self.reduce(sums)
        return sums[0] / sums[1].clamp_min(torch.finfo(sums.dtype).tiny)

    def share(self, mean: Tensor) -> Tensor:
        """A mean over this rank's samples as its part in the mean over all, which averaging over ranks gives.

        For what has no units to count by; :meth:`mean` is for what has.
        """
        if self.shares is None:
            return mean
        own = len(self.target)  # of none there is no mean: NaN, which is selected away
        part = mean * (own * len(self.shares) / sum(self.shares))
        return part if own else part.where(torch.zeros_like(part, dtype=torch.bool), 0.0)

    def without_filling(self, rank: int, shares: tuple[int, ...]) -> Lesson:
        """The lesson without padding: a rank's own samples come first, the others only padded its batch."""
        rows, whole, heads = shares[rank], len(self.target), self.heads

        def head(mentor: int, tap: str, value: Tensor) -> Tensor:
            assert heads is not None
            filling = value.new_zeros(whole - rows, *value.shape[1:])  # as many as the mentor has seen
            return heads(mentor, tap, torch.cat([value, filling]))[:rows]

        return replace(
            self,
            inputs=self.inputs[:rows],
            target=self.target[:rows],
            student=self.student.first(rows, 0),
            peers={name: answers.first(rows, 0) for name, answers in self.peers.items()},
            mentors=None if self.mentors is None else self.mentors.first(rows, 1),
            ids=None if self.ids is None else self.ids[:rows],
            views=None if self.views is None else self.views[:rows],
            averaged={name: one[:rows] for name, one in self.averaged.items()},
            sample_weight=None if self.sample_weight is None else self.sample_weight[:rows],
            heads=None if heads is None else head,
            shares=shares,
        )

    def head(self, mentor: int, tap: str, value: Tensor) -> Tensor:
        """Mentor's prediction ``(B, C)`` with its activation at a tap replaced by ``value`` ``(B, channels, H, W)``.

        Gradients flow to ``value``; the mentor stays frozen. ``mentor`` counts those in ``mentors``.
        """
        if self.heads is None:
            raise RuntimeError("this lesson has no mentors' heads; the method must declare Needs(heads=True)")
        return self.heads(mentor, tap, value)

    def _taught(self) -> Terms:
        if self.outcome is None:
            raise RuntimeError("this lesson has not been taught yet: pass it to the method first")
        return self.outcome

    @property
    def loss(self) -> Tensor:
        """The scalar to call ``backward()`` on."""
        self._taught()
        assert self._loss is not None
        return self._loss

    @property
    def terms(self) -> dict[str, Tensor]:
        """Unweighted loss terms by name."""
        return self._taught().values

    @property
    def weight(self) -> Tensor | None:
        """``(M, B)`` (``(M, B, U)`` when U > 1): how much each mentor counted on each sample."""
        return _squeeze(self._taught().weight)

    @property
    def temperature(self) -> Tensor | None:
        """``(M, B)`` or ``(M, B, U)``."""
        return _squeeze(self._taught().temperature)

    @property
    def active(self) -> Tensor | None:
        """``(M, B)`` or ``(M, B, U)``, bool: which mentor taught which sample."""
        return _squeeze(self._taught().active)


def _rows(x: Tensor, places: Sequence[int]) -> Tensor:
    """``x[places]`` without sending the list to the device."""
    return torch.stack([x[place] for place in places])


def _squeeze(x: Tensor | None) -> Tensor | None:
    return x.squeeze(-1) if x is not None and x.shape[-1] == 1 else x
