"""The arms of a grid: what is trained and compared, under which name and in which folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from classroomkd.recipe.problems import show
from classroomkd.recipe.sections import MethodSpec, RecipeKeys

__all__ = ["Arm", "arms"]

# Names the run folder uses for other things.
_TAKEN = ("mentors", "bank", "cache", "checkpoints", "environment", "recipe", "report", "summary")


@dataclass(frozen=True)
class Arm:
    """One row of the comparison.

    ``label`` is what tables call it and ``slug`` its folder; both are unique in a recipe. ``entries`` are its methods
    (several are added up).
    """

    label: str
    slug: str
    entries: tuple[MethodSpec, ...]

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the peers that are trained beside the student; of a resolved recipe."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.peers or ()))

    @property
    def parts(self) -> list[tuple[str, dict[str, Any]]]:
        """``(name, options)`` of every entry, as :func:`classroomkd.methods.compose` takes them."""
        return [(entry.name, entry.options) for entry in self.entries]


def arms(recipe: RecipeKeys) -> list[Arm]:
    """The arms in the recipe's order."""
    labels = _labels(recipe.grid, recipe.task.name)
    slugs: list[str] = []
    for label in labels:
        slugs.append(_free(_slug(label), slugs))
    return [Arm(*arm) for arm in zip(labels, slugs, recipe.grid, strict=True)]


def _labels(grid: Sequence[Sequence[MethodSpec]], task: str) -> list[str]:
    """``label`` where given; else the names; arms of the same names also say in which options they differ."""
    names = [tuple(entry.name for entry in arm) for arm in grid]
    labels = []
    for arm, own in zip(grid, names, strict=True):
        given = next((entry.label for entry in arm if entry.label is not None), None)
        alike = [other for other, theirs in zip(grid, names, strict=True) if theirs == own]
        labels.append(
            given or " + ".join(_described(entry, [other[i] for other in alike], task) for i, entry in enumerate(arm))
        )
    return labels


def _described(entry: MethodSpec, alike: Sequence[MethodSpec], task: str) -> str:
    """The name and those options that set this entry apart: not the task's default, and not the same in all alike."""
    from classroomkd import methods

    if len(alike) == 1:
        return entry.name
    default = methods.defaults(entry.name, task, entry.options)
    apart = [
        f"{key}={_short(value)}"
        for key, value in entry.options.items()
        if (key not in default or default[key] != value) and any(other.options.get(key) != value for other in alike)
    ]
    if entry.peers is not None and any(other.peers != entry.peers for other in alike):
        apart.append(f"peers={','.join(entry.peers)}")
    return " ".join([entry.name, *apart])


def _short(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else show(value)


def _slug(label: str) -> str:
    """Letters, digits, dot, minus and underscore only, at most 80 characters."""
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", label.replace("+", " ")).strip("-.") or "arm"
    if len(slug) > 80:
        slug = f"{slug[:70]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return f"{slug}-arm" if slug.lower().partition(".")[0] in _TAKEN else slug


def _free(slug: str, taken: Sequence[str]) -> str:
    """``slug``, or with a number where a folder of that name exists already (some file systems ignore case)."""
    lower = {other.lower() for other in taken}
    free, number = slug, 1
    while free.lower() in lower:
        number += 1
        free = f"{slug}-{number}"
    return free
