"""What the study of stored answers has found, ``evidence/studies/accuracy.py``, whatever version it was made with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.evidence.cells import cell_of
from benchmarks.evidence.results import HERE, Store
from benchmarks.evidence.study import load_study

from classroomkd.methods import entries
from classroomkd.report import Difference, paired

__all__ = ["COMMAND", "EIGHT", "EXACT", "ONLINE", "TOPS", "Banked", "banked"]

STUDY = "accuracy"
COMMAND = f"python -m benchmarks.evidence run {STUDY} --data DIR"
EXACT, EIGHT, ONLINE, TOPS = "exact", "8 views", "online", ("8 views top-5", "8 views top-2")


@dataclass
class Banked:
    """The students of one version.

    Attributes:
        versions: of the methods.
        students: by arm and seed.
    """

    versions: Mapping[str, int]
    students: dict[str, dict[int, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def aged(self) -> str:
        """Which versions are older than today's, in words; empty where none is."""
        table = entries()
        return "; ".join(
            f"version {version} of {name}, now {table[name].version}"
            for name, version in self.versions.items()
            if name in table and version < table[name].version
        )

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
    """By version, the newest first."""
    found: dict[str, Banked] = {}
    for arm, methods, students in _taught(Store(results)):
        versions = {name: version for name, _, version in methods}
        made = found.setdefault(json.dumps(versions), Banked(versions))
        made.students.setdefault(arm, {}).update({int(seed): entry for seed, entry in students.items()})
    return sorted(found.values(), key=lambda made: max(made.versions.values()), reverse=True)


def _taught(store: Store) -> Iterator[tuple[str, list[Any], Mapping[str, Any]]]:
    """Arm, methods and students of every file that is an arm's of the study but for the methods' versions and
    defaults."""
    study = load_study(STUDY)
    said = {arm.name: cell_of(study, study.panels[0], arm).said for arm in study.arms if not arm.alone}
    for _, _, content in store:
        for arm, own in said.items():
            if "mentors" in content["recipe"] and _apart(content["recipe"]) == _apart(own):
                yield arm, content["recipe"]["methods"], content["students"]


def _apart(recipe: Mapping[str, Any]) -> Any:
    """Without the methods' options and versions, and without those of the mentors' own trainings."""
    methods = [name for name, *_ in recipe["methods"]]
    mentors = [(mentor["name"], mentor["model"]) for mentor in recipe["mentors"]]
    return json.loads(json.dumps({**recipe, "methods": methods, "mentors": mentors}, default=str))
