"""YAML as people write it, right and wrong."""

from __future__ import annotations

import math

import pytest

from classroomkd.errors import UserError
from classroomkd.recipe.problems import RecipeError
from classroomkd.recipe.yaml_source import read_yaml


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = """
a: 1e-3
b: 5e-4
c: .5
d: -1E+2
e: 1.
f: off
g: yes
h: no
i: true
j: null
k: ~
l:
m: 'null'
n: 010
o: 12:30
p: 2024-01-01
q: -.inf
r: e5
s: "1e-3"
t: +3
"""
    tree, problems = read_yaml(text, "a.yaml")
    assert problems == []
    assert tree.plain() == {
        "a": 1e-3, "b": 5e-4, "c": 0.5, "d": -100.0, "e": 1.0, "f": "off", "g": "yes", "h": "no", "i": True,
        "j": None, "k": None, "l": None, "m": "null", "n": 10, "o": "12:30", "p": "2024-01-01", "q": -math.inf,
        "r": "e5", "s": "1e-3", "t": 3,
    }  # fmt: skip


def test_values_remember_their_lines() -> None:
    tree, _ = read_yaml("a: 1\nb:\n  c: [x,\n    y]\n  d:\n    - e: 2\n", "a.yaml")
    for loc, line, path in [
        (("a",), 1, "a"),
        (("b", "c"), 3, "b.c"),
        (("b", "c", 1), 4, "b.c.1"),
        (("b", "d", 0, "e"), 6, "b.d.0.e"),
    ]:
        node, rest = tree.find(loc)
        assert (node.origin.line, node.origin.path, rest) == (line, path, ())
    assert tree.find(("b", "z", 1))[1] == ("z", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1\n", "a.yaml:2: a tab stands where YAML allows only spaces; indent with spaces"),
        ("a:\n  b: 1\n c: 2\n", "a.yaml:3: this line is indented differently from its neighbours"),
        ("a: puppets\n  b: x\n", "a.yaml:2: a ':' too many in this line, or it is indented deeper than the line above"),
        ("a: b: c\n", "a.yaml:1: a ':' too many in this line"),
        ("a: x\nstudent resnet8\nb: y\n", "a.yaml:2: a key without ':'; write 'key: value'"),
        ("lr:0.1\ndata: x\n", "a.yaml:1: a space is missing after ':'; write lr: 0.1"),
        ("a: 1\nseeds: [0, 1\nbank: off\n", "a.yaml:2: a '[' is not closed, or a comma is missing"),
        ("a: {b: 1\nc: 2\n", "a.yaml:1: a '{' is not closed, or a comma is missing"),
        ("a: 1\nb: 'x\nc: 2\n", "a.yaml:2: a quote is opened and never closed"),
        ("a: *.png\n", "a.yaml:1: an alias (*name) without its anchor (&name); text that starts with '*' needs quotes"),
        ("a: @x\n", "a.yaml:1: this character cannot start a value; put the text in quotes"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: one recipe a file; remove the second '---'"),
        ("a: &a [*a]\n", "a.yaml:1: a.0: aliases (*name) that contain themselves"),
        ("a: 1\x07\n", "an invisible control character"),
    ],
)
def test_broken_yaml_is_one_sentence_with_the_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_yaml(text, "a.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repeated_keys_and_tags_are_reported_and_reading_goes_on() -> None:
    tree, problems = read_yaml("a: 1\nb: {c: 1, c: 2}\na: 3\nd: !!python/object/apply:os.getcwd []\n", "a.yaml")
    assert [str(p) for p in problems] == [
        "a.yaml:2: b.c: this key is given twice (first in line 2); keep one",
        "a.yaml:3: a: this key is given twice (first in line 1); keep one",
        "a.yaml:4: d: the tag !!python/object/apply:os.getcwd is not accepted; recipes hold plain values only",
    ]
    assert tree.plain() == {"a": 1, "b": {"c": 1}, "d": None}


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(RecipeError, match="far too many"):
        read_yaml("\n".join(lines), "a.yaml")


def test_honest_aliases_work() -> None:
    tree, _ = read_yaml("a: &t {lr: 0.1}\nb: *t\n", "a.yaml")
    assert tree.plain() == {"a": {"lr": 0.1}, "b": {"lr": 0.1}}
    assert tree.find(("b", "lr"))[0].origin.path == "b.lr"
