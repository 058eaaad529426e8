"""Human pose on LSP Extended: ClassroomKD per joint and per person, the student alone, one mentor, averaging, CA-MKD.

    python benchmarks/pose.py --data pose_lspet2400.zip     # takes up where it was cut

Every arm gets the same tuning budget: three candidates of its main knob, one seed that is not used later, ten epochs,
chosen on the validation part (the student alone: its learning rate). Then three seeds; PCK@0.2 of the torso and OKS-AP
of the last weights on the test part. Writes ``results/pose.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classroomkd._files import atomic_write_text
from classroomkd.cli.run import carry_out
from classroomkd.recipe import Recipe, load_recipe
from classroomkd.report import paired, spread
from classroomkd.run.session import Session

HERE = Path(__file__).parent
COMMAND = "python benchmarks/pose.py --data FILE"
TUNING = ("seeds=[100]", "train.epochs=10")
FIRST, SECOND = "PCK@0.2", "AP_gtbox"
PERSON = "task={name: pose, per: person}"
# By arm: what it changes in the recipe, and the candidates of its knob.
ARMS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "kd best": ("", [{"name": "kd", "temperature": t} for t in (1, 2, 4)]),
    "average": ("", [{"name": "average", "temperature": t} for t in (1, 2, 4)]),
    "camkd on logits": ("", [{"name": "camkd", "feature_weight": 0, "temperature": t} for t in (1, 2, 4)]),
    "classroomkd joint": ("", [{"name": "classroomkd", "tau": t} for t in (0.5, 1, 4)]),
    "classroomkd person": (PERSON, [{"name": "classroomkd", "tau": t} for t in (0.5, 1, 4)]),
}
RATES = (0.001, 0.002, 0.004)
Scores = dict[str, dict[int, dict[str, Any]]]


def recipe_for(out: Path, data: str, methods: list[dict[str, Any]], *changes: str) -> Recipe:
    """The base recipe with these arms."""
    own = [f"data.source=coco-keypoints:{data}", f"methods={json.dumps(methods)}", f"cache={out.parent / 'cache'}"]
    return load_recipe(HERE / "pose.yaml", [*own, *(change for change in changes if change)])


def run(out: Path, data: str, methods: list[dict[str, Any]], *changes: str) -> dict[str, Any]:
    """A run of the base recipe with these arms; finished students are kept."""
    return carry_out(recipe_for(out, data, methods, *changes), out, resume=out.exists()).summary


def step_costs(out: Path, data: str) -> list[dict[str, Any]]:
    """Every method's step over the student alone, mentors online and stored: medians of a few interleaved rounds."""
    grid = [{**found[0], "label": arm} for arm, (own, found) in ARMS.items() if not own]
    made = Session(recipe_for(out / "plan", data, grid), out / "plan").plan()
    return [{key: arm[key] for key in ("label", "x_floor", "x_floor_bank", "step_ms")} for arm in made["arms"]]


def students(summary: dict[str, Any]) -> Scores:
    """By arm and seed."""
    found: Scores = {}
    for entry in summary["entries"]:
        found.setdefault(entry["method"], {})[entry["seed"]] = entry
    return found


def row(name: str, got: Mapping[int, Any], bases: Mapping[str, Mapping[int, Any]], setting: Any) -> dict[str, Any]:
    """One row of the table; ``bases`` are what it is compared with."""
    made: dict[str, Any] = {"arm": name, "n": len(got), "seeds": sorted(got), "setting": setting}
    for key in (FIRST, SECOND):
        values = {seed: e["test_metrics"][key] for seed, e in got.items()}
        known = spread(values.values())
        made[key] = {"mean": known.mean, "sd": known.sd, "values": [values[s] for s in sorted(values)]}
        for base, theirs in bases.items():
            if base != name:
                difference = paired(values, {seed: e["test_metrics"][key] for seed, e in theirs.items()})
                made[key][f"vs {base}"] = [difference.mean, difference.low, difference.high]
    costs = [e["cost_ratio"] for e in got.values() if "cost_ratio" in e]
    made["cost_ratio"] = round(statistics.median(costs), 3) if costs else None
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder or zip with lspet_train.json and lspet_val.json")
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "pose")
    given = parser.parse_args()
    out, data = given.out, given.data

    alone = {}
    for rate in RATES:
        tried = run(out / f"tune-none-{rate}", data, [{"name": "none"}], *TUNING, f"train.lr={rate}")
        alone[rate] = students(tried)["none"][100]["val_last"]
    rate = max(alone, key=lambda r: alone[r])
    by_arm: Scores = {"none": students(run(out / "none", data, [{"name": "none"}], f"train.lr={rate}"))["none"]}
    settings: dict[str, Any] = {"none": {"lr": rate}}
    tuning: dict[str, list[float]] = {"none": [alone[r] for r in RATES]}
    final: dict[str, Any] = {}
    for change in ("", PERSON):
        arms = {arm: found for arm, (own, found) in ARMS.items() if own == change}
        place = "person" if change else "joint"
        tries = [{**c, "label": f"{arm} {i}"} for arm, found in arms.items() for i, c in enumerate(found)]
        scores = students(run(out / f"tune-{place}", data, tries, *TUNING, change))
        best = {}
        for arm in arms:
            tuning[arm] = [scores[f"{arm} {i}"][100]["val_last"] for i in range(3)]
            best[arm] = max(range(3), key=lambda i, arm=arm: tuning[arm][i])
            settings[arm] = {k: v for k, v in arms[arm][best[arm]].items() if k != "name"}
        wanted = [{**arms[arm][i], "label": arm} for arm, i in best.items()]
        final = run(out / place, data, wanted, change)
        by_arm |= students(final)
    bases = {"none": by_arm["none"], "average": by_arm["average"]}
    environment = json.loads((out / "none" / "environment.json").read_text())
    result = {
        "command": COMMAND,
        "environment": {k: v for k, v in environment.items() if k != "command"},
        "data": {k: final["data"][k] for k in ("name", "student_train", "val", "test")},
        "student": final["student"],
        "mentors": [
            {k: m[k] for k in ("name", "model", "accuracy", "val_accuracy", "parameters")} for m in final["mentors"]
        ],
        "epochs": final["train"]["epochs"],
        "rows": [row(arm, got, bases, settings[arm]) for arm, got in by_arm.items()],
        "tuning": tuning,
        "step_costs": step_costs(out, data),
    }
    atomic_write_text(HERE / "results" / "pose.json", json.dumps(result, indent=1) + "\n")
    for one in result["rows"]:
        print(
            f"{one['arm']:36s} {100 * one[FIRST]['mean']:.2f}", one[FIRST].get("vs none"), one[FIRST].get("vs average")
        )


if __name__ == "__main__":
    main()
