"""Fashion-MNIST: ClassroomKD's rules and ablations against the student alone, one mentor, and averaging.

    python benchmarks/fashion_mnist.py --data DIR     # DIR holds the authors' four files; takes up where it was cut

Every arm gets the same tuning budget: three candidates of its main knob, one seed that is not used later, two epochs,
chosen on the validation part. Then five seeds of five epochs each; test accuracy of the last weights. The student alone
is also trained for as long as the dearest arm took with its mentors' answers. Writes ``results/fashion_mnist.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from classroomkd.cli.run import carry_out
from classroomkd.recipe import load_recipe
from classroomkd.report import paired, spread

HERE = Path(__file__).parent
ARMS: dict[str, list[dict[str, Any]]] = {
    "kd (best mentor)": [{"name": "kd", "temperature": t} for t in (2, 4, 8)],
    "average": [{"name": "average", "temperature": t} for t in (2, 4, 8)],
    "classroomkd sample": [{"name": "classroomkd", "supervised": "credibility", "tau": t} for t in (2, 4, 12)],
    "classroomkd sample, supervised: one": [{"name": "classroomkd", "supervised": "one", "tau": t} for t in (2, 4, 12)],
    "classroomkd batch (R1)": [{"name": "classroomkd", "rule": "batch", "tau": t} for t in (2, 4, 12)],
    "classroomkd rank (R0)": [{"name": "classroomkd", "rule": "rank", "tau": t} for t in (2, 4, 12)],
    "sample, no filtering": [{"name": "classroomkd", "supervised": "one", "gate": False, "tau": t} for t in (2, 4, 12)],
    "sample, no mentoring": [
        {"name": "classroomkd", "supervised": "one", "mentoring": False, "fixed_temperature": t} for t in (2, 4, 8)
    ],
    "sample, neither": [
        {"name": "classroomkd", "supervised": "one", "gate": False, "mentoring": False, "fixed_temperature": t}
        for t in (2, 4, 8)
    ],
}
RATES = (0.025, 0.05, 0.1)  # the student alone has no such knob: it tunes its learning rate


def run(folder: Path, data: str, methods: list[dict[str, Any]], *overrides: str) -> dict[str, Any]:
    """A run of the base recipe with these arms; finished students are kept."""
    recipe = load_recipe(
        HERE / "fashion_mnist.yaml",
        [
            f"data.source=fashion-mnist:{data}",
            f"methods={json.dumps(methods)}",
            f"cache={folder.parent / 'cache'}",
            *overrides,
        ],
    )
    return carry_out(recipe, folder, resume=folder.exists()).summary


def by_arm(summary: dict[str, Any], key: str = "test_last") -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for entry in summary["entries"]:
        found.setdefault(entry["method"], {})[entry["seed"]] = entry[key]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "fashion_mnist")
    given = parser.parse_args()
    out, data = given.out, given.data

    candidates = [{**c, "label": f"{arm} #{i}"} for arm, found in ARMS.items() for i, c in enumerate(found)]
    tuning = run(out / "tune", data, candidates, "seeds=[100]", "train.epochs=2")
    scores = {label: seeds[100] for label, seeds in by_arm(tuning, "val_last").items()}
    chosen = {arm: max(range(3), key=lambda i, arm=arm: scores[f"{arm} #{i}"]) for arm in ARMS}

    def alone_at(rate: float) -> float:
        changes = ("seeds=[100]", "train.epochs=2", f"train.lr={rate}")
        return by_arm(run(out / f"tune-none-{rate}", data, [{"name": "none"}], *changes), "val_last")["none"][100]

    alone = {rate: alone_at(rate) for rate in RATES}
    rate = max(alone, key=lambda r: alone[r])

    final = run(out / "final", data, [{**ARMS[arm][i], "label": arm} for arm, i in chosen.items()])
    none = run(out / "none", data, [{"name": "none"}], f"train.lr={rate}")
    seconds = {arm: spread(list(s.values())).mean for arm, s in by_arm(final, "seconds").items()}
    answering = sum(m["answer_seconds"] for m in tuning["mentors"])
    own = spread([e["seconds"] for e in none["entries"]]).mean
    epochs = round(5 * (max(seconds.values()) + answering) / own)
    longer = run(out / f"none-{epochs}", data, [{"name": "none"}], f"train.lr={rate}", f"train.epochs={epochs}")

    arms = {"none": by_arm(none)["none"], f"none, same time ({epochs} epochs)": by_arm(longer)["none"], **by_arm(final)}
    costs = by_arm(final, "cost_ratio") | {"none": by_arm(none, "cost_ratio")["none"]}
    rows = []
    for arm, got in arms.items():
        row: dict[str, Any] = {"arm": arm, "n": len(got), "seeds": sorted(got), "test": [got[s] for s in sorted(got)]}
        row |= {"mean": spread(list(got.values())).mean, "sd": spread(list(got.values())).sd}
        for base in ("none", "average"):
            if arm != base:
                difference = paired(got, arms[base])
                row[f"vs {base}"] = [difference.mean, difference.low, difference.high]
        row["setting"] = (
            {k: v for k, v in ARMS[arm][chosen[arm]].items() if k != "name"} if arm in chosen else {"lr": rate}
        )
        row["cost_ratio"] = spread(list(costs[arm].values())).mean if arm in costs else None
        rows.append(row)
    environment = json.loads((out / "final" / "environment.json").read_text())
    result = {
        "command": "python benchmarks/fashion_mnist.py --data DIR",
        "environment": {k: v for k, v in environment.items() if k != "command"},
        "mentors": [
            {k: m[k] for k in ("name", "model", "accuracy", "val_accuracy", "parameters", "samples")}
            for m in final["mentors"]
        ],
        "answer_seconds": answering,
        "rows": rows,
        "tuning": {"val": scores, "none": alone},
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "fashion_mnist.json").write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['arm']:40s} {100 * row['mean']:.2f} ± {100 * (row['sd'] or 0):.2f}",
            row.get("vs none"),
            row.get("vs average"),
        )


if __name__ == "__main__":
    main()
