"""Mentors: frozen networks that teach, and the pool that asks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.classroom.lesson import Answers
from classroomkd.classroom.taps import TapReader
from classroomkd.errors import UserError
from classroomkd.functional.constants import constant

__all__ = ["AnswerStore", "Mentor", "MentorPool"]

Statistics = Sequence[float]


class AnswerStore(Protocol):
    """Stored mentor answers, keyed by (sample id, view id); see ``classroomkd.bank``."""

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        """``(M, B, C)`` predictions of all mentors for these samples and views."""
        ...


class Mentor(nn.Module):
    """A frozen network that teaches, in evaluation mode for good, with its own preprocessing.

    The module is used as it is: it is switched to eval mode and its parameters stop requiring gradients.

    Args:
        module: any network whose prediction has the student's shape.
        name: how reports call it; None = the class name.
        mean, std: per channel, of the normalisation it was trained with (pixels in 0..1); None = the student's.
        size: (H, W), or one side, it wants its input resized to; None = as it comes.
        taps: submodule names to read.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str | None = None,
        *,
        mean: Statistics | None = None,
        std: Statistics | None = None,
        size: tuple[int, int] | int | None = None,
        taps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise UserError(f"mentor '{name or type(module).__name__}': give mean and std together")
        self.name = name or type(module).__name__
        self.reader = TapReader(module, taps)
        self.mean, self.std = mean, std
        self.size: tuple[int, int] | None = (size, size) if isinstance(size, int) else size
        self.requires_grad_(False)
        super().train(False)

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.reader.module

    def train(self, mode: bool = True) -> Mentor:
        """Mentors never leave evaluation mode."""
        return self

    def prepare(self, inputs: Tensor, mean: Statistics | None, std: Statistics | None) -> Tensor:
        """Map ``(B, channels, H, W)`` from the student's normalised space to this mentor's."""
        if self.mean is not None and self.std is not None:
            if mean is not None and std is not None:
                inputs = inputs * _channels(std, inputs) + _channels(mean, inputs)
            inputs = (inputs - _channels(self.mean, inputs)) / _channels(self.std, inputs)
        if self.size is not None and tuple(inputs.shape[-2:]) != tuple(self.size):
            inputs = F.interpolate(inputs, size=self.size, mode="bilinear", antialias=True, align_corners=False)
        return inputs

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Answers:
        """Its answers to a batch that is already in its own space."""
        prediction, features = self.reader(inputs)
        return Answers(prediction, features)


def _channels(values: Statistics, like: Tensor) -> Tensor:
    return constant(tuple(float(v) for v in values), like.dtype, like.device).view(1, -1, 1, 1)


class MentorPool:
    """All mentors of a classroom: asked together, answered from a store where one is attached.

    Not an ``nn.Module`` on purpose: mentors must not appear in the student's checkpoint, its optimiser, or DDP.
    """

    def __init__(self, mentors: Sequence[Mentor], mean: Statistics | None, std: Statistics | None) -> None:
        self.mentors = list(mentors)
        self.mean, self.std = mean, std
        self.store: AnswerStore | None = None
        self.forwards = 0  # network passes made so far; a count, so that cost can be proved without a clock
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

    @torch.no_grad()
    def ask(
        self,
        inputs: Tensor,
        ids: Tensor | None = None,
        views: Tensor | None = None,
        only: Sequence[int] | None = None,
    ) -> Answers | None:
        """Everyone's answers, ``(M, B, …)``, or those of the mentors in ``only``; None when there are no mentors.

        Raises:
            UserError: mentors whose predictions differ in shape, naming them.
        """
        if not self.mentors:
            return None
        if self.store is not None and ids is not None and views is not None:
            stored = Answers(self.store.lookup(ids, views))
            return stored if only is None else stored.of(list(only))
        said = []
        asked = self.mentors if only is None else [self.mentors[i] for i in only]
        for mentor in asked:
            said.append(cast(Answers, mentor(mentor.prepare(inputs, self.mean, self.std))))
            self.forwards += 1
        shapes = [tuple(a.prediction.shape) for a in said]
        if len(set(shapes)) > 1:
            odd = next(i for i, s in enumerate(shapes) if s != shapes[0])
            raise UserError(
                f"mentor '{asked[odd].name}' answers with shape {shapes[odd]}, mentor '{asked[0].name}' with "
                f"{shapes[0]}: all mentors and the student must know the same classes"
            )
        taps = set.intersection(*(set(a.features) for a in said))
        for tap in taps:
            sizes = {tuple(a.features[tap].shape) for a in said}
            if len(sizes) > 1:
                raise UserError(f"tap '{tap}' has different shapes in different mentors: {sorted(sizes)}")
        features: dict[str, Any] = {t: torch.stack([a.features[t] for a in said]) for t in sorted(taps)}
        return Answers(torch.stack([a.prediction for a in said]), features)
