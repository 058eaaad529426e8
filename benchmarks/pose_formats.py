"""COCO's and MPII's formats from end to end: a student trained on the COCO subset, its score against pycocotools, its
predictions written as COCO results and scored again; PCKh on the MPII sample against the arithmetic written out.

    python benchmarks/pose_formats.py --data DIR     # DIR holds pose_coco_mini.zip and pose_mpii_sample.zip; minutes

86 people are far too few to learn poses from, so views are left alone and the student may know them by heart: the
scores prove that formats and scorers agree, nothing else. Needs pycocotools. Writes ``results/pose_formats.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import platform
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classroomkd._files import atomic_write_text
from classroomkd.cli.app import main as classroomkd
from classroomkd.data import load
from classroomkd.data.skeleton import MPII
from classroomkd.tasks.pose.pck import pckh

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes" / "pose"
COMMAND = "python benchmarks/pose_formats.py --data DIR"
# What two cores can train: the recipes are for a GPU and the complete data.
SMALL = (
    "data.size=[64, 48]",
    "data.views=none",
    "student=simcc_small",
    'mentors=[{"name": "bins", "model": "simcc_small"}, {"name": "maps", "model": "heatmap_small"}]',
    'methods=[{"name": "classroomkd", "tau": 1}]',
    "train.epochs=100",
    "train.batch_size=16",
    "train.eval_every=50",
    "seeds=[0]",
    "device=cpu",
    "threads=1",
    "check_mentors=off",
)
FIGURES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")


def told(*words: object) -> Any:
    """What a command printed as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = classroomkd([str(word) for word in words])
    assert code == 0, f"classroomkd {' '.join(map(str, words))} ended with {code}"
    text = out.getvalue()
    return json.loads(text[text.index("{") :]) if "{" in text else None


def coco(archive: Path, folder: Path) -> dict[str, Any]:
    """Train, evaluate, predict, and score what was predicted."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder / "coco")
    source, run = f"coco-keypoints:{folder / 'coco'}", folder / "run"
    seconds = time.perf_counter()
    changes = [f"data.source={source}", f"cache={folder / 'cache'}", *SMALL]
    with contextlib.redirect_stdout(io.StringIO()):
        assert classroomkd(["run", str(RECIPES / "coco.yaml"), *changes, "--out", str(run)]) == 0
    trained = round(time.perf_counter() - seconds)
    rows = [checked(run / "classroomkd" / "seed0", folder, part) for part in ("train", "val")]
    return {"rows": rows, "apart": max(row["apart"] for row in rows), "seconds": trained}


def checked(student: Path, folder: Path, part: str) -> dict[str, Any]:
    """One annotation file: what ``evaluate`` says of the student, and of the file that ``predict`` wrote."""
    annotations, images = folder / "coco" / "annotations" / f"person_keypoints_{part}2017.json", f"{part}2017"
    data = f"coco-keypoints:{annotations}@{folder / 'coco' / images}"
    said = told("evaluate", student, "--data", data, "--flip-test", "--official", "--json")
    results = folder / f"{part}.json"
    told("predict", student, folder / "coco" / images, "--boxes", annotations, "--out", results, "--flip-test")
    again = told("evaluate", results, "--data", data, "--official", "--json")
    ours = {name: said["metrics"]["AP_gtbox" if name == "AP" else f"AP_gtbox:{name}"] for name in FIGURES}
    theirs = (said["official"], again["official"])
    return {
        "file": annotations.name,
        "persons": said["samples"],
        "answers": again["answers"],
        "AP": ours["AP"],
        "AP of the results": again["metrics"]["AP"],
        "AP of pycocotools": theirs[1]["AP"],
        "apart": max(
            abs(value - official[name])
            for figures in (ours, again["metrics"])
            for official in theirs
            for name, value in figures.items()
            if name in FIGURES
        ),
    }


def by_hand(found: Any, joints: Any, scale: Any, threshold: float) -> float:
    """MPII's mean PCKh written out: errors in shares of 0.6 of the head's diagonal (here from the scale: 0.75 of a
    sixth of the person's height), every joint but pelvis and thorax, weighted by how often it is labelled."""
    right = count = 0
    for person in range(len(joints)):
        head = 0.75 * 200 * scale[person] / 6
        for joint, name in enumerate(MPII.joints):
            if name in ("pelvis", "thorax") or joints[person][joint][2] <= 0:
                continue
            dx, dy = (found[person][joint][axis] - joints[person][joint][axis] for axis in (0, 1))
            right += math.hypot(dx, dy) / head <= threshold
            count += 1
    return right / count


def mpii(archive: Path) -> dict[str, Any]:
    """Labels some pixels off, scored by both."""
    images = load({"source": f"mpii:{archive}", "size": [64, 64]}, task="pose")
    people = images.people
    assert people is not None
    with zipfile.ZipFile(archive) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".json"))
        entries = json.loads(opened.read(name))
    scale = [entry["scale"] for entry in entries]
    # By hand from the file itself: pixels from 1, of people in its order, which is that of the samples.
    plain = [
        [[x - 1, y - 1, v] for (x, y), v in zip(entry["joints"], entry["joints_vis"], strict=True)] for entry in entries
    ]
    known = people.persons.joints
    assert len(known) == len(scale) == len(people)
    rows, worst = [], 0.0
    for threshold in (0.5, 0.1):
        for noise in (5.0, 15.0, 40.0):
            found = known[..., :2] + np.random.default_rng(0).normal(0, noise, known[..., :2].shape)
            ours = pckh(found, known, people.persons.head, threshold).scores[f"PCKh@{threshold:g}"]
            hand = by_hand(found.tolist(), plain, scale, threshold)
            worst = max(worst, abs(ours - hand))
            rows.append({"threshold": threshold, "noise": noise, "PCKh": ours, "by hand": hand})
    return {"persons": len(people), "rows": rows, "apart": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the folder of both archives")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = {
            "command": COMMAND,
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "coco": coco(given.data / "pose_coco_mini.zip", Path(folder)),
            "mpii": mpii(given.data / "pose_mpii_sample.zip"),
        }
    atomic_write_text(HERE / "results" / "pose_formats.json", json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
