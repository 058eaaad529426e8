"""Recipes written down: the resolved file loads to the same recipe; the JSON schema says what the loader says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from classroomkd.recipe import Recipe, json_schema, load_recipe, make_recipe, recipe_yaml, save_recipe

Load = Callable[..., Recipe]

FULL = """\
name: everything
data: {source: puppets, limit: 200, options: {train: 300}, views: crop}
student: {model: convnet8, samples: 50}
mentors:
  - convnet16
  - {name: big, model: vgg8, note: 'a: b', train: {epochs: 4, lr: 1e-3, optimizer: adamw, classes: [star], others: 0.2}}
  - {name: old, model: resnet20, checkpoint: r20.pth, mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2], size: 40}
methods: [none, [kd, {average: {temperature: 2}}], {name: classroomkd, label: "off", tau: 8}]
train: {epochs: 12, lr: 1e-2, milestones: [6, 9], clip: 1, drop_last: true, weight_decay: 1e-5}
mentor_train: {epochs: 10, milestones: [0.5]}
seeds: [0, 3]
bank: views=4
check_mentors: off
workers: 2
cache: kept
"""


@pytest.fixture(autouse=True)
def checkpoint(in_a_folder_of_its_own: None) -> None:
    Path("r20.pth").write_bytes(b"")


def test_what_is_written_loads_to_an_equal_recipe(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(FULL)
    Path("elsewhere").mkdir()
    save_recipe(first, "elsewhere/recipe.yaml")
    monkeypatch.chdir("elsewhere")  # paths were resolved, so it does not matter from where
    again = load_recipe("recipe.yaml")
    assert again == first
    assert recipe_yaml(again) == recipe_yaml(first)


def test_any_yaml_reader_reads_it_alike(load: Load) -> None:
    text = recipe_yaml(load(FULL))
    data = yaml.safe_load(text)
    assert data["schema"] == 2
    assert data["check_mentors"] == "off"  # not false, as YAML 1.1 would have it without quotes
    assert data["train"]["weight_decay"] == 1e-5
    assert data["methods"][2] == [{**data["methods"][2][0], "name": "classroomkd", "label": "off", "tau": 8.0}]


def test_it_says_what_was_left_out_but_not_what_is_inherited(load: Load) -> None:
    data = yaml.safe_load(recipe_yaml(load(FULL)))
    assert data["train"]["schedule"] == "multistep"
    assert data["methods"][1][0]["temperature"] == 4.0
    assert "train" not in data["mentors"][0]
    assert data["mentors"][1]["train"]["batch_size"] == 64
    assert data["mentors"][2]["weights"] == str(Path("r20.pth").absolute())
    assert data["cache"] == str(Path("kept").absolute())
    assert "mentor_train" not in yaml.safe_load(recipe_yaml(load("data: puppets\nstudent: convnet8\nmethod: none\n")))
    assert "shard" not in data["data"]


def test_a_shard_is_written_and_checked_by_the_schema_alike(load: Load) -> None:
    sharded = load(FULL, "data.shard=2/3")
    assert yaml.safe_load(recipe_yaml(sharded))["data"]["shard"] == "2/3"
    Path("sharded.yaml").write_text(recipe_yaml(sharded))
    assert load_recipe("sharded.yaml") == sharded


def test_recipes_from_python_are_the_same_as_from_files(load: Load) -> None:
    from classroomkd.recipe.yaml_source import read_yaml

    assert make_recipe(read_yaml(FULL, "x")[0].plain()) == load(FULL)
    made = make_recipe({"data": "puppets", "student": "mine", "method": ("none",)}, known_models=["mine"], name="n")
    assert (made.name, made.student.model) == ("n", "mine")


def test_recipes_do_not_change(load: Load) -> None:
    recipe = load(FULL)
    with pytest.raises(Exception, match="frozen"):
        recipe.train.epochs = 3  # type: ignore[misc]


VALID: list[dict[str, Any]] = [
    {"data": "puppets", "student": "convnet8", "method": "none"},
    {"data": {"source": "puppets"}, "student": {"model": "convnet8"}, "mentors": "vgg8", "method": {"kd": None}},
    {"data": "puppets", "student": "convnet8", "mentors": ["vgg8"], "methods": ["none", ["kd", {"average": {}}]]},
    {"data": "puppets", "student": "convnet8", "mentors": [{"model": "vgg8"}], "method": {"name": "kd", "weight": 1}},
    {"data": "puppets", "student": "convnet8", "method": "none", "seeds": 3, "schema": 1, "train": {"clip": None}},
    {"data": {"source": "puppets", "shard": "2/2"}, "student": "convnet8", "method": "none"},
    {"data": {"source": "puppets", "shard": None}, "student": "convnet8", "method": "none"},
]
INVALID: list[dict[str, Any]] = [
    {"data": {"source": "puppets", "shard": "0/2"}, "student": "convnet8", "method": "none"},
    {"data": {"source": "puppets", "shard": 2}, "student": "convnet8", "method": "none"},
    {"data": "puppets", "student": "convnet8"},
    {"data": "puppets", "student": "convnet8", "method": "none", "methods": ["none"]},
    {"data": "puppets", "student": "convnet8", "method": "none", "epochs": 3},
    {"data": "puppets", "student": "convnet8", "method": "none", "train": {"epochs": 0}},
    {"data": "puppets", "student": "convnet8", "method": "none", "bank": "views"},
    {"data": "puppets", "student": "convnet8", "method": 3},
    {"data": "puppets", "student": "convnet8", "method": "none", "mentors": [{"name": "a"}]},
]


def test_the_json_schema_agrees_with_the_loader() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for mapping in VALID:
        make_recipe(mapping)
        assert [error.message for error in check.iter_errors(mapping)] == []
    for mapping in INVALID:
        with pytest.raises(ValueError):
            make_recipe(mapping)
        assert not check.is_valid(mapping), mapping


def test_the_json_schema_holds_our_recipes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json_schema())
    files = sorted((Path(__file__).resolve().parents[3] / "recipes").rglob("*.yaml"))
    assert files
    for file in files:
        text = re.sub(r"(?<![\d.])(\d+)e-", r"\1.0e-", file.read_text())  # YAML 1.1 reads 5e-4 as text
        assert [error.message for error in check.iter_errors(yaml.safe_load(text))] == [], file


def test_every_key_is_described() -> None:
    schema = json_schema()
    for name, part in [("recipe", schema), *schema["$defs"].items()]:
        bare = [key for key, field in part["properties"].items() if not field.get("description") and key != "name"]
        assert bare == [], name


def test_reading_a_recipe_needs_no_torch_until_methods_are_checked() -> None:
    code = "import sys, classroomkd.recipe as r; r.json_schema(); r.load_recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
