"""What a sample's target is, and whether it lies on the pixels, so that views move it with them. Does not import torch.

=============  ==========================================  =====================
kind           target of N samples                         moved by views
=============  ==========================================  =====================
``class``      (N,) int64, -1 without a label              no
``keypoints``  (N, K, 3) float32: x, y, visibility v;      with a person's crop
               v is -1 at all joints of a person without
``mask``       (N, H, W) integers: a class a pixel         as the pixels, nearest
``image``      (N, C, s·H, s·W) uint8, s a whole number    as the pixels
=============  ==========================================  =====================
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLASS", "IMAGE", "KEYPOINTS", "UNLABELLED", "TargetKind", "mask"]

UNLABELLED = -1  # the class of a sample without a label; the visibility of all joints of a person without any


@dataclass(frozen=True)
class TargetKind:
    """``fill`` is what pixels get that a view brings in from outside the picture: of a mask, its value for "no label";
    of an image, black."""

    name: str
    fill: int = 0

    @property
    def spatial(self) -> bool:
        """Whether the target has a value for every pixel."""
        return self.name in ("mask", "image")


CLASS = TargetKind("class")
KEYPOINTS = TargetKind("keypoints")
IMAGE = TargetKind("image")


def mask(ignore: int = -1) -> TargetKind:
    """A class for every pixel; pixels of value ``ignore`` have no label, and views give it to what they bring in."""
    return TargetKind("mask", ignore)
