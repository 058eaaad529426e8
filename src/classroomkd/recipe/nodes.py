"""A recipe while it is still text: values that remember where they were written.

A tree of :class:`Node` is what YAML, ``key=value`` overrides and Python mappings are turned into. Every node keeps its
:class:`Origin`, so an error found much later (a model that does not exist, a milestone after the end) can still name
the file, the line and the path as the user wrote them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classroomkd import tasks
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.tasks.spec import TaskDescription

__all__ = ["Loc", "Node", "Origin", "described_task", "from_python", "is_self", "of_networks", "task_name"]

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value was written.

    ``place`` is ``recipes/a.yaml``, ``command line`` or ``recipe`` (a mapping given in Python), ``line`` counts from 1
    (None outside files), ``path`` is the dotted path as written there.
    """

    place: str
    path: str
    line: int | None = None

    def __str__(self) -> str:
        return self.place if self.line is None else f"{self.place}:{self.line}"

    def child(self, key: str | int, line: int | None = None) -> Origin:
        """The origin of an entry inside this one; on this one's line unless told otherwise."""
        return Origin(self.place, f"{self.path}.{key}" if self.path else str(key), line or self.line)


@dataclass
class Node:
    """A value and its origin. ``value`` is a scalar, a dict of nodes or a list of nodes."""

    value: Any
    origin: Origin

    def plain(self) -> Any:
        """The value as ordinary Python data."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        """The entry called ``key``, or None where there is none (or nothing can be inside)."""
        if isinstance(self.value, dict):
            return self.value.get(key) if isinstance(key, str) else None
        if isinstance(self.value, list) and isinstance(key, int) and -len(self.value) <= key < len(self.value):
            node: Node = self.value[key]
            return node
        return None

    def items(self, *loc: str | int) -> list[Node]:
        """The entries of the list at ``loc``; none where there is no list."""
        node = self.at(*loc)
        return node.value if node is not None and isinstance(node.value, list) else []

    def at(self, *loc: str | int) -> Node | None:
        """The node at ``loc``, or None where there is none."""
        node, rest = self.find(loc)
        return None if rest else node

    def text(self, *loc: str | int) -> str | None:
        """The text at ``loc``, or None where there is nothing or something else."""
        node = self.at(*loc)
        return node.value if node is not None and isinstance(node.value, str) else None

    def find(self, loc: Loc) -> tuple[Node, Loc]:
        """The deepest node on the way to ``loc``, and the part of ``loc`` that does not exist."""
        node = self
        for depth, key in enumerate(loc):
            following = node.child(key)
            if following is None:
                return node, loc[depth:]
            node = following
        return node, ()


def is_self(mentor: Node) -> bool:
    """Whether a mentor is made from a stage."""
    made = mentor.child("from")
    return made is not None and made.value is not None


def from_python(value: Any, origin: Origin) -> Node:
    """A tree from Python data; mappings, lists and tuples become nodes, paths become text, the rest is kept."""
    if isinstance(value, Mapping):
        return Node({str(key): from_python(item, origin.child(str(key))) for key, item in value.items()}, origin)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Node([from_python(item, origin.child(index)) for index, item in enumerate(value)], origin)
    return Node(os.fspath(value) if isinstance(value, os.PathLike) else value, origin)


def task_name(tree: Node) -> str | None:
    """The recipe's task, or None where it says none or an unknown one, which is reported by itself."""
    name = tree.text("task", "name")
    return name if name in tasks.names() else None


def of_networks(tree: Node, key: str) -> Iterator[tuple[Loc, Node]]:
    """Every text, but empty ones, that ``key`` has in the sections of student, mentors and peers, with its place."""
    listed: list[Loc] = [(top, i, key) for top in ("mentors", "peers") for i in range(len(tree.items(top)))]
    for loc in [("student", key), *listed]:
        node = tree.at(*loc)
        if node is not None and isinstance(node.value, str) and node.value:
            yield loc, node


def described_task(tree: Node) -> TaskDescription:
    """What is known of the recipe's task; of the usual one where it names none that can be loaded."""
    with suppress(UserError):  # the check of the task's name says it
        return tasks.describe(task_name(tree) or tasks.DEFAULT)
    return tasks.describe(tasks.DEFAULT)
