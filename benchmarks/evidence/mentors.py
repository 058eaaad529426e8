"""The mentors of the studies: trained once by the bench, each as a student alone, and kept as files."""

from __future__ import annotations

from typing import Any

from benchmarks.evidence.study import Mentor

__all__ = ["ADAMW", "CIFAR", "FASHION", "FEW", "HALF", "MENTORS", "NEW", "PEOPLE", "SGD", "WHOLE"]

# 20 of the 100 classes, 500 images each, of which a tenth is to choose on; and all their 2,000 test images.
CIFAR = {"source": "cifar100", "views": "crop_flip", "options": {"classes": 20}}
SGD = {"batch_size": 64, "lr": 0.05, "nesterov": True, "schedule": "cosine", "weight_decay": 5e-4}

# New pictures: the half that mentors of the other half never saw. Mentors by what they were trained on.
NEW = {**CIFAR, "shard": "2/2"}
WHOLE = ("resnet20", "wrn_16_1", "vgg8")
HALF = tuple(f"{name}-half" for name in WHOLE)

# 9,000 of its images, and 1,000 to choose on; 28 x 28 in black on 32 x 32.
FASHION = {"source": "fashion-mnist:fashion-mnist", "resize": "pad", "limit": 10000, "views": "crop_flip"}

# A quarter of CIFAR's part; the three quarters left out are there to judge on.
FEW = {**CIFAR, "limit": 2500}

# Leeds Sports Poses Extended, as COCO's people are annotated.
PEOPLE = {"source": "coco-keypoints:pose_lspet2400.zip", "size": [64, 64], "options": {"half_body": 0}}
ADAMW = {"optimizer": "adamw", "batch_size": 32, "lr": 0.002, "weight_decay": 0.05, "schedule": "cosine"}


def _three(suffix: str, data: dict[str, Any], epochs: int) -> list[Mentor]:
    train = {**SGD, "epochs": epochs}
    made = [Mentor(f"{model}{suffix}", model, data, train) for model in WHOLE]
    wrong = Mentor(f"shuffled{suffix}", "wrn_16_1", data, train, shuffled=True)
    assistant = Mentor(f"assistant{suffix}", "resnet14", data, {**SGD, "epochs": 40}, taught_by=f"resnet20{suffix}")
    return [*made, wrong, assistant]


# Half of the images: their students have the other half, which they never saw. And all of them.
_ALL = (*_three("-half", {**CIFAR, "shard": "1/2"}, 60), *_three("", CIFAR, 40))

# A teacher of its students' own size class, which learned from the very images that they have.
_NEW = [Mentor("resnet8-new", "resnet8", NEW, {**SGD, "epochs": 80})]

_FASHION = [
    *(
        Mentor(f"{model}-fashion", model, FASHION, {**SGD, "epochs": 30})
        for model in ("resnet20", "wrn_16_1", "mobilenetv2", "vgg8")
    ),
    Mentor(
        "weak-fashion",
        "resnet8",
        FASHION,
        {**SGD, "epochs": 5},
        recipe={"student": {"model": "resnet8", "samples": 1000}},
    ),
]

_FEW = [
    Mentor(f"{model}-few", model, FEW, {**SGD, "epochs": epochs})
    for model, epochs in (("resnet20", 30), ("wrn_16_1", 30), ("mobilenetv2", 30), ("vgg8", 20))
]

_PEOPLE = [
    Mentor(name, model, PEOPLE, {**ADAMW, "epochs": epochs}, recipe={"task": "pose"})
    for name, model, epochs in (
        ("bins", "simcc_base", 60),
        ("small bins", "simcc_small", 60),
        ("maps", "heatmap_small", 80),
    )
]

# Of the study that only tries whether the bench works.
_SMOKE = [
    Mentor(f"puppets-{letter}", model, {"source": "puppets", "options": {"train": 200, "test": 100}}, {"epochs": 2})
    for letter, model in (("a", "convnet8"), ("b", "resnet8"))
]

# The networks of the stage ``alone`` of an arm, frozen.
_SELVES = [Mentor("self", "", {}, {}, made_from="alone")]

MENTORS: dict[str, Mentor] = {
    mentor.name: mentor for mentor in (*_ALL, *_NEW, *_FASHION, *_FEW, *_PEOPLE, *_SMOKE, *_SELVES)
}
