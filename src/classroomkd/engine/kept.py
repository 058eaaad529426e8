"""What a cache keeps of a mentor: its weights and logits, believed only where they are what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd._files import atomic_write
from classroomkd._sums import damage, write_sums
from classroomkd.errors import UserError

__all__ = ["keep_logits", "kept_logits", "load_kept"]


def load_kept(module: nn.Module, path: Path, name: str) -> str | None:
    """Load a mentor's kept weights; None, or what is wrong with them, and then the network is as it was."""
    if (said := damage(path)) is not None:
        return f"{path} {said}"
    try:
        models.load_checkpoint(module, path, what=f"mentor '{name}'")
    except UserError as error:
        return str(error).partition("\n")[0]
    return None


def kept_logits(path: Path, rows: int) -> Tensor | None:
    """Stored logits ``(rows, …)``; None where there are none, or the file is damaged."""
    if damage(path) is not None:
        return None
    try:
        kept = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(kept, np.ndarray) or kept.dtype != np.float32 or kept.shape[:1] != (rows,):
        return None
    return torch.from_numpy(kept)


def keep_logits(path: Path, logits: Tensor) -> None:
    """Store logits, with their checksum beside them: the folder has many writers."""
    with atomic_write(path) as file:
        np.save(file, logits.to("cpu").numpy(), allow_pickle=False)
    write_sums(path.parent, [path.name], to=f"{path.name}.sha256")
