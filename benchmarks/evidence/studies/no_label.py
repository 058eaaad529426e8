"""No label read: students that hear mentors alone, beside the same students with labels."""

from dataclasses import replace

from benchmarks.evidence.arms import ALONE, EVERY
from benchmarks.evidence.mentors import HALF, NEW, SGD
from benchmarks.evidence.study import Arm, Panel, Study

READS_NONE = ("average", "kd", "dist", "average with hints", "random", "ebkd", "aekd", "dtkd", "takd", "amtml")


def without(arm: Arm) -> Arm:
    """The same arm, told nothing of the labels."""
    last = {**arm.entries[-1], "supervised_weight": 0}
    return replace(arm, name=f"{arm.name}, no label", entries=(*arm.entries[:-1], last), tuned_as=arm.name)


TAUGHT = tuple(arm for arm in EVERY if arm.name in READS_NONE)

STUDY = Study(
    title="No label read",
    answers="Can mentors replace labels: how good is a student that is told none, on pictures its mentors never saw?",
    data=NEW,
    student={"model": "convnet8"},
    mentors=HALF,
    arms=(ALONE, *TAUGHT, *map(without, TAUGHT)),
    train={**SGD, "epochs": 80, "eval_every": 4, "checkpoint_every": 20, "log_every": 1000},
    panels=(Panel("new", "convnet8, new pictures, 80 epochs", tuned="all_labels/e40", curve=(0.5, 1.5, 3)),),
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    order=40,
)
