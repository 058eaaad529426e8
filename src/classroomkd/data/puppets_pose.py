"""How a puppet stands: from keys and classes to joints on the unit square (x to the right, y down, both 0 to 1).

Angles are degrees from straight down, positive away from the body, one pair (upper limb, lower limb) per arm and leg.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classroomkd.data.rng import U64, uniform

__all__ = ["CLASSES", "JOINTS", "Figure", "pose"]

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

# Per class: left arm, right arm, left leg, right leg, each (upper, lower), in degrees.
_ANGLES = {
    "stand":         ((14, 8), (14, 8), (6, 3), (6, 3)),
    "t_pose":        ((90, 90), (90, 90), (6, 3), (6, 3)),
    "arms_up":       ((160, 172), (160, 172), (6, 3), (6, 3)),
    "wave_left":     ((104, 172), (14, 8), (6, 3), (6, 3)),
    "wave_right":    ((14, 8), (104, 172), (6, 3), (6, 3)),
    "hands_on_hips": ((50, -52), (50, -52), (8, 5), (8, 5)),
    "star":          ((128, 128), (128, 128), (32, 30), (32, 30)),
    "kick_left":     ((30, 30), (30, 30), (76, 72), (4, 2)),
    "kick_right":    ((30, 30), (30, 30), (4, 2), (76, 72)),
    "squat":         ((38, 20), (38, 20), (74, -18), (74, -18)),
}  # fmt: skip
CLASSES = tuple(_ANGLES)
_TABLE = np.array(list(_ANGLES.values()), np.float64)  # (class, limb, upper | lower)

_SIDE = np.array([1.0, -1.0])  # the figure faces us: its left is at larger x
_GRID = 2.0**16  # unit coordinates are rounded to this grid, so a last-bit difference of sin cannot be seen later


@dataclass(frozen=True)
class Figure:
    """n posed figures on the unit square, float64, multiples of 2^-16.

    ``joints`` (n, 17, 2); ``neck`` and ``pelvis`` (n, 2); ``scale`` (n,) the figure's height when it stands;
    ``extent`` (n, 2, 2) the low and high corner of the drawn body; ``occluder`` (n, 2, 2) its two ends,
    ``occluder_radius`` (n,), 0 when there is none; ``hidden`` (n, 17) which joints it covers.
    """

    joints: NDArray[np.float64]
    neck: NDArray[np.float64]
    pelvis: NDArray[np.float64]
    scale: NDArray[np.float64]
    extent: NDArray[np.float64]
    occluder: NDArray[np.float64]
    occluder_radius: NDArray[np.float64]
    hidden: NDArray[np.bool_]


def grid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """``value`` rounded to a multiple of 2^-16."""
    return np.round(value * _GRID) / _GRID


def _direction(degrees: NDArray[np.float64], side: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Unit vectors (…, 2) for angles (…) from straight down, on the side +1 (its left) or -1."""
    angle = np.deg2rad(degrees)
    return np.stack([side * np.sin(angle), np.cos(angle)], -1)


def pose(key: U64, label: NDArray[np.int64], hard: float) -> Figure:
    """Pose one figure per key (n,) in the posture ``label`` (n,)."""
    n = len(key)
    draws = uniform(key, 64)
    bell = (draws[:, :36].reshape(n, 12, 3).sum(-1) - 1.5) * 2.0  # about standard normal, within ±3
    flat = draws[:, 36:] * 2.0 - 1.0
    angle = _TABLE[label]
    angle = angle + hard * 22.0 * bell[:, :8].reshape(n, 4, 2)
    tilt = hard * 12.5 * bell[:, 8]
    height = 0.78 + hard * 0.18 * flat[:, 0]
    build = 1.0 + hard * 0.17 * flat[:, 1:6]  # torso, shoulders, arms, legs, head

    upright = _direction(tilt, 1.0)  # from neck to pelvis; n, 2
    across = np.stack([upright[:, 1], -upright[:, 0]], -1)  # towards its left
    pelvis = np.zeros((n, 2))
    neck = pelvis - upright * (0.30 * build[:, 0])[:, None]
    shoulder = neck[:, None] + (across * (0.105 * build[:, 1])[:, None])[:, None] * _SIDE[:, None]
    shoulder = shoulder + (upright * 0.02)[:, None]
    hip = pelvis[:, None] + (across * 0.062)[:, None] * _SIDE[:, None]
    lean = tilt[:, None] * _SIDE  # a limb keeps its angle to the body: tilting turns it too
    elbow = shoulder + _direction(angle[:, :2, 0] + lean, _SIDE) * (0.165 * build[:, 2])[:, None, None]
    wrist = elbow + _direction(angle[:, :2, 1] + lean, _SIDE) * (0.155 * build[:, 2])[:, None, None]
    knee = hip + _direction(angle[:, 2:, 0] + lean, _SIDE) * (0.235 * build[:, 3])[:, None, None]
    ankle = knee + _direction(angle[:, 2:, 1] + lean, _SIDE) * (0.225 * build[:, 3])[:, None, None]

    radius = 0.078 * build[:, 4]
    nod = _direction(tilt + hard * 9.0 * bell[:, 9], 1.0)
    head = neck - nod * (0.045 + radius)[:, None]
    beside = np.stack([nod[:, 1], -nod[:, 0]], -1)
    turn = hard * 0.34 * flat[:, 6]
    nose = head + (beside * turn[:, None] + nod * 0.12) * radius[:, None]
    eyes = (
        head[:, None]
        + ((beside * turn[:, None])[:, None] + (beside[:, None] * _SIDE[:, None]) * 0.38 - nod[:, None] * 0.16)
        * radius[:, None, None]
    )
    ears = head[:, None] + (beside[:, None] * _SIDE[:, None]) * (0.95 * radius)[:, None, None]

    body = (
        np.concatenate([nose[:, None], eyes, ears, shoulder, elbow, wrist, hip, knee, ankle], 1) * height[:, None, None]
    )
    margin = 0.04 * height[:, None]
    low, high = body.min(1) - margin, body.max(1) + margin
    low[:, 1] = np.minimum(low[:, 1], (head[:, 1] - radius) * height)
    # The figure may stand anywhere it fits, and lean out of the picture a little.
    room = np.maximum(1.0 - (high - low), 0.0) / 2 + 0.07 * hard
    shift = 0.5 - (low + high) / 2 + flat[:, 7:9] * room
    joints = grid(body + shift[:, None])
    scale = grid(height)

    centre = grid(shift[:, None] + body[:, 5:]).mean(1) + flat[:, 9:11] * 0.30
    reach = flat[:, 11:13] * 0.16
    occluder = grid(np.stack([centre - reach, centre + reach], 1))
    present = draws[:, 60] < 0.85 * hard
    occluder_radius = np.where(present, grid(0.035 + 0.045 * draws[:, 61]), 0.0)
    hidden = _distance(joints, occluder) < occluder_radius[:, None]
    return Figure(
        joints=joints,
        neck=grid(neck * height[:, None] + shift),
        pelvis=grid(pelvis + shift),
        scale=scale,
        extent=grid(np.stack([low + shift, high + shift], 1)),
        occluder=occluder,
        occluder_radius=occluder_radius,
        hidden=hidden,
    )


def _distance(points: NDArray[np.float64], segment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (n, k) of points (n, k, 2) to segments (n, 2, 2)."""
    start, along = segment[:, :1], segment[:, 1:] - segment[:, :1]
    offset = points - start
    share = (offset * along).sum(-1) / np.maximum((along * along).sum(-1), 2.0**-32)
    offset = offset - np.clip(share, 0.0, 1.0)[..., None] * along
    distance: NDArray[np.float64] = np.sqrt((offset * offset).sum(-1))
    return distance
