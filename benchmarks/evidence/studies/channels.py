"""Whether it matters in which order a mentor's channels come: matched, learned, as they come, drawn, or absorbed.

The mentor, resnet20, and the student, resnet8, have as many channels in every stage, so a match is an order and no
more. ``trained``: W is found for a student that has learned from labels first, and goes on from there; ``trained
alone`` goes on without it. Losses that are blind to the order of channels have no arm: their difference is 0 by their
formula, and kcd refuses them.
"""

from __future__ import annotations

from typing import Any

from benchmarks.evidence.arms import ALONE
from benchmarks.evidence.mentors import NEW, SGD
from benchmarks.evidence.study import Arm, Panel, Study

INNER = {"name": "fitnet", "projector": "none", "tap": "@stage:-1"}
WEIGHTS = tuple({"inner": {**INNER, "weight": weight}} for weight in (1, 10, 100))


def matched(label: str, **options: Any) -> Arm:
    """A way of matching, whose loss's factor is chosen."""
    return Arm(label, ({"name": "kcd", "inner": INNER, **options},), "inner", tuple(w["inner"] for w in WEIGHTS))


def trained(label: str, **options: Any) -> Arm:
    """Half as many epochs from labels alone; then a method for all of them, from there."""
    alone = {"name": "alone", "method": {"name": "none"}, "epochs": 40}
    then = {"name": "then", "method": options, "epochs": 80}
    return Arm(label, ({"stages": [alone, then]},), "")


STUDY = Study(
    title="The order of channels",
    answers="Does a loss that compares channel with channel gain by bringing a mentor's channels into the student's "
    "order, against the order as it is and one that is drawn, and does a learned projector absorb it?",
    data=NEW,
    student={"model": "resnet8"},
    mentors=("resnet20-half",),
    arms=(
        ALONE,
        matched("identity", match="identity"),
        matched("random", match="random"),
        matched("greedy", match="greedy"),
        matched("bipartite", match="bipartite"),
        matched("bipartite, class", match="bipartite", cost="class"),
        matched("learned", match="learned"),
        matched("ridge", match="learned", fit="ridge"),
        Arm("fitnet with a projector", ({"name": "fitnet", "tap": "@stage:-1"},), "weight", (1, 10, 100)),
        trained("trained, bipartite", name="kcd", inner={**INNER, "weight": 10}, batch_norm="running"),
        trained("trained, random", name="kcd", inner={**INNER, "weight": 10}, batch_norm="running", match="random"),
        trained("trained alone", name="none"),
    ),
    train={**SGD, "epochs": 80, "eval_every": 8, "checkpoint_every": 20, "log_every": 1000},
    panels=(Panel("new", "resnet8, 4,500 images that the mentor has not seen, 80 epochs"),),
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    base="identity",
    order=120,
)
