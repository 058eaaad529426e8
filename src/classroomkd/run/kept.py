"""What a cache keeps of a mentor: its weights and logits, believed only where they are what was written."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd._sums import damage, is_listed
from classroomkd.errors import UserError
from classroomkd.run.answers_file import load_answers

__all__ = ["kept_logits", "load_kept"]


def load_kept(module: nn.Module, path: Path, name: str) -> str | None:
    """Load a mentor's kept weights; None, or what is wrong with them, and then the network is as it was."""
    about = path.with_name("mentor.json")
    for file in [path, about] if is_listed(about) else [path]:
        if (wrong := damage(file)) is not None:
            return f"{file} {wrong}"
    try:
        models.load_checkpoint(module, path, what=f"mentor '{name}'")
    except UserError as error:
        return str(error).partition("\n")[0]
    return None


def kept_logits(path: Path, rows: int) -> Tensor | None:
    """Stored logits ``(rows, …)``; None where there are none, or the file is damaged."""
    try:
        return torch.from_numpy(load_answers(path, rows))
    except UserError:
        return None
