"""Arms and their stages in a recipe that is still text: where they stand, and what they say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from classroomkd.recipe.arms import FRESH
from classroomkd.recipe.nodes import Loc, Node

__all__ = ["arm_entries", "entry_locs", "is_file", "stage_epochs", "staged", "stages", "starts", "unread_stages"]


def arm_entries(tree: Node) -> Iterator[tuple[Loc, Node]]:
    """Every entry of ``method`` and of the arms in ``methods`` with its place: a method, or what has stages."""
    for top in ("method", "methods"):
        for index, item in enumerate(tree.items(top)):
            if isinstance(item.value, list):
                yield from (((top, index, inner), entry) for inner, entry in enumerate(item.value))
            else:
                yield (top, index), item


def staged(entry: Node) -> bool:
    """Whether an entry of an arm has stages in place of a method."""
    node = entry.child("stages")
    return node is not None and node.value is not None


def unread_stages(entry: Node) -> bool:
    """Whether an entry of an arm has stages that are no list with something in it; the schema says so."""
    return staged(entry) and not entry.items("stages")


def stages(tree: Node) -> Iterator[tuple[Loc, Node, list[str]]]:
    """Every stage with its place, and the names of all stages of its arm."""
    for loc, entry in arm_entries(tree):
        items = entry.items("stages")
        names = [stage.text("name") or "" for stage in items]
        yield from (((*loc, "stages", index), stage, names) for index, stage in enumerate(items))


def entry_locs(tree: Node) -> Iterator[tuple[Loc, Node]]:
    """Every method with its place, those of stages, too."""
    yield from (pair for pair in arm_entries(tree) if not staged(pair[1]))
    for loc, stage, _ in stages(tree):
        yield from (((*loc, "method", index), entry) for index, entry in enumerate(stage.items("method")))


def stage_epochs(tree: Node) -> Iterator[tuple[Loc, int]]:
    """The epochs of every stage, with its place."""
    for loc, stage, _ in stages(tree):
        node = stage.child("epochs")
        if node is not None and isinstance(node.value, int) and node.value >= 1:
            yield loc, node.value


def starts(tree: Node) -> Iterator[tuple[Loc, Node]]:
    """Every start of a stage that names a file, with its place."""
    for loc, stage, names in stages(tree):
        node = stage.child("start")
        if node is not None and isinstance(node.value, str) and is_file(node.value, names):
            yield (*loc, "start"), node


def is_file(start: str, names: Sequence[str]) -> bool:
    """Whether a stage's ``start`` names a file, beside stages of these names."""
    return start != FRESH and start not in names and ("." in start or os.sep in start)
