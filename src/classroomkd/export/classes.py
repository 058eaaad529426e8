"""A student of classes in its file: how it is built, and its card."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from classroomkd import models
from classroomkd.export.student import Student
from classroomkd.export.words import made_by, numbers, sizes

__all__ = ["build", "card", "pose_of"]


def build(model: str, classes: tuple[str, ...], shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
    """The network, with fresh weights."""
    return models.resolve(model, len(classes), trust_code=trust_code, in_channels=shape[0])


def pose_of(path: Path, about: dict[str, str], size: tuple[int, int]) -> None:
    """Classes have no pose."""


def card(student: Student, target: Path) -> str:
    """The model card, with lines that run."""
    channels, height, width = student.shape
    names = ", ".join(student.classes[:20]) + (", …" if len(student.classes) > 20 else "")
    return f"""# {student.model}, {len(student.classes)} classes

{made_by(student)}

- input: {channels} x {height} x {width}, pixels in 0..1, mean {numbers(student.mean)}, std {numbers(student.std)}
- output: {len(student.classes)} logits: {names}
- {sizes(student)}

```python
import torch
from safetensors.torch import load_file
import classroomkd as ck

net = ck.models.create("{student.model}", num_classes={len(student.classes)}).eval()
net.load_state_dict(load_file("{target.name}"))
```
"""
