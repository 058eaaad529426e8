"""What the study of stored answers has found, ``evidence/studies/accuracy.py``, whatever version it was made with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.evidence.cells import cell_of
from benchmarks.evidence.results import HERE, Store
from benchmarks.evidence.study import load_study
from classroomkd.methods import entries, since
from classroomkd.report import Difference, paired

__all__ = ["COMMAND", "EIGHT", "EXACT", "ONLINE", "TOPS", "Banked", "banked"]

STUDY = "accuracy"
COMMAND = f"python -m benchmarks.evidence run {STUDY} --data DIR"
EXACT, EIGHT, ONLINE, TOPS = "exact", "8 views", "online", ("8 views top-5", "8 views top-2")


@dataclass
class Banked:
    """The students of one state of the method and of the mentors.

    Attributes:
        versions: of the methods.
        today: whether the method and the mentors are as they are now.
        students: by arm and seed.
    """

    versions: Mapping[str, int]
    today: bool
    students: dict[str, dict[int, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def aged(self) -> str:
        """What is not as it is now, in words; empty where all is."""
        table = entries()
        old = [
            f"version {version} of {name}, now {table[name].version}"
            for name, version in self.versions.items()
            if name in table and version < since(name)
        ]
        return "; ".join(old) or ("" if self.today else "other defaults or mentors than today's")

    @property
    def images(self) -> int:
        """How many images the students are judged on."""
        return max((entry["judged_on"] for found in self.students.values() for entry in found.values()), default=0)

    def scores(self, arm: str) -> dict[int, float]:
        """Accuracy on the images that no one was taught on, by seed."""
        return {seed: entry["unseen"] for seed, entry in self.students.get(arm, {}).items()}

    def gap(self, arm: str, base: str) -> Difference:
        """An arm less another one, paired by seed."""
        return paired(self.scores(arm), self.scores(base))


def banked(results: Path = HERE / "results") -> list[Banked]:
    """All there is, the newest first; students of two states are never put together."""
    study = load_study(STUDY)
    said = {arm.name: _plain(cell_of(study, study.panels[0], arm).said) for arm in study.arms if not arm.alone}
    found: dict[str, Banked] = {}
    for _, _, content in Store(results):
        recipe = content["recipe"]
        for arm, own in said.items():
            if "mentors" in recipe and _apart(recipe) == _apart(own):
                state = [recipe["methods"], recipe["mentors"]]
                today = state == [own["methods"], own["mentors"]]
                versions = {name: version for name, _, version in recipe["methods"]}
                made = found.setdefault(json.dumps(state), Banked(versions, today))
                students = {int(seed): entry for seed, entry in content["students"].items() if "unseen" in entry}
                made.students.setdefault(arm, {}).update(students)
    return sorted(found.values(), key=lambda made: (made.today, max(made.versions.values())), reverse=True)


def _apart(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the methods' options and versions, and without the mentors' own trainings."""
    methods = [name for name, *_ in recipe["methods"]]
    return {**recipe, "methods": methods, "mentors": [(m["name"], m["model"]) for m in recipe["mentors"]]}


def _plain(content: Any) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(content, default=str))
