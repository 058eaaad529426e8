"""``data.options`` that every source of persons takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classroomkd.data.keypoints.crops import PADDING
from classroomkd.data.skeleton import COCO, MPII, Skeleton
from classroomkd.errors import UserError

__all__ = ["VIEW_OPTIONS", "PersonOptions", "metric_for", "person_options"]

VIEW_OPTIONS = ("scale", "rotation", "rotation_p", "half_body", "flip")

# Least and most that fit.
_RANGES: dict[str, tuple[float, float]] = {
    "canvas": (0.5, 8), "padding": (1, 3), "memory_gib": (0, 2**20), "scale": (0, 0.9), "rotation": (0, 90),
    "rotation_p": (0, 1), "half_body": (0, 1), "flip": (0, 1),
}  # fmt: skip


@dataclass(frozen=True)
class PersonOptions:
    """``canvas``: stored pixels per input pixel, more than 1 where views enlarge or a mentor's input is larger;
    ``padding`` of a region; ``memory_gib``: canvases that need more are cut out whenever they are needed; ``metric``
    instead of the skeleton's own; ``skeleton`` instead of the annotations' (``coco+mpii``); ``views``: what a space of
    views does differently."""

    canvas: float
    padding: float
    memory_gib: float
    metric: str | None
    skeleton: str | None
    views: Mapping[str, float]


def person_options(options: Mapping[str, Any]) -> PersonOptions:
    """The options among ``data.options``.

    Raises:
        UserError: for numbers out of range.
    """
    wrong = [
        f"data.options.{key}: {options[key]!r} does not fit; give {low:g} to {high:g}"
        for key, (low, high) in _RANGES.items()
        if key in options and not low <= options[key] <= high
    ]
    if wrong:
        raise UserError("\n".join(wrong))
    return PersonOptions(
        float(options.get("canvas", 1.0)),
        float(options.get("padding", PADDING)),
        float(options.get("memory_gib", 4.0)),
        options.get("metric"),
        options.get("skeleton"),
        {key: float(options[key]) for key in VIEW_OPTIONS if key in options},
    )


def metric_for(skeleton: Skeleton, boxes: str) -> str:
    """The score that counts: COCO's AP, whose name says whose boxes, MPII's PCKh, or PCK for what has a torso."""
    torso = {f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "hip")}
    if skeleton.standard == MPII.standard and boxes != "detector":
        return "PCKh@0.5"
    if skeleton.standard == COCO.standard or not torso <= set(skeleton.standard) or boxes == "detector":
        return "AP_detector" if boxes == "detector" else "AP_gtbox"
    return "PCK@0.2"
