"""What methods do on pose where the user says nothing: temperature 1, as sound on bins as 4 is on classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from classroomkd import methods
from classroomkd.errors import UserError
from classroomkd.recipe import load_recipe, make_recipe, recipe_yaml
from classroomkd.run.folder import check_run
from classroomkd.tasks import offering

BASE = {"data": "puppets", "task": "pose", "student": "simcc_tiny", "mentors": ["simcc_small"]}
# Not of logits: of the products that crd contrasts.
WITH_TEMPERATURE = [
    n
    for n in methods.METHODS
    if "temperature" in methods.options_model(n).model_fields
    and n != "crd"
    and methods.METHODS[n].peers == 0
    and methods.method_class(n).needs.mentors > 0  # what peers or a virtual teacher say is no mentor's
]

# Their default on pose was another one in version 1; a method that is newer begins with this one.
CHANGED = [
    "kd",
    "average",
    "random",
    "weighted",
    "mmkd",
    "camkd",
    "ebkd",
    "aekd",
    "amtml",
    "dkd",
    "dist",
    "dtkd",
    "takd",
    "dwpose",
]


@pytest.mark.parametrize("name", WITH_TEMPERATURE)
def test_every_method_with_a_temperature_has_one(name: str) -> None:
    mentors = [{"model": "simcc_small", "name": "big"}, {"model": "simcc_tiny", "name": "small", "taught_by": "big"}]
    recipe = make_recipe({**BASE, "mentors": mentors, "method": name})
    assert recipe.method is not None
    assert recipe.method[0].options["temperature"] == 1.0
    assert recipe.mentors[1].taught_by is not None
    assert recipe.mentors[1].taught_by.parts[0][1]["temperature"] == 1.0  # kd, from one
    assert (
        make_recipe({**BASE, "mentors": mentors, "method": {name: {"temperature": 4}}})
        .method[0]
        .options[  # type: ignore[index]
            "temperature"
        ]
        == 4.0
    )
    if name in CHANGED:
        assert methods.METHODS[name].version > 1 or methods.defaults(name)["temperature"] == 1.0


@pytest.mark.parametrize(
    ("given", "tau", "fixed"),
    [({}, 1.0, None), ({"rule": "batch"}, 1.0, None), ({"rule": "rank"}, 12.0, None), ({"tau": 4}, 4.0, None),
     ({"mentoring": False}, 1.0, 1.0), ({"mentoring": False, "fixed_temperature": 2}, 1.0, 2.0),
     ({"mentoring": False, "rule": "rank"}, 12.0, None)],
)  # fmt: skip
def test_classroomkd(given: dict[str, Any], tau: float, fixed: float | None) -> None:
    recipe = make_recipe({**BASE, "method": {"name": "classroomkd", **given}})
    assert recipe.method is not None
    options = recipe.method[0].options
    assert (options["tau"], options["fixed_temperature"]) == (tau, fixed)
    assert recipe.notes() == []
    built: Any = methods.create("classroomkd", task="pose", **given)
    assert (built.tau, built.fixed_temperature) == (tau, fixed)


@pytest.mark.parametrize("name", [n for n, entry in methods.METHODS.items() if "pose" in offering(entry.asks)])
def test_nothing_that_nobody_set_is_said_to_be_without_effect(name: str) -> None:
    mentors = [{"model": "simcc_small", "name": "big"}, {"model": "simcc_tiny", "name": "small", "taught_by": "big"}]
    entry = methods.METHODS[name]
    peers = [{"name": "t", "model": "simcc_tiny", "role": "teacher"}] * entry.teachers
    peers += [{"name": "b", "model": "simcc_tiny"}] * (entry.peers - entry.teachers)
    notes = make_recipe({**BASE, "mentors": mentors, "peers": peers, "method": name}).notes()
    assert [note for note in notes if note.startswith("method ")] == []


def test_options_that_a_default_makes_idle_are_said_to_be() -> None:
    notes = make_recipe({**BASE, "method": {"camkd": {"projector": "linear"}}}).notes()
    assert notes == ["method camkd: projector acts only with feature_weight above 0"]
    assert make_recipe({**BASE, "method": {"camkd": {"projector": "linear", "feature_weight": 1}}}).notes() == []


def test_an_old_run_goes_on_with_the_recipe_it_was_made_with(tmp_path: Path) -> None:
    old = make_recipe({**BASE, "method": {"average": {"temperature": 4}}})
    (arm,) = old.arms()
    (tmp_path / arm.slug).mkdir()
    made = tmp_path / arm.slug / "arm.json"
    made.write_text(json.dumps([[*part, 2] for part in arm.parts]))
    (tmp_path / "recipe.yaml").write_text(recipe_yaml(old))
    check_run(tmp_path, load_recipe(tmp_path / "recipe.yaml"), resume=True)
    with pytest.raises(UserError, match=r"the arm 'average' differ.*Resume with the recipe it was made with"):
        check_run(tmp_path, make_recipe({**BASE, "name": old.name, "method": "average"}), resume=True)
    made.write_text(json.dumps([list(part) for part in arm.parts]))  # of the version before
    with pytest.raises(UserError, match=r"made with version 1 of average, this is 2"):
        check_run(tmp_path, load_recipe(tmp_path / "recipe.yaml"), resume=True)


def test_a_stored_recipe_keeps_its_values(tmp_path: Any) -> None:
    old = recipe_yaml(make_recipe({**BASE, "methods": [{"average": {"temperature": 4}}, {"classroomkd": {"tau": 12}}]}))
    (tmp_path / "recipe.yaml").write_text(old)
    average, classroomkd = load_recipe(tmp_path / "recipe.yaml").arms()
    assert average.parts[0][1]["temperature"] == 4.0
    assert classroomkd.parts[0][1]["tau"] == 12.0
