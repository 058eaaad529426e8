"""The codings, from plain data and from what a network answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from classroomkd.errors import UserError, did_you_mean
from classroomkd.tasks.pose.base import Coding, Size
from classroomkd.tasks.pose.heatmap import Heatmap
from classroomkd.tasks.pose.simcc import SimCC

__all__ = ["CODINGS", "Coding", "Heatmap", "SimCC", "Size", "coding_of", "from_plain"]

CODINGS: dict[str, type[Coding]] = {"simcc": SimCC, "heatmap": Heatmap}


def from_plain(value: Mapping[str, Any]) -> Coding:
    """The coding that :meth:`Coding.plain` wrote."""
    options = {k: v for k, v in value.items() if k != "kind"}
    return CODINGS[value["kind"]](**{**options, "size": tuple(options["size"])})


def coding_of(network: nn.Module | None, answer: Tensor, size: Size, where: str = "the network") -> Coding:
    """The coding of a network's answer.

    Args:
        network: its attribute ``pose_head`` may say ``{"kind": "simcc", "split": 2.0}`` or ``{"kind": "heatmap"}`` with
            any of the coding's options; None, or one that says nothing: by the answer's shape.
        answer: to a batch, ``(B, K, X + Y)`` or ``(B, K, h, w)``.
        size: (H, W) of the input.
        where: who it is, for messages.

    Raises:
        UserError: an answer that is neither, or not what ``pose_head`` says.
    """
    options: dict[str, Any] = dict(cast(Mapping[str, Any], getattr(network, "pose_head", None) or {}))
    shape = tuple(answer.shape)
    kind = options.pop("kind", {3: "simcc", 4: "heatmap"}.get(len(shape)))
    if kind not in CODINGS:
        meant = did_you_mean(str(kind), CODINGS)
        raise UserError(
            f"{where} answers with shape {shape}"
            + (f" and calls its head '{kind}'{meant}" if kind is not None else "")
            + "; a pose network answers (B, joints, x-bins + y-bins) (SimCC) or (B, joints, rows, columns) (heatmaps)"
        )
    if len(shape) == 2 + CODINGS[kind].trailing:
        if kind == "simcc":
            options.setdefault("split", _tidy(shape[-1] / sum(size)))
        else:
            options.setdefault("stride", _tidy(size[0] / shape[-2]))
    try:
        coding = CODINGS[kind](size=(int(size[0]), int(size[1])), joints=int(shape[1]), **options)
    except TypeError:
        raise UserError(f"{where}: pose_head has an option that '{kind}' does not know: {', '.join(options)}") from None
    if shape[1:] != coding.answer_shape:
        listed = ", ".join(f"{k} {v}" for k, v in options.items())
        raise UserError(
            f"{where} answers with shape {shape}, but a {kind} head for {size[0]} x {size[1]} pixels ({listed}) "
            f"answers (B, {', '.join(map(str, coding.answer_shape))})"
        )
    return coding


def _tidy(ratio: float) -> float:
    return float(round(ratio)) if abs(ratio - round(ratio)) < 1e-6 else ratio
