"""Which stored answers are those of a run, by its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classroomkd import bank
from classroomkd._stored import read_yaml
from classroomkd.bank.manifest import Manifest
from classroomkd.errors import UserError
from classroomkd.run.context import cache_of
from classroomkd.run.folder import stored_data

__all__ = ["cache_of_run", "stores_of_run"]


def cache_of_run(run: Path) -> Path:
    """The cache that a run folder's recipe names, or the one beside it.

    Raises:
        UserError: its recipe is damaged.
    """
    return cache_of(_text(_recipe(run).get("cache")), run)


def stores_of_run(run: Path) -> list[Path]:
    """The stores of a run's mentors about the images that its students see.

    Raises:
        UserError: there are none; says why.
    """
    recipe, cache = _recipe(run), cache_of_run(run)
    if recipe.get("bank") in ("off", False):  # YAML reads a bare off as false
        raise UserError(f"{run} stores no answers: its recipe says bank: off")
    data = stored_data(run)
    mentors = {str(mentor.get("name")) for mentor in recipe.get("mentors") or () if isinstance(mentor, dict)}
    found = [store for store in bank.stores(cache / "bank") if _is_of(store, mentors, data)]
    if not found:
        where = "" if cache.is_dir() else " (there is no such folder: was the run moved, or the cache removed?)"
        raise UserError(f"{run} has no stored answers in {cache}{where}; fill some with: classroomkd bank fill {run}")
    return found


def _recipe(run: Path) -> dict[str, Any]:
    return read_yaml(run / "recipe.yaml", remedy="put it back, or give the cache itself")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _is_of(store: Path, mentors: set[str], data: Any) -> bool:
    """Whether a store is about one of these mentors and these images; one that cannot be read may be."""
    try:
        key = Manifest.read(store).key
    except UserError:
        return any(store.name.startswith(name) for name in mentors)
    return key.get("mentor") in mentors and (
        data is None or (key.get("data"), key.get("part")) == (data.fingerprint, data.parts.get("student"))
    )
