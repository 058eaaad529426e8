"""What every job of a run shares in one process: recipe, data, views, inputs, runtime, and where things are kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from classroomkd import data as data_
from classroomkd import methods, models
from classroomkd.classroom import Mentor, Method, Task, prediction_of
from classroomkd.classroom.method import union
from classroomkd.engine.bank_choice import Choice, choose
from classroomkd.engine.fast import Precision, has_bf16, hasten
from classroomkd.engine.inputs import Inputs
from classroomkd.engine.runtime import Runtime
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.measuring import as_for_evaluation

if TYPE_CHECKING:
    from classroomkd.data import ImageSet, Part
    from classroomkd.data.views import Views
    from classroomkd.recipe import Recipe, TrainSpec
    from classroomkd.recipe.schema import MentorSpec

__all__ = ["Setup", "content_key"]


def content_key(**content: Any) -> str:
    """A hash of plain data: equal content, equal key."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


@dataclass
class Setup:
    """One process's view of a run.

    Attributes:
        recipe: the resolved recipe.
        data: the images, on the training device.
        runtime: devices, precision, ranks.
        cache: folder of trained mentors and stored answers.
        trust_code: whether ``py:`` names may run.
        shard, ahead: of ``classroomkd bank fill``.
    """

    recipe: Recipe
    data: ImageSet
    runtime: Runtime
    cache: Path
    trust_code: bool = False
    shard: tuple[int, int] = (0, 1)  # which share of the samples' answers this machine keeps
    ahead: bool = False  # whether every answer is stored before the students start, in ``exact``, too
    given: dict[str, nn.Module] | None = None  # modules handed in from Python, by "student" or mentor name

    @cached_property
    def inputs(self) -> Inputs:
        """Pixels to the student's normalised space."""
        last = self.recipe.train.channels_last is not False
        return Inputs(self.data.mean, self.data.std, self.runtime.device, last)

    @property
    def mentor_precision(self) -> Precision:
        """Of the mentors' weights when they teach."""
        wanted = self.recipe.mentor_precision
        if wanted == "auto":
            return "bf16" if has_bf16(self.runtime.device) else "fp32"
        return wanted

    def hastened(self, mentor: Mentor) -> Mentor:
        """The same mentor, faster; for whoever is going to be asked often. Read its taps before."""
        blank = mentor.prepare(self.blank(), self.inputs.mean, self.inputs.std)
        return hasten(mentor, blank, precision=self.mentor_precision, compile=self.recipe.mentor_compile)

    @cached_property
    def views(self) -> Views:
        """The run's augmentation: the data's own view space, or V fixed views of it."""
        fixed, base = self.bank.spec.views, self.base_views
        bounded: Views = base if fixed is None else data_.FixedViews(base, fixed)
        return bounded

    @cached_property
    def bank(self) -> Choice:
        """Which of the mentors' answers are stored."""
        return choose(self.recipe, self.base_views, len(self.student_part), len(self.classes))

    @cached_property
    def base_views(self) -> Views:
        """The unrestricted view space (mentors are trained on it)."""
        size = (self.data.shape[1], self.data.shape[2])
        space: Views = data_.make_views(self.data.views, view_seed=self.recipe.data.view_seed, image_size=size)
        return space

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        names: tuple[str, ...] = self.data.classes
        return names

    @cached_property
    def task(self) -> Task:
        """The recipe's task."""
        return self.task_for(self.recipe.train)

    def task_for(self, train: TrainSpec) -> Task:
        """The task with a training section's own label smoothing."""
        from classroomkd import tasks

        return tasks.create(self.recipe.task, label_smoothing=train.label_smoothing)

    @cached_property
    def student_part(self) -> Part:
        """The samples whose labels the student sees."""
        samples = self.recipe.student.samples
        if samples is None or samples >= len(self.data.train):
            return self.data.train
        part: Part = data_.subset(self.data.train, samples, seed=self.recipe.data.split_seed)
        return part

    def mentor_train(self, index: int) -> TrainSpec:
        """How mentor ``index`` is trained when it has no checkpoint."""
        return self.recipe.mentors[index].train or self.recipe.mentor_train or self.recipe.train

    @cached_property
    def taps(self) -> dict[str, Literal["map", "pooled"]]:
        """Every tap that a method of this run reads in the mentors, and whether as a map or pooled."""
        arms = [methods.compose(arm.parts) for arm in self.recipe.arms()]
        return union([method.needs for method in arms])

    def blank(self) -> Tensor:
        """Two blank images in the student's space."""
        return torch.zeros(2, *self.data.shape, device=self.runtime.device)

    @staticmethod
    def check_optimizer(method: Method, train: TrainSpec, who: str, where: str) -> None:
        """Refuse an optimiser that the method cannot follow.

        Raises:
            UserError: virtual steps with anything but SGD.
        """
        if method.needs.sgd and train.optimizer != "sgd":
            raise UserError(
                f"{who}: its virtual steps are SGD's, {where}.optimizer is {train.optimizer}; set "
                f"{where}.optimizer=sgd and an lr for it (0.05 is usual)"
            )

    def known_classes(self, spec: MentorSpec) -> tuple[int, ...] | None:
        """Places of a mentor's classes among the data's; None when it knows them all.

        Raises:
            UserError: a class that the data does not have, or the same one twice.
        """
        if spec.classes is None:
            return None
        unknown = [name for name in spec.classes if name not in self.classes]
        if unknown or len(set(spec.classes)) < len(spec.classes):
            what = f"no class '{unknown[0]}'{did_you_mean(unknown[0], self.classes)}" if unknown else "a class twice"
            raise UserError(f"mentor '{spec.name}': classes names {what}; the data '{self.data.name}' has others")
        return tuple(self.classes.index(name) for name in spec.classes)

    def build_mentor(self, name: str, role: str | None = None, seed: int | None = None) -> nn.Module:
        """A mentor's network by its name."""
        spec = next(m for m in self.recipe.mentors if m.name == name)
        count = None if spec.classes is None else len(spec.classes)
        return self.build(spec.model, role or name, seed, classes=count)

    def wrap_mentor(
        self, spec: MentorSpec, module: nn.Module, mean: Any = None, std: Any = None, size: Any = None
    ) -> Mentor:
        """A network as the mentor that the recipe describes, with its own normalisation and (H, W)."""
        mentor = Mentor(
            module,
            spec.name,
            mean=mean,
            std=std,
            size=(size[0], size[1]) if size else None,
            taps=dict(spec.taps),
            classes=self.known_classes(spec),
            num_classes=len(self.classes),
        )
        return mentor.to(self.runtime.device)

    def build(self, spec: str, role: str, seed: int | None = None, classes: int | None = None) -> nn.Module:
        """A network by name on the training device; with a seed, the same weights every time."""
        if self.given and role in self.given:
            return self.given[role].to(self.runtime.device)
        if seed is not None:
            torch.manual_seed(seed)
        try:
            module = models.resolve(
                spec, classes or len(self.classes), trust_code=self.trust_code, in_channels=self.data.shape[0]
            )
        except UserError as error:
            raise UserError(f"{role}: {error}") from error
        return module.to(self.runtime.device)

    @torch.no_grad()
    def check_network(
        self, module: nn.Module, role: str, size: tuple[int, int] | None = None, classes: int | None = None
    ) -> None:
        """One dry forward on blank images: the network must take them and answer with this data's classes."""
        shape = (2, self.data.shape[0], *(size or self.data.shape[1:]))
        try:
            with as_for_evaluation(module):
                answer = prediction_of(module(torch.zeros(shape, device=self.runtime.device)))
        except UserError as error:
            raise UserError(f"{role}: {error}") from error
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"{role}: the network does not take images of shape {shape[1:]}: {first}. "
                "Set data.size to what it expects, or choose another model"
            ) from error
        if answer.dim() != 2 or answer.shape[1] != (classes or len(self.classes)):
            got = f"{answer.shape[1]} classes" if answer.dim() == 2 else f"shape {tuple(answer.shape)}"
            if classes is not None:
                raise UserError(f"{role}: the network answers {got}, its classes name {classes}")
            raise UserError(
                f"{role}: the network answers {got}, the data '{self.data.name}' has {len(self.classes)}; a mentor that "  # noqa: E501
                "knows some of them says which: classes: [...]"
            )
