"""What a run is given in one process, and what follows from that alone: nothing here builds a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import bank, data, methods
from classroomkd.classroom.trainees import STUDENT
from classroomkd.train.inputs import Inputs
from classroomkd.train.optimize import Precision, has_bf16

if TYPE_CHECKING:
    from classroomkd.classroom import Classroom, Needs
    from classroomkd.data import ImageSet, Part
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import Arm, Recipe, TrainSpec
    from classroomkd.recipe.schema import MentorSpec, PeerSpec
    from classroomkd.train.runtime import Runtime

__all__ = ["RunContext", "cache_of"]


def cache_of(named: str | None, out: Path) -> Path:
    """The folder of a run's trained mentors and stored answers: the recipe's ``cache``, or one beside the run."""
    return Path(named) if named else out.resolve().parent / ".cache" / "classroomkd"


@dataclass(frozen=True, eq=False)
class RunContext:
    """A run as one process sees it.

    Attributes:
        recipe: the resolved recipe.
        data: the images, on the training device.
        runtime: devices, precision, ranks.
        cache: folder of trained mentors and stored answers.
        trust_code: whether ``py:`` names may run.
        given: networks handed over in Python, by ``student`` or the mentor's name.
    """

    recipe: Recipe
    data: ImageSet
    runtime: Runtime
    cache: Path
    trust_code: bool = False
    given: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        names: tuple[str, ...] = self.data.classes
        return names

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What the file of a network that is trained on these images says of its inputs."""
        resize = self.data.resize or self.recipe.data.resize
        known = {"mean": self.data.mean, "std": self.data.std}
        return known if resize is None else {**known, "resize": resize}

    @cached_property
    def inputs(self) -> Inputs:
        """Pixels to the student's normalised space."""
        last = self.recipe.train.channels_last is not False
        return Inputs(self.data.mean, self.data.std, self.runtime.device, last)

    @cached_property
    def base_views(self) -> Views:
        """The data's own view space, without bound; mentors are trained on it."""
        size = (self.data.shape[1], self.data.shape[2])
        seed = self.recipe.data.view_seed
        space: Views = data.make_views(self.data.views, view_seed=seed, image_size=size, images=self.data)
        return space

    @cached_property
    def student_part(self) -> Part:
        """The samples whose labels the student sees."""
        samples = self.recipe.student.samples
        if samples is None or samples >= len(self.data.train):
            return self.data.train
        part: Part = data.subset(self.data.train, samples, seed=self.recipe.data.split_seed)
        return part

    @cached_property
    def needs(self) -> list[Needs]:
        """What the method of every training needs, in the order of the arms and their stages."""
        trainings = self.recipe.trainings()
        return [methods.compose(training.parts, peers=len(training.peers)).needs for training in trainings]

    @cached_property
    def banked(self) -> list[tuple[Arm, Needs]]:
        """The trainings that ask mentors whose answers can be stored, all of them, and what their methods need."""
        pairs = zip(self.recipe.trainings(), self.needs, strict=True)
        return [(arm, needs) for arm, needs in pairs if needs.mentors > 0 and not self.selves_of(arm)]

    @property
    def mentor_precision(self) -> Precision:
        """Of the mentors' weights when they teach."""
        if self.recipe.mentor_precision != "auto":
            return self.recipe.mentor_precision
        return "bf16" if has_bf16(self.runtime.device) else "fp32"

    def mentor(self, name: str) -> MentorSpec:
        """What the recipe says of a mentor."""
        return next(spec for spec in self.recipe.mentors if spec.name == name)

    def peers_of(self, arm: Arm) -> dict[str, PeerSpec]:
        """The peers that are trained beside an arm's student, by name, in the recipe's order."""
        return {spec.name: spec for spec in self.recipe.peers if spec.name in arm.peers}

    def selves_of(self, arm: Arm) -> list[MentorSpec]:
        """The frozen selves of earlier stages that a stage has among its mentors, behind the recipe's."""
        return [] if arm.stage is None else arm.stage.selves_of(self.recipe.selves)

    def epochs_of(self, arm: Arm) -> int:
        """Of one training: a stage says its own."""
        return self.recipe.train.epochs if arm.stage is None else arm.stage.epochs

    def train_of(self, arm: Arm, trainee: str | None = None) -> TrainSpec:
        """How a trainee of an arm, or of a stage, is trained; None: the one that stands in the student's place.

        A peer is trained as the student but for its own rate and decay, and all of it.
        """
        name, changes = trainee or arm.lead, dict[str, Any](epochs=self.epochs_of(arm))
        if name != STUDENT:
            own = self.peer(name).train
            given = {} if own is None else {k: v for k, v in own.model_dump().items() if v is not None}
            changes |= {"freeze": (), "layer_decay": None, **given}
        train: TrainSpec = self.recipe.train.model_copy(update=changes)
        return train

    def peer(self, name: str) -> PeerSpec:
        """What the recipe says of a peer."""
        return next(spec for spec in self.recipe.peers if spec.name == name)

    def mentor_train(self, index: int) -> TrainSpec:
        """How mentor ``index`` is trained when it has no checkpoint."""
        return self.recipe.mentors[index].train or self.recipe.mentor_train or self.recipe.train

    def eval_batch(self, size: int) -> Tensor:
        """Un-augmented pixels of the first samples that the student sees, ``size`` of them where there are so many."""
        part = self.student_part
        pixels, target, _ = part.batch(torch.arange(min(len(part), size)))
        pixels, _ = self.base_views.eval_view(pixels, target)
        return pixels

    def blank(self) -> Tensor:
        """Two blank images in the student's space."""
        return torch.zeros(2, *self.data.shape, device=self.runtime.device)

    def extra_sizes(self, classroom: Classroom) -> list[tuple[int, int]]:
        """At which (H, W) the mentors want views drawn; none where pixels can only be resized, or none are asked."""
        if self.data.people is None or isinstance(classroom.mentors.store, bank.EpochCache):
            return []
        return self._other_sizes(mentor.size for mentor in classroom.mentors)

    @property
    def known_extra_sizes(self) -> list[tuple[int, int]]:
        """Those of :meth:`extra_sizes` that the recipe itself names; for dry runs."""
        return self._other_sizes(spec.shape for spec in self.recipe.mentors) if self.data.people is not None else []

    def _other_sizes(self, sizes: Iterable[Sequence[int] | None]) -> list[tuple[int, int]]:
        """Those (H, W) that are not the student's, each once."""
        return sorted({(s[0], s[1]) for s in sizes if s is not None and tuple(s) != self.data.shape[1:]})
