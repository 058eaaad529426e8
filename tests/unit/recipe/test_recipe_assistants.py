"""``taught_by`` in a recipe: its forms, what it means written out, and every mistake in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from classroomkd.recipe import MentorSpec, Recipe, TaughtBy, json_schema, make_recipe, recipe_yaml
from classroomkd.recipe.yaml_source import read_yaml
from classroomkd.run.assistants import described, lineage, teachers_of, waves

Load = Callable[..., Recipe]
Mistakes = Callable[..., list[str]]

HEAD = "data: puppets\nstudent: convnet4\nmethod: average\nmentors:\n  - convnet16\n  - {name: wide, model: vgg8}\n"


def assistant(written: str, more: str = "") -> str:
    return f"{HEAD}  - {{name: middle, model: convnet8, taught_by: {written}{more}}}\n"


def taught(recipe: Recipe) -> TaughtBy:
    found = recipe.mentors[2].taught_by
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("written", "mentors", "method", "temperature"),
    [
        ("convnet16", ("convnet16",), "kd", 4.0),
        ("[convnet16]", ("convnet16",), "kd", 4.0),
        ("[wide, convnet16]", ("wide", "convnet16"), "average", 4.0),
        ("{mentors: wide}", ("wide",), "kd", 4.0),
        ("{mentors: [wide, convnet16], method: kd}", ("wide", "convnet16"), "kd", 4.0),
        ("{mentors: wide, method: {kd: {temperature: 2}}}", ("wide",), "kd", 2.0),
        ("{mentors: wide, method: {name: average, temperature: 3}}", ("wide",), "average", 3.0),
        ("{mentors: wide, method: null}", ("wide",), "kd", 4.0),
    ],
)
def test_forms(load: Load, written: str, mentors: tuple[str, ...], method: str, temperature: float) -> None:
    found = taught(load(assistant(written)))
    assert found.mentors == mentors
    ((name, options),) = found.parts  # resolved: the options are all there
    assert (name, options["temperature"]) == (method, temperature)


def test_two_methods_are_added_up(load: Load) -> None:
    recipe = load(assistant("{mentors: wide, method: [kd, {average: {weight: 0.5}}]}"))
    assert [name for name, _ in taught(recipe).parts] == ["kd", "average"]
    assert described(recipe.mentors[2]) == "taught by wide (kd + average)"


def test_overrides(load: Load) -> None:
    plain = f"{HEAD}  - {{name: middle, model: convnet8}}\n"
    assert load(plain).mentors[2].taught_by is None
    assert taught(load(plain, "mentors.middle.taught_by=wide")).parts[0][0] == "kd"
    both = load(assistant("convnet16"), "mentors.middle.taught_by.mentors=[convnet16,wide]")
    assert taught(both).parts[0][0] == "average"  # the default follows the number of mentors
    assert load(assistant("convnet16"), "mentors.middle.taught_by=null").mentors[2].taught_by is None


def test_round_trip(load: Load) -> None:
    for written in ("convnet16", "{mentors: [wide, convnet16], method: [kd, {average: {weight: 0.5}}]}"):
        recipe = load(assistant(written))
        text = recipe_yaml(recipe)
        again = make_recipe(read_yaml(text, "x")[0].plain())
        assert again == recipe
        assert recipe_yaml(again) == text
    written_out = yaml.safe_load(text)["mentors"]
    assert [set(m) & {"taught_by"} for m in written_out] == [
        set(),
        set(),
        {"taught_by"},
    ]  # as it was without assistants
    assert written_out[2]["taught_by"]["method"][0]["name"] == "kd"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("nobody", "mentors.2.taught_by: there is no mentor 'nobody'; there are convnet16, wide"),
        ("[wide, convnet1]", "there is no mentor 'convnet1' (did you mean 'convnet16'?); there are convnet16, wide"),
        ("middle", "mentors.2.taught_by: names 'middle' itself; name another mentor"),
        ("[wide, wide]", "mentors.2.taught_by: names 'wide' twice"),
        ("wide, checkpoint: a.pth", "mentors.2.taught_by: stands beside 'checkpoint'; keep one: a mentor with a"),
        ("3", "mentors.2.taught_by = 3: must be text"),
        ("[]", "must be a list of at least 1"),
        ("{method: kd}", "mentors.2.taught_by.mentors: is missing"),
        ("{mentor: wide}", "mentors.2.taught_by.mentor: unknown key; here it is called 'mentors'"),
        ("{mentors: wide, method: kdd}", "mentors.2.taught_by.method: there is no method 'kdd' (did you mean 'kd'?)"),
        ("{mentors: wide, method: none}", "has no mentors' terms, so nobody would teach; leave taught_by out"),
        ("{mentors: wide, method: {kd: {tau: 3}}}", "taught_by.method.kd.tau: unknown key; here it is called 'temp"),
        ("{mentors: wide, method: {kd: {mentor: convnet16}}}", "no mentor 'convnet16'; mentors: wide"),
        ("{mentors: wide, method: {temperature: 3}}", "mentors.2.taught_by.method: has no 'name'; write {name: "),
        ("{mentors: wide, method: takd}", "takd: no mentor was taught by another"),
    ],
)
def test_mistakes(mistakes: Mistakes, written: str, message: str) -> None:
    Path("a.pth").touch()
    (found,) = mistakes(assistant(written))
    assert message in found
    assert found.startswith("a.yaml:7: ")


def test_circles_are_told_as_a_chain(mistakes: Mistakes) -> None:
    def ring(*pairs: tuple[str, str]) -> str:
        rows = "".join(f"  - {{name: {a}, model: convnet8, taught_by: {b}}}\n" for a, b in pairs)
        return f"data: puppets\nstudent: convnet4\nmethod: average\nmentors:\n{rows}"

    (found,) = mistakes(ring(("d", "a"), ("a", "b"), ("b", "c"), ("c", "a")))  # d waits for the ring, and is not in it
    assert found == (
        "a.yaml:6: mentors.1.taught_by: goes round in a circle: 'a' is taught by 'b', 'b' by 'c', 'c' by 'a'; one of "
        "them must learn from labels alone"
    )
    assert len(mistakes(ring(("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")))) == 2


def test_takd_needs_an_assistant(load: Load, mistakes: Mistakes) -> None:
    (found,) = mistakes(f"{HEAD}", "method=takd")
    assert "give one of middle size taught_by: [NAME]" in found
    assert load(assistant("convnet16"), "method=takd").arms()[0].label == "takd"


def test_the_json_schema_knows_the_forms() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json_schema())
    for form in ("vgg8", ["vgg8"], {"mentors": "vgg8"}, {"mentors": ["vgg8"], "method": {"kd": {"weight": 1}}}, None):
        mapping = recipe_with(form)
        make_recipe(mapping)
        assert [error.message for error in check.iter_errors(mapping)] == []
    for form in (3, [], {"method": "kd"}, {"mentors": "vgg8", "how": "kd"}):
        with pytest.raises(ValueError):
            make_recipe(recipe_with(form))
        assert not check.is_valid(recipe_with(form)), form


def recipe_with(form: Any) -> dict[str, Any]:
    mentors = ["vgg8", {"name": "a", "model": "convnet8", "taught_by": form}]
    return {"data": "puppets", "student": "convnet8", "mentors": mentors, "method": "kd"}


def spec(name: str, *teachers: str) -> MentorSpec:
    return MentorSpec(name=name, model="convnet4", taught_by=TaughtBy(mentors=teachers) if teachers else None)


def test_waves() -> None:
    mentors = [spec("c", "b", "a"), spec("b", "a"), spec("a"), spec("x"), spec("d", "c")]
    assert waves(mentors) == [[2, 3], [1], [0], [4]]
    assert teachers_of(mentors, 0) == [1, 2]
    assert teachers_of(mentors, 3) == []
    assert waves([]) == []
    assert waves([spec("a"), spec("b")]) == [[0, 1]]


def test_nothing_enters_the_key_of_a_mentor_that_nobody_taught() -> None:
    assert lineage(spec("a"), []) == {}
