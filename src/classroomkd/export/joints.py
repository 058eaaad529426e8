"""A pose student in its file: how it is built, what its answers mean, and its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from classroomkd._stored import MAPPING, Damaged, parse_json, trusted
from classroomkd.classroom import prediction_of
from classroomkd.data.keypoints.crops import PADDING, Canvas
from classroomkd.errors import UserError
from classroomkd.export.student import Pose, Student, own_recipe
from classroomkd.export.words import made_by, numbers, sizes
from classroomkd.models.about import REMEDY
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC
from classroomkd.tasks.pose.written import written_coding, written_skeleton

__all__ = ["Reading", "build", "card", "pose_of"]


def build(model: str, classes: tuple[str, ...], shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
    """The network, with fresh weights."""
    from classroomkd.models.pose import resolve_pose

    channels, height, width = shape
    network: nn.Module = resolve_pose(model, len(classes), (height, width), trust_code=trust_code, in_channels=channels)
    return network


def pose_of(path: Path, about: dict[str, str], size: tuple[int, int]) -> Pose:
    """What the metadata says about joints, head and crops.

    Raises:
        UserError: it does not say it.
    """
    missing = [k for k in ("skeleton", "coding") if k not in about]
    if missing:
        raise UserError(f"{path} is not a pose student of this package: its metadata lacks {', '.join(missing)}")
    with trusted(f"{path}: what it says of its crops", REMEDY):
        options = parse_json(about["crop"], MAPPING) if "crop" in about else _own_options(path)
        scale, padding = float(options.get("canvas", 1.0)), float(options.get("padding", PADDING))
        if not (0 < scale <= 16 and 0 < padding <= 16):
            raise Damaged(f"does not fit (canvas {scale}, padding {padding})")
    return Pose(written_skeleton(path, about), written_coding(path, about), Canvas(size, scale), padding)


def _own_options(path: Path) -> dict[str, Any]:
    recipe = own_recipe(path) or {}
    data = recipe.get("data")
    options = data.get("options") if isinstance(data, dict) else None
    return options if isinstance(options, dict) else {}


class Reading(nn.Module):
    """A pose network and what reads its answers: crops (B, C, H, W) to x, y and a score (B, K, 3)."""

    def __init__(self, network: nn.Module, coding: Coding) -> None:
        super().__init__()
        self.network = network
        self.coding = coding

    def forward(self, pixels: Tensor) -> Tensor:
        """x and y in pixels of the crop, a score in 0..1."""
        joints: Tensor = self.coding.decode(prediction_of(self.network(pixels)))
        return joints


def card(student: Student, target: Path) -> str:
    """The model card, with lines that run."""
    assert student.pose is not None
    channels, height, width = student.shape
    pose = student.pose
    pairs = ", ".join("–".join(pose.skeleton.joints[i] for i in pair) for pair in pose.skeleton.flip_pairs)
    return f"""# {student.model}, {len(pose.skeleton)} joints of one person

{made_by(student)}

- input: {channels} x {height} x {width}, pixels in 0..1, mean {numbers(student.mean)}, std {numbers(student.std)}: one
  person, whose box was widened to the input's aspect and enlarged {pose.padding:g} times
- output: {_answer(pose.coding)}
- joints, in this order: {", ".join(pose.skeleton.joints)}
- swapped in a mirror image: {pairs or "none"}
- {sizes(student)}

{_how(pose.coding)}

```python
import torch
from classroomkd.export import load_student

student = load_student("{target.name}")
pixels = torch.rand(1, {channels}, {height}, {width})  # a crop, RGB in 0..1
mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (student.mean, student.std))
with torch.no_grad():
    answer = student.module((pixels - mean) / std)
joints = student.pose.coding.decode(answer)  # (1, {len(pose.skeleton)}, 3): x, y in pixels of the crop, score
```
"""


def _answer(coding: Coding) -> str:
    shape = " x ".join(str(n) for n in coding.answer_shape)
    if isinstance(coding, SimCC):
        return f"{shape} numbers (SimCC): for each joint {coding.bins[0]} bins over x, then {coding.bins[1]} over y"
    return f"{shape} numbers: a heatmap a joint"


def _how(coding: Coding) -> str:
    """How to decode without this package."""
    if isinstance(coding, SimCC):
        return (
            f"To decode: the highest bin of each axis, divided by {coding.split:g}, is the place in pixels of the crop "
            f"(the first\npixel's centre is 0). softmax({coding.beta:g} · bins) are the probabilities of an axis; the "
            f"score is their sum within {coding.sigmas[0]:.1f}\n(x) or {coding.sigmas[1]:.1f} (y) bins of the highest, "
            "that of the worse axis."
        )
    assert isinstance(coding, Heatmap)
    steps = ", ".join(f"{n:.4f}" for n in coding.spacing)
    refined = {"dark": ", refined by DARK", "quarter": ", moved a quarter towards the higher neighbour"}
    ground = " above the map's median" if coding.loss == "kl" else ""
    return (
        f"To decode: the highest cell{refined.get(coding.decoder, '')}; cells are ({steps}) pixels of the crop apart "
        f"along x and y, the\nfirst cell is at 0. The score is the peak's height{ground}."
    )
