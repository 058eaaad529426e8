"""Made-up persons on made-up pictures, written as COCO files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classroomkd.data import ImageSet, load
from classroomkd.data.skeleton import COCO

SMALL = {"size": [32, 24]}


def category(**more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "name": "person",
        "keypoints": list(COCO.joints),
        "skeleton": [[a + 1, b + 1] for a, b in COCO.links],
        **more,
    }


def body(x: float, y: float, height: float, rng: np.random.Generator) -> np.ndarray:
    """17 joints (17, 2) of a person standing at (x, y), its top left corner, a little different each time."""
    unit = np.array(
        [[0.5, 0.08], [0.54, 0.06], [0.46, 0.06], [0.58, 0.08], [0.42, 0.08], [0.65, 0.2], [0.35, 0.2], [0.75, 0.36],
         [0.25, 0.36], [0.8, 0.5], [0.2, 0.5], [0.6, 0.52], [0.4, 0.52], [0.62, 0.74], [0.38, 0.74], [0.63, 0.95],
         [0.37, 0.95]]
    )  # fmt: skip
    unit = unit + rng.normal(0, 0.01, unit.shape)
    return np.array([x, y]) + unit * height * np.array([0.6, 1.0])


def person(number: int, image: int, joints: np.ndarray, *, flags: Any = 2, **more: Any) -> dict[str, Any]:
    low, high = joints.min(0), joints.max(0)
    v = np.broadcast_to(np.asarray(flags), len(joints))
    points = np.concatenate([np.where(v[:, None] > 0, joints, 0), v[:, None]], 1)
    width, height = (float(value) for value in high - low)
    box = [float(low[0]) - 0.1 * width, float(low[1]) - 0.05 * height, 1.2 * width, 1.1 * height]
    return {
        "id": number, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3] * 0.5, "iscrowd": 0,
        "num_keypoints": int((v > 0).sum()), "keypoints": [float(value) for value in points.reshape(-1)], **more,
    }  # fmt: skip


def scene(
    count: int, *, images: int, seed: int = 0, first: int = 1, size: tuple[int, int] = (120, 160)
) -> dict[str, Any]:
    """A COCO file of ``images`` pictures (height, width) with ``count`` persons each."""
    rng = np.random.default_rng(seed)
    height, width = size
    listed = [
        {"id": first + i, "file_name": f"{first + i:06d}.png", "height": height, "width": width} for i in range(images)
    ]
    people = [
        person(
            100 * entry["id"] + k, entry["id"], body(rng.uniform(5, 80), rng.uniform(2, 30), rng.uniform(50, 85), rng)
        )
        for entry in listed
        for k in range(count)
    ]
    return {"images": listed, "annotations": people, "categories": [category()]}


def write(folder: Path, name: str, data: Any, images: str = "images") -> Path:
    """The annotation file ``name`` and noise for its pictures, where there are none yet."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / images).mkdir(exist_ok=True)
    path = folder / "annotations" / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    for entry in data["images"] if isinstance(data, dict) and "images" in data else []:
        file = folder / images / entry["file_name"]
        if not file.exists():
            noise = np.random.default_rng(entry["id"]).integers(0, 256, (120, 160, 3), np.uint8)
            Image.fromarray(noise).save(file)
    return path


def dataset(folder: Path, train: Any = None, val: Any = None) -> str:
    """A folder with a train and a val file; its source."""
    write(folder, "people_train.json", scene(2, images=12) if train is None else train)
    write(folder, "people_val.json", scene(2, images=3, seed=1, first=1001) if val is None else val)
    return f"coco-keypoints:{folder}"


def read(source: str, **keys: Any) -> ImageSet:
    return load({"source": source, **SMALL, **keys}, task="pose")


def mpii(folder: Path, people: list[dict[str, Any]], name: str = "train.json") -> str:
    (folder / "annot").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    (folder / "annot" / name).write_text(json.dumps(people))
    for entry in people:
        Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(folder / "images" / entry["image"])
    return f"mpii:{folder}"


def one_mpii(number: int, shift: float = 1.0) -> dict[str, Any]:
    joints = np.random.default_rng(number).uniform(60, 120, (16, 2)) + shift
    seen = [1] * 16
    if number % 2:
        joints[0], seen[0] = (-1.0, -1.0), 0
    return {
        "image": f"{number:03d}.png", "center": [90 + shift, 80 + shift], "scale": 0.5, "joints": joints.tolist(),
        "joints_vis": seen,
    }  # fmt: skip
