"""What stored answers do to accuracy: all views of an image, eight of them, or eight with few logits, against mentors
that are asked in every step. The speed table's row 12 and ``docs/scale.md`` read this study.

A quarter of CIFAR's part and many more epochs than eight: stored views differ from online ones only once they come
again. Every student is also judged on the 7,500 images that the limit left out, which neither it nor a mentor has seen.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.evidence.arms import ALONE
from benchmarks.evidence.mentors import FEW, SGD
from benchmarks.evidence.study import Arm, Panel, Study
from classroomkd import bank, data
from classroomkd.data import Part
from classroomkd.export.student import load_student
from classroomkd.recipe import DataSpec, Recipe
from classroomkd.recipe.bank_spec import BankSpec
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import answers


def judge(folder: Path, recipe: Recipe) -> Mapping[str, Any]:
    """``unseen``, the accuracy on ``judged_on`` images; with top-k also ``outside``, the mentors' mean probability at
    T = 1 outside the logits kept."""
    student, parts = load_student(folder / "student.safetensors"), unseen(recipe.data.model_dump_json())
    inputs = Inputs(student.mean, student.std, torch.device("cpu"))
    told = [answers(student.module, part, inputs) for part in parts]
    images = sum(map(len, parts))
    scores = {"unseen": sum(int((said.argmax(1) == target).sum()) for said, target in told) / images}
    return {**scores, "judged_on": images, **_outside(recipe)}


@cache
def unseen(spec: str) -> tuple[Part, ...]:
    """The test part, and what the limit left out of the parts to train and to choose on; ``spec`` is a DataSpec as
    JSON."""
    limited = DataSpec.model_validate_json(spec)
    some, every = data.load(limited), data.load(limited.model_copy(update={"limit": None}))
    seen = torch.cat([some.train.ids, some.val.ids])
    spare = [part.subset((~torch.isin(part.ids, seen)).nonzero().flatten()) for part in (every.train, every.val)]
    return some.test, *(part for part in spare if len(part))


def _outside(recipe: Recipe) -> Mapping[str, float]:
    kept, names = BankSpec.parse(recipe.bank).top, {mentor.name for mentor in recipe.mentors}
    if kept is None or recipe.cache is None:
        return {}
    stores = [bank.info(folder) for folder in bank.stores(Path(recipe.cache) / "bank")]
    of_k = [about for about in stores if about.codec.startswith(f"top-{kept} of ") and about.key["mentor"] in names]
    shares = [about.left_out for about in of_k if about.left_out is not None]
    return {"outside": fmean(shares)} if shares else {}


def _stored(name: str, how: str) -> Arm:
    return Arm(name, ({"name": "classroomkd"},), "", changes={"bank": how})


STUDY = Study(
    title="Stored answers",
    answers="Does a student lose accuracy when its mentors' answers are stored: for every view it can be shown "
    "(`exact`: the same views and answers as online), for eight views of an image, and for eight views with the "
    "largest logits alone?",
    data=FEW,
    student="resnet8",
    mentors=("resnet20-few", "wrn_16_1-few", "mobilenetv2-few", "vgg8-few"),
    arms=(
        ALONE,
        _stored("exact", "exact"),
        _stored("8 views", "views=8"),
        _stored("8 views top-5", "views=8,top=5"),
        _stored("8 views top-2", "views=8,top=2"),
        _stored("online", "off"),
    ),
    train={**SGD, "epochs": 48, "eval_every": 12, "checkpoint_every": 12, "log_every": 1000},
    panels=(Panel("resnet8", "resnet8, 2,500 images", curve=()),),
    tune=None,
    seeds=tuple(range(30)),
    base="exact",
    judge=judge,
    order=95,
)
