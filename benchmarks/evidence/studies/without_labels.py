"""Teaching without labels: most images have none, and their mentors never saw them.

The student alone has the labelled images and no others, for as long as it gains by them. ``data.labels`` draws by a
seed which images keep their label, ``student.samples`` draws by another, so the two kinds of panel have not the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evidence.arms import ALONE, arm
from benchmarks.evidence.mentors import HALF, NEW, SGD, WHOLE
from benchmarks.evidence.protocol import Table
from benchmarks.evidence.study import Arm, Panel, Study

VOTES, AVERAGE, DIST = arm("votes", ""), arm("average", ""), arm("dist", "")
OURS = arm("classroomkd", "")
CAMKD = arm("camkd", "", unlabelled="agreement", feature_weight=0, label="camkd by agreement")
USUAL = ("none", "votes", "average", "dist", "classroomkd")
SIX = (*USUAL, "camkd by agreement")
RARE = {"train.eval_every": 20, "bank": "views=16"}

# Of 4,500 images so many have a label; without the others an epoch is short, so there are more of them.
FEW = {30: (1350, 160), 10: (450, 400), 3: (135, 800)}


def dropped(share: int) -> dict[str, Any]:
    """The labelled images alone."""
    samples, epochs = FEW[share]
    return {"student.samples": samples, "train.epochs": epochs, **RARE}


def without(share: int, **more: Any) -> dict[str, Any]:
    """All images, a share of them labelled."""
    return {"data.labels": {"share": share / 100}, **more}


def outliers(of: Arm) -> Arm:
    """The same arm, for which pictures that nobody knows count a tenth."""
    return Arm(f"{of.name}, outliers 0.8", of.entries, "", (), {"train.outliers": 0.8})


def summary(tables: Mapping[str, Table]) -> list[str]:
    """The arms by panel, in percent; what the mentors' vote scores is the ceiling of hard pseudo-labels."""
    names = list(dict.fromkeys(line.name for table in tables.values() for line in table.lines))
    lines = [
        "Test %, by panel. The student alone has the labelled images and no others.",
        "",
        "| arm | " + " | ".join(tables) + " |",
        "|:---|" + "---:|" * len(tables),
    ]
    for name in names:
        found = [table.line(name) for table in tables.values()]
        cells = ["–" if line is None else f"{100 * line.mean:.1f}" for line in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    votes = [table.mentors_vote for table in tables.values()]
    lines.append("| the mentors' vote | " + " | ".join("–" if v is None else f"{100 * v:.1f}" for v in votes) + " |")
    return lines


ALL = {"data.labels": None}
STUDY = Study(
    title="Without labels",
    answers="What are images without a label worth to a student whose mentors never saw them, with many labels, few "
    "and none; and images of classes that nobody teaches?",
    data=NEW,
    student={"model": "convnet8"},
    mentors=HALF,
    arms=(ALONE, VOTES, AVERAGE, DIST, OURS, CAMKD, outliers(AVERAGE), outliers(OURS)),
    train={**SGD, "epochs": 80, "eval_every": 4, "checkpoint_every": 20, "log_every": 1000},
    panels=(
        Panel("u0", "convnet8, no image has a label (the student alone: all have)", without(0), curve=(), arms=USUAL,
              alone=ALL),
        *(
            Panel(f"u{share}", f"convnet8, {share} % of the images have a label, the rest none", without(share),
                  curve=(), arms=USUAL, alone={**ALL, **dropped(share)})
            for share in FEW
        ),
        *(
            Panel(f"d{share}", f"convnet8, {share} % of the images, all labelled, the rest dropped", dropped(share),
                  curve=(0.5, 1.5), arms=USUAL)
            for share in FEW
        ),
        Panel("all", "convnet8, every image has a label", curve=(0.5, 1.5), arms=USUAL),
        Panel(
            "others",
            "convnet8, 10 % labelled images, and 4,480 images of 80 other classes without a label",
            {"data.limit": 500, "data.unlabelled": "images:@other-classes"},
            curve=(),
            arms=(*USUAL, "average, outliers 0.8", "classroomkd, outliers 0.8"),
            alone={"data.unlabelled": None, "train.epochs": 400, **RARE},
        ),
        Panel("same", "convnet8, 10 % labelled, the rest not, all images the mentors' own training images",
              without(10, **{"data.shard": None, "train.epochs": 40}), WHOLE, curve=(), arms=USUAL,
              alone={"data.labels": None, "student.samples": 900, "train.epochs": 200, **RARE}),
        Panel("resnet8-u10", "resnet8, 10 % of the images have a label, the rest none, 40 epochs",
              {**without(10, **{"train.epochs": 40}), "student.model": "resnet8"}, curve=(), arms=SIX,
              alone={"data.labels": None, **dropped(10), "student.model": "resnet8"}),
    ),
    tune=None,
    recipe={"bank": "views=8", "mentor_precision": "fp32"},
    order=45,
    summary=summary,
)  # fmt: skip
