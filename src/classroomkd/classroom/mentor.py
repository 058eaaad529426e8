"""Mentors: frozen networks that teach, and the pool that asks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.classroom.frozen import freeze, keep_frozen, refuse_shapeless
from classroomkd.classroom.gating import ask_where, knows
from classroomkd.classroom.lesson import Answers
from classroomkd.errors import UserError
from classroomkd.functional.constants import constant
from classroomkd.taps.tap_set import Kind, TapSet
from classroomkd.taps.taps import TapReader

__all__ = ["AnswerStore", "Mentor", "MentorPool", "Sights"]

Statistics = Sequence[float]
Resize = Callable[[Tensor, tuple[int, int], str], Tensor]
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
        if (mean is None) != (std is None):
            raise UserError(f"mentor '{self.name}': give mean and std together")
        if mean is not None and std is not None and len(mean) != len(std):
            raise UserError(f"mentor '{self.name}': mean has {len(mean)} numbers, std {len(std)}; give one a channel")
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
        self.mean, self.std = mean, std
        self.size: tuple[int, int] | None = (size, size) if isinstance(size, int) else size
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
        own = next((value.dtype for value in self.module.parameters() if value.is_floating_point()), inputs.dtype)
        if own == inputs.dtype or torch.is_autocast_enabled(inputs.device.type):
            prediction, features = self.reader(inputs)
        else:
            prediction, features = self.reader(inputs.to(own))
            prediction = prediction.to(inputs.dtype)
        if self.tapped is not None:
            features = self.tapped.read(features)
        return Answers(self._known(prediction), features)

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
        and the answer is NaN. None: every mentor runs on every sample. ``extra_sizes`` has the same views drawn at
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
        return cast(Answers, mentor(self.prepared(mentor, inputs)))

    @staticmethod
    def _gated(
        asked: Sequence[Mentor], gate: Callable[[Tensor], Tensor | None] | None, target: Tensor | None
    ) -> Tensor | None:
        """``(M, B)`` bool: who is asked about what; None = everybody everything."""
        if gate is None or target is None or target.dim() != 1 or target.is_floating_point():
            return None
        count = next((m.num_classes for m in asked if m.classes is not None), 0)
        if count:
            return gate(knows([m.classes for m in asked], count, target))
        return gate(torch.ones(len(asked), len(target), dtype=torch.bool))

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
