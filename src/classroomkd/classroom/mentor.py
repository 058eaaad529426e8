"""Mentors: frozen networks that teach, and the pool that asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.classroom.batches import precision_of
from classroomkd.classroom.frozen import freeze, keep_frozen, refuse_shapeless
from classroomkd.classroom.lesson import Answers
from classroomkd.classroom.own_space import sides, statistics
from classroomkd.errors import UserError
from classroomkd.functional.constants import constant
from classroomkd.taps.tap_set import Kind, TapSet
from classroomkd.taps.taps import TapReader

__all__ = ["Mentor", "Resize", "Statistics"]

Statistics = Sequence[float]
Resize = Callable[[Tensor, tuple[int, int], str], Tensor]


class Mentor(nn.Module):
    """A frozen network that teaches, in evaluation mode for good, with its own preprocessing.

    The module is used as it is: it is switched to eval mode and its parameters stop requiring gradients. Whatever
    changes that from outside (``train()`` of a module around it) is undone before its next answer.

    Args:
        module: any network whose prediction has the student's shape.
        name: how reports call it; None = the class name.
        mean, std: per channel, of the normalisation it was trained with (pixels in 0..1); None = the student's.
        size: (H, W), or one side, it wants its input resized to; None = as it comes.
        taps: submodule names to read; or, by the name a method asks for (``@stage:-1``), the place it is to be here.
        classes: places of its classes among the student's, in its own order, for a mentor that knows fewer or has
            them in another order; the others answer ``-inf``, and it does not teach samples of classes it does not
            know. For :func:`classroomkd.distill`, whose data has names, names will do.
        num_classes: how many classes the student knows; needed with ``classes``.
        translate: what makes an answer of the student's form out of the network's own (another head, other joints);
            None = it has that form.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str | None = None,
        *,
        mean: Statistics | None = None,
        std: Statistics | None = None,
        size: tuple[int, int] | int | None = None,
        taps: Sequence[str] | Mapping[str, str] = (),
        classes: Sequence[int] | Sequence[str] | None = None,
        num_classes: int | None = None,
        translate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.name = name or type(module).__name__
        self.mean: Statistics | None
        self.std: Statistics | None
        self.mean, self.std = statistics(mean, std, f"mentor '{self.name}'")
        self.size: tuple[int, int] | None = sides(size, f"mentor '{self.name}'")
        refuse_shapeless(module, f"mentor '{self.name}'")
        named = isinstance(taps, Mapping)
        self.wishes: dict[str, str] = dict(taps) if isinstance(taps, Mapping) else {}
        self.reader = TapReader(module, () if named else tuple(taps))
        self.tapped: TapSet | None = None
        self.classes: tuple[int, ...] | None = None
        self.class_names: tuple[str, ...] | None = None  # where they were given by name
        self.given_places: tuple[int, ...] | None = None  # or by place, but not among how many
        if classes is not None and any(isinstance(c, str) for c in classes):
            self.class_names = tuple(str(c) for c in classes)
        elif classes is not None and num_classes is None:  # for whoever knows how many there are
            self.given_places = tuple(int(c) for c in classes)
        elif classes is not None:
            self.classes, self.num_classes = tuple(int(c) for c in classes), num_classes or 0
            known = set(range(self.num_classes))
            if len(set(self.classes)) != len(self.classes) or not set(self.classes) <= known:
                raise UserError(
                    f"mentor '{self.name}': classes must be different places below num_classes={num_classes}, got "
                    f"{list(self.classes)}"
                )
        self.translate = translate
        freeze(self)

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.reader.module

    def train(self, mode: bool = True) -> Mentor:
        """Mentors never leave evaluation mode."""
        return self

    def _keep(self) -> None:
        """Undo what was done from outside to the network's modes and parameters."""
        if not torch.compiler.is_compiling():
            keep_frozen(self.module)

    def prepare(
        self, inputs: Tensor, mean: Statistics | None, std: Statistics | None, resize: Resize | None = None
    ) -> Tensor:
        """Map ``(B, channels, H, W)`` from the student's normalised space to this mentor's.

        ``resize`` is the task's way of doing it, :meth:`Task.resized`; None = bilinear.
        """
        if self.mean is not None and self.std is not None:
            if len(self.mean) not in (1, inputs.shape[1]):
                raise UserError(
                    f"mentor '{self.name}': its mean and std have {len(self.mean)} numbers, images {inputs.shape[1]} "
                    "channels; give one a channel"
                )
            if mean is not None and std is not None:
                inputs = inputs * _channels(std, inputs) + _channels(mean, inputs)
            inputs = (inputs - _channels(self.mean, inputs)) / _channels(self.std, inputs)
        if self.size is not None and tuple(inputs.shape[-2:]) != tuple(self.size):
            if resize is not None:
                return resize(inputs, self.size, f"mentor '{self.name}'")
            inputs = F.interpolate(inputs, size=self.size, mode="bilinear", antialias=True, align_corners=False)
        return inputs

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Answers:
        """Its answers to a batch that is already in its own space, which is brought to its precision."""
        self._keep()
        prediction, features = self._in_own_precision(inputs)
        if self.tapped is not None:
            features = self.tapped.read(features)
        return Answers(self._known(prediction), features)

    def _in_own_precision(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the network gives, in whatever precision it computes.

        Of one in another precision than its inputs the answers are float32, or float64 where the inputs are.
        """
        own = precision_of(self.module, inputs.dtype)
        with self._as_it_is(inputs, own):
            prediction, features = self.reader(inputs.to(own))
        if own == inputs.dtype:
            return prediction, features
        kind = torch.float64 if inputs.dtype == torch.float64 else torch.float32
        return prediction.to(kind), {tap: x.to(kind) for tap, x in features.items()}

    @staticmethod
    def _as_it_is(like: Tensor, own: torch.dtype) -> AbstractContextManager[Any]:
        """Inside, autocast is off for a network that is not in float32: it has a precision of its own already."""
        on = own != torch.float32 and torch.is_autocast_enabled(like.device.type)
        return torch.autocast(like.device.type, enabled=False) if on else nullcontext()

    def read(self, taps: Mapping[str, Kind], example: Tensor, heads: bool = False) -> dict[str, tuple[int, ...]]:
        """Read these taps from now on; ``example`` is a blank batch in its own space. Returns their shapes."""
        self.tapped = TapSet.find(self.module, taps, self.wishes, example, f"mentor '{self.name}'", heads)
        self.reader = TapReader(self.module, {**self.reader.places, **self.tapped.places})
        freeze(self)
        return self.tapped.shapes

    def head(self, tap: str, value: Tensor) -> Tensor:
        """Its prediction when its activation at a tap is ``value`` ``(B, channels, H, W)``; gradients flow to it."""
        assert self.tapped is not None
        self._keep()
        with self._as_it_is(value, precision_of(self.module, value.dtype)):
            return self._known(self.tapped.forward_from_tap(self.module, tap, value))

    def _known(self, prediction: Tensor) -> Tensor:
        """The answer in the student's form and classes."""
        if self.class_names is not None or self.given_places is not None:
            raise UserError(
                f"mentor '{self.name}': a classroom knows classes by their place: give classes=[places among the "
                "student's] with num_classes=; names are for ck.distill, whose data has them"
            )
        if self.translate is not None:
            prediction = self.translate(prediction)
        if self.classes is None:
            return prediction
        if prediction.shape[-1] != len(self.classes):
            raise UserError(
                f"mentor '{self.name}' answers {prediction.shape[-1]} classes, its classes name {len(self.classes)}"
            )
        places = constant(self.classes, torch.int64, prediction.device)
        everything = prediction.new_full((*prediction.shape[:-1], self.num_classes), float("-inf"))
        return everything.index_copy(-1, places, prediction)


def _channels(values: Statistics, like: Tensor) -> Tensor:
    return constant(tuple(float(v) for v in values), like.dtype, like.device).view(1, -1, 1, 1)
