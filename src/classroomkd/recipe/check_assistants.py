"""Checks of assistants, mentors that other mentors teach: who teaches whom, how, and that no chain of them is a
circle."""

from __future__ import annotations

from collections.abc import Iterator

from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.check_methods import check_entry, staff
from classroomkd.recipe.nodes import Loc, Node
from classroomkd.recipe.problems import Problem, problem

__all__ = ["check_assistants"]


def check_assistants(tree: Node) -> list[Problem]:
    """``taught_by`` of every mentor: its names, that no chain of them is a circle, and its method."""
    problems: list[Problem] = []
    teachers: dict[str, list[str]] = {}
    names = staff(tree).names
    for index, name in enumerate(names):
        loc: Loc = ("mentors", index, "taught_by")
        node, rest = tree.find(loc)
        if rest or not isinstance(node.value, dict):
            continue
        problems += _beside_weights(tree, loc)
        teachers_here, wrong = _teachers(tree, loc, name, names)
        problems += wrong
        teachers.setdefault(name, teachers_here)
        problems += _method(tree, loc, teachers[name])
    return problems + list(_circles(tree, names, teachers))


def _beside_weights(tree: Node, loc: Loc) -> Iterator[Problem]:
    checkpoint, rest = tree.find((*loc[:-1], "checkpoint"))
    if not rest and checkpoint.value is not None:
        sentence = (
            "stands beside 'checkpoint'; keep one: a mentor with a checkpoint is used as it is, nobody teaches it"
        )
        yield problem(tree, loc, sentence, value=False)


def _teachers(tree: Node, loc: Loc, name: str, names: list[str]) -> tuple[list[str], list[Problem]]:
    """The teachers' names that are right, and what is wrong with the others."""
    teachers: list[str] = []
    wrong: list[str] = []
    for item in tree.items(*loc, "mentors"):
        if not isinstance(item.value, str) or not item.value:
            continue  # the schema says what it must be
        if item.value == name:
            wrong.append(f"names '{name}' itself; name another mentor")
        elif item.value not in names:
            others = [other for other in names if other and other != name]
            near = did_you_mean(item.value, others)
            there = f"; there are {', '.join(others)}" if others else "; add it to the list"
            wrong.append(f"there is no mentor '{item.value}'{near}{there}")
        elif item.value in teachers:
            wrong.append(f"names '{item.value}' twice")
        else:
            teachers.append(item.value)
    return teachers, [problem(tree, loc, sentence, value=False) for sentence in wrong]


def _method(tree: Node, loc: Loc, teachers: list[str]) -> Iterator[Problem]:
    from classroomkd import methods

    for index, entry in enumerate(tree.items(*loc, "method")):
        place: Loc = (*loc, "method", index)
        lonely: list[str] = []
        yield from check_entry(tree, place, entry, staff(tree, teachers), lonely)
        name = entry.child("name")
        if name is None or not isinstance(name.value, str) or name.value not in methods.entries():
            continue  # check_entry says so
        try:
            if methods.method_class(name.value).needs.mentors == 0:
                sentence = "has no mentors' terms, so nobody would teach; leave taught_by out, or name another method"
                yield problem(tree, place, sentence, value=False)
        except UserError:  # a plug-in that cannot be loaded; said above
            continue


def _circles(tree: Node, names: list[str], teachers: dict[str, list[str]]) -> Iterator[Problem]:
    """Every circle once, at the first mentor of the list that is in it."""
    seen: set[frozenset[str]] = set()
    for index, name in enumerate(names):
        chain = _back_to(name, [name], teachers)
        if chain is None or frozenset(chain) in seen:
            continue
        seen.add(frozenset(chain))
        first, *others = zip(chain, [*chain[1:], chain[0]], strict=True)
        links = [f"'{first[0]}' is taught by '{first[1]}'", *(f"'{one}' by '{other}'" for one, other in others)]
        sentence = f"goes round in a circle: {', '.join(links)}; one of them must learn from labels alone"
        yield problem(tree, ("mentors", index, "taught_by"), sentence, value=False)


def _back_to(name: str, chain: list[str], teachers: dict[str, list[str]]) -> list[str] | None:
    """The shortest-first chain of teachers from ``chain``'s end back to ``name``."""
    for teacher in teachers.get(chain[-1], []):
        if teacher == name:
            return chain
        if teacher not in chain and (longer := _back_to(name, [*chain, teacher], teachers)) is not None:
            return longer
    return None
