"""The base of all methods: from a lesson to named loss terms, or a whole step of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from classroomkd._renamed import OldName, adopt_old_names
from classroomkd.classroom.lesson import Answers, Lesson, Terms
from classroomkd.classroom.needs import Needs
from classroomkd.classroom.schedule import Constant, Schedule
from classroomkd.classroom.step import Batch, LookContext, StepContext
from classroomkd.classroom.task import Task
from classroomkd.classroom.trainees import is_own_loss
from classroomkd.errors import UserError

__all__ = ["ClassInfo", "Method", "Shapes", "masked_mean"]


@dataclass(frozen=True)
class Shapes:
    """Shapes of what a method is going to see, without the batch dimension; found by a dry run.

    Attributes:
        classes: C, the size of a prediction.
        student: by tap, ``(channels, H, W)`` of a map or ``(channels,)`` of a pooled one.
        mentors: by tap, the same of every mentor in order.
        peers: by tap, the same of every peer in order.
    """

    classes: int
    student: Mapping[str, tuple[int, ...]]
    mentors: Mapping[str, tuple[tuple[int, ...], ...]]
    peers: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassInfo:
    """What a method may know about its classroom before the first lesson.

    Attributes:
        task: the task.
        mentors: mentors' names, in the order of the M axis.
        scores: each mentor's held-out score, more is better (validation accuracy), or None where nobody measured it.
        shapes: what a dry run found; None while a recipe is checked, when nothing is built yet.
        ids, labels: ``(N,)`` of the training samples, where known, for methods that remember every sample.
        taught: by mentor, whether another mentor taught it (an assistant); None where nobody said.
        peers: names of the networks that are trained beside the student.
        teachers: names of those of them that are teachers.
        selves: by mentor, the trainee (``student`` or a peer) that it is as it was after an earlier stage, frozen; None
            for other mentors. Empty where nobody said.
    """

    task: Task
    mentors: Sequence[str]
    scores: Sequence[float] | None = None
    shapes: Shapes | None = None
    ids: Tensor | None = None
    labels: Tensor | None = None
    taught: Sequence[bool] | None = None
    peers: Sequence[str] = ()
    teachers: Sequence[str] = ()
    selves: Sequence[str | None] = ()


class Method(nn.Module):
    """How the mentors teach.

    A subclass sets ``needs`` and implements ``loss(lesson) -> Terms``; its constructor's keyword arguments, with
    their type hints, are its options in recipes. A method with another kind of step overrides :meth:`step`.

    Attributes:
        mentor_indices: places of the only mentors whose answers are read; None = everybody's.
        order_matters: whether it learns something for each mentor's place, so that their order matters.
        period: steps after which the cost of a step repeats (a meta step every five: 5).
        strength: ``native`` keeps the method's own scale; ``matched`` divides every mentors' term by the sum of its
            weights over the mentors (averaged over the units that any mentor teaches): arms then have one strength.
        schedule: factor of the mentors' terms by how far the training is; see :meth:`factor_of`.
        matched: options that ``strength: matched`` sets where the user does not.
        weighs_samples: whether its mentors' terms are means over samples that :attr:`Lesson.sample_weight` acts on.
        combines: whether its terms are other methods', which have scaled them.
        for_unlabelled: whether its mentors teach samples without a label only.
        without_labels: what a method with ``Needs(truth=True)`` does of samples without a label, as a verb's phrase.
        later: options that came after the method's version was raised last: at their default they enter no key.
        since: the version since which options that are said in full mean what they mean today, where later versions
            changed defaults alone; 0 = the present one. Keys of what is kept with its options written out hold it.
        task_defaults: by task, options that have another default there than in the constructor:
            ``{"pose": {"temperature": 1.0}}``. See :meth:`defaults_on`.
        prepared: of one with ``Needs(prepare=…)``, whether it has looked, or has taken up the state of one that had.
        aligned: pairs of taps, the student's and the mentors', between which it compares channel i with channel i;
            empty where the order of a mentor's channels is nothing to it.
        aligned_with: options by which :attr:`aligned` is not empty; None: there are none.
    """

    needs: Needs = Needs()
    mentor_indices: tuple[int, ...] | None = None
    order_matters: bool = False
    period: int = 1
    strength: Literal["native", "matched"] = "native"
    schedule: Schedule = Constant()
    weighs_samples: bool = True
    combines: ClassVar[bool] = False
    for_unlabelled: ClassVar[bool] = False
    later: ClassVar[tuple[str, ...]] = ()
    since: ClassVar[int] = 0
    without_labels: ClassVar[str] = "teaches the labelled pictures alone"
    matched: ClassVar[Mapping[str, Any]] = {}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    prepared: bool = False
    aligned: tuple[tuple[str, str], ...] = ()
    aligned_with: ClassVar[Mapping[str, Any] | None] = None

    may_teach = OldName("eligible")
    own_parameters = OldName("meta_parameters")
    asks = OldName("mentor_indices")
    by_place = OldName("order_matters")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_old_names(cls)

    @classmethod
    def defaults_on(cls, task: str | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options that hold on a task where the user gives none; the constructor's own defaults are beneath them.

        Args:
            task: its name; None = not known yet, the constructor's defaults.
            options: what the user gives, for a method whose defaults depend on another option.
        """
        return cls.task_defaults.get(task, {}) if task is not None else {}

    @classmethod
    def renewed(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Options of earlier versions under today's names, and what was read as what, one sentence each."""
        return dict(options), []

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """Options that differ from their default and act on nothing beside the others, one sentence each."""
        return []

    def setup(self, info: ClassInfo) -> None:
        """Called once when the classroom is built; raise ``UserError`` for what cannot work."""
        if len(info.mentors) < self.needs.mentors:
            raise UserError(f"method '{type(self).__name__}' needs at least {self.needs.mentors} mentor(s), got none")

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Go on with what a method of the same kind learned in an earlier training, as far as both have the same parts.

        Args:
            state: its ``state_dict()``.
        """
        own = self.state_dict()
        self.load_state_dict({**own, **{key: value for key, value in state.items() if key in own}})

    def prepare(self, context: LookContext, batches: Iterable[Batch]) -> None:
        """Look at samples before the first step, where ``needs.prepare`` says so; what comes of it goes into buffers.

        It may go through ``batches`` again. All it depends on is what it sees, so that a look can be repeated.
        """

    def prepare_blank(self) -> None:
        """Go without a look, in a dry run: what it would have found changes no cost and no shape."""
        self.prepared = True

    def findings(self) -> Mapping[str, float]:
        """Figures of :meth:`prepare` for the record of a run, by name; waits for the device."""
        return {}

    def loss(self, lesson: Lesson) -> Terms:
        """Named, unweighted terms of a complete lesson."""
        raise NotImplementedError(f"{type(self).__name__} must implement loss(lesson)")

    def forward(self, lesson: Lesson) -> Terms:
        """:meth:`loss`, :meth:`scaled`."""
        return self.scaled(self.loss(lesson), lesson)

    def scaled(self, terms: Terms, lesson: Lesson) -> Terms:
        """Terms with ``strength`` and ``schedule`` applied to the coefficients of all but trainees' own losses.

        Where samples have no label and are taught all the same, own losses are multiplied by the share of those that
        have one: every sample of a batch counts the same, and two labels among sixty pictures are not as loud as all
        of these. Where nobody teaches the others every mean is over the labelled ones, and stays.
        """
        factor, mixed = self.factor_of(lesson), lesson.task.unlabelled and self.teaches_all and not self.combines
        share = lesson.labelled if mixed else None
        if self.strength == "native" and factor == 1.0 and share is None:
            return terms
        coefficients: dict[str, float | Tensor] = dict(terms.coefficients)
        for name in terms.values:
            coefficient = coefficients.get(name, 1.0)
            if is_own_loss(name):
                if share is not None:
                    coefficients[name] = coefficient * share
                continue
            if self.strength == "matched" and (total := _total(terms, name, lesson.reduce)) is not None:
                coefficient = coefficient / total
            coefficients[name] = coefficient * factor
        return replace(terms, coefficients=coefficients)

    def factor_of(self, lesson: Lesson) -> float:
        """The schedule's factor of a lesson's mentors' terms, and of all that stands for them (virtual steps)."""
        return self.schedule(lesson.epoch, lesson.progress)

    def schedules(self) -> list[Schedule]:
        """Those that act on any mentors' term, of all parts."""
        return [self.schedule]

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int) -> Tensor | None:
        """Who can count for whom, ``(M, B)`` bool, before anybody is asked: the others need not run. None: all of them.

        Args:
            knows_MB: whether a mentor knows the sample's class.
            ids: sample ids ``(B,)``, where there are any.
            step: of the training.
        """
        return None

    @property
    def teaches(self) -> bool:
        """Whether it has terms beside trainees' own losses: of mentors, of peers, or of a teacher it makes up."""
        return self.needs.mentors > 0 or self.needs.trains_others

    @property
    def teaches_all(self) -> bool:
        """Whether its terms beside own losses are of samples without a label, too; see :attr:`without_labels`."""
        labelled_alone = self.needs.truth and type(self).without_labels == Method.without_labels
        return self.teaches and not labelled_alone

    @property
    def has_own_step(self) -> bool:
        """Whether its step is another one than the base's, so that it cannot be one part of several."""
        return type(self).step is not Method.step

    def meta_parameters(self) -> list[nn.Parameter]:
        """Parameters the method updates by an optimiser of its own, in :meth:`after_step`."""
        return []

    def step(self, context: StepContext, batch: Batch) -> Lesson:
        """One unit of training: complete the lesson, turn it into terms, go backward, update."""
        lesson = context.lesson(batch)
        lesson.conclude(self(lesson))
        context.backward(lesson.loss)
        context.update()
        self.after_step(context, lesson)
        return lesson

    def together(self, student: Answers, branches: Mapping[str, Answers]) -> Tensor | None:
        """What the student's branches answer together, ``(B, …)``; None: the method has no such head.

        Args:
            student: the first branch's answers, with the taps that the method reads.
            branches: the others', by name.
        """
        return None

    @property
    def has_head(self) -> bool:
        """Whether branches answer together by :meth:`together`."""
        return type(self).together is not Method.together

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """Called after the student's update; a meta-learned weighting does its own update here."""


def _total(terms: Terms, name: str, reduce: Callable[[Tensor], Tensor] | None) -> Tensor | None:
    """What the weights in a term sum to over the mentors: the mean over the units that anyone teaches, over ranks."""
    if name in terms.totals:
        return terms.totals[name].clamp_min(1e-6)
    if terms.weight is None or terms.active is None:
        return None
    sums = torch.stack([terms.weight.sum(), terms.active.any(0).sum().to(terms.weight.dtype)])
    weight, units = (sums if reduce is None else reduce(sums)).unbind()
    return (weight / units.clamp_min(1)).clamp_min(1e-6)


def masked_mean(values_BU: Tensor, mask_BU: Tensor) -> Tensor:
    """The mean over the units that count, a scalar; 0 when none does."""
    return values_BU.where(mask_BU, 0.0).sum() / mask_BU.sum().clamp_min(1)
