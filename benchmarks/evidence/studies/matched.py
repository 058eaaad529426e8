"""Matched strength: the mentors' weights sum to one, the label's part is one: rules are compared, not scale."""

from dataclasses import replace

from benchmarks.evidence.arms import EVERY
from benchmarks.evidence.mentors import CIFAR, HALF, SGD, WHOLE
from benchmarks.evidence.study import Arm, Panel, Study

# Those whose native weights sum to something else; the others are matched already.
LOUD = ("classroomkd", "classroomkd batch", "classroomkd rank", "kd", "dist", "aekd", "takd")
MATCHED = ("none", "average", "ebkd", "camkd", "random", "dkd", "dtkd", "mmkd", "amtml")


def matched(arm: Arm) -> Arm:
    """The same arm at matched strength."""
    last = {**arm.entries[-1], "strength": "matched"}
    return replace(arm, name=f"{arm.name}, matched", entries=(*arm.entries[:-1], last), tuned_as=arm.name)


STUDY = Study(
    title="Matched strength",
    answers="Which differences between methods are left when all mentors together are as loud as the label?",
    data=CIFAR,
    student={"model": "convnet8"},
    mentors=HALF,
    arms=(
        *(arm for arm in EVERY if arm.name in MATCHED),
        *(made for arm in EVERY if arm.name in LOUD for made in (arm, matched(arm))),
    ),
    train={**SGD, "epochs": 80, "eval_every": 4, "checkpoint_every": 20, "log_every": 1000},
    panels=(
        Panel("new", "convnet8, new pictures, 80 epochs", {"data.shard": "2/2"}, tuned="all_labels/e40"),
        Panel(
            "few",
            "convnet8, 900 labels",
            {"student.samples": 900, "train.epochs": 200, "train.eval_every": 10, "bank": "views=16"},
            WHOLE,
            tuned="few_labels/convnet8-900",
        ),
    ),
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    order=70,
)
