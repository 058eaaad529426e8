"""Human pose on 2,000 people of Leeds Sports Poses Extended: ClassroomKD per joint and per person.

Small crops of acrobatic people: it compares rules, and is no score for this data. The people lie in
``pose_lspet2400.zip`` of the data's folder, annotated as COCO's are.
"""

from benchmarks.evidence.arms import arm
from benchmarks.evidence.mentors import ADAMW, PEOPLE
from benchmarks.evidence.study import Arm, Panel, Study, Tune

PERSON = {"task": {"name": "pose", "per": "person"}}

STUDY = Study(
    title="Human pose",
    answers="What are three mentors of two head types worth to a SimCC student, by PCK@0.2 of the torso, and does "
    "ClassroomKD choose them better by joint or by person?",
    data=PEOPLE,
    student="simcc_tiny",
    mentors=("bins", "small bins", "maps"),
    arms=(
        arm("none", "train.weight_decay", 0.01, 0.05, 0.2),
        arm("average"),
        arm("kd"),
        arm("camkd", feature_weight=0, label="camkd on logits"),
        arm("classroomkd", "tau", 0.5, 1, 4, label="classroomkd by joint"),
        Arm("classroomkd by person", ({"name": "classroomkd"},), "tau", (0.5, 1, 4), changes=PERSON),
    ),
    train={**ADAMW, "epochs": 40, "eval_every": 10, "checkpoint_every": 20, "log_every": 1000},
    panels=(Panel("lsp", "simcc_tiny, Leeds Sports Poses Extended, 64 x 64", curve=(0.5, 1.5)),),
    tune=Tune(rates=(0.001, 0.002, 0.004)),
    recipe={"task": "pose", "bank": "views=8"},
    order=90,
)
