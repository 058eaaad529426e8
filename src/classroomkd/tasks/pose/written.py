"""Joints and codings out of a file's metadata, which anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from classroomkd._stored import MAPPING, parse_json, trusted
from classroomkd.data.keypoints.crops import Canvas
from classroomkd.data.skeleton import Skeleton
from classroomkd.tasks.pose.coding import Coding, from_plain

__all__ = ["PoseAnswers", "written_coding", "written_skeleton"]

REMEDY = "export it again, or take another copy"


@dataclass(frozen=True)
class PoseAnswers:
    """What a pose student's answers mean, and how persons were cropped for it.

    Attributes:
        skeleton: its joints.
        coding: how an answer says where they are; ``coding.decode(answer)`` is (B, K, 3): x, y in pixels of the crop
            (the first pixel's centre is 0) and a score in 0..1.
        canvas: the crop's size, and how finely crops were stored.
        padding: by how much a person's box was enlarged.
        category: the id of the persons' category in the data.
        flip_test: whether its run scored it with the flip test.
    """

    skeleton: Skeleton
    coding: Coding
    canvas: Canvas
    padding: float
    category: int = 1
    flip_test: bool = False


def written_skeleton(path: str | Path, about: Mapping[str, str]) -> Skeleton:
    """The joints that a checkpoint's metadata name.

    Raises:
        UserError: they are of another form.
    """
    with trusted(f"{path}: its metadata 'skeleton'", REMEDY):
        value = parse_json(about["skeleton"], MAPPING)
        return Skeleton.from_plain(value)


def written_coding(path: str | Path, about: Mapping[str, str]) -> Coding:
    """How a checkpoint's metadata say that its answers are read.

    Raises:
        UserError: they are of another form.
    """
    with trusted(f"{path}: its metadata 'coding'", REMEDY):
        value = parse_json(about["coding"], MAPPING)
        return from_plain(value)
