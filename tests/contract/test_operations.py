"""Losses are computed for all mentors at once: six need no more tensor operations than two, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import ALIKE, CLASSES, KINDS, few, rules
from pose_lessons import lesson, method
from rooms import IDS, batch, classroom, said
from torch.utils._python_dispatch import TorchDispatchMode

from classroomkd.classroom import Lesson, Method

# Who reads features needs some for each mentor, whose widths differ; at most how many, None where a mentor has networks
# of its own (projectors, classifiers, memories), and what for.
GROW: dict[str, tuple[int | None, str]] = {
    "sp": (6, "a product of its maps"),
    "rkd": (20, "products of its features, and of their differences"),
    "at": (20, "the mean over its channels, at three places"),
    "fitnet": (None, "a projector"),
    "kcd": (None, "a product of W with its map"),
    "aekd": (None, "a projector, with features: true"),
    "average": (None, "a projector, with feature_weight"),
    "mmkd": (None, "a projector, and a product of its maps"),
    "camkd": (None, "a projector, and its own classifier on the student's map"),
    "ctslmkt": (None, "a trainee for every mentor"),
    "crd": (None, "a map, and two products with a memory, too large to hold those of all mentors at once"),
}
# Their defaults read features.
LOGITS_ALONE: list[tuple[str, dict[str, Any]]] = [(name, {"feature_weight": 0.0}) for name in ("camkd", "mmkd")]


def asked(kind: str) -> list[Any]:
    return few([(name, given) for name, given in rules(kind) if not ALIKE & set(given)], kind) + few(LOGITS_ALONE, kind)


CASES = [case for kind in KINDS for case in asked(kind)]


class Count(TorchDispatchMode):
    """Counts operations on tensors, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += 1
        return func(*args, **(kwargs or {}))


def count(of: Method, what: Lesson) -> int:
    with Count() as counted:
        what.conclude(of(what))
        torch.autograd.backward(what.loss)
    return counted.found


def operations(kind: str, name: str, given: dict[str, Any], mentors: int) -> tuple[int, bool]:
    """How many a lesson takes, and whether it reads features."""
    if kind == CLASSES:
        room = classroom(name, given, said(mentors=mentors))
        of, lessons = room.method, [room.collect(*batch(), ids=IDS) for _ in range(2)]
    else:
        of = method(name, given, kind, mentors)
        lessons = [lesson(of, kind, mentors=mentors) for _ in range(2)]
    _, found = (count(of, what) for what in lessons)  # the first makes constants that are kept
    return found, bool(of.needs.features)


@pytest.mark.parametrize(("kind", "name", "given"), CASES)
def test_operations_do_not_grow_with_the_mentors(kind: str, name: str, given: dict[str, Any]) -> None:
    (two, features), (six, _) = (operations(kind, name, given, mentors) for mentors in (2, 6))
    assert two > 0
    most, why = GROW.get(name, (0, "")) if features else (0, "")
    assert most is None or six - two <= 4 * most, f"{two} with two mentors, {six} with six {why}"
