"""A run with a bank, and its students."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from classroomkd.cli.app import main

__all__ = ["furthest", "run", "student"]


def run(out: Path, smoke: str, quick: list[str], *words: str, code: int = 0) -> dict[str, Any]:
    given = ["run", smoke, *quick, "train.epochs=3", "methods=[classroomkd]", f"cache={out.parent / 'cache'}", *words]
    assert main([*given, "--out", str(out), "--quiet", "--debug"]) == code
    made: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return made


def student(out: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(out / "classroomkd" / f"seed{seed}" / "student.safetensors")
    return found


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[k].float() - b[k].float()).abs().max().item() for k in a)
