"""Small questions to mentors are filled up: for a few rows a CPU's kernels round in another way than for many."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LEAST", "pad_batch"]

LEAST = 16  # rows; from here on the zoo's networks answer a row with the same bits whatever else is asked with it


def pad_batch(rows: Tensor) -> Tensor:
    """Rows (B, …), B > 0, and from the first one again until there are at least 16: (max(B, 16), …)."""
    if len(rows) >= LEAST:
        return rows
    return rows[torch.arange(LEAST, device=rows.device) % len(rows)]
