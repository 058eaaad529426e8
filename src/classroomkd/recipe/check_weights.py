"""Checks of what networks start from: ``weights``, its other name ``checkpoint``, and weights that a name asks for."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from classroomkd.recipe.nodes import Node, described_task, of_networks
from classroomkd.recipe.problems import Problem, problem
from classroomkd.recipe.sections import PRETRAINED, TRAINED

if TYPE_CHECKING:
    from classroomkd.recipe.nodes import Loc

__all__ = ["check_weights", "taken_as_is"]

KEYS = ("weights", "checkpoint")


def given_weights(network: Node) -> tuple[str, Node] | None:
    """The key of a student's or mentor's section that says what it starts from, and its node."""
    for key in KEYS:
        node = network.child(key)
        if node is not None and node.value is not None:
            return key, node
    return None


def taken_as_is(mentor: Node) -> str | None:
    """The key that gives a mentor weights which the run surely does not train; None where there is none."""
    given, reset = given_weights(mentor), mentor.child("reset_head")
    if given is None or given[1].value == PRETRAINED or (reset is not None and reset.value is True):
        return None
    return given[0]


def check_weights(tree: Node, known_models: Collection[str]) -> list[Problem]:
    """One key says it; what it says can be had, offline, for a network of this name."""
    problems, task = [], described_task(tree)
    for (*rest, _), node in of_networks(tree, "model"):
        loc: Loc = tuple(rest)
        network, model = tree.at(*loc), node.value
        assert network is not None
        there = [key for key in KEYS if (child := network.child(key)) is not None and child.value is not None]
        if len(there) == len(KEYS):
            sentence = "has both 'weights' and 'checkpoint', which mean the same; keep weights"
            problems.append(problem(tree, loc, sentence, value=False))
            continue
        given, reset = given_weights(network), network.child("reset_head")
        wanted = given[1].value if given is not None and isinstance(given[1].value, str) else None
        place: Loc = (*loc, given[0]) if given is not None else (*loc, "model")
        if reset is not None and reset.value is True and wanted in (None, TRAINED):
            sentence = "needs weights beside it: weights: FILE, or weights: pretrained"
            problems.append(problem(tree, (*loc, "reset_head"), sentence))
        elif model not in known_models and (said := task.weights_problem(model, wanted)) is not None:
            problems.append(problem(tree, place, said))
    return problems
