"""Recipes: one experiment as a YAML file, checked before anything is downloaded or trained.

- ``load_recipe("recipes/smoke.yaml", ["seeds=[0,1]"])``, ``make_recipe({...})``: checked and resolved
- ``Recipe`` and its parts; ``recipe.arms()`` lists what is trained
- ``recipe_yaml``, ``save_recipe``, ``json_schema``: written down
- ``find_recipe``, ``recipe_files``, ``example_files``: recipes and examples at hand

Names are loaded on first use; nothing here imports torch until a method's or a library model's name is checked.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classroomkd.recipe.arms import Arm
    from classroomkd.recipe.dump import json_schema, recipe_yaml, save_recipe
    from classroomkd.recipe.find import example_files, find_recipe, recipe_files
    from classroomkd.recipe.load import load_recipe, make_recipe
    from classroomkd.recipe.problems import Problem, RecipeError
    from classroomkd.recipe.schema import SCHEMA, DataSpec, MentorSpec, MethodSpec, Recipe, StudentSpec
    from classroomkd.recipe.training import MentorTrain, TrainSpec

__all__ = [
    "SCHEMA",
    "Arm",
    "DataSpec",
    "MentorSpec",
    "MentorTrain",
    "MethodSpec",
    "Problem",
    "Recipe",
    "RecipeError",
    "StudentSpec",
    "TrainSpec",
    "example_files",
    "find_recipe",
    "json_schema",
    "load_recipe",
    "make_recipe",
    "recipe_files",
    "recipe_yaml",
    "save_recipe",
]

_SCHEMA = ("SCHEMA", "DataSpec", "MentorSpec", "MethodSpec", "Recipe", "StudentSpec", "TaughtBy")
_LAZY = {
    "Arm": "arms",
    **dict.fromkeys(_SCHEMA, "schema"),
    **dict.fromkeys(("MentorTrain", "TrainSpec"), "training"),
    **dict.fromkeys(("Problem", "RecipeError"), "problems"),
    **dict.fromkeys(("example_files", "find_recipe", "recipe_files"), "find"),
    **dict.fromkeys(("json_schema", "recipe_yaml", "save_recipe"), "dump"),
    **dict.fromkeys(("load_recipe", "make_recipe"), "load"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"classroomkd.recipe.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'classroomkd.recipe' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
