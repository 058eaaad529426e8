"""Batches that networks take, and what goes wrong inside of a network, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from classroomkd.errors import RunStopped, UserError

__all__ = ["fitting", "precision_of", "taking"]

# Of the device, or a sentence already; torch.AcceleratorError is not in every version.
_AS_THEY_ARE = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", RunStopped), RunStopped, UserError)


@contextmanager
def taking(who: str, inputs: Tensor) -> Iterator[None]:
    """Inside, an error of a network's code is a ``UserError`` that names the network and the batch.

    Errors of the device, and of a machine that is too small, pass as they are.

    Raises:
        UserError: the network does not take the batch.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError, AssertionError, AttributeError) as error:
        if isinstance(error, _AS_THEY_ARE):
            raise
        said = next((line for line in str(error).strip().splitlines() if line.strip()), type(error).__name__)
        kind = str(inputs.dtype).removeprefix("torch.")
        raise UserError(
            f"{who} does not take a batch of shape {tuple(inputs.shape)}, {kind} on {inputs.device}: {said}"
        ) from error


def fitting(student: nn.Module, inputs: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A batch in a student's precision, classes as whole numbers of 64 bits; a target of None stays.

    Raises:
        UserError: inputs of whole numbers, an empty batch, no tensors.
    """
    for what, value in (("inputs are", inputs), ("target is", target)):
        if not isinstance(value, Tensor) and (value is not None or value is inputs):
            raise UserError(f"the {what} a {type(value).__name__}; give a tensor (torch.as_tensor)")
    if not len(inputs):
        raise UserError("the batch is empty; leave it out")
    if not inputs.is_floating_point():
        raise UserError(
            f"the inputs are {str(inputs.dtype).removeprefix('torch.')}; give floating point, pixels as the "
            "student is to see them: (images / 255 - mean) / std"
        )
    inputs = inputs.to(precision_of(student, inputs.dtype))
    if target is not None and target.dim() == 1 and not target.is_floating_point():
        target = target.long()
    return inputs, target


def precision_of(network: nn.Module, other: torch.dtype = torch.float32) -> torch.dtype:
    """The precision that a network's inputs have: its first parameter's; ``other`` where it has none."""
    return next((value.dtype for value in network.parameters() if value.is_floating_point()), other)
