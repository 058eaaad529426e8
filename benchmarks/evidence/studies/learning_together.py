"""Networks that learn together: what peers, earlier selves and assistants add, in the time of one network alone.

Nothing is tuned. Every network that is trained besides the student is a convnet8, the teachers that learn beside it a
resnet8. ``apart`` is two networks that are trained at once and say nothing to each other: what an ensemble is worth
without mutual learning. The student alone for 2 and 3 times the epochs is what two and three networks cost.
"""

from __future__ import annotations

from typing import Any

from benchmarks.evidence.arms import ALONE
from benchmarks.evidence.mentors import NEW, SGD
from benchmarks.evidence.study import Arm, Panel, Study

TWIN = {"name": "twin", "model": "convnet8"}
TEACHER = {"name": "teacher", "model": "resnet8", "role": "teacher"}
LARGE, CHAIN = ("resnet8-new",), ("resnet20-half", "assistant-half")
STORED = {"bank": "views=8", "mentor_precision": "fp32"}


def mutual(label: str, name: str, *more: dict[str, Any], mentors: tuple[str, ...] = (), **options: Any) -> Arm:
    """A method that trains a twin beside the student, and ``more``."""
    changes = {"peers": [TWIN, *more], **(STORED if mentors else {})}
    return Arm(label, ({"name": name, **options},), "", (), changes, mentors or None)


def taught(name: str, mentors: tuple[str, ...], **options: Any) -> Arm:
    """A method with frozen mentors, whose answers are stored."""
    return Arm(name, ({"name": name, **options},), "", (), STORED, mentors)


def stages(label: str, name: str, *, twins: bool = True, **options: Any) -> Arm:
    """Half as many epochs alone, then ``name`` for all of them: afresh, or of the student by itself from there."""
    alone = {"name": "alone", "method": {"name": "none"}, "epochs": 40, **({"trainees": "all"} if twins else {})}
    then = {"name": "then", "method": {"name": name, **options}, "epochs": 80, **({"start": "fresh"} if twins else {})}
    changes = {"peers": [TWIN]} if twins else {}
    return Arm(label, ({"stages": [alone, then]},), "", (), changes, ("self",) if twins else None)


STUDY = Study(
    title="Networks that learn together",
    answers="Does a student gain by peers, by its earlier self or by a chain of assistants what it would not by being "
    "trained for as long, and does an ensemble of those who learned together gain more over its members?",
    data=NEW,
    student={"model": "convnet8"},
    mentors=(),
    arms=(
        ALONE,
        mutual("apart", "dml", weight=0),
        mutual("dml", "dml"),
        mutual("dml in turns", "dml", order="gauss_seidel"),
        mutual("kdml online", "kdml", TEACHER),
        mutual("kdml frozen", "kdml", teacher="frozen", mentors=LARGE),
        mutual("kdml frozen, not mutual", "kdml", teacher="frozen", mutual_weight=0, mentors=LARGE),
        taught("kd", LARGE),
        stages("ctslmkt", "ctslmkt"),
        stages("ctslmkt without answers", "ctslmkt", response=0),
        stages("ctslmkt without relations", "ctslmkt", distance=0, angle=0),
        stages("ctslmkt without selves", "ctslmkt", self_weight=0),
        stages("alone from alone", "none", twins=False),
        Arm("tfkd", ({"name": "tfkd"},), ""),
        taught("takd", CHAIN),
        taught("dgkd", CHAIN),
    ),
    train={**SGD, "epochs": 80, "eval_every": 8, "checkpoint_every": 20, "log_every": 1000},
    panels=(Panel("new", "convnet8, 4,500 images, every one labelled, 80 epochs", curve=(0.5, 1.5, 2, 3)),),
    tune=None,
    base="apart",
    order=55,
)
