"""The recipes of the project load, and say what their sources say."""

from __future__ import annotations

from pathlib import Path

import pytest

from classroomkd.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
FILES = sorted(RECIPES.rglob("*.yaml"))


@pytest.fixture(autouse=True)
def folders(in_a_folder_of_its_own: None) -> None:
    """The data folders that recipes name exist (their content is not looked at here)."""
    for name in ("fashion-mnist", "cifar100", "photos"):
        Path(name).mkdir()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_loads_without_remarks(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.name == file.stem
    assert recipe.notes() == []
    assert file.read_text().startswith("# ")  # the first sentence is what `list recipes` shows


def test_there_are_some() -> None:
    assert {file.relative_to(RECIPES).as_posix() for file in FILES} >= {
        "smoke.yaml",
        "own-images.yaml",
        "without-labels.yaml",
        "classroomkd/fashion-mnist.yaml",
        "classroomkd/cifar100.yaml",
        "classroomkd/cifar100-released-schedule.yaml",
    }


def test_any_method_can_be_put_into_the_smoke_recipe() -> None:
    from classroomkd.methods import METHODS, method_class

    for name in set(METHODS) - {"takd"}:  # whose mentor must have been taught
        peers = ["{name: t, model: convnet8, role: teacher}"] * METHODS[name].teachers
        peers += ["convnet4"] * (METHODS[name].peers - len(peers))
        selves = {True: f"{{name: {name}, selves: {{student: broad, convnet4: slim}}}}", False: name}
        words = [f"method={selves[method_class(name).needs.selves]}", *[f"peers=[{', '.join(peers)}]"] * bool(peers)]
        assert [arm.label for arm in load_recipe(RECIPES / "smoke.yaml", words).arms()] == [name]


def test_the_two_schedules_of_cifar100() -> None:
    standard, released = (
        load_recipe(RECIPES / "classroomkd" / f"{name}.yaml") for name in ("cifar100", "cifar100-released-schedule")
    )
    for recipe in (standard, released):
        train = recipe.train
        assert (train.epochs, train.batch_size, train.milestones, train.gamma) == (240, 64, (150, 180, 210), 0.1)
        assert (train.momentum, train.nesterov, train.weight_decay) == (0.9, False, 5e-4)
    assert (standard.train.lr, standard.train.warmup_epochs) == (0.05, 0)
    assert (released.train.lr, released.train.warmup_epochs, released.train.warmup_lr) == (0.01, 120, 0.05)
    assert released.arms()[0].parts[0][1]["rule"] == "batch"
    assert _mentor(standard, "mobilenetv2") == (0.01, 0, 64)
    assert _mentor(standard, "resnet32x4") == (0.05, 0, 64)
    assert _mentor(released, "resnet50") == (0.05, 0, 64)
    assert _mentor(released, "resnet8") == (0.01, 120, 128)


def _mentor(recipe: Recipe, name: str) -> tuple[float, float, int]:
    train = next(mentor.train for mentor in recipe.mentors if mentor.name == name)
    assert train is not None
    return train.lr, train.warmup_epochs, train.batch_size


def test_the_fashion_mnist_grid() -> None:
    recipe = load_recipe(RECIPES / "classroomkd" / "fashion-mnist.yaml")
    assert (recipe.data.limit, recipe.student.model, len(recipe.mentors), len(recipe.seeds)) == (
        10_000,
        "resnet8",
        5,
        5,
    )
    parts = [arm.parts[0] for arm in recipe.arms()]
    assert {name for name, _ in parts} == {"none", "kd", "average", "classroomkd"}
    assert {options["rule"] for name, options in parts if name == "classroomkd"} == {"sample", "batch", "rank"}
    assert {(o["gate"], o["mentoring"]) for name, o in parts if name == "classroomkd"} == {
        (None, True), ("none", True), (None, False), ("none", False)}  # fmt: skip
