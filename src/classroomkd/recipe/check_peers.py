"""Checks of ``peers``: their names, that every arm has as many as its method takes, and that some arm takes each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from classroomkd.errors import did_you_mean
from classroomkd.recipe.nodes import Loc, Node
from classroomkd.recipe.peer_section import PEER_NAME, STUDENT, copies_of
from classroomkd.recipe.problems import Problem, problem

if TYPE_CHECKING:
    from classroomkd.classroom.needs import Needs

__all__ = ["Trainees", "check_peers", "trainees"]


@dataclass
class Trainees:
    """The recipe's peers as methods meet them, and what is found of them arm by arm.

    Attributes:
        names: with copies written out.
        roles: of each.
        groups: names as the recipe has them, to those that they stand for.
        lonely: methods that lack peers, and how many teachers each trains.
        taken: names that some arm takes.
        branches: the most that an arm has.
        unsure: whether an arm could not be looked at, so that nobody is called idle.
    """

    names: list[str]
    roles: dict[str, str]
    groups: dict[str, list[str]]
    lonely: list[tuple[str, int]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    unsure: bool = False
    branches: int = 1

    def take(self, tree: Node, loc: Loc, method: str, needs: Needs) -> Iterator[Problem]:
        """Problems of one entry's peers, whose method has been built."""
        self.branches = max(self.branches, needs.branches)
        node = tree.at(*loc, "peers")
        place: Loc = (*loc, "peers")
        if node is not None and node.value is not None:
            if not needs.takes_peers:
                yield problem(tree, place, f"'{method}' takes no peers: leave it out")
                return
            found = list[str]()
            for item in node.value if isinstance(node.value, list) else []:
                if not isinstance(item.value, str):
                    continue  # the schema says what it must be
                if (group := self.groups.get(item.value)) is None:
                    near = did_you_mean(item.value, self.groups)
                    there = f"; there are {', '.join(self.groups)}" if self.groups else "; the recipe has no peers:"
                    yield problem(tree, place, f"there is no peer '{item.value}'{near}{there}", value=False)
                    return
                found += group
            if not needs.teachers and (teachers := self.teachers(found)):
                yield problem(tree, place, f"'{teachers[0]}' is a {self.roles[teachers[0]]}; '{method}' takes peers")
                return
            if len(set(found)) < len(found):
                yield problem(tree, place, "names a peer twice")
                return
        else:
            found = self.found(tree, loc, needs)
        fewest, most = needs.peers
        teachers = self.teachers(found)
        if len(found) < fewest and not self.names:
            self.lonely.append((method, needs.teachers))
        elif len(teachers) != needs.teachers:
            yield problem(tree, loc, _other_teachers(method, needs.teachers, teachers, self), value=False)
        elif len(found) < fewest:
            yield problem(
                tree, loc, f"'{method}' needs at least {fewest} peer(s), here it has {len(found)}", value=False
            )
        elif most is not None and len(found) > most:
            sentence = f"'{method}' takes at most {most} peer(s) of {', '.join(found)}: name them, peers: [{found[0]}]"
            yield problem(tree, loc, sentence, value=False)
        self.taken |= set(found)

    def found(self, tree: Node, loc: Loc, needs: Needs) -> list[str]:
        """Names of the peers that an entry without problems trains: those it names, else all that its method takes."""
        if not needs.takes_peers:
            return []
        if (node := tree.at(*loc, "peers")) is not None and isinstance(node.value, list):
            return [one for item in node.value for one in self.groups.get(str(item.value), [])]
        return [name for name in self.names if self.roles[name] == "peer" or needs.teachers]

    def teachers(self, names: Sequence[str]) -> list[str]:
        """Those of these trainees that are teachers."""
        return [name for name in names if self.roles.get(name, "peer") != "peer"]


def _other_teachers(method: str, wanted: int, there: list[str], peers: Trainees) -> str:
    """What to do about an arm that has other teachers than its method trains, in a sentence."""
    if len(there) > wanted:
        others = [name for name in peers.names if peers.roles[name] == "peer"]
        which = ", ".join([*there[:wanted], *others])
        return f"'{method}' trains {wanted} teacher(s), here it has {', '.join(there)}: name them, peers: [{which}]"
    declared = [name for name in peers.names if peers.roles[name] != "peer"]
    if len(declared) < wanted:
        remedy = f"give one of the peers ({', '.join(peers.names)}) role: teacher, or add one"
    else:
        remedy = f"name {declared[0]} among its peers"
    return f"'{method}' trains {wanted} teacher(s), here it has {len(there) or 'none'}: {remedy}"


def trainees(tree: Node) -> Trainees:
    """The recipe's peers, as far as they are well-formed."""
    names, roles, groups = list[str](), dict[str, str](), dict[str, list[str]]()
    for item in tree.items("peers"):
        name, count = item.text("name"), item.child("copies")
        if name is None:
            continue
        number = count.value if count is not None and isinstance(count.value, int) else 1
        copies = copies_of(name, number)
        groups[name] = copies
        for one in copies:
            names.append(one)
            groups.setdefault(one, [one])
            roles[one] = item.text("role") or "peer"
    return Trainees(names, roles, groups)


def check_peers(tree: Node, found: Trainees) -> Iterator[Problem]:
    """Names, and what no arm has taken; after all entries have been looked at."""
    mentors = {item.text("name") for item in tree.items("mentors") if "." not in (item.text("from") or "")}
    first: dict[str, int] = {}
    for index, item in enumerate(tree.items("peers")):
        loc: Loc = ("peers", index)
        name = item.text("name")
        if name is None:
            continue
        if not re.fullmatch(PEER_NAME, name):
            sentence = f"'{name}': letters, digits, _ and - only, since its terms and its files are called so"
            yield problem(tree, loc, f"{sentence}; give it a name", value=False)
        for one in found.groups.get(name, []):
            if one.lower().endswith(("-best", "-ema")):
                sentence = f"is called '{one}', and files of other weights of a network end so; give it another name"
                yield problem(tree, loc, sentence, value=False)
            elif one.lower() == STUDENT:
                yield problem(tree, loc, "is called 'student'; give it another name", value=False)
            elif one in mentors:
                yield problem(tree, loc, f"is called '{one}' like a mentor; give it another name", value=False)
            elif one in first:
                sentence = f"is called '{one}' like peers.{first[one]}; give it a name, or the first copies: 2"
                yield problem(tree, loc, sentence, value=False)
            first.setdefault(one, index)
    yield from _export(tree, found)
    if found.lonely:
        names = ", ".join(f"'{name}'" for name, _ in dict.fromkeys(found.lonely))
        teacher = ", {name: t, model: resnet20, role: teacher}" * any(teachers for _, teachers in found.lonely)
        sentence = f"too few for {names}; add some, for example peers: [{{name: b, model: resnet8}}{teacher}]"
        yield problem(tree, ("peers",), sentence, value=False)
    elif not found.unsure:
        idle = [name for name in found.names if name not in found.taken]
        if idle:
            does = "dml" if any(found.roles[name] == "peer" for name in idle) else "kdml"
            sentence = f"no arm takes {', '.join(idle)}: add a method that does ({does}), or leave them out"
            yield problem(tree, ("peers",), sentence, value=False)


def _export(tree: Node, found: Trainees) -> Iterator[Problem]:
    """That who is exported is trained: the student, one of the peers, or a branch."""
    node = tree.child("export")
    names = [STUDENT, *found.names, *(f"branch-{place}" for place in range(2, 1 + found.branches))]
    if node is None or not isinstance(node.value, str) or node.value in names:
        return
    near = did_you_mean(node.value, names)
    sentence = f"there is no trainee '{node.value}'{near}; there are {', '.join(names)}"
    if len(names) == 1:
        alone = "there is the student alone, since the recipe has no peers, and no arm has branches"
        sentence = f"there is no trainee '{node.value}'; {alone}"
    yield problem(tree, ("export",), sentence, value=False)
