"""Joints and codings out of a file's metadata, which anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from classroomkd._stored import MAPPING, parse_json, trusted
from classroomkd.data.skeleton import Skeleton
from classroomkd.tasks.pose.coding import Coding, from_plain

__all__ = ["written_coding", "written_skeleton"]

REMEDY = "export it again, or take another copy"


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
