"""The base of methods that compare features: who is asked, the student's own loss, and the record of who taught."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from classroomkd.classroom import ClassInfo, Lesson, Method, Terms, choose

__all__ = ["FeatureMethod", "NonNegative", "Positive", "Tap"]

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Tap = Annotated[str, Field(min_length=1)]


class FeatureMethod(Method):
    """The mean over the chosen mentors of a term that compares features.

    Every mentor that is asked counts 1/M on every sample, at temperature 1, and is recorded so: on all units that
    mentors may teach, whichever of them it knows, for its features are of the whole sample.

    Args:
        mentor: ``all``, ``best``, a name, or a position.
        coefficients: of the terms, the supervised one included.
    """

    label: ClassVar[str]
    weighs_samples = False

    def __init__(self, mentor: str | int, coefficients: Mapping[str, float]) -> None:
        super().__init__()
        self.mentor, self.coefficients = mentor, dict(coefficients)
        self.mentors = 1
        self.places: tuple[int, ...] = (0,)

    def setup(self, info: ClassInfo) -> None:
        """Find the mentors; only they are asked."""
        super().setup(info)
        self.mentors, self.places = len(info.mentors), choose(info, self.mentor, self.label)
        self.mentor_indices = self.places if len(self.places) < self.mentors else None

    def terms(self, lesson: Lesson, values: Mapping[str, Tensor], labelled: bool = False) -> Terms:
        """The student's own term, these terms and who taught, ``(M, B, U)`` over all mentors.

        Args:
            lesson: the batch.
            values: the mentors' terms.
            labelled: whether they are of units with a truth alone.
        """
        mask = lesson.task.mask(lesson.target)
        own = lesson.task.supervised(lesson.student.prediction, lesson.target)
        reach = mask if labelled else lesson.task.distill_mask(lesson.target)
        nobody = torch.zeros_like(reach)
        active = torch.stack([reach if place in self.places else nobody for place in range(self.mentors)])
        return Terms(
            {"supervised": lesson.mean(own, mask), **values},
            self.coefficients,
            weight=active.to(own.dtype) / len(self.places),
            temperature=torch.ones_like(active, dtype=own.dtype),
            active=active,
        )
