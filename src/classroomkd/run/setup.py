"""What every job of a run shares in one process: recipe, data, views, inputs, runtime, and where things are kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from classroomkd import bank as bank_
from classroomkd import data as data_
from classroomkd import methods
from classroomkd.classroom import Classroom, Mentor, Method, Task
from classroomkd.classroom.method import union
from classroomkd.errors import UserError
from classroomkd.run.bank_choice import Choice, choose
from classroomkd.tasks.runners import TaskRunner, open_runner
from classroomkd.train.inputs import Inputs
from classroomkd.train.optimize import Precision, has_bf16, optimize_for_inference
from classroomkd.train.runtime import Runtime

if TYPE_CHECKING:
    from classroomkd.data import ImageSet, Part
    from classroomkd.data.views.base import Views
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

    def optimized(self, mentor: Mentor) -> Mentor:
        """The same mentor, faster; for whoever is going to be asked often. Read its taps before."""
        blank = mentor.prepare(self.blank(), self.inputs.mean, self.inputs.std)
        return optimize_for_inference(
            mentor, blank, precision=self.mentor_precision, compile=self.recipe.mentor_compile
        )

    @cached_property
    def views(self) -> Views:
        """The run's augmentation: the data's own view space, or V fixed views of it."""
        fixed, base = self.bank.spec.views, self.base_views
        bounded: Views = base if fixed is None else data_.FixedViews(base, fixed)
        return bounded

    @cached_property
    def bank(self) -> Choice:
        """Which of the mentors' answers are stored."""
        return choose(self.recipe, self.base_views, len(self.student_part), self.task_runner.answer_size, self.widths)

    def widths(self, taps: Mapping[str, Literal["map", "pooled"]]) -> int:
        """How many numbers all mentors' activations of one sample at ``taps`` are; 0 where a mentor cannot be built or
        lacks a tap, which the check of the run says."""
        found = 0
        with suppress(UserError), torch.random.fork_rng(devices=[]):
            for mentor in map(self.blank_mentor, self.recipe.mentors):
                example = mentor.prepare(self.blank(), self.inputs.mean, self.inputs.std)
                found += sum(map(math.prod, mentor.read(taps, example).values()))
        return found

    @cached_property
    def base_views(self) -> Views:
        """The unrestricted view space (mentors are trained on it)."""
        size = (self.data.shape[1], self.data.shape[2])
        seed = self.recipe.data.view_seed
        space: Views = data_.make_views(self.data.views, view_seed=seed, image_size=size, images=self.data)
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

    def task_for(self, train: TrainSpec, mentor: MentorSpec | None = None, module: nn.Module | None = None) -> Task:
        """The task with a training section's own label smoothing; of a mentor's own training, its network's."""
        return self.task_runner.task_for(train, mentor, module)

    @cached_property
    def task_runner(self) -> TaskRunner:
        """What the engine must know of the task."""
        return open_runner(self)

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
        """Every tap whose activations the bank keeps for a method of this run, and whether as a map or pooled."""
        arms = [methods.compose(arm.parts).needs for arm in self.recipe.arms()]
        return union([needs for needs in arms if self.bank.keeps(needs)])

    def extra_sizes(self, classroom: Classroom) -> list[tuple[int, int]]:
        """At which (H, W) the mentors want views drawn; none where pixels can only be resized, or none are asked."""
        if self.data.people is None or isinstance(classroom.mentors.store, bank_.EpochCache):
            return []
        own = self.data.shape[1:]
        return sorted(
            {(m.size[0], m.size[1]) for m in classroom.mentors if m.size is not None and tuple(m.size) != own}
        )

    @property
    def known_extra_sizes(self) -> list[tuple[int, int]]:
        """Those of :meth:`extra_sizes` that the recipe itself names; for dry runs."""
        own = self.data.shape[1:]
        shapes = {m.shape for m in self.recipe.mentors if m.shape is not None and m.shape != own}
        return sorted(shapes) if self.data.people is not None else []

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

    def build_mentor(self, name: str, role: str | None = None, seed: int | None = None) -> nn.Module:
        """A mentor's network by its name."""
        spec = next(m for m in self.recipe.mentors if m.name == name)
        return self.build(spec.model, role or name, seed, spec)

    def wrap_mentor(
        self, spec: MentorSpec, module: nn.Module, mean: Any = None, std: Any = None, size: Any = None
    ) -> Mentor:
        """A network as the mentor that the recipe describes, with its own normalisation and (H, W)."""
        mentor = self.task_runner.wrap(spec, module, mean, std, (size[0], size[1]) if size else None)
        return mentor.to(self.runtime.device)

    def blank_mentor(self, spec: MentorSpec) -> Mentor:
        """A mentor with its network as it is built, untrained; for dry runs."""
        return self.wrap_mentor(spec, self.build_mentor(spec.name, seed=0), spec.mean, spec.std, spec.shape)

    def build(self, spec: str, role: str, seed: int | None = None, mentor: MentorSpec | None = None) -> nn.Module:
        """A network by name, the student or a mentor, on the training device; with a seed, the same weights always."""
        if self.given and role in self.given:
            return self.given[role].to(self.runtime.device)
        if seed is not None:
            torch.manual_seed(seed)
        try:
            module = self.task_runner.resolve(spec, mentor)
        except UserError as error:
            raise UserError(f"{role}: {error}") from error
        return module.to(self.runtime.device)
