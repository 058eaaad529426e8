"""A cell: everything about a training but its seed; how its recipe is made, and the key of its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from benchmarks.evidence.mentors import MENTORS
from benchmarks.evidence.study import Arm, Mentor, Panel, Study
from classroomkd import methods
from classroomkd.recipe import Recipe, make_recipe, recipe_yaml

__all__ = ["DRAWN", "NOWHERE", "PLAIN", "Cell", "cell_of", "mentor_cell"]

DRAWN = ("puppets", "digits")  # sources without a folder
NOWHERE = "."
PREPARED = "images:@"  # before the name of pictures that the bench prepares

PLAIN = {"data": "puppets", "student": "resnet8", "method": "none"}  # keys leave out what is as in this recipe

# What changes no result, or is named elsewhere in the key.
OF_NO_WEIGHT = ("name", "schema", "seeds", "workers", "threads", "device", "devices", "cache", "check_mentors")
IN_TRAIN = ("log_every", "eval_every", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints")


@dataclass(frozen=True)
class Cell:
    """One training.

    Args:
        keys: of the recipe, without methods, mentors and seeds.
        grid: the arm's methods.
        mentors: who may teach, in the recipe's order.
        changes: keys with a dot, applied last.
    """

    keys: Mapping[str, Any]
    grid: tuple[Mapping[str, Any], ...]
    mentors: tuple[Mentor, ...]
    changes: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """16 digits: of the recipe without what is at its default, the methods' options written out, the versions since
        which these mean the same, and the mentors' own keys."""
        return _hash({**self._lasting, "methods": self._methods})

    @cached_property
    def base(self) -> str:
        """The key of all but the methods: cells of one base can share a run."""
        return _hash(self._lasting)

    @property
    def versions(self) -> dict[str, int]:
        """Of its methods, by name."""
        table = methods.entries()
        return {entry["name"]: table[entry["name"]].version for entry in _every(self.grid)}

    @property
    def length(self) -> float:
        """How long it trains, over the epochs of the recipe: of stages all together."""
        stages = [stage for entry in self.grid for stage in entry.get("stages", ())]
        return sum(stage["epochs"] for stage in stages) / self.recipe(NOWHERE).train.epochs if stages else 1.0

    @property
    def label(self) -> str:
        """What its arm is called in a run: the methods, and the key, so that another setting is another folder."""
        return f"{'-'.join(dict.fromkeys(entry['name'] for entry in _every(self.grid)))}-{self.key}"

    @property
    def named(self) -> list[dict[str, Any]]:
        """The arm for a recipe's grid."""
        return [{**entry, **({"label": self.label} if i == 0 else {})} for i, entry in enumerate(self.grid)]

    @property
    def said(self) -> dict[str, Any]:
        """What the key is made of, for whoever reads a file of results."""
        return {**self._lasting, "methods": self._methods}

    def recipe(
        self,
        folder: str,
        weights: Callable[[Mentor], str | None] | None = None,
        grid: list[Any] | None = None,
        prepared: Path = Path(NOWHERE),
        **more: Any,
    ) -> Recipe:
        """A recipe with this cell, or with ``grid`` in its place.

        Args:
            folder: of all data; ``NOWHERE`` where they are not read and need not be there.
            weights: the file of a mentor; None: mentors are left to the run.
            grid: arms of the same base.
            prepared: the folder of what the bench has prepared, which ``images:@NAME`` lies in.
            more: keys on top.
        """
        data = dict(self.keys["data"])
        source, _, place = data["source"].partition(":")
        if source not in DRAWN:
            data["source"] = f"{source}:{folder if folder == NOWHERE else Path(folder, place)}"
        mentors = [_taught(m, None if weights is None else weights(m)) for m in self.mentors]
        tree = {**self.keys, "data": data, "mentors": mentors, "methods": grid or [self.named], **more}
        changes = {key: _found(value, prepared) for key, value in self.changes.items()}
        return make_recipe(tree, [f"{key}={json.dumps(value)}" for key, value in changes.items()])

    @property
    def prepared(self) -> list[str]:
        """Names of what is to be prepared for it."""
        values = [value for value in self.changes.values() if isinstance(value, str)]
        return [value.removeprefix(PREPARED) for value in values if value.startswith(PREPARED)]

    @property
    def _lasting(self) -> Mapping[str, Any]:
        mentors = [_known(mentor) for mentor in self.mentors]
        return {
            **_kept(json.dumps([self.keys, self.changes], sort_keys=True)),
            **({"mentors": mentors} if mentors else {}),
        }

    @property
    def _methods(self) -> list[list[Any]]:
        task = str(self.keys.get("task", "classification"))
        return [
            [{**stage, "method": _written_out(stage["method"], task)} for stage in entry["stages"]]
            if "stages" in entry
            else _written_out(entry, task)
            for entry in self.grid
        ]


def cell_of(study: Study, panel: Panel, arm: Arm, **more: Any) -> Cell:
    """The cell of an arm in a panel; ``more`` are keys with a dot on top. Whoever is alone has no mentors."""
    keys = {**study.recipe, "data": dict(study.data), "student": study.student, "train": dict(study.train)}
    names = () if arm.alone else arm.mentors or panel.mentors or study.mentors
    if arm.assistants:
        names = (*names, *(mentor.name for mentor in MENTORS.values() if mentor.taught_by in names))
    changes = {**panel.changes, **(panel.alone if arm.alone else {}), **arm.changes, **more}
    if arm.alone:
        for stated in (changes, keys):
            stated.pop("bank", None)
    return Cell(keys, arm.grid, tuple(MENTORS[name] for name in names), changes)


def mentor_cell(mentor: Mentor) -> Cell:
    """How a mentor is trained: as a student alone."""
    keys = {"data": mentor.data, "student": mentor.model, "train": mentor.train, **mentor.recipe}
    return Cell(keys, ({"name": "none"},), (), {})


def _every(grid: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The methods of a grid's entries, of their stages in their place."""
    return [one for entry in grid for one in ([s["method"] for s in entry["stages"]] if "stages" in entry else [entry])]


def _written_out(entry: Mapping[str, Any], task: str) -> list[Any]:
    """A method, all its options, and the version since which they mean the same."""
    name, given = entry["name"], {key: value for key, value in entry.items() if key != "name"}
    options = {**methods.defaults(name, task), **methods.filled(name, given, task)}
    return [name, methods.lasting(name, options, task), methods.since(name)]


def _found(value: Any, prepared: Path) -> Any:
    """A value of a recipe; what is prepared by its place, which need not be there where nothing is read."""
    if not isinstance(value, str) or not value.startswith(PREPARED):
        return value
    return f"images:{prepared if prepared == Path(NOWHERE) else prepared / value.removeprefix(PREPARED)}"


def _taught(mentor: Mentor, weights: str | None) -> dict[str, Any]:
    """A mentor in a recipe."""
    if mentor.made_from:
        return {"name": mentor.name, "from": mentor.made_from}
    made: dict[str, Any] = {"name": mentor.name, "model": mentor.model}
    if mentor.taught_by:
        return {**made, "taught_by": mentor.taught_by, "train": dict(mentor.train)}
    return made if weights is None else {**made, "weights": weights}


@cache
def _kept(said: str) -> Mapping[str, Any]:
    """Of a recipe's keys and changes, as JSON, what is not at its default and changes a result."""
    keys, changes = json.loads(said)
    peers = changes.pop("peers", None)  # which ``none`` does not take
    recipe = Cell(keys, ({"name": "none"},), (), changes).recipe(NOWHERE, grid=["none"])
    every = yaml.safe_load(recipe_yaml(recipe))
    plain = yaml.safe_load(recipe_yaml(make_recipe(PLAIN)))
    kept = _differing(every, plain, OF_NO_WEIGHT)
    kept["data"] = {**kept.get("data", {}), "source": keys["data"]["source"]}
    if peers:
        kept["peers"] = peers
    if str(changes.get("data.unlabelled", "")).startswith(PREPARED):
        kept["data"]["unlabelled"] = changes["data.unlabelled"]
    kept["train"] = {key: value for key, value in kept.get("train", {}).items() if key not in IN_TRAIN}
    for key in ("mentors", "mentor_train"):
        kept.pop(key, None)
    return kept


def _known(mentor: Mentor) -> dict[str, Any]:
    """What of a mentor makes a key."""
    if mentor.made_from:
        return {"name": mentor.name, "from": mentor.made_from}
    if mentor.taught_by:
        method = ["kd", methods.defaults("kd"), methods.since("kd")]  # a recipe's default for one teacher
        own = {"taught_by": mentor.taught_by, "train": mentor.train, "method": method}
    else:
        own = {"key": mentor_cell(mentor).key}
    return {"name": mentor.name, "model": mentor.model, **own, **({"shuffled": True} if mentor.shuffled else {})}


def _differing(tree: Mapping[str, Any], plain: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What of a tree is not as in ``plain``."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if key in without or (key in plain and plain[key] == value) or key in ("method", "methods"):
            continue
        other = plain.get(key)
        found[key] = _differing(value, other) if isinstance(value, dict) and isinstance(other, dict) else value
    return found


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
