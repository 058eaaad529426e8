"""The table of methods: one line each, readable without torch; a method's own module is loaded when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

__all__ = ["METHODS", "MethodEntry", "entries"]

GROUP = "classroomkd.methods"


class MethodEntry(NamedTuple):
    """A row: where it lives, one line, how faithful it is, where it applies, and its rules.

    ``status`` is ``baseline``, ``paper``, ``released rule`` or ``reconstructed``. Plug-ins provide a row through the
    entry-point group ``classroomkd.methods``: the point's name is the method's, its value ``module:Class``.
    """

    target: str
    summary: str
    status: str
    tasks: tuple[str, ...] = ("classification",)
    rules: tuple[str, ...] = ()
    by_rule: tuple[tuple[str, str], ...] = ()  # statuses that depend on the option ``rule``

    def status_of(self, options: Mapping[str, Any]) -> str:
        """How faithful this method is with these options."""
        rule = options.get("rule", self.rules[0] if self.rules else "")
        return dict(self.by_rule).get(str(rule), self.status)


METHODS: dict[str, MethodEntry] = {
    "none": MethodEntry("classroomkd.methods.none:Alone", "the student alone, from labels", "baseline"),
    "kd": MethodEntry("classroomkd.methods.kd:KD", "one mentor at a fixed temperature (Hinton)", "paper"),
    "average": MethodEntry("classroomkd.methods.average:Average", "all mentors count the same (AVER)", "paper"),
    "classroomkd": MethodEntry(
        "classroomkd.methods.classroomkd:ClassroomKD",
        "mentors who beat the student teach, at a temperature set by the gap",
        "released rule (batch, rank); reconstructed (sample)",
        rules=("sample", "batch", "rank"),
        by_rule=(("sample", "reconstructed"), ("batch", "released rule"), ("rank", "released rule")),
    ),
}


@cache
def entries() -> dict[str, MethodEntry]:
    """The table with the rows of installed plug-ins; a plug-in cannot replace a row of ours."""
    found = dict(METHODS)
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, MethodEntry(point.value, f"plug-in from {point.value}", "plug-in"))
    return found
