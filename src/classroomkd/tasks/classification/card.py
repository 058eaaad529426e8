"""The lines of a classifier's card, which give ``names`` and ``probabilities``, and the check that they say what
``predict`` says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classroomkd.errors import RunStopped
from classroomkd.export.lines import PHOTO, Form, carry_out, classes_of_file, pixels_of_picture
from classroomkd.models.libraries import library_call

if TYPE_CHECKING:
    from classroomkd.export import Student
    from classroomkd.export.sample import Sample

__all__ = ["compare", "lines"]

NEAR = 1e-4  # of a probability
_ONE = f'["{PHOTO}"]'
_NAMES = "names = [classes[place] for place in probabilities.argmax(1)]"


def lines(student: Student, form: Form) -> str:
    """Python that asks the exported file about pictures."""
    return {".onnx": _onnx, ".pt2": _program}.get(form.target.suffix, _weights)(student, form)


def _stacked(form: Form) -> str:
    return f"images = np.stack([pixels(path) for path in {_ONE}])"


def _constants(student: Student) -> str:
    """Mean and standard deviation as arrays."""
    rows = (f"{name} = np.array({list(values)}, np.float32)[:, None, None]" for name, values in (
        ("mean", student.mean), ("std", student.std)))  # fmt: skip
    return "\n".join(rows)


def _onnx(student: Student, form: Form) -> str:
    begin = f"""\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({form.name})
{classes_of_file(form)}
{pixels_of_picture(student, whole=form.with_resize)}

"""
    if form.with_resize:
        return f"""{begin}# One by one, since each has a size of its own.
answers = [session.run(None, {{"images": pixels(path)[None]}}) for path in {_ONE}]
probabilities = np.concatenate([probabilities for logits, probabilities in answers])
{_NAMES}
"""
    if form.raw:
        return f"""{begin}{_constants(student)}
{_stacked(form)}
(logits,) = session.run(None, {{"pixels": (images / np.float32(255) - mean) / std}})
probabilities = np.exp(logits - logits.max(1, keepdims=True))
probabilities /= probabilities.sum(1, keepdims=True)
{_NAMES}
"""
    return f"""{begin}{_stacked(form)}
logits, probabilities = session.run(None, {{"images": images}})
{_NAMES}
"""


def _program(student: Student, form: Form) -> str:
    asked = (
        f"""{_constants(student)}
logits = network(torch.from_numpy((images / np.float32(255) - mean) / std))
probabilities = logits.softmax(1).detach().numpy()"""
        if form.raw
        else """\
logits, probabilities = (answer.detach().numpy() for answer in network(torch.from_numpy(images)))"""
    )
    return f"""\
import json

import numpy as np
import torch
from PIL import Image, ImageOps

more = {{"classroomkd.json": ""}}
network = torch.export.load({form.name}, extra_files=more).module()
about = json.loads(more["classroomkd.json"])
{classes_of_file(form)}
{pixels_of_picture(student)}

{_stacked(form)}
{asked}
{_NAMES}
"""


def _weights(student: Student, form: Form) -> str:
    call = library_call(student.model, len(student.classes), student.shape[0])
    if call is None:
        return f"""\
import classroomkd as ck

student = ck.load_student({form.name})
names, probabilities = student({_ONE})
"""
    library, built = call
    return f"""\
import json

import numpy as np
import {library}
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file

network = {built}
network.load_state_dict(load_file({form.name}))
network.eval()
with safe_open({form.name}, "pt") as file:
    about = file.metadata()
{classes_of_file(form)}
{pixels_of_picture(student)}

{_constants(student)}
{_stacked(form)}
with torch.no_grad():
    logits = network(torch.from_numpy((images / np.float32(255) - mean) / std))
probabilities = logits.softmax(1).numpy()
{_NAMES}
"""


def compare(student: Student, form: Form, card: str, file: Path, sample: Sample) -> tuple[float, str]:
    """Carry out the card's lines on pictures.

    Returns:
        The largest difference of a probability to what the student says itself, and what is to be said before the
        pictures' name.

    Raises:
        RunStopped: another class, or a difference above 1e-4; of a graph that resizes only for pictures of the
            student's own size, since its resampling is another one than Pillow's.
    """
    paths = [str(path) for path in sample.files]
    scope = carry_out(card, form.target.name, {form.name: str(file), _ONE: paths})
    ours = student(paths)
    theirs = torch.as_tensor(np.asarray(scope["probabilities"]))
    if theirs.shape != ours.probabilities.shape:
        raise RunStopped(
            f"{form.target.name} answers {tuple(theirs.shape)} where the student answers "
            f"{tuple(ours.probabilities.shape)}; nothing was written"
        )
    apart = (theirs - ours.probabilities).abs().amax(1)
    same = torch.tensor([a == b for a, b in zip(scope["names"], ours.names, strict=True)]) | _tied(ours.probabilities)
    strict = torch.tensor([not form.with_resize or _of_own_size(path, student) for path in sample.files])
    wrong = strict & (~same | ~(apart <= NEAR))
    if wrong.any():
        place = int(wrong.nonzero()[0])
        raise RunStopped(
            f"{form.target.name} answers otherwise than the student: {sample.files[place].name} is "
            f"{scope['names'][place]} and not {ours.names[place]}, or its probabilities are {float(apart[place]):.3g} "
            "apart; nothing was written"
        )
    if not form.with_resize:
        return float(apart.max()), "the same on "
    agree = f"the same class for {int(same.sum())} of {len(same)}, {int((~strict).sum())} of which were resized"
    return float(apart.max()), f"but for its resampling, which is not Pillow's: {agree}, on "


def _tied(probabilities: Tensor) -> Tensor:
    """Where two classes are as probable as each other, within what may differ: (N,)."""
    if probabilities.shape[1] < 2:
        return torch.zeros(len(probabilities), dtype=torch.bool)
    first, second = probabilities.topk(2).values.unbind(1)
    return first - second <= 2 * NEAR


def _of_own_size(path: Path, student: Student) -> bool:
    _, height, width = student.shape
    with Image.open(path) as image:
        return image.size == (width, height)
