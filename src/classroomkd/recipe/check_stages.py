"""Checks of an arm's ``stages``: their names, trainees, starts and methods."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.arms import FRESH
from classroomkd.recipe.check_entry import OURS, Staff, check_entry
from classroomkd.recipe.check_peers import Trainees
from classroomkd.recipe.check_selves import joined_by_selves
from classroomkd.recipe.nodes import Loc, Node
from classroomkd.recipe.peer_section import PEER_NAME, STUDENT
from classroomkd.recipe.problems import Problem, problem
from classroomkd.recipe.stage_nodes import is_file

if TYPE_CHECKING:
    from classroomkd.classroom import Method
    from classroomkd.classroom.needs import Needs

__all__ = ["check_stages"]

_BESIDE = ("label", "stages")


@dataclass(frozen=True)
class _Learners:
    """The trainees of a stage as its methods meet them; ``named``: those that it names, None where it names none."""

    peers: Trainees
    named: tuple[str, ...] | None

    def take(self, tree: Node, loc: Loc, method: str, needs: Needs) -> Iterator[Problem]:
        """See :meth:`.check_peers.Trainees.take`."""
        self.peers.branches = max(self.peers.branches, needs.branches)
        if tree.at(*loc, "peers") is not None:
            sentence = "is said by the stage itself: trainees: [student, …] beside its epochs"
            yield problem(tree, (*loc, "peers"), sentence, value=False)
        elif self.named is None:
            yield from self.peers.take(tree, loc, method, needs)
        elif needs.takes_peers:
            number, (fewest, most) = len(self.found(tree, loc, needs)), needs.peers
            if number < fewest:
                sentence = f"'{method}' needs at least {fewest} peer(s) beside its first trainee, here it has {number}"
                yield problem(tree, loc, f"{sentence}; trainees: all, or leave trainees out", value=False)
            elif most is not None and number > most:
                sentence = f"'{method}' takes at most {most} peer(s) beside its first trainee, here it has {number}"
                yield problem(tree, loc, sentence, value=False)

    def found(self, tree: Node, loc: Loc, needs: Needs) -> list[str]:
        """See :meth:`.check_peers.Trainees.found`."""
        if self.named is None or not needs.takes_peers:
            return self.peers.found(tree, loc, needs)
        return [name for name in self.named[1:] if needs.teachers or self.peers.roles.get(name) != "teacher"]

    def teachers(self, names: Sequence[str]) -> list[str]:
        """See :meth:`.check_peers.Trainees.teachers`."""
        return self.peers.teachers(names)


def check_stages(
    tree: Node, loc: Loc, entry: Node, mentors: Staff, lonely: list[str], peers: Trainees, learners: dict[str, set[str]]
) -> list[Problem]:
    """Problems of one arm's stages; ``lonely`` and ``peers`` as for one method (:func:`.check_entry.check_entry`).

    Who learns in a stage is added to ``learners``, by the stage's name.
    """
    problems = list(_beside(tree, loc, entry))
    stages, learned = entry.items("stages"), dict[str, tuple[tuple[str, ...], bool]]()
    kinds = dict[str, tuple[object, ...]]()
    names = [stage.text("name") or "" for stage in stages]
    for index, stage in enumerate(stages):
        place: Loc = (*loc, "stages", index)
        if not isinstance(stage.value, dict):
            continue  # the schema says what it must be
        problems += _name(tree, place, names, index)
        problems += _start(tree, place, names, index)
        named, wrong, unread = _trainees(tree, place, peers)
        if not unread and named is not None and index == len(stages) - 1 and STUDENT not in named:
            sentence = "the last stage must train the student, which is the arm's result"
            wrong.append(problem(tree, (*place, "trainees"), sentence))
        built = dict(_built(stage))
        learning = _learning(named, built.values(), peers)
        here = joined_by_selves(tree, mentors, learned, learning, peers)
        for number, one in enumerate(stage.items("method")):
            inner: Loc = (*place, "method", number)
            wrong += check_entry(tree, inner, one, here, lonely, _Learners(peers, named))
        problems += wrong or ([] if unread else _together(tree, place, built, learning, names, peers))
        learners.setdefault(names[index], set()).update(learning)
        kind = _kind(stage, built, learning, here)
        begun = kinds.get(_source(stage, names, index))
        if any(method.needs.learned for method in built.values()) and (begun != kind or len(built) > 1):
            problems.append(_goes_on_with(tree, place, built, [one for one, its in kinds.items() if its == kind]))
        kinds[names[index]] = kind
        learned[names[index]] = learning, any(method.needs.mentors > 0 for method in built.values())
    return problems


def _learning(named: tuple[str, ...] | None, built: Collection[Method], peers: Trainees) -> tuple[str, ...]:
    """Who learns in a stage: those that it names, else whom its methods need."""
    if named is not None:
        return named
    takes, teaches = any(m.needs.takes_peers for m in built), any(m.needs.teachers for m in built)
    return (STUDENT, *(name for name in peers.names if takes and (teaches or peers.roles[name] == "peer")))


def _beside(tree: Node, loc: Loc, entry: Node) -> Iterator[Problem]:
    """Keys and methods that cannot stand beside stages."""
    for key in entry.value:
        if key not in _BESIDE:
            sentence = "stands beside 'stages'; each stage names its own method: {name: pre, method: none, epochs: 10}"
            yield problem(tree, (*loc, key), sentence, value=False)
    if len(tree.items(*loc[:-1])) > 1 and len(loc) > 1 and (loc[0] == "method" or len(loc) > 2):
        sentence = "stages are an arm by themselves: nothing is added to them; write the methods into the stages"
        yield problem(tree, loc, sentence, value=False)


def _name(tree: Node, loc: Loc, names: list[str], index: int) -> Iterator[Problem]:
    name, node = names[index], tree.at(*loc, "name")
    if node is None:
        yield problem(tree, loc, "a stage has no 'name'; write {name: pre, method: none, epochs: 10}", value=False)
    elif name and not re.fullmatch(PEER_NAME, name):
        yield problem(tree, (*loc, "name"), "letters, digits, _ and - only, since its folder is called so")
    elif name.lower() == FRESH:
        yield problem(tree, (*loc, "name"), "means a start from no stage at all; give it another name")
    elif name and name.lower() in [other.lower() for other in names[:index]]:
        yield problem(tree, (*loc, "name"), "another stage of this arm is called so; give it another name")


def _start(tree: Node, loc: Loc, names: list[str], index: int) -> Iterator[Problem]:
    start = tree.text(*loc, "start")
    if not start or start == FRESH or start in names[:index] or is_file(start, names):
        return  # files are looked for where paths are
    place: Loc = (*loc, "start")
    before = f"; before it there are {', '.join(names[:index])}" if index else "; it is the first"
    if start in names:
        when = "is this stage itself" if start == names[index] else "comes later"
        yield problem(tree, place, f"{when}{before}, and fresh")
    else:
        near = did_you_mean(start, [*names[:index], FRESH])
        yield problem(
            tree, place, f"there is no such stage{near}{before}; or write fresh, or a file (NAME.safetensors)"
        )


def _kind(stage: Node, built: dict[str, Method], learning: Sequence[str], mentors: Staff) -> tuple[object, ...]:
    """What two stages must have in common for one to go on with what the other's method learned."""
    rules = [entry.text("rule") or "" for entry in stage.items("method")]
    return *built, *rules, learning[0], *mentors.names


def _goes_on_with(tree: Node, loc: Loc, built: dict[str, Method], there: Sequence[str]) -> Problem:
    method = " and ".join(f"'{name}'" for name in built)
    sentence = (
        f"{method} so goes on with what a stage of this method alone, by the same rule, with the same mentors and "
        "first trainee, has learned, and does not begin from one"
    )
    remedy = f"start: {there[-1]}" if there else "put such a stage before it"
    return problem(tree, loc, f"{sentence}; {remedy}", value=False)


def _source(stage: Node, names: list[str], index: int) -> str:
    """The stage that a stage begins from; empty where that is none."""
    start = stage.text("start")
    return (names[index - 1] if index else "") if start is None else start


def _trainees(tree: Node, loc: Loc, peers: Trainees) -> tuple[tuple[str, ...] | None, list[Problem], bool]:
    """Names of a stage's trainees, copies written out, what is wrong, and whether they are therefore not known:
    then everybody's. None where it names none."""
    node, place, everybody = tree.at(*loc, "trainees"), (*loc, "trainees"), (STUDENT, *peers.names)
    if node is None or node.value is None:
        return None, [], False
    texts = isinstance(node.value, list) and node.value and all(isinstance(item.value, str) for item in node.value)
    if node.value == "all" or not texts:  # of anything else the schema says what it must be
        peers.taken |= set(peers.names)
        return everybody, [], node.value != "all"
    found = list[str]()
    for item in node.value:
        group = [STUDENT] if item.value == STUDENT else peers.groups.get(item.value)
        if group is None:
            near = did_you_mean(item.value, [STUDENT, *peers.groups])
            there = ", ".join([STUDENT, *peers.groups])
            sentence = f"there is no network '{item.value}' to train{near}; there are {there}"
            return everybody, [problem(tree, place, sentence, value=False)], True
        found += group
    if len(set(found)) < len(found):
        return everybody, [problem(tree, place, "names a network twice")], True
    peers.taken |= {*found} - {STUDENT}
    return tuple(found), [], False


def _together(
    tree: Node, loc: Loc, built: dict[str, Method], learning: Sequence[str], names: list[str], peers: Trainees
) -> list[Problem]:
    """What several trainees of one stage cannot do, whose methods are right one by one."""
    takes = any(method.needs.takes_peers for method in built.values())
    if len(learning) < 2:
        return []
    first, *others = sorted(learning, key=[STUDENT, *peers.names].index)
    if takes and first in peers.teachers(learning):
        sentence = f"{first} is a teacher, and as the first of the peers it would learn in the student's place"
        return [problem(tree, loc, f"{sentence}; write it behind {others[0]} in peers:", value=False)]
    teachers, wanted = peers.teachers(learning), max(method.needs.teachers for method in built.values())
    if takes and len(teachers) != wanted:
        together = " and ".join(f"'{name}'" for name in built)
        sentence = f"{together} train(s) {wanted or 'no'} teacher(s), here it has {', '.join(teachers) or 'none'}"
        return [problem(tree, loc, f"{sentence}; name who learns: trainees: [student, …]", value=False)]
    start = tree.text(*loc, "start")
    if start is not None and is_file(start, names):
        sentence = (
            "a file is of one network, and this stage trains several: give them weights of their own (student.weights, "
            "weights of a peer) and write start: fresh"
        )
        return [problem(tree, (*loc, "start"), sentence)]
    from classroomkd.methods.pieces.apart import refuse

    problems = []
    for name, method in built.items() if not takes else ():
        if (why := refuse(method)) is not None:
            sentence = f"'{name}' cannot teach several networks each by itself: {why}; give each a stage of its own"
            problems.append(problem(tree, (*loc, "trainees"), sentence))
    return problems


def _built(stage: Node) -> Iterator[tuple[str, Method]]:
    """The methods of a stage, by name."""
    from classroomkd import methods

    for entry in stage.items("method"):
        name = entry.text("name")
        if name is None or name not in methods.entries():
            continue  # it has been said
        try:
            yield name, methods.create(name, **{k: v.plain() for k, v in entry.value.items() if k not in OURS})
        except UserError:  # it has been said
            continue
