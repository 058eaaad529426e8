"""``key=value`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classroomkd.recipe import Recipe
from classroomkd.recipe.dump import recipe_yaml

Load = Callable[..., Recipe]
Mistakes = Callable[..., list[str]]

GRID = """\
data: puppets
student: {model: convnet8, samples: 50}
mentors: [convnet16, {name: big, model: vgg8}]
methods: [none, kd, [kd, average], {name: kd, temperature: 2}, average]
"""


def options(recipe: Recipe, arm: int = 0, entry: int = 0) -> dict[str, Any]:
    return recipe.arms()[arm].entries[entry].options


def test_plain_keys_and_yaml_values(load: Load) -> None:
    recipe = load(
        "data: puppets\nstudent: convnet8\nmethod: none\n",
        "train.lr=1e-3",
        "seeds=[0,1, 2]",
        "bank=off",
        "train.clip=null",
        "train.schedule=cosine",
        "name=x=y",
        "data.options={train: 40, test: 20}",
    )
    assert (recipe.train.lr, recipe.seeds, recipe.bank, recipe.name) == (1e-3, (0, 1, 2), "off", "x=y")
    assert recipe.data.options == {"train": 40, "test": 20}
    assert load("data: puppets\nstudent: convnet8\nmethod: none\n", "seeds=7").seeds == (7,)


def test_a_section_written_as_text_opens(load: Load) -> None:
    recipe = load("data: puppets\nstudent: convnet8\nmethod: none\n", "data.limit=100", "student.samples=9")
    assert (recipe.data.source, recipe.data.limit) == ("puppets", 100)
    assert (recipe.student.model, recipe.student.samples) == ("convnet8", 9)


def test_setting_a_section_replaces_all_of_it(load: Load) -> None:
    text = GRID.replace("data: puppets", "data: {source: puppets, options: {train: 99}}")
    recipe = load(text, "data=digits", "data.limit=100", "student=convnet4")
    assert (recipe.data.source, recipe.data.limit, recipe.data.options) == ("digits", 100, {})
    assert (recipe.student.model, recipe.student.samples) == ("convnet4", None)


def test_method_and_methods_replace_each_other(load: Load) -> None:
    assert [arm.label for arm in load(GRID, "method=average").arms()] == ["average"]
    single = "data: puppets\nstudent: convnet8\nmentors: [vgg8]\nmethod: {name: kd, temperature: 3}\n"
    assert [arm.label for arm in load(single, "methods=[none,average]").arms()] == ["none", "average"]
    for words in (["method=kd", "methods=null"], ["methods=null", "method=kd"], ["methods=[kd]", "method=null"]):
        assert [arm.label for arm in load(single, *words).arms()] == ["kd"]  # nothing replaces nothing
    assert options(load(single, "method=kd"))["temperature"] == 4.0
    assert options(load(single, "method={name: kd, weight: 0.5}")) == {
        "temperature": 4.0, "weight": 0.5, "supervised_weight": 0.1, "mentor": "best"}  # fmt: skip


def test_options_address_the_first_entry_of_the_method(load: Load) -> None:
    single = "data: puppets\nstudent: convnet8\nmentors: [vgg8]\nmethod: {}\n"
    for written in ("classroomkd", "{name: classroomkd}", "{classroomkd: {rule: batch}}", "[classroomkd, average]"):
        recipe = load(single.replace("{}", written), "method.tau=8")
        assert options(recipe)["tau"] == 8
    recipe = load(single.replace("{}", "[classroomkd, average]"), "method.1.temperature=3", "method.average.weight=2")
    assert options(recipe, entry=1)["temperature"] == 3
    assert options(recipe, entry=1)["weight"] == 2


def test_arms_of_a_grid(load: Load) -> None:
    recipe = load(GRID, "methods.1.temperature=8", "methods.2.1.temperature=7", "methods.2.kd.weight=0.5")
    assert options(recipe, 1)["temperature"] == 8
    assert options(recipe, 2, 1)["temperature"] == 7
    assert options(recipe, 2, 0)["weight"] == 0.5
    assert load(GRID, "methods.0=[kd, none]").arms()[0].label == "kd + none"
    assert options(load(GRID, "methods.average.temperature=5"), 4)["temperature"] == 5


def test_mentors_by_index_and_by_name(load: Load) -> None:
    recipe = load(GRID, "mentors.0.model=vgg11", "mentors.big.train.epochs=3", "mentors.-1.note=hello")
    first, big = recipe.mentors
    assert (first.name, first.model) == ("vgg11", "vgg11")
    assert big.train is not None
    assert (big.train.epochs, big.note) == (3, "hello")
    assert load(GRID, "mentors.convnet16.note=x").mentors[0].note == "x"
    assert [m.name for m in load(GRID, "mentors=resnet8").mentors] == ["resnet8"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo", "command line: 'foo' is not an override; write key=value or key.path=value"),
        ("=3", "'=3' is not an override"),
        ("a..b=3", "'a..b=3' is not an override"),
        ("student=", "command line: student: no value after '='; write null for nothing"),
        ("methods.9=kd", "command line: methods.9: 'methods' has 5 entries, counted from 0"),
        ("mentors.vgg.note=x", "'mentors' is a list: 'vgg' must be an index or a name (big, convnet16)"),
        ("methods.kd.weight=1", "'methods' has 3 entries called 'kd'; use an index (1, 2, 3)"),
        ("method.tau=8", "this recipe has 'methods', not 'method'; write methods.0.tau=… or method=…"),
        ("train.epochs.x=3", "command line: train.epochs = {x: 3}: must be a whole number"),
        ("student.model.x=3", "'student.model' is the single value 'convnet8', so it has no 'x'"),
        ("seeds=[0,1", "a '[' is not closed, or a comma is missing (in a shell, put single quotes round"),
        ("train.ephocs=3", "command line: train.ephocs: unknown key (did you mean 'epochs'?)"),
        ("methods.1.tau=3", "command line: methods.1.tau: unknown key; here it is called 'temperature'"),
        ("mentors=[{model: vgg8, nmae: x}]", "command line: mentors.0.nmae: unknown key (did you mean 'name'?)"),
        ("train={lr: 1, lr: 2}", "command line: train.lr: this key is given twice; keep one"),
    ],
)
def test_wrong_overrides(mistakes: Mistakes, override: str, message: str) -> None:
    found = mistakes(GRID, override)
    assert len(found) == 1, found
    assert message in found[0]


def test_a_scalar_is_not_entered(mistakes: Mistakes) -> None:
    text = GRID + "train: {epochs: 10}\n"
    (found,) = mistakes(text, "train.epochs.x=3")
    assert found == "command line: train.epochs.x: 'train.epochs' is the single value 10, so it has no 'x'"


def test_option_of_the_other_form(mistakes: Mistakes) -> None:
    single = "data: puppets\nstudent: convnet8\nmentors: [vgg8]\nmethod: kd\n"
    (found,) = mistakes(single, "methods.0.temperature=8")
    assert "this recipe has 'method', not 'methods'; write method.0.temperature=… or methods=…" in found


@pytest.mark.parametrize(
    "name",
    ["my #2", "#2", "a: b", "my photos: new", "50% off", "%x", "a, b", "a = b", "é", "@x", "`x`", "a#b", "x ", "$HOME",
     "$1", "-", "?", "a]", "}b", "a' b", 'a" b', "a\\b", "- b", "!x", "~x"],
)  # fmt: skip
def test_paths_are_kept_as_they_are_typed(load: Load, tmp_path: Path, name: str) -> None:
    (tmp_path / name.strip()).mkdir()
    recipe = load("data: puppets\nstudent: convnet8\nmethod: none\n", f"data.source=imagefolder:{name}")
    assert recipe.data.source == f"imagefolder:{tmp_path / name.strip()}"
    again = load(recipe_yaml(recipe))
    assert again.data.source == recipe.data.source


@pytest.mark.parametrize("name", ["s #2.pth", "s: a.pth", "%.pth", "1,2.pth", "a=b.pth", "#.pth"])
def test_files_are_kept_as_they_are_typed(load: Load, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    recipe = load("data: puppets\nstudent: convnet8\nmethod: none\n", f"student.checkpoint={name}", f"name={name}")
    assert recipe.student.checkpoint == str(tmp_path / name)
    assert recipe.name == name
