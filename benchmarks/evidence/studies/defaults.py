"""Defaults of methods whose strength was chosen for other networks: three values of each, nothing tuned."""

from __future__ import annotations

from benchmarks.evidence.arms import ALONE, arm
from benchmarks.evidence.mentors import CIFAR, HALF, SGD, WHOLE
from benchmarks.evidence.study import Arm, Panel, Study


def values(name: str, knob: str, *tried: float) -> tuple[Arm, ...]:
    """One arm a value: what is asked is which of them should be the default."""
    return tuple(arm(name, "", label=f"{name} {knob} {value:g}", **{knob: value}) for value in tried)


STUDY = Study(
    title="Defaults of the other methods",
    answers="Which strength, of three, is good at its default for small students: with few labels and on new pictures?",
    data=CIFAR,
    student={"model": "convnet8"},
    mentors=WHOLE,
    arms=(
        ALONE,
        arm("average", ""),
        *values("dist", "temperature", 1, 2, 4),  # at weight 2
        *values("dist", "weight", 0.3, 1),  # at T 1
        *values("dkd", "beta", 1, 2, 8),
        *values("at", "weight", 10, 100, 1000),
        *values("sp", "weight", 30, 300, 3000),
        *values("rkd", "weight", 0.01, 0.1, 1),
        *values("fitnet", "weight", 1, 10, 100),
        *values("crd", "weight", 0.03, 0.2, 0.8),
        *values("camkd", "feature_weight", 0, 5, 50),
        *values("mmkd", "feature_weight", 0, 10, 100),
        *values("dtkd", "alpha", 1, 2, 3),
        *values("amtml", "angle_weight", 0, 0.1, 1),
    ),
    train={**SGD, "epochs": 60, "eval_every": 4, "checkpoint_every": 20, "log_every": 1000},
    panels=(
        Panel(
            "new",
            "convnet8, all labels, new pictures",
            {"data.shard": "2/2"},
            HALF,
            curve=(1.5,),
        ),
        Panel(
            "few-resnet8",
            "resnet8, 900 labels",
            {"student.model": "resnet8", "student.samples": 900, "train.epochs": 100, "bank": "views=16"},
            curve=(1.5,),
        ),
    ),
    tune=None,
    seeds=(0, 1, 2),
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    order=60,
)
