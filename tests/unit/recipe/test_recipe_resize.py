"""``data.resize`` in recipes, and recipes of version 1, which had no such key and padded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from classroomkd.recipe import Recipe, recipe_yaml
from classroomkd.recipe.versions import renewed_data

Load = Callable[..., Recipe]
TEXT = "data: {source: puppets}\nstudent: convnet8\nmethod: none\n"
NOTE = "data.resize is pad, as always in recipes of version 1"
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("head", "override", "rule", "noted"),
    [
        ("", [], "crop", False),
        ("schema: 2\n", [], "crop", False),
        ("schema: 1\n", [], "pad", True),
        ("schema: 1\n", ["data.resize=stretch"], "stretch", False),
        ("schema: 1\n", ["data=puppets"], "pad", True),
        ("", ["schema=1"], "pad", True),
        ("", ["data.resize=null"], "crop", False),
    ],
)
def test_what_is_meant(load: Load, head: str, override: list[str], rule: str, noted: bool) -> None:
    recipe = load(head + TEXT, *override)
    assert recipe.data.resize == rule
    assert any(note.startswith(NOTE) for note in recipe.notes()) == noted
    again = load(recipe_yaml(recipe))
    assert again.model_dump() == recipe.model_dump()
    assert (again.schema_version, again.data.resize) == (2, rule)
    assert not any(note.startswith(NOTE) for note in again.notes())


@pytest.mark.parametrize("head", ["", "schema: 1\n"])
def test_crops_of_persons_have_no_rule(load: Load, mistakes: Callable[..., list[str]], head: str) -> None:
    text = f"{head}task: pose\n{TEXT.replace('convnet8', 'simcc_tiny')}"
    recipe = load(text)
    assert recipe.data.resize is None
    assert not any("resize" in note for note in recipe.notes())
    assert load(recipe_yaml(recipe)).model_dump() == recipe.model_dump()
    said = "is for whole images; for pose crops of data.size are cut around persons: leave it out"
    assert mistakes(text, "data.resize=crop") == [f"command line: data.resize = 'crop': {said}"]


def test_other_values_are_refused_by_name(mistakes: Callable[..., list[str]]) -> None:
    (said,) = mistakes(TEXT, "data.resize=letterbx")
    assert "'crop', 'letterbox', 'pad' or 'stretch'" in said


def test_stored_recipes() -> None:
    stored = {"schema": 1, "task": "classification", "data": {"source": "puppets", "size": None}}
    assert renewed_data(stored) == {"source": "puppets", "size": None, "resize": "pad"}
    assert renewed_data({**stored, "task": {"name": "pose", "per": "person"}}) == stored["data"]
    assert renewed_data({**stored, "schema": 2}) == stored["data"]
    assert renewed_data({**stored, "task": "elsewhere"}) == stored["data"]
    assert renewed_data({"schema": 1}) is None


@pytest.mark.parametrize(
    "file",
    [
        "recipes/classroomkd/fashion-mnist.yaml",
        "src/classroomkd/tasks/classification/demo-digits.yaml",
    ],
)
def test_figures_that_were_measured_on_padded_pictures_stay(file: str) -> None:
    assert yaml.safe_load((ROOT / file).read_text())["data"]["resize"] == "pad"
