"""All labels: the student has every label of its images, and its mentors were trained on others, or on the same."""

from benchmarks.evidence.arms import EVERY
from benchmarks.evidence.mentors import HALF, NEW, SGD, WHOLE
from benchmarks.evidence.study import Panel, Study

STUDY = Study(
    title="All labels",
    answers="What do mentors add where every image has its label: on pictures they have never seen, and on those they "
    "were trained on?",
    data=NEW,
    student={"model": "convnet8"},
    mentors=HALF,
    arms=EVERY,
    train={**SGD, "epochs": 40, "eval_every": 4, "checkpoint_every": 20, "log_every": 1000},
    panels=(
        Panel("e40", "convnet8, new pictures, 40 epochs", curve=(0.5, 1.5)),
        Panel("e80", "convnet8, new pictures, 80 epochs", {"train.epochs": 80}, tuned="e40", curve=(0.5, 1.5, 3)),
        Panel("e120", "convnet8, new pictures, 120 epochs", {"train.epochs": 120}, tuned="e40", curve=(0.5, 1.5)),
        Panel(
            "same",
            "convnet8, the mentors' own training images, 80 epochs",
            {"data.shard": None, "train.epochs": 80},
            WHOLE,
            tuned="e40",
            curve=(0.5, 1.5),
        ),
    ),
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    order=30,
)
