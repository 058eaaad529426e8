"""Recipes spoilt at random end in a UserError or in a recipe that survives being written down; never in a crash."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe, recipe_yaml
from classroomkd.recipe.problems import RecipeError
from classroomkd.recipe.yaml_source import read_yaml

GOOD: dict[str, Any] = {
    "data": {"source": "puppets", "options": {"train": 30}},
    "student": {"model": "convnet8"},
    "mentors": [
        "convnet4",
        {"name": "b", "model": "vgg8", "mean": [0.1], "std": [0.2], "train": {"epochs": 3, "milestones": [2]}},
    ],
    "methods": ["none", ["kd", {"average": {"temperature": 2}}], {"name": "classroomkd", "tau": 3}],
    "train": {"epochs": 10, "lr": 0.1, "milestones": [0.5]},
    "mentor_train": {"epochs": 4},
    "seeds": [0, 1],
    "device": "cpu",
}
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, float("inf"), 10**30, "", "x", "kd", "resnet8", "puppets", "auto", "cifar100:x",
    "py:a:b", "::", "$X", "off", "views=3", [], [1], ["x"], [None], [[]], {}, {"a": 1}, {"name": "kd"},
    {"model": "vgg8"}, {"kd": None}, [{}], [[{}]], {"name": None}, {"name": ["x"]},
]  # fmt: skip
KEYS = [
    "name", "model", "train", "source", "checkpoint", "label", "epochs", "method", "methods", "mentors", "task", "mean",
    "std", "size", "bank", "lr", "schedule", "optimizer", "warmup_epochs", "others", "classes", "val", "cache",
]  # fmt: skip
TARGETS = (
    "method",
    "methods",
    "mentors",
    "data",
    "train",
    "seeds",
    ".",
    "mentors.0",
    "mentors.b",
    "methods.1.kd",
    "a.b.c",
)
WRITTEN = ("1", "x", "[1]", "{a: 1}", "null", "[", "kd", "", "{name: kd}", "*a", "'")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def spoilt(chance: random.Random) -> dict[str, Any]:
    mapping = copy.deepcopy(GOOD)
    for _ in range(chance.randint(1, 3)):
        *inside, last = chance.choice(list(places(mapping)))
        holder: Any = mapping
        for key in inside:
            holder = holder[key]
        if chance.random() < 0.2:
            del holder[last]
        else:
            holder[chance.choice(KEYS) if isinstance(holder, dict) and chance.random() < 0.3 else last] = copy.deepcopy(
                chance.choice(VALUES)
            )
    return mapping


def test_spoilt_mappings_and_overrides() -> None:
    survived = 0
    for seed in range(400):
        chance = random.Random(seed)
        mapping = spoilt(chance)
        override = [f"{chance.choice(TARGETS)}={chance.choice(WRITTEN)}"] if chance.random() < 0.3 else []
        try:
            recipe = make_recipe(mapping, override)
        except UserError:
            continue
        survived += 1
        assert make_recipe(read_yaml(recipe_yaml(recipe), "x")[0].plain()) == recipe, (mapping, override)
        assert len({arm.slug for arm in recipe.arms()}) == len(recipe.arms())
    assert survived > 10  # else nothing but the first check was reached


@pytest.mark.parametrize("file", ["smoke.yaml", "classroomkd/fashion-mnist.yaml"])
def test_spoilt_text(file: str) -> None:
    said: list[str] = []
    text = (Path(__file__).parents[3] / "recipes" / file).read_text()
    for seed in range(150):
        chance, letters = random.Random(seed), list(text)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(letters))
            letters[place : place + chance.randint(0, 1)] = chance.choice("\t:{}[],'\"&*!|>%@`#-? \n~\\\x00é")
        try:
            tree, _ = read_yaml("".join(letters), "r.yaml")
            tree.plain()
        except RecipeError as error:
            said.append(str(error))
    assert said
    assert all("\n" not in sentence for sentence in said)
