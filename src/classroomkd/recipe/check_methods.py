"""Checks of methods: names, options, whether they suit the task and the mentors. Loads the methods that are used."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from classroomkd import tasks
from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.nodes import Loc, Node, described_task, task_name
from classroomkd.recipe.problems import Problem, from_pydantic, problem

__all__ = ["Staff", "check_entry", "check_methods", "entry_locs", "staff"]

_OURS = ("name", "label")


@dataclass(frozen=True)
class Staff:
    """The mentors as a method meets them: their names, and by mentor whether another one taught it."""

    names: list[str]
    taught: list[bool]


def staff(tree: Node, only: Collection[str] | None = None) -> Staff:
    """The recipe's mentors in its order, or those called ``only``, in that order; a name that is missing is empty."""
    items = tree.items("mentors")
    names = [str(node.value) if (node := item.child("name")) is not None else "" for item in items]
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
    everybody = staff(tree)
    for loc, entry in entry_locs(tree):
        problems += check_entry(tree, loc, entry, everybody, lonely)
    mentors = tree.child("mentors")
    if lonely and (mentors is None or isinstance(mentors.value, list)):
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(lonely))
        sentence = f"too few for {names}; add some, for example mentors: [resnet20]"
        problems.append(problem(tree, ("mentors",), sentence, value=False))
    return problems


def check_entry(tree: Node, loc: Loc, entry: Node, mentors: Staff, lonely: list[str]) -> list[Problem]:
    """Problems of one entry; methods that lack mentors are added to ``lonely`` and said once for all."""
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
    return problems + _options(tree, loc, place, name.value, entry, mentors, lonely)


def _without_name(keys: dict[str, Node], table: list[str]) -> str:
    method = next((key for key in keys if key in table), None)
    if method is None:
        return "has no 'name'; write {name: classroomkd, …}"
    others = ", ".join(f"{key}: …" for key in keys if key != method)
    return f"has no 'name'; write {{name: {method}, {others}}} or indent the options deeper than '{method}:'"


def _options(
    tree: Node, loc: Loc, place: Loc, name: str, entry: Node, mentors: Staff, lonely: list[str]
) -> list[Problem]:
    from classroomkd import methods
    from classroomkd.classroom.method import ClassInfo

    given: dict[str, Any] = {key: node.plain() for key, node in entry.value.items() if key not in _OURS}
    try:
        model = methods.options_model(name)
    except UserError as error:  # a plug-in that cannot be loaded
        return [problem(tree, place, str(error), value=False)]
    try:
        model.model_validate(given)
    except ValidationError as error:
        known = [*_OURS, *model.model_fields]
        return from_pydantic(tree, error.errors(include_url=False), prefix=loc, known=lambda _: known)
    try:
        task = described_task(tree).name
        method = methods.create(name, task=task, **given)
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
