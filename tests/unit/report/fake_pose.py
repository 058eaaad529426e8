"""A run folder of human pose as the engine would write it, with drawn people: no training, no photograph."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from fake_run import ARMS, MENTORS, fake_run
from PIL import Image, ImageDraw

from classroomkd.data.skeleton import LSP, Skeleton

SIZE = (128, 96)
METRIC = "PCK@0.2"
POSE = {
    "head_top": (48, 12), "neck": (48, 28), "shoulder": (12, 32), "elbow": (20, 48), "wrist": (22, 66),
    "hip": (8, 70), "knee": (11, 94), "ankle": (13, 118),
}  # fmt: skip


def person(draw: np.random.Generator, skeleton: Skeleton = LSP) -> np.ndarray:
    """(K, 3): x, y, v of somebody standing, some joints hidden and one without a label."""
    rows = []
    for joint in skeleton.joints:
        side, _, part = joint.partition("_") if joint.startswith(("left_", "right_")) else ("", "", joint)
        x, y = POSE[part]
        rows.append((48 + x * (1 if side == "left" else -1) if side else x, y, 1 + (draw.random() > 0.2)))
    joints = np.array(rows, float)
    joints[:, :2] += draw.normal(0, 3.5, joints[:, :2].shape)
    joints[draw.integers(len(joints))] = 0
    return joints


def crop(joints: np.ndarray, draw: np.random.Generator, skeleton: Skeleton = LSP) -> str:
    """The person as a data URI: a thick figure on a coloured ground."""
    height, width = SIZE
    shades = draw.integers(30, 220, 3)
    ground = (np.linspace(0.5, 1.2, height)[:, None, None] * shades).clip(0, 255) * np.ones((1, width, 1))
    image = Image.fromarray(ground.astype(np.uint8))
    pen, cloth = ImageDraw.Draw(image), tuple(int(s) for s in draw.integers(0, 255, 3))
    for a, b in skeleton.links:
        if joints[a, 2] and joints[b, 2]:
            pen.line([*joints[a, :2], *joints[b, :2]], fill=cloth, width=9)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def gallery(arms: list[str], mentors: list[str], *, headline: str = "classroomkd", seed: int = 0) -> dict[str, Any]:
    """The content of ``gallery.json``: 12 worst and 12 drawn persons."""
    draw = np.random.default_rng(seed)
    who = [{"kind": "student", "name": arm} for arm in arms] + [{"kind": "mentor", "name": name} for name in mentors]
    persons = []
    for n in range(24):
        truth, found = person(draw), []
        for k, one in enumerate(who):
            noise = (6 if n < 12 else 2.5) * (0.6 if one["kind"] == "mentor" else 1)
            xy = np.where(truth[:, 2:] > 0, truth[:, :2], 48) + draw.normal(0, noise, truth[:, :2].shape)
            joints: list[Any] = [
                [round(float(x), 2), round(float(y), 2), round(float(draw.random()), 2)] for x, y in xy
            ]
            if k == len(who) - 1:
                joints[12] = joints[13] = None  # another skeleton: no neck, no head
            labelled = [i for i, j in enumerate(joints) if j is not None and truth[i, 2] > 0]
            far = np.linalg.norm(xy - truth[:, :2], axis=1)
            right = sum(bool(far[i] < 9) for i in labelled)
            found.append({"joints": joints, "oks": round(right / len(joints), 4), "right": right, "of": len(labelled)})
        persons.append({
            "chosen": "worst" if n < 12 else "random", "error": round(0.4 - 0.02 * n, 4) if n < 18 else 0.04,
            "id": 100 + n, "image": f"im{100 + 7 * n:04d}.jpg", "crop": crop(truth, draw),
            "truth": [[round(float(v), 2) for v in joint] for joint in truth], "found": found,
        })  # fmt: skip
    return {
        "schema": 1, "task": "pose", "metric": METRIC, "right_by": METRIC, "size": list(SIZE), "skeleton": LSP.plain(),
        "seed": seed, "headline": headline, "test": 400, "drawn_with": 0, "flip_test": False, "who": who,
        "persons": persons,
    }  # fmt: skip


def fake_pose(root: Path, *, metric: str = METRIC, pictures: bool = True, **more: Any) -> Path:
    """Write the folder and return it; ``more`` goes to :func:`fake_run`."""
    run = fake_run(root, classes=list(LSP.joints), test=400, notes=[], **more)
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"task": "pose", "metric": metric}
    summary["data"]["name"] = "lsp"
    for mentor in summary["mentors"]:
        mentor["note"] = ""
    for entry in summary["entries"]:
        score = entry["test_last"]
        entry["test_metrics"] = {"PCK@0.2": score, "AP_gtbox": score - 0.2, "AP_gtbox:AP50": score + 0.05}
        entry["test_metrics"] |= {"AP_gtbox:AP_M": -1.0, "AP_gtbox:AP_L": float("nan")}
        entry["test_metrics"] |= {"AP_gtbox:visible": score - 0.15, "AP_gtbox:hidden": score - 0.4}
    (run / "summary.json").write_text(json.dumps(summary))
    if pictures:
        arms = [arm[0] for arm in more.get("arms", ARMS)]
        names = [mentor[0] for mentor in more.get("mentors", MENTORS)]
        (run / "gallery.json").write_text(json.dumps(gallery(arms, names)))
    return run
