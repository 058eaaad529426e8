"""How much of its time a student needs, when it is taught, to be as good as it would have been alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

from benchmarks.evidence.arms import ALONE, arm
from benchmarks.evidence.mentors import HALF, NEW, SGD
from benchmarks.evidence.protocol import Line, Table
from benchmarks.evidence.study import Arm, Panel, Study

EPOCHS = (16, 24, 32, 40, 56, 80)
LAST = f"e{EPOCHS[-1]}"


def faster(of: Arm, name: str, **changes: object) -> Arm:
    """An arm with other keys of the recipe."""
    return Arm(name, of.entries, "", (), {**of.changes, **{k.replace("__", "."): v for k, v in changes.items()}})


AVERAGE, DIST, OURS = arm("average", ""), arm("dist", "", temperature=1), arm("classroomkd", "")
HINTS = arm("average", "", feature_weight=100.0, label="average with hints")
SOFT = arm("average", "", supervised_weight=0, label="average, no label")


def share(line: Line, tables: Mapping[str, Table]) -> float | None:
    """The time after which an arm is as good as the student alone at the end, over the time of the student alone.

    Along the arm's accuracy over the logarithm of the epochs, each training with a schedule of its own length.
    """
    whole = tables[LAST].line("none")
    points = [(e, found) for e in EPOCHS if (found := tables[f"e{e}"].line(line.name)) is not None]
    if whole is None or not points or line.cost is None:
        return None
    before: tuple[int, float] | None = None
    for epochs, found in points:
        if found.mean >= whole.mean:
            if before is None:
                return line.cost * epochs / EPOCHS[-1]
            part = (whole.mean - before[1]) / (found.mean - before[1])
            reached = math.exp(math.log(before[0]) + part * math.log(epochs / before[0]))
            return line.cost * reached / EPOCHS[-1]
        before = (epochs, found.mean)
    return None


def summary(tables: Mapping[str, Table]) -> list[str]:
    """A line for every arm: its accuracy by epochs, and its share of the time."""
    lines = [
        f"Accuracy by epochs, and the share of the time of the student alone ({EPOCHS[-1]} epochs) after which its",
        "final accuracy is reached, the cost of a step counted, mentors owned and their answers stored.",
        "",
        "| arm | " + " | ".join(f"{epochs}" for epochs in EPOCHS) + " | step | share of the time |",
        "|:---|" + "---:|" * (len(EPOCHS) + 2),
    ]
    known = tables[LAST].lines
    shares = {line.name: share(line, tables) for line in known}
    for line in sorted(known, key=lambda each: shares[each.name] or math.inf):
        found = [tables[f"e{epochs}"].line(line.name) for epochs in EPOCHS]
        scores = [f"{100 * each.mean:.1f}" if each is not None else "–" for each in found]
        reached = shares[line.name]
        said = "not reached" if reached is None else f"{reached:.2f}"
        lines.append(f"| {line.name} | {' | '.join(scores)} | {line.cost or 1:.2f}× | {said} |")
    return lines


STUDY = Study(
    title="Time to the accuracy of the student alone",
    answers="In which share of its time does a taught student reach what it would have reached alone, and what brings "
    "that share down?",
    data=NEW,
    student={"model": "convnet8"},
    mentors=HALF,
    arms=(
        Arm("none", knob=""),
        AVERAGE,
        DIST,
        OURS,
        HINTS,
        SOFT,
        faster(ALONE, "none, lr 0.1", train__lr=0.1),
        faster(AVERAGE, "average, lr 0.1", train__lr=0.1),
        faster(AVERAGE, "average, lr 0.2", train__lr=0.2),
        faster(AVERAGE, "average, batches of 32", train__batch_size=32),
        faster(AVERAGE, "average, batches of 128, lr 0.1", train__batch_size=128, train__lr=0.1),
        faster(AVERAGE, "average, two views", bank="views=2"),
        faster(AVERAGE, "average, weight decay 2e-4", train__weight_decay=2e-4),
        arm("average", "", weight=3.0, label="average, weight 3"),
    ),
    train={**SGD, "epochs": 80, "eval_every": 8, "checkpoint_every": 40, "log_every": 1000},
    panels=tuple(
        Panel(f"e{epochs}", f"convnet8, new pictures, {epochs} epochs", {"train.epochs": epochs}, curve=())
        for epochs in EPOCHS
    ),
    tune=None,
    seeds=(0, 1, 2),
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    order=50,
    summary=summary,
)
