"""Pose students made by hand, and a folder of people to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import models
from classroomkd.data import puppets
from classroomkd.data.skeleton import COCO
from classroomkd.models.pose import resolve_pose
from classroomkd.tasks.pose.coding import coding_of

SIZE = (64, 48)  # not square, so that no height stands for a width


def save_student(path: Path, model: str, **changes: str) -> Path:
    """A student's file with random weights; ``changes`` of its metadata, None leaves a key out."""
    torch.manual_seed(3)
    network = resolve_pose(model, len(COCO), SIZE).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("head"):
                weight.mul_(30)  # answers that say something, so that near ties are rare
        coding = coding_of(network, network(torch.zeros(2, 3, *SIZE)), SIZE)
    about: dict[str, Any] = {
        "task": "pose",
        "model": model,
        "classes": json.dumps(COCO.joints),
        "preprocessing": json.dumps({"mean": [0.4, 0.45, 0.5], "std": [0.25, 0.26, 0.27], "shape": [3, *SIZE]}),
        "data": "puppets",
        "data_size": json.dumps(list(SIZE)),
        "method": "none",
        "seed": "0",
        "skeleton": json.dumps(COCO.plain()),
        "coding": json.dumps(coding.plain()),
        **changes,
    }
    models.save_checkpoint(network, path, {key: value for key, value in about.items() if value is not None})
    return path


@pytest.fixture(scope="session")
def simcc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SimCC student."""
    return save_student(tmp_path_factory.mktemp("simcc") / "student.safetensors", "simcc_tiny")


@pytest.fixture(scope="session")
def heatmap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A heatmap student."""
    return save_student(tmp_path_factory.mktemp("heatmap") / "student.safetensors", "heatmap_tiny")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of three classes."""
    torch.manual_seed(0)
    about = {
        "task": "classification",
        "model": "convnet4",
        "classes": json.dumps(["a", "b", "c"]),
        "preprocessing": json.dumps({"mean": [0.5] * 3, "std": [0.25] * 3, "shape": [3, 32, 32]}),
    }
    path = tmp_path_factory.mktemp("classes") / "student.safetensors"
    models.save_checkpoint(models.create("convnet4", num_classes=3), path, about)
    return path


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """A folder of 24 images called by numbers, some with two persons, in ``images``; ``people.json`` beside it."""
    drawn = puppets.scenes(0, np.arange(32), image_size=64, hard=0.3)
    (tmp_path / "images").mkdir()
    images, annotations, at = [], [], 0
    for number in range(24):
        many = 2 if number % 3 == 0 else 1
        picture = np.concatenate([drawn.images[at + k].transpose(1, 2, 0) for k in range(many)], 1)
        name = f"{number + 100:06d}.png"
        Image.fromarray(picture).save(tmp_path / "images" / name)
        images.append({"id": number + 100, "file_name": name, "height": 64, "width": 64 * many})
        for k in range(many):
            shift = np.array([64.0 * k, 0])
            joints = drawn.joints[at + k].astype(float)
            joints[:, :2] = np.where(joints[:, 2:] > 0, joints[:, :2] - 0.5 + shift, 0)
            box = drawn.boxes[at + k].astype(float)
            box[:2] += shift
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number + 100, "category_id": 1, "iscrowd": 0,
                    "bbox": box.tolist(), "area": float(box[2] * box[3] / 2), "keypoints": joints.ravel().tolist(),
                    "num_keypoints": int((joints[:, 2] > 0).sum()),
                }
            )  # fmt: skip
        at += many
    people = {"images": images, "annotations": annotations, "categories": [category()]}
    (tmp_path / "people.json").write_text(json.dumps(people))
    return tmp_path


def category() -> dict[str, Any]:
    """COCO's persons."""
    return {"id": 1, "name": "person", "keypoints": list(COCO.joints), "skeleton": []}


@pytest.fixture
def student_with() -> Callable[..., Path]:
    """See :func:`save_student`."""
    return save_student
