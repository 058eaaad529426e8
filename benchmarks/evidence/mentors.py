"""The mentors of the studies: trained once by the bench, each as a student alone, and kept as files."""

from __future__ import annotations

from typing import Any

from benchmarks.evidence.study import Mentor

__all__ = ["CIFAR", "MENTORS", "SGD"]

# 20 of the 100 classes, 500 images each, of which a tenth is to choose on; and all their 2,000 test images.
CIFAR = {"source": "cifar100", "views": "crop_flip", "options": {"classes": 20}}
SGD = {"batch_size": 64, "lr": 0.05, "nesterov": True, "schedule": "cosine", "weight_decay": 5e-4}


def _three(suffix: str, data: dict[str, Any], epochs: int) -> list[Mentor]:
    train = {**SGD, "epochs": epochs}
    made = [Mentor(f"{model}{suffix}", model, data, train) for model in ("resnet20", "wrn_16_1", "vgg8")]
    wrong = Mentor(f"shuffled{suffix}", "wrn_16_1", data, train, shuffled=True)
    assistant = Mentor(f"assistant{suffix}", "resnet14", data, {**SGD, "epochs": 40}, taught_by=f"resnet20{suffix}")
    return [*made, wrong, assistant]


# Half of the images: their students have the other half, which they never saw. And all of them.
_ALL = (*_three("-half", {**CIFAR, "shard": "1/2"}, 60), *_three("", CIFAR, 40))

# Of the study that only tries whether the bench works.
_SMOKE = [
    Mentor(f"puppets-{letter}", model, {"source": "puppets", "options": {"train": 200, "test": 100}}, {"epochs": 2})
    for letter, model in (("a", "convnet8"), ("b", "resnet8"))
]

MENTORS: dict[str, Mentor] = {mentor.name: mentor for mentor in (*_ALL, *_SMOKE)}
