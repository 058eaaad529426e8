"""Every method on a CIFAR-100 part that two cores can train: one table at native, one at matched strength.

    python benchmarks/methods.py --data DIR     # DIR holds CIFAR-100; can be cut at any moment and takes up there
    python benchmarks/methods.py --data DIR --minutes 60 --arms "none,camkd paper,fitnet" --seeds 0,1

Every arm gets the same tuning budget: three candidates of its main knob, one seed that is not used later, two epochs,
chosen on the validation part. Then five seeds; test accuracy of the last weights. The student alone is also trained for
as long as the dearest arm takes. Work is done seed by seed, the most important arms first; every finished student
stays, and ``results/methods.json`` is written anew from what is there after every few students.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from methods_plan import ALONE, ARMS, HERE, TUNING_SEED, VALUES, Arm, Batch, Bench, longer, place, plan, tuned

from classroomkd import methods
from classroomkd._files import atomic_write_text
from classroomkd.cli.run import carry_out
from classroomkd.errors import UserError, did_you_mean
from classroomkd.report import paired, spread
from classroomkd.run.folder import check_run

COMMAND = "python benchmarks/methods.py --data DIR"
# Two small mentors on drawn images and one epoch: whether it runs, not what it finds.
SMOKE = (
    'data={"source": "puppets", "options": {"train": 200, "test": 100}}',
    'mentors=[{"name": "big", "model": "resnet8"}, {"name": "wide", "model": "convnet4"}]',
    "mentor_train.epochs=1",
    "train.epochs=1",
    "seeds=[0, 1]",
    "check_mentors=off",
)


def teach(bench: Bench, batch: Batch) -> None:
    """Train what is missing of a batch; an arm that cannot be trained does not stop the others."""
    students = bench.missing(batch)
    if not students:
        return
    folder = bench.out / batch.folder
    # What is wrong with the folder as a whole stops everything; what is wrong with an arm stops that arm.
    check_run(folder, bench.recipe(["none"], *batch.changes), resume=True)
    try:
        grid = [arm.spec(options, label) for arm, label, options in students]
        recipe = bench.recipe(grid, f"seeds={list(batch.seeds)}", *batch.changes)
        outcome = carry_out(recipe, folder, resume=folder.exists())
    except Exception as error:  # a method's own mistake must not cost the other rows
        if len(students) > 1:
            for one in students:
                teach(bench, replace(batch, students=(one,)))
            return
        bench.troubles[students[0][1]] = f"{type(error).__name__}: {error}"
        print(f"{students[0][1]}: {bench.troubles[students[0][1]]}", file=sys.stderr)
        return
    failed = bench.failures()
    for text in outcome.failures:  # "LABEL · seed N: why"
        student, _, why = text.partition(": ")
        label, _, seed = student.rpartition(" · seed ")
        failed[f"{batch.folder}/{label}/{seed}"] = why
    if outcome.failures:
        atomic_write_text(bench.out / "failures.json", json.dumps(failed, indent=1))


Scores = Mapping[int, Mapping[str, Any]]


def row(name: str, strength: str, found: Scores, alone: Scores, average: Scores) -> dict[str, Any]:
    """One row of the table from an arm's students by seed, and those it is compared with."""
    test = {seed: e["test_last"] for seed, e in found.items()}
    made: dict[str, Any] = {"arm": name, "strength": strength, "n": len(test), "seeds": sorted(test)}
    made |= {
        "test": [test[s] for s in sorted(test)],
        "mean": spread(test.values()).mean,
        "sd": spread(test.values()).sd,
    }
    for base, theirs in (("none", alone), ("average", average)):
        if base != name:
            difference = paired(test, {seed: e["test_last"] for seed, e in theirs.items()})
            made[f"vs {base}"] = [difference.mean, difference.low, difference.high]
            made[f"pairs with {base}"] = difference.n
    costs = [e["cost_ratio"] for e in found.values() if "cost_ratio" in e]
    made["cost_ratio"] = round(statistics.median(costs), 3) if costs else None
    return made


def collect(bench: Bench, seeds: Sequence[int], epochs: int, skipped: Mapping[str, str]) -> dict[str, Any]:
    """The content of the results file, from what is in the folder."""
    best = bench.chosen(ALONE)
    rate = VALUES["lr"][best] if best is not None else None
    known = {arm.label: arm for arm in ARMS}
    alone = bench.entries(f"none-{rate}", "none")
    average = bench.entries("students", known["average"].stored)
    rows = []
    if alone:
        rows.append(row("none", "native", alone, alone, average) | {"setting": {"lr": rate}, "status": "baseline"})
    if rate is not None and (top := bench.dearest(ARMS)):
        more = round(epochs * top[0])
        if found := bench.entries(longer(rate, more), "none"):
            made = row(f"none, {more} epochs", "native", found, alone, average)
            rows.append(made | {"setting": {"lr": rate}, "status": "baseline", "as dear as": top[1]})
    for arm in ARMS:
        found = bench.entries(place("students", arm), arm.stored)
        options = bench.options(place("students", arm), arm.stored)
        if found and options:
            made = row(arm.name, arm.strength, found, alone, average)
            made["setting"] = {key: options[-1][1].get(key) for key in arm.knob.split("+")}
            table = methods.entries()
            made["status"] = "; ".join(dict.fromkeys(table[name].status_of(given) for name, given, *_ in options))
            rows.append(made | {"total": arm.total, "versions": arm.versions})
    tried = {
        arm.label: [bench.entries(*tuned(arm, i)).get(TUNING_SEED, {}).get("val_last") for i in range(3)]
        for arm in (ALONE, *ARMS)
    }
    return {
        "command": COMMAND,
        **bench.about(),
        "epochs": epochs,
        "wanted": len(seeds),
        "rows": rows,
        "tuning": {label: scores for label, scores in tried.items() if any(s is not None for s in scores)},
        "skipped": dict(skipped) | bench.troubles,
        "failures": bench.failures(),
    }


def buildable(bench: Bench, arm: Arm) -> str | None:
    """Why an arm cannot be trained yet, or None."""
    try:
        bench.recipe([arm.spec(arm.candidates()[0], arm.label)], *arm.changes)
    except Exception as error:  # a method that is being written may fail in any way
        return " ".join(f"{error}".split()) or type(error).__name__
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of CIFAR-100")
    parser.add_argument("--out", type=Path, help="where students, mentors and answers are kept; runs/methods")
    parser.add_argument("--minutes", type=float, help="start nothing new after so long")
    parser.add_argument("--arms", help="only these, by comma; as the table calls them ('kd best', 'kd best matched')")
    parser.add_argument("--seeds", help="only these, by comma")
    parser.add_argument("--collect", action="store_true", help="write the results file and train nothing")
    parser.add_argument("--smoke", action="store_true", help="two arms on drawn images, one epoch: does it run?")
    given = parser.parse_args()
    if not given.smoke and not given.data:
        parser.error("--data is needed")
    out = given.out or HERE / "runs" / ("smoke" if given.smoke else "methods")
    names = given.arms or ("none,average,classroomkd sample" if given.smoke else None)
    bench = Bench(out, "" if given.smoke else f"cifar100:{given.data}", SMOKE if given.smoke else ())
    try:
        run(bench, names, given.seeds, given.minutes, given.collect)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(bench: Bench, names: str | None, seeds: str | None, minutes: float | None, only_collect: bool) -> None:
    started = time.monotonic()
    known = {arm.label: arm for arm in (ALONE, *ARMS)}
    labels = [name.strip() for name in names.split(",")] if names else list(known)
    for label in labels:
        if label not in known:
            raise UserError(f"there is no arm '{label}'{did_you_mean(label, known)}; there are {', '.join(known)}")
    base = bench.recipe(["none"])
    wanted = [int(s) for s in seeds.split(",")] if seeds else list(base.seeds)
    bench.out.mkdir(parents=True, exist_ok=True)
    file = (bench.out if bench.quick else HERE / "results") / "methods.json"
    file.parent.mkdir(exist_ok=True)

    def write() -> None:
        found = collect(bench, base.seeds, base.train.epochs, skipped)
        atomic_write_text(file, json.dumps(found, indent=1) + "\n")

    with (bench.out / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another process is filling {bench.out}; wait for it, or choose another --out") from error
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("cut; the same command goes on"))
        skipped = {arm.label: why for arm in ARMS if (why := buildable(bench, arm))}
        for label, why in skipped.items():
            print(f"skipped: {label}: {why}", file=sys.stderr)
        arms = [arm for arm in ARMS if arm.label in labels and arm.label not in skipped]
        try:
            for batch in () if only_collect else plan(bench, arms, wanted, base.train.epochs, "none" in labels):
                if not bench.missing(batch):
                    continue
                spent = (time.monotonic() - started) / 60
                if minutes is not None and spent > minutes:
                    break
                what = ", ".join(label for _, label, _ in bench.missing(batch))
                print(
                    f"[{spent:.0f} min] {batch.folder}, seeds {list(batch.seeds)}: {what}", file=sys.stderr, flush=True
                )
                teach(bench, batch)
                write()
        finally:
            write()
    print(f"{file}; python benchmarks/render.py makes the tables", file=sys.stderr)


if __name__ == "__main__":
    main()
