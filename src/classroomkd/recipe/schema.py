"""The recipe: one experiment as data. Everything here is plain values; nothing is built and torch is not imported.

Use :func:`classroomkd.recipe.load_recipe` or :func:`classroomkd.recipe.make_recipe`, which accept the short forms,
check names and files, and report every mistake.
"""

from __future__ import annotations

from classroomkd.recipe.arms import Arm, arms
from classroomkd.recipe.notes import notes
from classroomkd.recipe.sections import (
    SCHEMA,
    ArmSpec,
    DataSpec,
    MentorSpec,
    MethodSpec,
    PeerSpec,
    RecipeKeys,
    StageSpec,
    StudentSpec,
    TaskSpec,
    TaughtBy,
)
from classroomkd.recipe.training import MentorTrain, TrainSpec

__all__ = [
    "SCHEMA",
    "ArmSpec",
    "DataSpec",
    "MentorSpec",
    "MentorTrain",
    "MethodSpec",
    "PeerSpec",
    "Recipe",
    "StageSpec",
    "StudentSpec",
    "TaskSpec",
    "TaughtBy",
    "TrainSpec",
]


class Recipe(RecipeKeys):
    """One experiment: who is taught by whom, on what, how, and how often."""

    _selves: tuple[MentorSpec, ...] = ()  # of a resolved recipe, whose ``mentors`` do not have them
    _renewed: tuple[str, ...] = ()  # what earlier versions wrote otherwise and was read as today's

    def arms(self) -> list[Arm]:
        """The arms of the grid (one for ``method``), with unique labels and folder names."""
        return arms(self)

    @property
    def selves(self) -> tuple[MentorSpec, ...]:
        """Mentors that are trainees as they were after a stage, of a resolved recipe; one a trainee."""
        return self._selves

    def trainings(self) -> list[Arm]:
        """What is trained for the arms: each of them, or its stages."""
        return [training for arm in self.arms() for training in arm.trainings]

    def notes(self) -> list[str]:
        """Settings that are given but have no effect, or were read as others, one sentence each."""
        return [*self._renewed, *notes(self)]
