"""All labels on a student that could learn them by heart: a dozen arms on resnet8."""

from benchmarks.evidence.arms import CORE
from benchmarks.evidence.mentors import HALF, NEW, SGD
from benchmarks.evidence.study import Panel, Study

STUDY = Study(
    title="All labels, resnet8",
    answers="Does a student nine times as large gain more from mentors where every image has its label?",
    data=NEW,
    student={"model": "resnet8"},
    mentors=HALF,
    arms=CORE,
    train={**SGD, "epochs": 80, "eval_every": 4, "checkpoint_every": 20, "log_every": 1000},
    panels=(Panel("new", "resnet8, new pictures, 80 epochs", tuned="all_labels/e40", curve=(0.5, 1.5)),),
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    order=75,
)
