"""Whether a file's tensors are those of a network: by name, by shape, and plain finite numbers; else what differs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from classroomkd.data.skeleton import SKELETONS
from classroomkd.errors import UserError
from classroomkd.models.heads import rows_alone
from classroomkd.models.unwrapping import some

__all__ = ["check_values", "compare"]

_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_values(own: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str) -> None:
    """Refuse weights that are no plain finite numbers.

    Raises:
        UserError: with the names of the tensors.
    """
    for key, value in state.items():
        kind = str(value.dtype).removeprefix("torch.")
        if value.is_meta:
            raise UserError(f"{place}: {key} holds no values (a meta tensor); save the weights after they are loaded")
        if own[key].is_floating_point() and value.dtype not in _PRECISIONS:
            raise UserError(
                f"{place}: {key} is stored as {kind}, as quantised weights are; give the file of the weights in "
                "float32, float16 or bfloat16"
            )
        if value.layout != torch.strided:
            raise UserError(f"{place}: {key} is a sparse tensor; store it dense (.to_dense())")
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise UserError(f"{place} holds values that are not finite in {some(broken)}: its training had diverged")


def compare(own: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str, network: str) -> None:
    """Refuse a state whose names or shapes are not the module's, and say how they differ."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    different = [key for key in own if key in state and own[key].shape != state[key].shape]
    if not missing and not unexpected:
        if not different:
            return
        if joints := _joint_counts(own, state, different):
            known = " or ".join(f"'{s.name}'" for s in SKELETONS.values() if len(s) == joints[0])
            raise UserError(
                f"{place}: the checkpoint answers {joints[0]} joints, {joints[1]} are wanted. Say whose they are with"
                f" `skeleton:` beside the mentor ({known or 'the file or list of its joints'}); a student's file must"
                " have the data's joints"
            )
        if classes := _class_counts(own, state, different):
            raise UserError(
                f"{place}: the checkpoint has {classes[0]} classes, the data {classes[1]} (last layer {different[0]}); "
                "reset_head: true starts from it without its head"
            )
    shapes = [f"{key} {_size(state[key])}, not {_size(own[key])}" for key in different]
    rows = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    lines = [f"  {len(keys)} {title}: {some(keys)}" for title, keys in rows if keys]
    raise UserError(f"{place} is not one of this {network}; in the file are\n" + "\n".join(lines))


def _class_counts(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], different: list[str]
) -> tuple[int, int] | None:
    """(classes in the file, classes in the module) when only the first dimension of the last layer differs.

    Networks with a head for distillation have two last layers.
    """
    counts = {(int(state[key].shape[0]), int(own[key].shape[0])) for key in different if own[key].dim()}
    layers = {key.rpartition(".")[0] for key in different}
    last = list(own)[-1].rpartition(".")[0]
    if len(counts) != 1 or last not in layers or not rows_alone(own, state, different):
        return None
    return int(state[different[0]].shape[0]), int(own[different[0]].shape[0])


def _joint_counts(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], different: list[str]
) -> tuple[int, int] | None:
    """(joints in the file, joints wanted) when all that differs is the first side of a pose head's tensors."""
    counts = {(int(state[key].shape[0]), int(own[key].shape[0])) for key in different if own[key].dim()}
    tails = all(own[key].dim() and own[key].shape[1:] == state[key].shape[1:] for key in different)
    heads = all(key.partition(".")[0] in ("head", "final_layer") for key in different)
    maps = any(own[key].dim() == 4 for key in different)  # a classifier's last layer is linear
    return counts.pop() if heads and tails and maps and len(counts) == 1 else None


def _size(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "scalar"
