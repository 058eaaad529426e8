"""No label at all, and a larger student."""

from dataclasses import replace

from benchmarks.evidence.studies.without_labels import ALL, USUAL, without
from benchmarks.evidence.studies.without_labels import STUDY as OTHER
from benchmarks.evidence.study import Panel

STUDY = replace(
    OTHER,
    title="Without labels, resnet8",
    answers="What do images without any label teach a larger student, beside every label and no mentor?",
    student={"model": "resnet8"},
    panels=(
        Panel("u0", "resnet8, no image has a label (the student alone: all have), 40 epochs",
              without(0, **{"train.epochs": 40}), curve=(), arms=USUAL, alone=ALL),
    ),
    order=115,
)  # fmt: skip
