"""A run folder as the engine would write it, from a small model of learning: no training, seconds saved.

The student's accuracy on a class rises towards a ceiling; a mentor is active on a share of samples that grows with
how far it is ahead on the class. So specialists teach their classes and a bad mentor falls silent, as in a real run.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = [
    "stand",
    "T",
    "arms up",
    "wave left",
    "wave right",
    "hands on hips",
    "star",
    "kick left",
    "kick right",
    "squat",
]
MENTORS = [
    ("resnet20", "resnet20", 0.91, None),
    ("wrn upper", "wrn_16_1", 0.93, "upper"),
    ("mobile lower", "mobilenetv2", 0.92, "lower"),
    ("vgg noisy", "vgg8", 0.58, None),
]
ARMS = [
    ("none", "none", {}, "baseline", 0.0),
    ("average", "average", {"temperature": 4.0}, "baseline", 0.041),
    ("kd best", "kd", {"mentor": "resnet20", "temperature": 4.0}, "paper", 0.037),
    ("classroomkd", "classroomkd", {"rule": "sample", "tau": 12.0}, "reconstructed", 0.052),
]


def fake_run(
    root: Path,
    *,
    name: str = "demo",
    arms: list[tuple[str, str, dict[str, Any], str, float]] = ARMS,
    mentors: list[tuple[str, str, float, str | None]] = MENTORS,
    classes: list[str] = CLASSES,
    seeds: list[int] | None = None,
    missing: dict[str, list[int]] | None = None,
    epochs: int = 20,
    steps_an_epoch: int = 32,
    log_every: int = 4,
    test: int = 1500,
    notes: list[str] | None = None,
    seed: int = 0,
) -> Path:
    """Write the folder and return it. ``missing``: arm label -> seeds that have not finished."""
    draw = np.random.default_rng(seed)
    seeds = list(range(5)) if seeds is None else seeds
    count = len(classes)
    skill = (
        np.stack([_skill(draw, level, kind, count) for _, _, level, kind in mentors])
        if mentors
        else np.zeros((0, count))
    )
    hard = draw.normal(0, 0.05, count)
    root.mkdir(parents=True, exist_ok=True)
    entries = []
    for label, method, _, _, gain in arms:
        gifts = gain * (0.5 + 1.2 * draw.random(count)) if mentors else np.zeros(count)
        for s in seeds:
            if s in (missing or {}).get(label, []):
                continue
            common = np.random.default_rng((seed, s)).normal(0, 0.008)
            ceiling = np.clip(0.76 + hard + gifts + common + draw.normal(0, 0.012, count), 0.02, 0.99)
            folder = root / label.replace(" ", "-") / f"seed{s}"
            folder.mkdir(parents=True)
            entries.append(
                _student(
                    folder, draw, label, method, s, ceiling, skill, mentors, classes, epochs, steps_an_epoch, log_every
                )
            )
    summary = {
        "schema": 1,
        "name": name,
        "task": "classification",
        "created": "2026-11-20T22:15:03+00:00",
        "command": "classroomkd demo --out runs/demo",
        "seconds": 143.2,
        "data": {
            "name": "puppets",
            "classes": classes,
            "train": 3600,
            "student_train": 1800,
            "val": 400,
            "test": test,
            "notes": notes
            if notes is not None
            else [
                "Drawn figures, made for trying things out; not a benchmark.",
                "Two mentors are specialists on purpose, one learned from wrong labels: there is something to filter.",
            ],
        },
        "student": {"model": "resnet8", "parameters": 78042, "multiply_adds": 12510000},
        "arms": [
            {
                "label": label,
                "folder": label.replace(" ", "-"),
                "method": method,
                "options": options,
                "status": status,
                "cost": {"mentor_forwards": 0 if method == "none" else len(mentors), "from_bank": method != "none"},
            }
            for label, method, options, status, _ in arms
        ],
        "entries": entries,
        "mentors": [
            {
                "name": n,
                "model": model,
                "accuracy": float(skill[m].mean()),
                "val_accuracy": float(skill[m].mean()) + 0.006,
                "parameters": 272474 + 90000 * m,
                "multiply_adds": 4.08e7 / (m + 1),
                "per_class": skill[m].tolist(),
                "samples": 3600 if kind is None else 2160,
                "seconds": 14.2 + m,
                "note": {
                    "upper": "specialist: upper-body classes whole, 10 % of the others",
                    "lower": "specialist: legs",
                    None: "",
                }[kind]
                if level > 0.6
                else "trained on labels of which 40 % were wrong",
            }
            for m, (n, model, level, kind) in enumerate(mentors)
        ],
        "bank": {"mode": "views=4", "samples": 1800, "mentors": len(mentors), "megabytes": 0.6, "fill_seconds": 4.1}
        if mentors
        else None,
    }
    (root / "summary.json").write_text(json.dumps(summary, indent=1))
    (root / "recipe.yaml").write_text(
        f"schema: 1\nname: {name}\ndata: puppets\nstudent: resnet8\nmentors:\n"
        + "".join(f"- {{name: {n!r}, model: {m}}}\n" for n, m, *_ in mentors)
        + "seeds: [0, 1, 2, 3, 4]\n"
    )
    (root / "environment.json").write_text(
        json.dumps(
            {"classroomkd": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "device": {"name": "cpu", "threads": 1}}
        )
    )
    return root


def _skill(draw: np.random.Generator, level: float, kind: str | None, count: int) -> np.ndarray:
    share = np.linspace(0, 1, count)
    if kind is None:
        base = np.full(count, level)
    else:
        knows = share < 0.6 if kind == "upper" else share >= 0.5
        base = np.where(knows, level + 0.03, 0.42)
    return np.clip(base + draw.normal(0, 0.03, count), 0, 1)


def _student(
    folder: Path,
    draw: np.random.Generator,
    label: str,
    method: str,
    s: int,
    ceiling: np.ndarray,
    skill: np.ndarray,
    mentors: list[tuple[str, str, float, str | None]],
    classes: list[str],
    epochs: int,
    per: int,
    every: int,
) -> dict[str, Any]:
    count = len(classes)
    gated, M = method.startswith("classroomkd"), len(skill)
    lines: list[dict[str, Any]] = []
    sums = np.zeros((3, M, count))
    logged, val = 0, []
    for step in range(every, epochs * per + 1, every):
        epoch = step / per
        now = ceiling * (1 - math.exp(-epoch / (0.22 * epochs))) + 0.1 * math.exp(-epoch / (0.22 * epochs))
        active = 1 / (1 + np.exp(-(skill - now) * 9)) * (skill > 0.05)
        gap = np.clip((skill - now) / np.maximum(skill, 0.05), 0.02, 1)
        weight, temperature = active * (0.6 + gap), 1 + 12 * gap
        sums += np.stack([active, weight, temperature]) if M else 0
        logged += 1
        noise = draw.normal(0, 0.012, M)
        lines.append(
            {
                "kind": "train",
                "step": step,
                "epoch": epoch,
                "loss": float(2.3 * math.exp(-epoch / 8) + draw.normal(0, 0.03)),
                "terms": {"supervised": 1.0},
                "lr": 0.05,
                "seconds": step * 0.004,
                "data_wait": 0.01,
                "x_floor": 1.03,
                "mentors": {
                    "active": (active.mean(1) + noise).clip(0, 1).tolist(),
                    "weight": (weight.mean(1) + noise).tolist(),
                    "temperature": (temperature.mean(1) + noise).tolist(),
                    "none_active": float(np.prod(1 - active, axis=0).mean()),
                }
                if gated and M
                else None,
            }
        )
        if step % per == 0:
            val.append(float(now.mean() + draw.normal(0, 0.008)))
            lines.append({"kind": "val", "step": step, "epoch": epoch, "accuracy": val[-1], "loss": 0.7})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    teaching: dict[str, Any] = {"classes": classes, "count": [180] * count, "test_per_class": ceiling.tolist()}
    if gated and M:
        mean = sums / logged
        teaching |= {
            "mentors": [n for n, *_ in mentors],
            "active": mean[0].tolist(),
            "weight": mean[1].tolist(),
            "temperature": mean[2].tolist(),
        }
    (folder / "teaching.json").write_text(json.dumps(teaching))
    best = int(np.argmax(val))
    ratio = {"none": 1.0, "average": 1.02, "kd": 1.01}.get(method, 1.04) + float(draw.normal(0, 0.004))
    return {
        "method": label,
        "seed": s,
        "test_last": float(ceiling.mean()),
        "test_best": float(ceiling.mean() + draw.normal(0, 0.003)),
        "best_epoch": best + 1,
        "val_last": val[-1],
        "val_best": val[best],
        "steps": epochs * per,
        "seconds": 5.1 * ratio,
        "step_ms": 7.9 * ratio,
        "floor_ms": 7.9,
        "cost_ratio": ratio,
    }
