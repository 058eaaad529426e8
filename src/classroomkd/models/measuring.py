"""What a network costs and where it can be tapped, found by one dry run that leaves the network as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.taps.trace import dry_run

__all__ = ["class_count", "multiply_adds", "parameters", "summary"]


def parameters(module: nn.Module) -> int:
    """The number of parameters, each shared one counted once; buffers (running statistics) do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of one forward pass of one image of ``shape`` (C, H, W).

    Convolutions, linear layers and the projections of attention layers count, as the literature counts; biases,
    normalisations, activations, pooling and the products between queries, keys and values do not.
    """
    return sum(row["multiply_adds"] for row in _dry_run(module, shape).values() if row["leaf"])


def summary(module: nn.Module, shape: Sequence[int]) -> list[dict[str, Any]]:
    """Every tap of ``module`` for one image of ``shape`` (C, H, W), in the module's own order.

    A row has ``name`` (what ``get_submodule`` takes), ``type``, ``output_shape`` (without the batch; ``None`` when the
    output is not one tensor), ``parameters``, ``multiply_adds`` (both with everything inside), ``calls``, and
    ``overwritten``: whether the network itself changes that output afterwards (``x += shortcut``), so that a tap must
    copy it. Modules that the forward pass does not call are not taps and have no row.
    """
    rows = _dry_run(module, shape)
    taps = []
    for name, row in rows.items():
        if not name or not row["calls"]:
            continue
        inside = [other for key, other in rows.items() if key == name or key.startswith(f"{name}.")]
        taps.append(
            {
                "name": name,
                "type": row["type"],
                "output_shape": row["output_shape"],
                "parameters": parameters(module.get_submodule(name)),
                "multiply_adds": sum(other["multiply_adds"] for other in inside if other["leaf"]),
                "calls": row["calls"],
                "overwritten": row["overwritten"],
            }
        )
    return taps


def class_count(module: nn.Module, shape: Sequence[int]) -> int:
    """The classes in ``module``'s answer to one image of ``shape`` (C, H, W).

    Raises:
        UserError: it cannot take such an image or does not answer with one tensor ``(B, classes)``.
    """
    answer = _dry_run(module, shape)[""]["output_shape"]
    if answer is None or len(answer) != 1:
        shown = "something else than one tensor" if answer is None else f"shape (B, {', '.join(map(str, answer))})"
        raise UserError(f"{type(module).__name__} must answer with logits (B, classes), not {shown}")
    return int(answer[0])


def _conv(layer: Any, inputs: Tensor, output: Tensor) -> int:
    return int(output[0].numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size))


def _transposed_conv(layer: Any, inputs: Tensor, output: Tensor) -> int:
    return int(inputs[0].numel() * layer.out_channels // layer.groups * math.prod(layer.kernel_size))


def _linear(layer: Any, inputs: Tensor, output: Tensor) -> int:
    return output[0].numel() * int(layer.in_features)


def _attention(layer: Any, inputs: Tensor, output: Any) -> int:
    # Self-attention: the four projections; torch calls them as functions, so no hook of theirs sees them.
    return 4 * inputs.numel() * int(layer.embed_dim)


# First match wins; every entry is a leaf of the count: what is inside it is not counted again.
_COUNTED: tuple[tuple[tuple[type[nn.Module], ...], Callable[[Any, Tensor, Any], int]], ...] = (
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed_conv),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    ((nn.Linear,), _linear),
    ((nn.MultiheadAttention,), _attention),
)


def _dry_run(module: nn.Module, shape: Sequence[int]) -> dict[str, dict[str, Any]]:
    """One zero image through ``module`` in evaluation mode, watched by hooks; a row for every submodule by name."""
    rows: dict[str, dict[str, Any]] = {}
    handles = []
    outputs: list[tuple[dict[str, Any], Tensor, int]] = []

    def watch(layer: nn.Module, row: dict[str, Any]) -> None:
        count = next((function for types, function in _COUNTED if isinstance(layer, types)), None)
        row["leaf"] = count is not None

        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            row["calls"] += 1
            row["output_shape"] = None
            if isinstance(output, Tensor):
                row["output_shape"] = tuple(output.shape[1:])
                outputs.append((row, output, output._version))
            if count is not None and inputs:
                row["multiply_adds"] += count(layer, inputs[0], output)

        handles.append(layer.register_forward_hook(hook))

    for name, layer in module.named_modules():
        row = rows[name] = {"type": type(layer).__name__, "output_shape": None}
        row |= {"multiply_adds": 0, "calls": 0, "overwritten": False, "leaf": False}
        if not isinstance(layer, torch.jit.ScriptModule):  # these take no hooks: nothing in them is counted
            watch(layer, row)
    try:
        pixels = example(module, shape)
        with dry_run(module, pixels.device):
            answer = module(pixels)
    except Exception as error:
        size = "x".join(str(side) for side in shape)
        raise UserError(
            f"{type(module).__name__} cannot take one image of {size} (channels, height, width): "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(module, torch.jit.ScriptModule) and isinstance(answer, Tensor):
        rows[""]["output_shape"] = tuple(answer.shape[1:])
    for row, output, version in outputs:
        row["overwritten"] |= output._version != version  # torch counts what happens to a tensor in place
    return rows


def example(module: nn.Module, shape: Sequence[int]) -> Tensor:
    """Zeros ``(1, *shape)`` where the module's first parameter lives, in its precision."""
    first = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), None)
    return torch.zeros(1, *shape) if first is None else first.new_zeros(1, *shape)
