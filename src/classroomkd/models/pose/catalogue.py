"""The pose networks as a table: name -> who builds it, its family and its size. Readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from classroomkd.models.catalogue import ZooEntry

__all__ = ["FORMS", "POSE", "PoseEntry", "mentor_only", "pose_names", "pose_table"]


@dataclass(frozen=True)
class PoseEntry(ZooEntry):
    """One pose network.

    ``target`` is ``module:function`` inside ``classroomkd.models.pose``; it is called with ``arguments`` plus
    ``joints``, ``size`` and ``in_channels``. ``parameters`` is the exact count at 17 joints, 3 channels and ``size``
    (H, W): the part of a SimCC head that makes bins grows with the crop.
    """

    size: tuple[int, int] = (256, 192)

    @property
    def library(self) -> str:
        """The network of timm that it is built on, or empty."""
        return str(self.arguments.get("name", ""))


_TINY: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (16, 16, 32), "blocks": (1, 2)},
    "small": {"widths": (16, 24, 48, 96), "blocks": (1, 2, 1)},
    "base": {"widths": (24, 32, 80, 192), "blocks": (1, 2, 2)},
}


def _tiny(kind: str, size: str, parameters: int) -> PoseEntry:
    family = f"built-in {'SimCC' if kind == 'simcc' else 'heatmap'}"
    return PoseEntry("tiny:tiny_pose", family, parameters, {"kind": kind, **_TINY[size]}, (64, 64))


POSE: dict[str, PoseEntry] = {
    "simcc_tiny": _tiny("simcc", "tiny", 55_425),
    "simcc_small": _tiny("simcc", "small", 235_617),
    "simcc_base": _tiny("simcc", "base", 1_401_369),
    "heatmap_tiny": _tiny("heatmap", "tiny", 39_057),
    "heatmap_small": _tiny("heatmap", "small", 219_769),
    "heatmap_base": _tiny("heatmap", "base", 1_386_537),
    "simplebaseline_r50": PoseEntry("backbones:simple_baseline", "SimpleBaseline", 33_999_697, {"name": "resnet50"}),
    "hrnet_w32": PoseEntry("hrnet:hrnet", "HRNet", 28_536_113, {"name": "hrnet_w32"}),
    "hrnet_w48": PoseEntry("hrnet:hrnet", "HRNet", 63_595_745, {"name": "hrnet_w48"}),
    "rtmpose_t": PoseEntry("rtmpose:rtmpose", "RTMPose", 3_337_007, {"name": "cspnext_tiny"}),
    "rtmpose_s": PoseEntry("rtmpose:rtmpose", "RTMPose", 5_473_251, {"name": "cspnext_s"}),
    "rtmpose_m": PoseEntry("rtmpose:rtmpose", "RTMPose", 13_587_611, {"name": "cspnext_m"}),
    "rtmpose_l": PoseEntry("rtmpose:rtmpose", "RTMPose", 27_660_339, {"name": "cspnext_l"}),
}

FORMS = ("simcc:timm:NAME", "heatmap:timm:NAME", "vitpose:ORG/NAME", "py:package.module:factory")
"""What a pose network may be called besides a name of the table."""


def pose_names() -> list[str]:
    """The names of the table, grouped by family, smallest first; ``FORMS`` are the other ways to name a network."""
    return list(POSE)


def pose_table() -> list[dict[str, Any]]:
    """One row a network: ``name``, ``family``, ``parameters`` (exact, at 17 joints, 3 channels and ``size``), ``size``
    (H, W) and ``needs``, the package it is built from (empty where it needs none)."""
    return [
        {
            "name": name,
            "family": entry.family,
            "parameters": entry.parameters,
            "size": entry.size,
            "needs": "timm" if entry.library else "",
        }
        for name, entry in POSE.items()
    ]


def mentor_only(spec: str) -> bool:
    """Whether what a spec names can teach but not be taught: ``vitpose:``, which is published weights and frozen."""
    return spec.partition(":")[0] == "vitpose"
