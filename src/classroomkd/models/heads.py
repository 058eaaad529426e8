"""Which tensors of a network are its head: the layers with a row a class, or a joint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.models.unwrapping import some

__all__ = ["dropped", "head_keys", "reorder_head", "rows_alone"]

_POSE_HEADS = ("head", "final_layer")


def rows_alone(own: Mapping[str, Tensor], state: Mapping[str, Tensor], keys: Iterable[str]) -> bool:
    """Whether the tensors of these names differ in nothing but their first dimension."""
    return all(own[key].dim() and own[key].shape[1:] == state[key].shape[1:] for key in keys)


def head_keys(module: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """The names of the head's tensors among ``own``, for a network that starts without them.

    They are the layers whose rows differ from those of ``state``; where none differ, or ``state`` lacks some, those
    that the network itself calls its head, or its last layer.
    """
    different = [key for key in own if key in state and own[key].shape != state[key].shape]
    missing = [key for key in own if key not in state]
    if different and not missing and rows_alone(own, state, different) and _same_counts(own, state, different):
        layers = {_layer(key) for key in different}
        return [key for key in own if _layer(key) in layers]
    return _declared(module, own)


def dropped(own: Mapping[str, Tensor], state: Mapping[str, Tensor], head: Sequence[str]) -> str:
    """In words, what of ``state`` is not loaded where the head is reset."""
    keys = [key for key in head if key in state]
    beside = [key for key in state if key not in own]
    words = f"dropped {some(keys)}" if keys else "it has no head"
    if keys and state[keys[0]].shape != own[keys[0]].shape:
        words += f" ({state[keys[0]].shape[0]} rows, {own[keys[0]].shape[0]} are wanted)"
    return f"{words}; left out {some(beside)}" if beside else words


@torch.no_grad()
def reorder_head(module: nn.Module, order: Sequence[int], example: Tensor) -> None:
    """Put a classifier's answers into another order, in place: column ``k`` becomes what column ``order[k]`` was.

    Args:
        module: answers ``example`` (B, C, H, W) with ``(B, classes)``.
        order: for every class its place today.
        example: images to see by that it worked.

    Raises:
        UserError: the network has no last layer with a row a class.
    """
    own = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    rows = [key for key in _declared(module, own) if own[key].dim() and own[key].shape[0] == len(order)]
    kept = {key: own[key].clone() for key in rows}
    before, places = module(example), torch.tensor(order, device=example.device)
    for key in rows:
        own[key].copy_(kept[key][places])
    if not rows or not torch.allclose(module(example), before[:, places], atol=1e-4, rtol=1e-4):
        for key in rows:
            own[key].copy_(kept[key])
        raise UserError("its classes are in another order, and its last layer has no row a class to reorder")


def _same_counts(own: Mapping[str, Tensor], state: Mapping[str, Tensor], keys: Iterable[str]) -> bool:
    return len({(state[key].shape[0], own[key].shape[0]) for key in keys}) == 1


def _declared(module: nn.Module, own: Mapping[str, Tensor]) -> list[str]:
    """The head by what the network says of itself, else its last layer."""
    config = getattr(module, "pretrained_cfg", None)
    names = config.get("classifier") if isinstance(config, dict) else getattr(config, "classifier", None)
    if hasattr(module, "pose_head"):
        names = tuple(name for name in _POSE_HEADS if hasattr(module, name))
    if not names:
        names = _layer(list(own)[-1]) if own else ""
    layers = (names,) if isinstance(names, str) else tuple(names)
    return [key for key in own if any(_layer(key) == name or key.startswith(f"{name}.") for name in layers)]


def _layer(key: str) -> str:
    return key.rpartition(".")[0]
