"""A pose student asked from Python: the joints of persons in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from classroomkd.data.decode import DecodeError
from classroomkd.data.keypoints.annotation_file import boxed
from classroomkd.data.keypoints.checks import SMALLEST
from classroomkd.data.keypoints.crops import crop, render
from classroomkd.data.keypoints.people import Floats, Picture
from classroomkd.data.views.keypoints import PersonViews
from classroomkd.errors import UserError
from classroomkd.export.pictures import listed, opened
from classroomkd.tasks.files import placed
from classroomkd.tasks.pose.predict import decoded_crops

if TYPE_CHECKING:
    from classroomkd.export import Student

__all__ = ["find_joints"]

_AT_ONCE = 64  # persons


def find_joints(
    student: Student, image: Any, boxes: ArrayLike | None = None, *, flip_test: bool | None = None
) -> Tensor:
    """Where the joints of persons are, cropped and decoded as ``classroomkd predict`` does.

    Args:
        student: of a pose task.
        image: one picture: a path, a Pillow image, or uint8 pixels (h, w), (h, w, 3) or (3, h, w).
        boxes: (P, 4) of x, y, width, height in pixels of the picture, or one box (4,); None: the whole picture is one
            person.
        flip_test: answer with the mean of a crop's and its mirror image's answers; None: as its run was scored.

    Returns:
        (P, K, 3) float64 on the CPU: x and y in pixels of the picture (a pixel's centre is at whole numbers), and a
        score. Row by row the boxes: nobody is left out, whatever the boxes' overlap.

    Raises:
        UserError: no picture, several, or a box that nobody can be cropped by; it is named by its place.
    """
    pose = student.pose
    assert pose is not None
    picture = _picture(image)
    height, width = picture.shape[:2]
    region = _regions(np.array([[0, 0, width, height]]) if boxes is None else boxes, width, height)
    origin, step = crop(region, pose.canvas.size, pose.padding)
    views = PersonViews("none", skeleton=pose.skeleton, canvas=pose.canvas, view_seed=0)
    module, inputs = placed(student, student.device)
    flip = pose.flip_test if flip_test is None else flip_test
    found = [torch.zeros(0, len(pose.skeleton), 3)]
    for start in range(0, len(step), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(step)))
        canvases = np.stack([render(picture, origin[row], float(step[row]), pose.canvas) for row in rows])
        crops, _ = views.eval_view(torch.from_numpy(canvases), torch.zeros(len(rows), len(pose.skeleton), 3))
        found.append(decoded_crops(module, inputs, crops, pose, flip).cpu())
    joints = torch.cat(found).double()
    joints[..., :2] = joints[..., :2] * torch.from_numpy(step)[:, None, None] + torch.from_numpy(origin)[:, None]
    return joints


def _picture(image: Any) -> NDArray[np.uint8]:
    """(h, w, 3) uint8."""
    pictures = listed(image)
    if len(pictures) != 1:
        raise UserError(f"student(image, boxes): give one picture at a time with the boxes in it, not {len(pictures)}")
    try:
        return np.asarray(opened(pictures[0]).convert("RGB"))
    except (DecodeError, OSError) as error:
        raise UserError(f"student(image, boxes): {error}") from error


def _regions(boxes: ArrayLike, width: int, height: int) -> Floats:
    """What is cropped (P, 4): the boxes, cut to the picture."""
    try:
        values = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"student(image, boxes): boxes are no numbers ({error}); {_BOX}") from error
    values = values.reshape(-1, 4) if values.shape in ((4,), (0,)) else values
    if values.ndim != 2 or values.shape[1] != 4:
        raise UserError(f"student(image, boxes): boxes have shape {values.shape}; {_BOX}")
    regions = boxed(values, [Picture(0, "", height, width)], np.zeros(len(values), np.int64))
    sound = (
        np.isfinite(regions).all(1) & (regions[:, 2:] >= 0).all(1) & (regions[:, 2:].max(1, initial=0) >= SMALLEST - 1)
    )
    if not sound.all():
        place = int(np.flatnonzero(~sound)[0])
        numbers = ", ".join(f"{value:g}" for value in values[place].tolist())
        raise UserError(
            f"student(image, boxes): box {place} (from 0) is {numbers}: less than {SMALLEST:g} pixels of it are in the "
            f"picture of {width} x {height}; {_BOX}"
        )
    return regions


_BOX = "give (P, 4): x, y, width, height in pixels of the picture"
