"""The arms of a grid: what is trained and compared, under which name and in which folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from classroomkd.recipe.peer_section import STUDENT
from classroomkd.recipe.problems import show
from classroomkd.recipe.sections import ArmSpec, MentorSpec, MethodSpec, RecipeKeys, StageSpec

__all__ = ["FRESH", "Arm", "Stage", "arms"]

# Names the run folder uses for other things.
_TAKEN = ("mentors", "bank", "cache", "checkpoints", "environment", "recipe", "report", "summary")
FRESH = "fresh"  # a start from no stage


@dataclass(frozen=True)
class Stage:
    """What a training that is a stage of an arm has beside its methods.

    Attributes:
        name: its own.
        trainees: who learns, the one that stands in the student's place first.
        epochs: of it.
        start: ``fresh``, the name of an earlier stage, or a file.
        earlier: the stages before it, in order.
        last: whether the arm ends with it.
    """

    name: str
    trainees: tuple[str, ...]
    epochs: int
    start: str
    earlier: tuple[Stage, ...] = ()
    last: bool = False

    @property
    def folder(self) -> str:
        """Where its files lie in the folder of a seed; those of the last one in that folder itself."""
        return "" if self.last else f"stages/{self.name}"

    def before(self, name: str) -> Stage | None:
        """The earlier stage of this name; None where there is none."""
        return next((stage for stage in self.earlier if stage.name == name), None)

    def begins_from(self, trainee: str) -> Stage | str | None:
        """What one of its trainees begins from: a stage that trained it, a file, or None: it is fresh.

        The networks are as they are after ``start``: one that this did not train is as the last stage before it that
        trained it left it.
        """
        stage = self.before(self.start)
        if stage is not None:
            trained = [one for one in (*stage.earlier, stage) if trainee in one.trainees]
            return trained[-1] if trained else None
        return None if self.start == FRESH or trainee != self.trainees[0] else self.start

    def selves_of(self, selves: Iterable[MentorSpec]) -> list[MentorSpec]:
        """Those of a resolved recipe's frozen selves that teach in it: of networks that a stage before it trained."""
        found = []
        for spec in selves:
            stage, _, name = (spec.made_from or "").partition(".")
            if (before := self.before(stage)) is not None and name in before.trainees:
                found.append(spec)
        return found


@dataclass(frozen=True)
class Arm:
    """One row of the comparison.

    ``label`` is what tables call it and ``slug`` its folder; both are unique in a recipe. ``entries`` are its methods
    (several are added up). An arm of several trainings has ``stages``, each of them an arm with a ``stage``, and no
    entries of its own.
    """

    label: str
    slug: str
    entries: tuple[MethodSpec, ...]
    stages: tuple[Arm, ...] = ()
    stage: Stage | None = None

    @property
    def trainings(self) -> tuple[Arm, ...]:
        """What is trained for it, in order: its stages, or the arm itself."""
        return self.stages or (self,)

    @property
    def title(self) -> str:
        """What messages call it: the label, of a stage with its name."""
        last = self.stage is not None and self.stage.last
        return f"{self.label}, stage {self.stage.name}" if self.stage is not None and last else self.label

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the peers that are trained beside the student (of a stage: beside its first trainee); of a resolved
        recipe."""
        if self.stage is not None:
            return self.stage.trainees[1:]
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.peers or ()))

    @property
    def lead(self) -> str:
        """Who stands in the student's place: the student, but in stages that do not train it."""
        return STUDENT if self.stage is None else self.stage.trainees[0]

    @property
    def parts(self) -> list[tuple[str, dict[str, Any]]]:
        """``(name, options)`` of every entry, as :func:`classroomkd.methods.compose` takes them."""
        return [(entry.name, entry.options) for entry in self.entries]

    @property
    def method(self) -> str:
        """Its methods' names: ``kd``, ``kd+at``, ``none then dml``."""
        return " then ".join("+".join(entry.name for entry in training.entries) for training in self.trainings)


def arms(recipe: RecipeKeys) -> list[Arm]:
    """The arms in the recipe's order."""
    labels = _labels(recipe.grid, recipe.task.name)
    slugs: list[str] = []
    for label in labels:
        slugs.append(_free(_slug(label), slugs))
    return [_arm(*arm) for arm in zip(labels, slugs, recipe.grid, strict=True)]


def _arm(label: str, slug: str, entries: tuple[ArmSpec, ...]) -> Arm:
    specs = entries[0].stages
    if specs is None:
        return Arm(label, slug, entries)
    stages = list[Stage]()
    for spec in specs:
        last = len(stages) == len(specs) - 1
        stages.append(Stage(spec.name, _trainees(spec), spec.epochs, spec.start or FRESH, tuple(stages), last))
    trainings = (
        Arm(label if stage.last else f"{label}, stage {stage.name}", slug, spec.method, stage=stage)
        for stage, spec in zip(stages, specs, strict=True)
    )
    return Arm(label, slug, (), tuple(trainings))


def _trainees(spec: StageSpec) -> tuple[str, ...]:
    """Of a resolved recipe, which names them."""
    return spec.trainees if isinstance(spec.trainees, tuple) else (STUDENT,)


def _labels(grid: Sequence[Sequence[ArmSpec]], task: str) -> list[str]:
    """``label`` where given; else the names; arms of the same names also say in which options they differ."""
    names = [tuple(entry.name for entry in arm) for arm in grid]
    labels = []
    for arm, own in zip(grid, names, strict=True):
        given = next((entry.label for entry in arm if entry.label is not None), None)
        alike = [other for other, theirs in zip(grid, names, strict=True) if theirs == own]
        stages = " then ".join("+".join(entry.name for entry in stage.method) for stage in arm[0].stages or ())
        labels.append(
            given
            or stages
            or " + ".join(_described(entry, [other[i] for other in alike], task) for i, entry in enumerate(arm))
        )
    return labels


def _described(entry: MethodSpec, alike: Sequence[MethodSpec], task: str) -> str:
    """The name and those options that set this entry apart: not the task's default, and not the same in all alike."""
    from classroomkd import methods

    if len(alike) == 1:
        return entry.name
    default = methods.defaults(entry.name, task, entry.options)
    apart = [
        f"{key}={_short(value)}"
        for key, value in entry.options.items()
        if (key not in default or default[key] != value) and any(other.options.get(key) != value for other in alike)
    ]
    if entry.peers is not None and any(other.peers != entry.peers for other in alike):
        apart.append(f"peers={','.join(entry.peers)}")
    return " ".join([entry.name, *apart])


def _short(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else show(value)


def _slug(label: str) -> str:
    """Letters, digits, dot, minus and underscore only, at most 80 characters."""
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", label.replace("+", " ")).strip("-.") or "arm"
    if len(slug) > 80:
        slug = f"{slug[:70]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return f"{slug}-arm" if slug.lower().partition(".")[0] in _TAKEN else slug


def _free(slug: str, taken: Sequence[str]) -> str:
    """``slug``, or with a number where a folder of that name exists already (some file systems ignore case)."""
    lower = {other.lower() for other in taken}
    free, number = slug, 1
    while free.lower() in lower:
        number += 1
        free = f"{slug}-{number}"
    return free
