"""Checks of one method entry: its name, its options, whether it suits the task, the mentors and the trainees."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from classroomkd import tasks
from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.nodes import Loc, Node, described_task, is_self, task_name
from classroomkd.recipe.problems import Problem, option_problems, problem

if TYPE_CHECKING:
    from classroomkd.classroom.needs import Needs

__all__ = ["OURS", "Learners", "Staff", "check_entry", "staff"]

OURS = ("name", "label", "peers")


class Learners(Protocol):
    """Who is trained beside the student."""

    def take(self, tree: Node, loc: Loc, method: str, needs: Needs) -> Iterator[Problem]:
        """Problems of one entry's peers, whose method has been built."""
        ...

    def found(self, tree: Node, loc: Loc, needs: Needs) -> list[str]:
        """Names of the peers that an entry without problems trains."""
        ...

    def teachers(self, names: Sequence[str]) -> list[str]:
        """Those of these trainees that are teachers."""
        ...


@dataclass(frozen=True)
class Staff:
    """The mentors as a method meets them: their names, by mentor whether another one taught it, and whose frozen self
    it is."""

    names: list[str]
    taught: list[bool]
    selves: list[str | None] = field(default_factory=list)


def staff(tree: Node, only: Collection[str] | None = None) -> Staff:
    """The recipe's mentors in its order, or those called ``only``, in that order; a name that is missing is empty.

    Frozen selves, which only some stages have, are not among them.
    """
    items = [item for item in tree.items("mentors") if not is_self(item)]
    names = [item.text("name") or "" for item in items]
    taught = [(node := item.child("taught_by")) is not None and node.value is not None for item in items]
    if only is None:
        return Staff(names, taught)
    return Staff([*only], [taught[names.index(name)] for name in only])


def check_entry(
    tree: Node, loc: Loc, entry: Node, mentors: Staff, lonely: list[str], peers: Learners | None = None
) -> list[Problem]:
    """Problems of one entry; methods that lack mentors are added to ``lonely`` and said once for all.

    ``peers``: what can be trained beside the student; None where nothing can.
    """
    from classroomkd import methods

    table = methods.entries()
    name = entry.child("name")
    if not isinstance(entry.value, dict):
        return []  # the schema says what it must be
    if name is None and entry.child("stages") is not None:
        sentence = "has no 'name' but stages; write all stages into the arm, one after the other"
        return [problem(tree, loc, sentence, value=False)]
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
    peers: Learners | None,
) -> list[Problem]:
    from classroomkd import methods
    from classroomkd.classroom.method import ClassInfo

    given: dict[str, Any] = {key: node.plain() for key, node in entry.value.items() if key not in OURS}
    try:
        model = methods.options_model(name)
    except UserError as error:  # a plug-in that cannot be loaded
        return [problem(tree, place, str(error), value=False)]
    if problems := option_problems(tree, loc, model, given, OURS):
        return problems
    try:
        task = described_task(tree).name
        method = methods.create(name, task=task, **given)
        if peers is None and (method.needs.takes_peers or entry.child("peers") is not None):
            return [problem(tree, loc, "peers are trained beside the student, not beside an assistant", value=False)]
        if peers is not None and (wrong := list(peers.take(tree, loc, name, method.needs))):
            return wrong
        if method.needs.learned and "stages" not in loc:
            two = f"[{{name: learn, method: {name}, epochs: 80}}, {{name: teach, method: …, epochs: 200}}]"
            sentence = f"'{name}' so goes on with what an earlier stage has learned; write two: stages: {two}"
            return [problem(tree, loc, sentence, value=False)]
        if len(mentors.names) < method.needs.mentors:
            lonely.append(name)
            return []
        sketch = tasks.sketch(task)
        if getattr(method.needs, "distributions", False) and not sketch.has_distributions:
            sentence = f"'{name}' needs answers that are distributions, which those of {task} are not"
            return [problem(tree, place, sentence, value=False)]
        # Let the method see the names of its mentors and peers, as it will when the classroom is built.
        beside = [] if peers is None else peers.found(tree, loc, method.needs)
        teachers = [] if peers is None else peers.teachers(beside)
        method.setup(
            ClassInfo(
                sketch, mentors.names, taught=mentors.taught, peers=beside, teachers=teachers, selves=mentors.selves
            )
        )
    except UserError as error:
        return [problem(tree, loc, str(error), value=False)]
    return []
