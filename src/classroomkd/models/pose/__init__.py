"""Networks that find joints, by name: ``(B, 3, H, W)`` crops to SimCC bins ``(B, K, X + Y)`` or maps ``(B, K, h, w)``.

``pose_names`` and ``pose_table`` are readable without torch; the rest is imported on first use.

- ``resolve_pose("simcc_tiny", 17, (64, 64))``: a name to a network; ``check_pose``: the name alone
- ``mentor_only``: whether the networks of a name can only teach
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from classroomkd.models.pose.catalogue import mentor_only, pose_names, pose_table

if TYPE_CHECKING:
    from classroomkd.models.pose.building import check_pose, resolve_pose

__all__ = ["check_pose", "mentor_only", "pose_names", "pose_table", "resolve_pose"]


def __getattr__(name: str) -> Any:
    if name in ("check_pose", "resolve_pose"):
        return getattr(importlib.import_module("classroomkd.models.pose.building"), name)
    raise AttributeError(f"module 'classroomkd.models.pose' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
