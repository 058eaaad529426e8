"""kcd: the mentor's channels are brought into the order of the student's, once, before a loss that compares them.

System   KCD, "Fixing the Teacher-Student Knowledge Discrepancy in Distillation", Han, Gao, Wang, Li, Li, Wang, arXiv
         2103.16844; *reconstructed* from its abstract
Rule     once, before the first step, over ``calibration`` training pictures: W from the costs D (S, T) of pairs,
           spatial    mean_b ‖F_s,i / ‖F_s,i‖ − F_t,j / ‖F_t,j‖‖²;  class  1 − corr_k of mean activations by class
           bipartite  the assignment with the least sum of D;  greedy  the cheapest pair again and again
           learned    without D: W nearest to F_s = W F_t, a rotation (``procrustes``) or a ridge regression
         then L = the loss of ``inner`` with W F_t in place of F_t
Shapes   F_s (B, S, H, W), F_t (B, T, H, W), W (S, T), fixed. T ≥ S: each of the S takes the mean of ⌊T / S⌋, the rest
         is dropped; T < S: S − T are left out of the loss, whose mean still counts them (learned: none is)
Defaults ours: bipartite, spatial, 5,000 pictures, BatchNorm by the batch (a new student's running statistics mean
         nothing); inner fitnet without a projector at the last stage, weight 1 (at fitnet's 100 the maps drown the
         labels: nothing scales them first); pose 0.2, fitnet's
Deviates which similarity, taps and weight the paper takes, and whether it matches again later, is not known to us
Cost     once ``calibration`` pictures through student and mentors; then a product of W with the mentors' maps a step
Hurts    where a loss is blind to the order of channels it can do nothing, and is refused; a student that is new has
         channels of noise, and what is matched to them may be as good as drawn: compare ``match: random``
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from classroomkd import methods
from classroomkd._pieces import named
from classroomkd.classroom import Answers, Batch, ClassInfo, Lesson, Terms
from classroomkd.classroom.schedule import Schedule
from classroomkd.classroom.step import LookContext
from classroomkd.functional.matching import need_scipy
from classroomkd.methods.pieces import channels
from classroomkd.methods.pieces.aligned import refuse_blind
from classroomkd.methods.pieces.channels import Cost, Fit, Match, Matching, Rule, Sums
from classroomkd.methods.pieces.features import FeatureMethod, Positive
from classroomkd.methods.pieces.looking import LooksFirst

__all__ = ["KCD"]

FOUND = ("top10_before", "top10_after", "top10_chance")
INNER: Mapping[str, Any] = {"name": "fitnet", "projector": "none", "tap": "@stage:-1", "weight": 1}


class KCD(LooksFirst, FeatureMethod):
    """Channels matched before a loss that compares them.

    Args:
        inner: the method whose loss it is, with its options: one that compares channel with channel.
        match: ``bipartite``, ``greedy`` or ``learned``; the controls ``identity`` and ``random``.
        cost: of a pair: ``spatial``, how far their maps are apart, or ``class``, how differently classes excite them.
        fit: of ``learned``: ``procrustes`` or ``ridge``.
        ridge: of ``ridge``, over the mean square of a mentor's channel.
        calibration: training pictures that are looked at.
        batch_norm: of the student in that look: statistics of the ``batch``, or ``running``.
        seed: of ``random``.
    """

    label = "kcd"
    order_matters = True
    combines = True
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"inner": {**INNER, "weight": 0.2}}}

    def __init__(
        self,
        *,
        inner: str | Mapping[str, Any] = INNER,
        match: Match = "bipartite",
        cost: Cost = "spatial",
        fit: Fit = "procrustes",
        ridge: Positive = 1e-3,
        calibration: Annotated[int, Field(ge=2)] = 5000,
        batch_norm: Literal["batch", "running"] = "batch",
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__("all", {})
        if match == "bipartite":
            need_scipy()
        self.name, self.options = named("kcd: inner", inner)
        self.rule = Rule(match, cost, fit, ridge, seed)
        self.inner = methods.create(self.name, **self.options)
        refuse_blind("kcd", self.name, self.inner)
        self.needs = replace(self.inner.needs, prepare=calibration, prepare_norm=batch_norm)
        self.weighs_samples = self.inner.weighs_samples
        self.matchings = nn.ModuleList()  # a mentor that is asked, by pair of taps
        self.count()

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base."""
        return channels.idle(options)

    def setup(self, info: ClassInfo) -> None:
        """Set the inner method up, for this task, with the mentors' shapes as they are going to be."""
        self.inner = methods.create(self.name, task=info.task.name, **self.options)
        if self.rule.by_cost and self.rule.cost == "class" and info.labels is not None:
            channels.refuse_classless(info.labels)
        if (shapes := info.shapes) is None:
            self.inner.setup(info)
            return
        moved = dict(shapes.mentors)
        for own, theirs in self.inner.aligned:
            moved[theirs] = tuple((*shapes.student[own][:1], *shape[1:]) for shape in shapes.mentors[theirs])
        self.inner.setup(replace(info, shapes=replace(shapes, mentors=moved)))
        self.mentor_indices = asks = self.inner.mentor_indices
        for own, theirs in self.inner.aligned:
            for place in range(len(info.mentors)) if asks is None else asks:
                what = f"student's '{own}' and mentor '{info.mentors[place]}''s '{theirs}'"
                self.matchings.append(Matching(shapes.student[own], shapes.mentors[theirs][place], self.rule, what))

    def prepare(self, context: LookContext, batches: Iterable[Batch]) -> None:
        """Match the channels."""
        sums: list[Sums] = []
        for batch in batches:
            lesson = context.lesson(batch)
            labels, classes = channels.labels_of(lesson)
            sums = sums or [Sums(self.rule, classes) for _ in self.matchings]
            for total, (matching, own, theirs) in zip(sums, self._met(lesson), strict=True):
                total.add(matching.resize(own), theirs, labels)
        for total, matching in zip(sums, self._matchings(), strict=False):
            matching.match(total)
            self.pictures.fill_(total.pictures)

    def findings(self) -> dict[str, float]:
        """Of the ten strongest channels by class the share that student and mentors have in common."""
        found = [matching.overlap for matching in self._matchings()]
        mean = torch.stack(found).mean(0).tolist() if found else []
        return {name: x for name, x in zip(FOUND, mean, strict=False) if math.isfinite(x)}

    def loss(self, lesson: Lesson) -> Terms:
        """The inner method's terms."""
        assert lesson.mentors is not None
        moved = iter([matching(theirs, own) for matching, own, theirs in self._met(lesson)])
        features = dict(lesson.mentors.features)
        for _, tap in self.inner.aligned:
            features[tap] = tuple(next(moved) for _ in features[tap])
        terms: Terms = self.inner(replace(lesson, mentors=Answers(lesson.mentors.prediction, features)))
        return terms

    def schedules(self) -> list[Schedule]:
        """Its own and the inner method's."""
        return [self.schedule, *self.inner.schedules()]

    def _met(self, lesson: Lesson) -> Iterator[tuple[Matching, Tensor, Tensor]]:
        # Every matching with the student's features and the mentor's.
        assert lesson.mentors is not None
        matchings = iter(self._matchings())
        for own, theirs in self.inner.aligned:
            for features in lesson.mentors.features[theirs]:
                yield next(matchings), lesson.student.features[own], features

    def _matchings(self) -> list[Matching]:
        return list(self.matchings)  # type: ignore[arg-type]
