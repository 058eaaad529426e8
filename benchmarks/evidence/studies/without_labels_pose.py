"""Human pose with joints on a tenth of the people; the rest have none.

The people are those of :mod:`.pose`; the mentors were trained on all of them with their joints, so this says what
people without joints are worth to the student, and nothing of people whom the mentors never saw.
"""

from benchmarks.evidence.arms import ALONE, arm
from benchmarks.evidence.mentors import ADAMW, PEOPLE
from benchmarks.evidence.study import Panel, Study

TENTH = {"data.labels": {"share": 0.1}}
DROPPED = {"student.samples": 160, "train.epochs": 300, "train.eval_every": 50}

STUDY = Study(
    title="Human pose, few joints",
    answers="What are people without joints worth to a SimCC student, a tenth of whose people have them?",
    data=PEOPLE,
    student="simcc_tiny",
    mentors=("bins", "small bins", "maps"),
    arms=(ALONE, arm("average", ""), arm("classroomkd", "")),
    train={**ADAMW, "epochs": 40, "eval_every": 10, "checkpoint_every": 20, "log_every": 1000},
    panels=(
        Panel("u10", "simcc_tiny, joints on 10 % of the people, the rest without", TENTH, curve=(),
              alone={"data.labels": None, **DROPPED}),
        Panel("d10", "simcc_tiny, 10 % of the people, the rest dropped", DROPPED, curve=(0.5, 1.5)),
    ),
    tune=None,
    recipe={"task": "pose", "bank": "views=8"},
    order=95,
)  # fmt: skip
