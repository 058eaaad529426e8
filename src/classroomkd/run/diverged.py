"""After a training diverged: how to start again with a lower rate, and what is remembered for ``resume``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from classroomkd._stored import MAPPING, read_json
from classroomkd._sums import write_listed
from classroomkd.errors import Diverged

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe, TrainSpec

__all__ = ["Anew", "in_python", "lower_rate", "recall", "remedy", "remember"]

LOWER = 5.0  # the rate is divided by so much
FILE = "diverged.json"
RATES = ("lr", "warmup_lr", "min_lr")

# What the user types to begin again: from recipe keys and the folder's new name.
Anew = Callable[[Mapping[str, float], Path], str]


def lower_rate(recipe: Recipe, mentor: int | None, trained: bool) -> dict[str, float]:
    """Recipe keys that lower a training's rate and leave every other training, and so the cache, as it is.

    Args:
        recipe: resolved.
        mentor: whose training diverged; None: a student's.
        trained: whether the run trains mentors.
    """
    if mentor is not None:
        spec = recipe.mentors[mentor]
        own = spec.train or recipe.mentor_train or recipe.train
        return {f"mentors.{spec.name}.train.{key}": rate for key, rate in _lowered(own).items()}
    changes = _lowered(recipe.train)
    keys = {f"train.{key}": rate for key, rate in changes.items()}
    usual = recipe.mentor_train or recipe.train
    if trained:
        # Mentors inherit the student's rate: theirs stays, so that the cache has them.
        keys |= {f"mentor_train.{key}": getattr(usual, key) for key in changes if _equal(usual, recipe.train, key)}
    return keys


def _lowered(train: TrainSpec) -> dict[str, float]:
    """The rate, and the other two where they would lie above it."""
    rate = float(f"{train.lr / LOWER:.3g}")
    others = {key: getattr(train, key) for key in RATES[1:]}
    return {"lr": rate, **{key: float(f"{x / LOWER:.3g}") for key, x in others.items() if x > rate}}


def _equal(a: TrainSpec, b: TrainSpec, key: str) -> bool:
    return bool(getattr(a, key) == getattr(b, key))


def remedy(recipe: Recipe, mentor: int | None, trained: bool, out: Path, anew: Anew | None) -> str:
    """How to start again at a lower rate, in a folder beside ``out`` and so with the same cache."""
    changes = lower_rate(recipe, mentor, trained)
    rate = next(iter(changes.values()))
    folder = _free(out.with_name(f"{out.name}-lr{rate:g}"))
    kept = ", with what the cache has" if recipe.mentors else ""
    return f"to start again at a lower rate{kept}: {(anew or in_python)(changes, folder)}"


def in_python(changes: Mapping[str, float], folder: Path) -> str:
    """The arguments of ``distill``; a mentor's own section is the mentors' there."""
    sections: dict[str, dict[str, float]] = {}
    for key, rate in changes.items():
        section = "train" if key.startswith("train.") else "mentor_train"
        sections.setdefault(section, {})[key.rpartition(".")[2]] = rate
    words = [f"{key}={rate:g}" for key, rate in sections.pop("train", {}).items()]
    words += [f"{section}={rates}" for section, rates in sections.items()]
    return f"distill(…, {', '.join(words)}, out={str(folder)!r})"


def _free(wanted: Path) -> Path:
    """The folder, or the first of ``NAME-2``, ``-3``, … that does not exist."""
    if not wanted.exists():
        return wanted
    return next(p for i in range(2, 10_000) if not (p := wanted.with_name(f"{wanted.name}-{i}")).exists())


def remember(folder: Path, error: Diverged) -> None:
    """Keep beside a student's checkpoints that its training diverged: going on would only repeat it."""
    write_listed(folder / FILE, json.dumps({"text": str(error)}, indent=1))


def recall(folder: Path) -> Diverged | None:
    """What was remembered; None where nothing was."""
    file = folder / FILE
    if not file.exists():
        return None
    text = read_json(file, MAPPING, remedy=f"remove it to train {folder} again").get("text")
    return Diverged(f"{text} (in an earlier attempt; going on would repeat it; without {file} it is tried again)")
