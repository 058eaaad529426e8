"""Checks of frozen selves, mentors that are made ``from`` a stage; and which of them a later stage has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from classroomkd.errors import did_you_mean
from classroomkd.recipe.check_entry import Staff
from classroomkd.recipe.check_peers import Trainees
from classroomkd.recipe.nodes import Loc, Node, is_self
from classroomkd.recipe.peer_section import STUDENT
from classroomkd.recipe.problems import Problem, problem
from classroomkd.recipe.stage_nodes import arm_entries, unread_stages

__all__ = ["Learned", "check_selves", "joined_by_selves"]

_BESIDE = ("name", "model", "from", "note")
# By stage who learned in it, and whether mentors taught them.
Learned = Mapping[str, tuple[Sequence[str], bool]]


def joined_by_selves(tree: Node, mentors: Staff, learned: Learned, learning: Sequence[str], peers: Trainees) -> Staff:
    """The mentors of a stage: the recipe's, and the selves of stages before it.

    Args:
        tree: the recipe.
        mentors: the recipe's.
        learned: the stages before.
        learning: who learns in this one.
        peers: the recipe's.
    """
    names, taught, of = [*mentors.names], [*mentors.taught], list[str | None]([None] * len(mentors.names))
    for called, stage, network in _selves(tree, peers):
        who, by_mentors = learned.get(stage, ((), False))
        if network in who:
            names.append(called)
            taught.append(by_mentors and network not in learning)
            of.append(network if network in learning else None)
    return Staff(names, taught, of)


def _selves(tree: Node, peers: Trainees) -> Iterator[tuple[str, str, str]]:
    """Name, stage and network of every self; where a stage alone is named, of one a network."""
    for mentor in tree.items("mentors"):
        name, made = mentor.text("name"), mentor.text("from")
        if name is None or made is None:
            continue
        stage, _, network = made.partition(".")
        if network:
            yield name, stage, network
        else:
            yield from ((f"{name}-{one}", stage, one) for one in (STUDENT, *peers.names))


def check_selves(tree: Node, peers: Trainees, learners: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """The stage and the network that each is made from, and what stands beside it; ``learners`` by stage."""
    later, last = set[str](), set[str]()
    for _, entry in arm_entries(tree):
        *names, end = [stage.text("name") or "" for stage in entry.items("stages")] or [""]
        later |= {*names}
        last |= {end} - {""}
    first: int | None = None
    for index, mentor in enumerate(tree.items("mentors")):
        loc: Loc = ("mentors", index)
        if not is_self(mentor):
            if first is not None:
                sentence = f"stands behind mentors.{first}, which is made from a stage; write those last"
                yield problem(tree, loc, sentence, value=False)
            continue
        first = index if first is None else first
        yield from _clashes(tree, loc, mentor, peers, learners)
        yield from _self(tree, loc, mentor, (later, last), peers, learners)


def _clashes(
    tree: Node, loc: Loc, mentor: Node, peers: Trainees, learners: Mapping[str, Collection[str]]
) -> Iterator[Problem]:
    """Names of selves that somebody else has, too."""
    stage, dot, network = (mentor.text("from") or "").partition(".")
    name = mentor.text("name") or ""
    others = [*peers.names]  # a name that two mentors have in the recipe is said of these
    others += [] if dot else [one.text("name") or "" for one in tree.items("mentors") if one is not mentor]
    for called in [name] if dot else [f"{name}-{one}" for one in sorted(learners.get(stage, ()))]:
        if called in others:
            made = f"{network if dot else called.removeprefix(name + '-')} as it is after '{stage}'"
            sentence = (
                f"{made} is called '{called}' as a mentor, like another network of the recipe; give it another name"
            )
            yield problem(tree, (*loc, "name"), sentence, value=False)


def _self(
    tree: Node,
    loc: Loc,
    mentor: Node,
    stages: tuple[set[str], set[str]],
    peers: Trainees,
    learners: Mapping[str, Collection[str]],
) -> Iterator[Problem]:
    for key, node in mentor.value.items():
        if key not in _BESIDE and node.value is not None:
            sentence = "stands beside 'from'; leave it out: a frozen self is its network as it was after the stage"
            yield problem(tree, (*loc, key), sentence, value=False)
    made, (later, last) = mentor.text("from"), stages
    if not made:
        return  # the schema says what it must be
    place: Loc = (*loc, "from")
    stage, dot, network = made.partition(".")
    networks = [STUDENT, *peers.names]
    if not stage or (dot and not network):
        yield problem(tree, place, "names a stage, or one of its networks: from: STAGE, or from: STAGE.NETWORK")
    elif stage not in later:
        if stage in last:
            sentence = f"'{stage}' is an arm's last stage: no later one could be taught by what it leaves"
        elif any(unread_stages(entry) for _, entry in arm_entries(tree)):
            return  # the schema says what stages must be
        elif later | last:
            near = did_you_mean(stage, later)
            sentence = f"no arm has a stage '{stage}'{near}; there are {', '.join(sorted(later | last))}"
        else:
            sentence = f"no arm has a stage '{stage}': none has stages"
        yield problem(tree, place, sentence)
    elif dot and network not in networks:
        copies = peers.groups.get(network, [])
        near = f", but copies of it: {' and '.join(copies)}" if copies else did_you_mean(network, networks)
        yield problem(tree, place, f"there is no network '{network}'{near}; there are {', '.join(networks)}")
    elif dot and network not in learners.get(stage, ()):
        learning = ", ".join(sorted(learners.get(stage, ())))
        yield problem(tree, place, f"stage '{stage}' does not train {network}, but {learning}")
    else:
        model, own = mentor.text("model"), _model(tree, network, peers)
        if own is not None and model != own:
            sentence = f"is {own} by the stage that it is made from; leave model out"
            yield problem(tree, (*loc, "model"), sentence)


def _model(tree: Node, network: str, peers: Trainees) -> str | None:
    """The model of a network; None where several are meant."""
    if network == STUDENT:
        return tree.text("student", "model")
    items = tree.items("peers")
    return next((i.text("model") for i in items if network in peers.groups.get(i.text("name") or "", [])), None)
