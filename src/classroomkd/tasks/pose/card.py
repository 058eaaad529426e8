"""The lines of a pose student's card, which give ``joints``, and the check that they say what the student says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classroomkd.classroom import prediction_of
from classroomkd.errors import RunStopped, UserError
from classroomkd.export.lines import PHOTO, Form, carry_out
from classroomkd.train.inputs import Inputs

if TYPE_CHECKING:
    from classroomkd.export import Student
    from classroomkd.export.sample import Sample

__all__ = ["compare", "crop_lines", "lines"]

_ONE = f'"{PHOTO}"'
_BOXES = "[[10, 20, 80, 200]]"
NEAR = 0.05  # pixels of the crop
SURE = 1e-3  # of a score, and of the largest of the network's own numbers
SAME = 0.95  # share of joints; a peak that is nearly as high as another may be read as either


def lines(student: Student, form: Form) -> str:
    """Python that asks the exported file about the persons in a picture."""
    if form.with_resize:
        raise UserError("--with-resize is for pictures; persons are cropped, as the card's lines do")
    if form.target.suffix == ".safetensors":
        return f"""\
import classroomkd as ck

student = ck.load_student({form.name})
boxes = {_BOXES}  # of every person x, y, width, height in pixels of the picture
joints = student({_ONE}, boxes)  # (persons, joints, 3): x and y in pixels of the picture, and a score
"""
    onnx = form.target.suffix == ".onnx"
    begin = (
        f"""\
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({form.name})
"""
        if onnx
        else f"""\
import numpy as np
import torch
from PIL import Image, ImageOps

network = torch.export.load({form.name}).module()
"""
    )
    given = "inputs" if form.raw else "np.stack(crops)"
    asked = f'session.run(None, {{"{"pixels" if form.raw else "crops"}": {given}}})[0]'
    if not onnx:
        asked = f"network(torch.from_numpy({given})).detach().numpy()"
    return f"""{begin}{crop_lines(student)}

picture = np.asarray(ImageOps.exif_transpose(Image.open({_ONE})).convert("RGB"))
boxes = {_BOXES}  # of every person x, y, width, height in pixels of the picture
crops, origins, steps = zip(*(crop(picture, box) for box in boxes))
{_normalised(student) if form.raw else ""}{_read(form, asked)}"""


def _normalised(student: Student) -> str:
    rows = [f"{name} = np.array({list(values)}, np.float32)[:, None, None]\n" for name, values in (
        ("mean", student.mean), ("std", student.std))]  # fmt: skip
    return f"{''.join(rows)}inputs = (np.stack(crops) / np.float32(255) - mean) / std\n"


def _read(form: Form, asked: str) -> str:
    if form.decode == "outside":
        return f"answer = {asked}  # how joints are read of it stands above\n"
    return f"""\
joints = {asked}  # (persons, joints, 3): x and y in pixels of the crop, and a score
# Back to the picture: the crop's first pixel is at its origin, the others a step apart.
joints[..., :2] = joints[..., :2] * np.array(steps)[:, None, None] + np.array(origins)[:, None]
"""


def crop_lines(student: Student) -> str:
    """``crop(picture, box)``: a person as the network takes one, and where in the picture that is."""
    pose = student.pose
    assert pose is not None
    height, width = pose.canvas.size
    scale = "" if pose.canvas.scale == 1 else f" / {pose.canvas.scale:g}"
    return f"""
HEIGHT, WIDTH, PADDING = {height}, {width}, {pose.padding:g}


def crop(picture, box):
    \"\"\"A person in a picture (h, w, 3) uint8: the crop (3, HEIGHT, WIDTH), its first pixel's place, its step.\"\"\"
    x, y, w, h = box
    tall, wide = picture.shape[:2]
    low = np.maximum([x, y], 0.0)
    high = np.minimum([x + w - 1, y + h - 1], [wide - 1.0, tall - 1.0])
    step = PADDING * max((high - low) / [WIDTH - 1, HEIGHT - 1])
    origin = (low + high) / 2 - step * np.array([WIDTH - 1, HEIGHT - 1]) / 2
    across, down = weights(origin[0], step, WIDTH, wide), weights(origin[1], step, HEIGHT, tall)
    pixels = np.stack([down @ picture[..., channel] @ across.T for channel in range(3)])
    return np.floor(pixels + 0.5).astype(np.uint8), origin, step


def weights(first, step, count, length):
    \"\"\"How much of each of a picture's ``length`` pixels goes into each of ``count`` places.\"\"\"
    taps = max(1, int(step{scale}))  # where a step is several pixels long, the mean of so many places
    place = first + step * np.arange(count) - (taps - 1) / 2
    low = np.floor(place).astype(int)
    found = np.zeros((count, length))
    for tap in range(taps + 1):
        share = {{0: 1 - (place - low), taps: place - low}}.get(tap, np.ones(count)) / taps
        inside = np.flatnonzero((low + tap >= 0) & (low + tap < length))
        found[inside, (low + tap)[inside]] += share[inside]
    return found
"""


def compare(student: Student, form: Form, card: str, file: Path, sample: Sample) -> tuple[float, str]:
    """Carry out the card's lines on pictures, each with the whole of it and a part of it as boxes.

    Returns:
        The largest difference of a place or a score, in pixels of the crop, of the joints that are read alike; with
        ``outside`` that of the answers' numbers.

    Raises:
        RunStopped: more than a few joints are read otherwise.
    """
    pose = student.pose
    assert pose is not None
    near, worst = [], 0.0
    for path in sample.files:
        with Image.open(path) as image:
            wide, tall = image.size if image.getexif().get(0x0112, 1) < 5 else image.size[::-1]
        boxes = [[0, 0, wide, tall], [wide // 5, tall // 6, max(9, wide // 2), max(9, tall // 2)]]
        places = {form.name: str(file), _BOXES: boxes, _ONE: str(path)}
        scope = carry_out(card, form.target.name, places)
        if form.decode == "outside":
            ours, theirs = _answer(student, np.stack(scope["crops"])), torch.as_tensor(scope["answer"])
            apart = (ours - theirs).abs() / ours.abs().max().clamp_min(1)
            bound = torch.full(apart.shape[-1:], SURE)
        else:
            theirs = torch.as_tensor(np.asarray(scope["joints"])).double()
            # A graph answers about one crop, and not about its mirror image, too.
            ours = student(path, boxes, flip_test=None if form.target.suffix == ".safetensors" else False)
            step = torch.as_tensor(np.array(scope.get("steps", np.ones(len(boxes)))))[:, None, None]
            apart = (ours - theirs).abs() / torch.cat([step, step, torch.ones_like(step)], -1)
            bound = torch.tensor([NEAR, NEAR, SURE])
        if ours.shape != theirs.shape:
            raise RunStopped(
                f"{form.target.name} answers {tuple(theirs.shape)} where the student answers {tuple(ours.shape)}; "
                "nothing was written"
            )
        same = (apart <= bound).all(-1)
        near.append(same.float().mean())
        worst = max(worst, float(apart[same].max()) if same.any() else 0.0)
    share = float(torch.stack(near).mean())
    if share < SAME and pose.canvas.scale == int(pose.canvas.scale):
        raise RunStopped(
            f"{form.target.name} answers otherwise than the student: of the joints {1 - share:.1%} are more than "
            f"{NEAR:g} pixels of the crop apart; nothing was written"
        )
    alone = " without the flip test" if pose.flip_test and form.target.suffix != ".safetensors" else ""
    return worst, f"{share:.1%} of the joints the same{alone} on "


@torch.no_grad()
def _answer(student: Student, crops: np.ndarray) -> Tensor:
    """The network's own answers to crops (P, 3, H, W) uint8."""
    inputs = Inputs(student.mean, student.std, torch.device("cpu"), channels_last=False)
    return prediction_of(student.module(inputs(torch.from_numpy(crops)))).float()
