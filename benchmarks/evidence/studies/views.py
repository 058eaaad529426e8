"""How many views of every image a bank should have stored, so that its students lose nothing."""

from benchmarks.evidence.arms import ALONE, arm
from benchmarks.evidence.mentors import CIFAR, SGD, WHOLE
from benchmarks.evidence.study import Panel, Study

STORED = (4, 8, 16, 64)

STUDY = Study(
    title="Stored views",
    answers="How many views of every image must be stored (`bank: views=V`) before more teach a student no better?",
    data=CIFAR,
    student={"model": "convnet8", "samples": 900},
    mentors=WHOLE,
    arms=(ALONE, arm("average", ""), arm("classroomkd", "")),
    train={**SGD, "epochs": 200, "eval_every": 10, "checkpoint_every": 20, "log_every": 1000},
    panels=tuple(
        Panel(f"v{stored}", f"convnet8, 900 labels, {stored} views", {"bank": f"views={stored}"}, curve=())
        for stored in STORED
    ),
    tune=None,
    recipe={"mentor_precision": "fp32"},
    order=15,
)
