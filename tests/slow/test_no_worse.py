"""No method hurts at its defaults unless its page says so first: drawn figures, few labels, mentors that know more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from classroomkd import methods
from classroomkd.classroom import Needs
from classroomkd.report.statistics import Difference, paired

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SAYS = "**Hurts where**: "
SEEDS = (0, 1, 2, 3, 4)

# The student has 2,000 labels and has converged: alone it has 44 % after 20 epochs and after 24. Its mentors have seen
# 5,400 images. No rate is named: the default must do for everyone. About 13 minutes of CPU time, in two workers.
RECIPE: dict[str, Any] = {
    "data": {"source": "puppets", "views": "none", "options": {"train": 6000, "test": 2000, "image_size": 32}},
    "student": {"model": "convnet8", "samples": 2000},
    "mentors": [
        {"name": "broad", "model": "convnet32"},
        {"name": "middle", "model": "convnet16"},
        {"name": "assistant", "model": "dwnet32", "taught_by": "broad"},
        {"name": "self", "from": "alone"},
    ],
    "peers": [{"name": "twin", "model": "convnet8"}, {"name": "teacher", "model": "convnet16", "role": "teacher"}],
    "train": {"epochs": 20, "schedule": "cosine", "eval_every": 20, "checkpoint_every": 20, "log_every": 1000},
    "mentor_train": {"epochs": 15},
    "bank": "exact",
    "seeds": list(SEEDS),
    "workers": 2,
    "threads": 1,
}


def arms() -> list[tuple[str, dict[str, Any]]]:
    """Every method that teaches classes, by its page, with its options: defaults, and ClassroomKD's other rules."""
    table = methods.METHODS
    others = [name for name in table if not table[name].asks and name not in ("none", "weighted")]  # weighted: average
    rules = [("classroomkd", {"rule": rule, "label": f"classroomkd-{rule}"}) for rule in table["classroomkd"].rules[1:]]
    return [*((name, beside(methods.create(name).needs)) for name in others), *rules]


def beside(needs: Needs) -> dict[str, Any]:
    """Which peers a method trains (one that holds them to their earlier selves is a stage of its own), and one view:
    images are shown as they are here."""
    peers = {"peers": ["twin", *["teacher"] * needs.teachers]} if needs.takes_peers else {}
    return {**peers, **({"views": 1} if needs.views > 1 else {})}


def arm(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """An entry of the grid."""
    if not methods.create(name).needs.selves:
        return {"name": name, **options}
    stages = [
        {"name": "alone", "method": "none", "trainees": ["student", *options["peers"]]},
        {"name": "together", "method": name, "trainees": ["student", *options["peers"]]},
    ]
    return {"label": name, "stages": [{**stage, "epochs": RECIPE["train"]["epochs"]} for stage in stages]}


def said(gain: Difference) -> str:
    """In points, with the 95 % interval."""
    return f"{100 * (gain.mean or 0):+.1f} [{100 * (gain.low or 0):.1f}, {100 * (gain.high or 0):.1f}]"


ARMS = {options.get("label", name): (name, options) for name, options in arms()}


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, float]]:
    """Test scores by arm and seed, of one run."""
    home = tmp_path_factory.mktemp("no-worse")
    grid = [{"name": "none"}, *(arm(name, options) for name, options in ARMS.values())]
    (home / "recipe.yaml").write_text(json.dumps({**RECIPE, "methods": grid}))
    words = ["run", str(home / "recipe.yaml"), "--out", str(home / "run"), "--quiet"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, "-m", "classroomkd", *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for entry in json.loads((home / "run" / "summary.json").read_text())["entries"]:
        found[entry["method"]][entry["seed"]] = entry["test_last"]
    for label, (name, _) in ARMS.items():
        print(f"{label} ({name}): {said(paired(found[label], found['none']))}")
    return found


def test_the_default_rate_trains_every_method(scores: dict[str, dict[int, float]]) -> None:
    assert {label: sorted(found) for label, found in scores.items()} == {
        label: list(SEEDS) for label in ("none", *ARMS)
    }


def test_mentors_help_here(scores: dict[str, dict[int, float]]) -> None:
    """Otherwise the test below says nothing."""
    low = paired(scores["average"], scores["none"]).low
    assert low is not None
    assert low > 0.03


@pytest.mark.parametrize("label", ARMS)
def test_no_method_hurts_without_saying_so_first(label: str, scores: dict[str, dict[int, float]]) -> None:
    gain = paired(scores[label], scores["none"])
    assert gain.high is not None
    page = Path("docs") / "methods" / f"{ARMS[label][0]}.md"
    first = (ROOT / page).read_text().partition("\n## ")[0]
    assert gain.high >= 0 or SAYS in first, (
        f"{label} at its defaults ends {said(gain)} points from the student alone, and {page} has no line '{SAYS}…' "
        "before its first heading"
    )
