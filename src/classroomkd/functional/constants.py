"""Small constant tensors, copied to a device once: a copy at every step would make the step wait for the device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["constant"]


def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """These numbers as a ``(len(values),)`` tensor, the same object at every call: never write into it."""
    if torch.compiler.is_compiling():  # a traced tensor must not outlive its trace
        return torch.tensor(values, dtype=dtype, device=device)
    return _made_once(values, dtype, device)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a tensor made in inference mode could not be used in a training step later
def _made_once(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
