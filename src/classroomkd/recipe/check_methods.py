"""Checks of methods: that some are named, each of them and of the stages, and the mentors' ``taught_by``.

Loads the methods that are used. No chain of assistants may be a circle.
"""

from __future__ import annotations

from collections.abc import Iterator

from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.check_entry import OURS, check_entry, staff
from classroomkd.recipe.check_peers import check_peers, trainees
from classroomkd.recipe.check_selves import check_selves
from classroomkd.recipe.check_stages import check_stages
from classroomkd.recipe.check_weights import taken_as_is
from classroomkd.recipe.nodes import Loc, Node, is_self
from classroomkd.recipe.problems import Problem, problem
from classroomkd.recipe.stage_nodes import arm_entries, staged, unread_stages

__all__ = ["check_assistants", "check_methods"]


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
    everybody, peers, learners = staff(tree), trainees(tree), dict[str, set[str]]()
    for loc, entry in arm_entries(tree):
        if staged(entry):
            problems += check_stages(tree, loc, entry, everybody, lonely, peers, learners)
        else:
            problems += check_entry(tree, loc, entry, everybody, lonely, peers)
    selves = [item for item in tree.items("mentors") if is_self(item)]
    wrong = list(check_selves(tree, peers, learners))
    problems += wrong
    peers.unsure |= bool(problems) or any(map(unread_stages, (entry for _, entry in arm_entries(tree))))
    problems += check_peers(tree, peers)
    mentors = tree.child("mentors")
    unread = not all(item.text("from") for item in selves)  # the schema says what it must be
    if lonely and not wrong and not unread and (mentors is None or isinstance(mentors.value, list)):
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(lonely))
        sentence = f"too few for {names}; add some, for example mentors: [resnet20]"
        sentence += "; frozen selves teach in stages after their own alone" if selves else ""
        problems.append(problem(tree, ("mentors",), sentence, value=False))
    return problems


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
            options = {key: node.plain() for key, node in entry.value.items() if key not in OURS}
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
