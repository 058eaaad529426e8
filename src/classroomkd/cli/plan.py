"""What ``classroomkd run --dry-run`` prints."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from classroomkd._terminal import Console
from classroomkd.cli.options import new_table
from classroomkd.tasks.metric import Metric

__all__ = ["print_plan", "size"]

NAMES = 8  # class names that are shown
HOW = {"asked": "its own", "trained": "trained by the run"}


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """The plan as tables and sentences, or as JSON."""
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    console, data = Console(), plan["data"]
    _print_data(console, data)
    table = new_table(("", "model", "parameters", "multiply-adds"), ("model",), "Networks")
    for name, network in [("student", plan["student"]), *plan.get("peers", {}).items(), *plan["mentors"].items()]:
        table.add_row(name, network["model"], f"{network['parameters']:,}", f"{network['multiply_adds']:,}")
    console.print(table)
    if plan["looks"]:
        _print_mentors(console, plan)
    _print_arms(console, plan)
    for note in plan["notes"]:
        print(f"note: {note}")
    students = f"{plan['students']} student{'s' * (plan['students'] != 1)}"
    for arm in plan.get("stages", ()):
        parts = ", ".join(_stage(*pair) for pair in pairwise(({"name": "fresh"}, *arm["stages"])))
        print(
            f"'{arm['label']}': {len(arm['stages'])} stage(s) of so many epochs: {parts}; {arm['steps']:,} steps in "
            f"all, as much as {arm['steps_alone']:,} of the student alone"
        )
    most = "up to " if "stages" in plan else ""
    print(f"{students} of {most}{plan['steps']:,} steps each, seeds {plan['seeds']}, into {plan['out']}")
    _print_bank(plan["bank"])
    _print_time(plan)


def _stage(before: dict[str, Any], stage: dict[str, Any]) -> str:
    """A stage in an arm's sentence; its start where that is not the stage before it."""
    start = "" if stage["start"] == before["name"] else f" from {stage['start']}"
    return f"{stage['name']} ({stage['method']}) {stage['epochs']}{start}"


def _print_data(console: Console, data: dict[str, Any]) -> None:
    console.print(
        f"data      {data['name']}: {data['train']:,} training {data['samples']} ({data['student_train']:,} for the "
        f"student), {data['val']:,} for validation, {data['test']:,} for testing; {data['classes']} {data['topics']}, "
        f"inputs of {data['shape']}",
        markup=False, highlight=False,
    )  # fmt: skip
    more = f", and {data['classes'] - NAMES:,} more" if data["classes"] > NAMES else ""
    names = ", ".join(data["names"][:NAMES])
    console.print(f"{data['topics']:<9} {names}{more}", markup=False, highlight=False, soft_wrap=True)


def _print_mentors(console: Console, plan: dict[str, Any]) -> None:
    metric, data = Metric(**plan["metric"]), plan["data"]
    heads = ("mentor", "weights", "size", "mean and std", data["topics"], f"{plan['val_metric']} on validation")
    table = new_table(heads, ("mentor", "weights", "mean and std"), "Mentors", fold=True)
    for name, look in plan["looks"].items():
        weights = _shown(look["weights"]) if look["weights"] else HOW[look["how"]]
        weights += " (in the cache)" if look["cached"] else ""
        height, width = look["size"]
        table.add_row(
            name, weights, f"{height}x{width}", f"the {look['normalisation']}'s", str(len(look["classes"])),
            _score(look, metric),
        )  # fmt: skip
    console.print(table)
    near = [name for name, look in plan["looks"].items() if look["near_chance"]]
    if near:
        print(f"note: {', '.join(near)}: no better than chance on validation: {plan['suspects']}")


def _shown(weights: str) -> str:
    """A file as it is named from here: whole paths do not fit into a column."""
    file = Path(weights)
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else weights


def _score(look: dict[str, Any], metric: Metric) -> str:
    if look["val"] is None:
        return "not trained yet" if look["how"] == "trained" and not look["cached"] else "–"
    some = f" of {look['val_samples']:,}" if look["val_samples"] < look["val_of"] else ""
    return metric.text(look["val"]) + some


def _print_arms(console: Console, plan: dict[str, Any]) -> None:
    costs = ("mentor forwards", "ms online", "relative cost", "with the bank", "mentors' gradient")
    arms = new_table(("arm", *costs), ("arm",), "What a step costs (measured here, untrained networks)")
    for arm in plan["arms"]:
        bank = "–" if arm["x_floor_bank"] is None else f"{arm['x_floor_bank']:.2f}"
        ratio = "–" if arm["gradient_ratio"] is None else f"{arm['gradient_ratio']:.1f}"
        about = "" if arm["measured"] else "~"
        online = (f"{about}{arm['step_ms']:.1f}", f"{about}{arm['x_floor']:.2f}")
        arms.add_row(arm["label"], str(arm["mentor_forwards"]), *online, bank, ratio)
    console.print(arms)
    print(
        "relative cost: of a step over the same student's step without mentors, timed side by side; a run's first line "
        "counts it in multiply-adds instead"
    )
    print("mentors' gradient: over that of the labels alone, at the start; – where a mentor is not trained yet")
    for arm in plan["arms"]:
        if arm["loud"]:
            print(f"note: arm '{arm['label']}': {arm['loud']}")


def _print_bank(bank: dict[str, Any]) -> None:
    if bank["kind"] == "off":
        print(f"bank      off: {bank['why']}")
        return
    print(
        f"bank      {bank['kind']}: {bank['why']}. The mentors answer {bank['mentor_answers_once']:,} times instead of "
        f"{bank['mentor_answers_online']:,}; up to {size(bank['bytes'])}"
    )
    if total := bank.get("total"):
        shared = f", {total['all trainings']:.2f} when {bank['trainings']} share it" if bank["trainings"] > 1 else ""
        print(
            f"          relative cost of a training with its share of the filling: {total['one training']:.2f}{shared}"
        )


def _print_time(plan: dict[str, Any]) -> None:
    from classroomkd.report.vocabulary import duration

    needed = plan["seconds"]
    if needed["total"] is None:
        print(f"time      the students about {duration(needed['students'])}; the mentors were not measured")
    else:
        parts = f"mentors {duration(needed['mentors'])}, students {duration(needed['students'])}"
        print(
            f"time      about {duration(needed['total'])} in all ({parts}, scoring {duration(needed['scoring'])}): an "
            "estimate from what was measured here"
        )
    if plan["not_measured"]:
        print(f"          there was no time for {', '.join(plan['not_measured'])}: --full measures it all")


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
