"""What differs between a recipe and the one that a run folder was made with, and matters for what is in it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from classroomkd._stored import read_yaml

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe

__all__ = ["differences", "moved"]

_OF_NO_WEIGHT = {
    f"{part}.{key}" for part in ("train", "mentor_train") for key in ("checkpoint_minutes", "keep_checkpoints")
}
# What may change; of peers and of frozen selves, which are left out of the mentors, every arm says itself which it was
# made with, and who is exported makes no other weights.
_FREE = {
    "workers",
    "threads",
    "device",
    "devices",
    "cache",
    "seeds",
    "methods",
    "method",
    "name",
    "on_bad_mentor",
    "peers",
    "export",
}
_PLACES = ("source", "train", "val", "test")  # of ``data``


def differences(stored: Path, recipe: Recipe) -> list[str]:
    """Keys of the recipe that differ from the stored one and matter for what is already there.

    Another place of the data is none: :func:`classroomkd.run.folder.check_data` looks at what lies there.
    """
    before, now = (_without_selves(one) for one in (_before(stored, recipe), _now(recipe)))
    changed = {
        f"{key}.{inner}" if inner else key
        for key in (set(before) | set(now)) - _FREE
        for inner in _inner(before.get(key), now.get(key))
    }
    return sorted(changed - _OF_NO_WEIGHT - {*moved(stored, recipe)})


def moved(stored: Path, recipe: Recipe) -> list[str]:
    """Keys of the recipe whose data lie in another place than the stored one says: ``data.source`` and the like."""
    if not stored.exists():
        return []
    before, now = _before(stored, recipe).get("data"), _now(recipe)["data"]
    if not isinstance(before, dict):
        return []
    return [f"data.{key}" for key in _PLACES if _elsewhere(before.get(key), now.get(key))]


def _elsewhere(before: Any, now: Any) -> bool:
    """Whether two sources are of one kind (``imagefolder:``) and differ in their place."""
    both = isinstance(before, str) and isinstance(now, str) and ":" in before and ":" in now
    return both and before != now and before.partition(":")[0] == now.partition(":")[0]


def _now(recipe: Recipe) -> dict[str, Any]:
    from classroomkd.recipe import recipe_yaml

    written: dict[str, Any] = yaml.safe_load(recipe_yaml(recipe))
    return written


def _before(file: Path, recipe: Recipe) -> dict[str, Any]:
    """The stored recipe, with keys that have come since at their defaults; of values of any kind.

    One of schema 1 had no ``data.resize``: whether another rule made other pixels is asked by the images.
    """
    from classroomkd.recipe import SCHEMA, Recipe

    before = read_yaml(file, remedy="put it back, or choose another --out")
    if before.get("schema") == 1 and isinstance(before.get("data"), dict):
        before |= {"schema": SCHEMA, "data": {**before["data"], "resize": recipe.data.resize}}
    with suppress(Exception):
        before = _now(Recipe.model_validate(before))
    return before


def _without_selves(written: dict[str, Any]) -> dict[str, Any]:
    """A written recipe with the mentors that have answers before it is run."""
    mentors = written.get("mentors")
    if not isinstance(mentors, list):
        return written
    own = [mentor for mentor in mentors if not (isinstance(mentor, dict) and mentor.get("from"))]
    return {**written, "mentors": own}


def _inner(a: Any, b: Any) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [k for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k)]
    return [""] if a != b else []
