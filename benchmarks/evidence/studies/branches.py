"""Branches of one network: ONE and PCL, PCL without each of its parts, and what longer or averaged trainings give.

Nothing is tuned, and no mentor takes part. ``apart`` is three branches on views of their own that learn nothing from
each other but the trunk. The student alone for 3 times the epochs is what three branches cost with three views.
"""

from __future__ import annotations

from typing import Any

from benchmarks.evidence.arms import ALONE
from benchmarks.evidence.mentors import NEW, SGD
from benchmarks.evidence.study import Arm, Panel, Study


def arm(label: str, name: str, changes: dict[str, Any] | None = None, **options: Any) -> Arm:
    """One method with some options, and what differs in its recipe."""
    return Arm(label, ({"name": name, **options},), "", (), changes or {})


STUDY = Study(
    title="Branches of one network",
    answers="Does a student gain by branches that teach each other what it would not by being trained for as long, or "
    "by an average of its own weights, and which part of PCL does it?",
    data=NEW,
    student={"model": "convnet8"},
    mentors=(),
    arms=(
        ALONE,
        arm("none with an average", "none", {"train.ema": 0.999}),
        arm("one", "one"),
        arm("one apart", "one", weight=0),
        arm("pcl", "pcl"),
        arm("pcl without the ensemble", "pcl", weight=0),
        arm("pcl without averages", "pcl", mean_weight=0),
        arm("pcl, one view", "pcl", views=1),
        arm("pcl apart", "pcl", weight=0, mean_weight=0),
    ),
    train={**SGD, "epochs": 80, "eval_every": 8, "checkpoint_every": 20, "log_every": 1000},
    panels=(Panel("new", "convnet8, 4,500 images, every one labelled, 80 epochs", curve=(0.5, 1.5, 3)),),
    tune=None,
    base="one apart",
    order=56,
)
