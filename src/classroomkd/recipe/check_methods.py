"""Checks of methods: names, options, whether they suit the task and the mentors. Loads the methods that are used.

Those by which assistants are taught are checked alike, and that no chain of assistants is a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from classroomkd import tasks
from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.check_peers import Trainees, check_peers, trainees
from classroomkd.recipe.check_weights import taken_as_is
from classroomkd.recipe.nodes import Loc, Node, described_task, task_name
from classroomkd.recipe.problems import Problem, option_problems, problem

__all__ = ["check_assistants", "check_methods", "entry_locs"]

_OURS = ("name", "label", "peers")


@dataclass(frozen=True)
class Staff:
    """The mentors as a method meets them: their names, and by mentor whether another one taught it."""

    names: list[str]
    taught: list[bool]


def staff(tree: Node, only: Collection[str] | None = None) -> Staff:
    """The recipe's mentors in its order, or those called ``only``, in that order; a name that is missing is empty."""
    items = tree.items("mentors")
    names = [item.text("name") or "" for item in items]
    taught = [(node := item.child("taught_by")) is not None and node.value is not None for item in items]
    if only is None:
        return Staff(names, taught)
    return Staff([*only], [taught[names.index(name)] for name in only])


def entry_locs(tree: Node) -> Iterator[tuple[Loc, Node]]:
    """Every method entry of ``method`` and ``methods`` with its place."""
    for top in ("method", "methods"):
        for index, item in enumerate(tree.items(top)):
            if isinstance(item.value, list):
                yield from (((top, index, inner), entry) for inner, entry in enumerate(item.value))
            else:
                yield (top, index), item


def check_methods(tree: Node) -> list[Problem]:
    """One of ``method`` and ``methods`` is there; every entry's name, options, task and mentors are right."""
    problems = []
    given = [key for key in ("method", "methods") if tree.child(key) is not None]
    if not given:
        problems.append(
            problem(tree, ("method",), "is missing; write method: classroomkd, or a grid: methods: [none, average]")
        )
    if len(given) == 2:
        problems.append(problem(tree, ("methods",), "stands beside 'method'; keep one of them", value=False))
    lonely: list[str] = []
    everybody, peers = staff(tree), trainees(tree)
    for loc, entry in entry_locs(tree):
        problems += check_entry(tree, loc, entry, everybody, lonely, peers)
    peers.unsure |= bool(problems)
    problems += check_peers(tree, peers)
    mentors = tree.child("mentors")
    if lonely and (mentors is None or isinstance(mentors.value, list)):
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(lonely))
        sentence = f"too few for {names}; add some, for example mentors: [resnet20]"
        problems.append(problem(tree, ("mentors",), sentence, value=False))
    return problems


def check_entry(
    tree: Node, loc: Loc, entry: Node, mentors: Staff, lonely: list[str], peers: Trainees | None = None
) -> list[Problem]:
    """Problems of one entry; methods that lack mentors are added to ``lonely`` and said once for all.

    ``peers``: what can be trained beside the student; None where nothing can.
    """
    from classroomkd import methods

    table = methods.entries()
    name = entry.child("name")
    if not isinstance(entry.value, dict):
        return []  # the schema says what it must be
    if name is None:
        return [problem(tree, loc, _without_name(entry.value, list(table)), value=False)]
    if not isinstance(name.value, str) or not name.value:
        return []
    place: Loc = loc if name.origin.path == entry.origin.path else (*loc, "name")
    if name.value not in table:
        sentence = f"there is no method '{name.value}'{did_you_mean(name.value, table)}; there are {', '.join(table)}"
        return [problem(tree, place, sentence, value=False)]
    problems = []
    task, asks = task_name(tree), table[name.value].asks
    if task is not None and not described_task(tree).offers.issuperset(asks):
        sentence = f"'{name.value}' does not do {task}; it does {', '.join(tasks.offering(asks))}"
        problems.append(problem(tree, place, sentence, value=False))
    return problems + _options(tree, loc, place, name.value, entry, mentors, lonely, peers)


def _without_name(keys: dict[str, Node], table: list[str]) -> str:
    method = next((key for key in keys if key in table), None)
    if method is None:
        return "has no 'name'; write {name: classroomkd, …}"
    others = ", ".join(f"{key}: …" for key in keys if key != method)
    return f"has no 'name'; write {{name: {method}, {others}}} or indent the options deeper than '{method}:'"


def _options(
    tree: Node,
    loc: Loc,
    place: Loc,
    name: str,
    entry: Node,
    mentors: Staff,
    lonely: list[str],
    peers: Trainees | None,
) -> list[Problem]:
    from classroomkd import methods
    from classroomkd.classroom.method import ClassInfo

    given: dict[str, Any] = {key: node.plain() for key, node in entry.value.items() if key not in _OURS}
    try:
        model = methods.options_model(name)
    except UserError as error:  # a plug-in that cannot be loaded
        return [problem(tree, place, str(error), value=False)]
    if problems := option_problems(tree, loc, model, given, _OURS):
        return problems
    try:
        task = described_task(tree).name
        method = methods.create(name, task=task, **given)
        if peers is None and (method.needs.takes_peers or entry.child("peers") is not None):
            return [problem(tree, loc, "peers are trained beside the student, not beside an assistant", value=False)]
        if peers is not None and (wrong := list(peers.take(tree, loc, name, method.needs))):
            return wrong
        if len(mentors.names) < method.needs.mentors:
            lonely.append(name)
            return []
        sketch = tasks.sketch(task)
        if getattr(method.needs, "distributions", False) and not sketch.has_distributions:
            sentence = f"'{name}' needs answers that are distributions, which those of {task} are not"
            return [problem(tree, place, sentence, value=False)]
        # Let the method see the names of its mentors, as it will when the classroom is built.
        method.setup(ClassInfo(sketch, mentors.names, taught=mentors.taught))
    except UserError as error:
        return [problem(tree, loc, str(error), value=False)]
    return []


def check_assistants(tree: Node) -> list[Problem]:
    """``taught_by`` of every mentor: its names, that no chain of them is a circle, and its method."""
    problems: list[Problem] = []
    teachers: dict[str, list[str]] = {}
    names = staff(tree).names
    for index, name in enumerate(names):
        loc: Loc = ("mentors", index, "taught_by")
        node = tree.at(*loc)
        if node is None or not isinstance(node.value, dict):
            continue
        if (mentor := tree.at(*loc[:-1])) is not None and (key := taken_as_is(mentor)):
            what = "a checkpoint" if key == "checkpoint" else "weights of its own"
            sentence = f"stands beside '{key}'; keep one: a mentor with {what} is used as it is, nobody teaches it"
            problems.append(problem(tree, loc, sentence, value=False))
        right, wrong = _teachers(tree, loc, name, names)
        problems += wrong
        teachers.setdefault(name, right)
        problems += _assistants_method(tree, loc, teachers[name])
    return problems + list(_circles(tree, names, teachers))


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


def _assistants_method(tree: Node, loc: Loc, teachers: list[str]) -> Iterator[Problem]:
    from classroomkd import methods

    for index, entry in enumerate(tree.items(*loc, "method")):
        place: Loc = (*loc, "method", index)
        lonely: list[str] = []
        yield from check_entry(tree, place, entry, staff(tree, teachers), lonely)
        name = entry.text("name")
        if name is None or name not in methods.entries():
            continue  # check_entry says so
        try:
            options = {key: node.plain() for key, node in entry.value.items() if key not in _OURS}
            if methods.create(name, **options).needs.mentors == 0:
                sentence = "has no mentors' terms, so nobody would teach; leave taught_by out, or name another method"
                yield problem(tree, place, sentence, value=False)
        except UserError:  # a plug-in that cannot be loaded, or its options; said above
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
