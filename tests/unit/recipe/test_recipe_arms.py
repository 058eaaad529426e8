"""What the arms of a grid are called, and their folders."""

from __future__ import annotations

from typing import Any

import pytest

from classroomkd.errors import UserError
from classroomkd.methods.average import Average
from classroomkd.methods.kd import KD
from classroomkd.recipe import Arm, make_recipe


def arms(methods: Any) -> list[Arm]:
    base = {"data": "puppets", "student": "convnet8", "mentors": ["vgg8"]}
    return make_recipe({**base, "methods": methods}).arms()


def names(methods: Any) -> list[tuple[str, str]]:
    return [(arm.label, arm.slug) for arm in arms(methods)]


def test_one_method_is_one_arm() -> None:
    recipe = make_recipe({"data": "puppets", "student": "convnet8", "mentors": ["vgg8"], "method": ["kd", "average"]})
    (arm,) = recipe.arms()
    assert (arm.label, arm.slug) == ("kd + average", "kd-average")
    assert [name for name, _ in arm.parts] == ["kd", "average"]
    assert arm.parts[0][1]["temperature"] == 4.0


def test_arms_of_one_method_say_where_they_differ_from_the_default() -> None:
    grid = ["none", "classroomkd", {"name": "classroomkd", "rule": "batch"}, {"name": "classroomkd", "gate": "none"}]
    assert names(grid) == [
        ("none", "none"),
        ("classroomkd", "classroomkd"),
        ("classroomkd rule=batch", "classroomkd-rule-batch"),
        ("classroomkd gate=none", "classroomkd-gate-none"),
    ]


def on_pose(methods: Any) -> list[Arm]:
    base = {"data": "puppets", "task": "pose", "student": "simcc_tiny", "mentors": ["simcc_small"]}
    return make_recipe({**base, "methods": methods}).arms()


def test_a_tasks_own_defaults_are_written_out_and_beneath_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Average, "task_defaults", {"pose": {"temperature": 1.5, "weight": 0.25}})
    assert arms(["average"])[0].parts[0][1]["temperature"] == 4.0  # another task
    plain, given = on_pose(["average", {"average": {"temperature": 4}}])
    assert (plain.parts[0][1]["temperature"], plain.parts[0][1]["weight"]) == (1.5, 0.25)
    assert given.parts[0][1]["temperature"] == 4.0
    assert [arm.label for arm in (plain, given)] == ["average", "average temperature=4"]  # 4 is no default here


def test_what_matched_strength_sets_counts_more_than_a_tasks_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KD, "task_defaults", {"pose": {"temperature": 2.0, "weight": 0.7, "supervised_weight": 0.3}})
    matched, given = on_pose([{"kd": {"strength": "matched"}}, {"kd": {"strength": "matched", "weight": 3}}])
    options = matched.parts[0][1]
    assert (options["temperature"], options["weight"], options["supervised_weight"]) == (2.0, 1.0, 1.0)
    assert given.parts[0][1]["weight"] == 3.0


def test_what_all_arms_share_is_not_said() -> None:
    shared = {"name": "classroomkd", "tau": 6}
    grid = [{**shared, "rule": "sample"}, {**shared, "rule": "batch"}, {**shared, "tau": 8}]
    assert [label for label, _ in names(grid)] == [
        "classroomkd tau=6",
        "classroomkd rule=batch tau=6",
        "classroomkd tau=8",
    ]
    assert [label for label, _ in names([{"name": "classroomkd", "tau": 6}, "none"])] == ["classroomkd", "none"]


def test_labels_win() -> None:
    grid = [
        {"name": "kd", "label": "Hinton, T = 4"},
        {"name": "kd", "temperature": 2},
        [{"name": "kd", "label": "é/è"}],
    ]
    assert names(grid) == [
        ("Hinton, T = 4", "Hinton-T-4"),
        ("kd temperature=2", "kd-temperature-2"),
        ("é/è", "arm"),
    ]


def test_folders_are_safe_and_different() -> None:
    labels = ["../x", "A b", "a B", "summary", "x" * 300, "x" * 299 + "y", ".hidden"]
    slugs = [arm.slug for arm in arms([{"name": "none", "label": label} for label in labels])]
    assert slugs[:4] == ["x", "A-b", "a-B-2", "summary-arm"]
    assert len({slug.lower() for slug in slugs}) == len(slugs)
    assert all(len(slug) <= 82 and "/" not in slug and not slug.startswith(".") for slug in slugs)


def test_two_arms_may_not_be_the_same() -> None:
    with pytest.raises(UserError, match=r"methods\.0 and methods\.1 are both called 'kd'"):
        arms([{"name": "kd"}, {"name": "kd", "temperature": 4}])
    assert len(arms([{"name": "kd"}, {"name": "kd", "label": "again"}])) == 2


def test_labels_are_the_same_after_the_recipe_was_written_down() -> None:
    from classroomkd.recipe import recipe_yaml
    from classroomkd.recipe.yaml_source import read_yaml

    grid = ["classroomkd", {"classroomkd": {"rule": "rank"}}, ["kd", "average"], {"name": "kd", "temperature": 3}]
    first = make_recipe({"data": "puppets", "student": "convnet8", "mentors": ["vgg8"], "methods": grid})
    again = make_recipe(read_yaml(recipe_yaml(first), "x")[0].plain())
    assert [(a.label, a.slug) for a in first.arms()] == [(a.label, a.slug) for a in again.arms()]


def test_options_of_earlier_versions_are_read_with_a_note() -> None:
    base = {"data": "puppets", "student": "convnet8"}
    taught = {"name": "b", "model": "vgg8", "taught_by": {"mentors": ["a"], "method": {"classroomkd": {"gate": False}}}}
    grid = [
        {"name": "classroomkd", "gate": False, "strict": None, "normalise": None},
        {"classroomkd": {"strict": True}},
    ]
    mentors = [{"name": "a", "model": "vgg8"}, taught]
    recipe = make_recipe({**base, "mentors": mentors, "methods": grid})
    assert [note for note in recipe.notes() if " is read as " in note] == [
        "method classroomkd: gate: false is read as gate: none",
        "method classroomkd: strict: true is read as gate: strict",
        "method classroomkd: gate: false is read as gate: none",
    ]
    new = [{"name": "classroomkd", "gate": "none"}, {"name": "classroomkd", "gate": "strict"}]
    assert [arm.parts for arm in recipe.arms()] == [
        arm.parts for arm in make_recipe({**base, "mentors": mentors, "methods": new}).arms()
    ]
    written = recipe.mentors[1].taught_by
    assert written is not None
    assert written.parts[0][1]["gate"] == "none"
    with pytest.raises(UserError, match="strict"):
        make_recipe({**base, "mentors": ["vgg8"], "method": {"name": "classroomkd", "strict": "maybe"}})
