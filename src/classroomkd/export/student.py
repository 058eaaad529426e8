"""A trained student as a file: weights in safetensors, what it needs to be used in the metadata, a card beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classroomkd import __version__, models
from classroomkd._files import atomic_write_bytes, atomic_write_text
from classroomkd.errors import UserError

__all__ = ["Student", "export_student", "find_student", "load_student"]

FILES = {"last": "student.safetensors", "best": "student-best.safetensors", "ema": "student-ema.safetensors"}


@dataclass(frozen=True)
class Student:
    """A student ready for use: the network in eval mode and what it expects and answers."""

    module: nn.Module
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, int, int]
    size: int | None
    model: str
    metadata: dict[str, str]

    @property
    def side(self) -> int | None:
        """The ``size`` of the geometry rule that brings other images to ``shape``; None for one that is not square."""
        _, height, width = self.shape
        return self.size or (height if height == width else None)


def find_student(path: Path, which: str = "last") -> Path:
    """The student's file in a run folder, a seed's folder, or the file itself.

    ``which`` is ``last``, ``best`` or ``ema``; it does not matter where ``path`` is a file.

    Raises:
        UserError: another ``which``, nothing there, or several students to choose from (they are named).
    """
    if which not in FILES:
        raise UserError(f"--which {which}: choose one of {', '.join(FILES)}")
    name = FILES[which]
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run folder, a seed's folder or a student.safetensors")
    found = sorted(path.glob(name)) or sorted(path.glob(f"*/{name}")) or sorted(path.glob(f"*/*/{name}"))
    if not found:
        raise UserError(f"{path} holds no {name}; a student appears there when its training is finished")
    if len(found) > 1:
        some = ", ".join(str(p.parent.relative_to(path)) for p in found[:6])
        raise UserError(
            f"{path} holds {len(found)} students ({some}{', …' if len(found) > 6 else ''}); name one of them"
        )
    return found[0]


def load_student(path: Path, module: nn.Module | None = None, *, trust_code: bool = False) -> Student:
    """Rebuild a student from its file.

    Args:
        path: a ``student.safetensors`` of a run, or an exported one.
        module: the network to load into, when it was handed in from Python; None = built by the name in the file.
        trust_code: allow a ``py:`` name.

    Raises:
        UserError: not such a file, or a network that has to be handed in.
    """
    from classroomkd.models.checkpoints import read_checkpoint

    _, about = read_checkpoint(path, what="student")
    missing = [k for k in ("model", "classes", "preprocessing") if k not in about]
    if missing:
        raise UserError(f"{path} is not a student of this package: its metadata lacks {', '.join(missing)}")
    classes = tuple(json.loads(about["classes"]))
    known: dict[str, Any] = json.loads(about["preprocessing"])
    shape = tuple(known["shape"])
    if module is None:
        if about["model"].startswith("given:"):
            raise UserError(
                f"{path}: the student is a network that was handed in from Python ({about['model'][6:]}); build it "
                "there and load the file with safetensors.torch.load_file"
            )
        module = models.resolve(about["model"], len(classes), trust_code=trust_code, in_channels=shape[0])
    else:
        import copy

        module = copy.deepcopy(module)
    models.load_checkpoint(module, path, what="student")
    size = json.loads(about.get("data_size", "null"))
    return Student(
        module.eval(),
        classes,
        tuple(known["mean"]),
        tuple(known["std"]),
        (shape[0], shape[1], shape[2]),
        size,
        about["model"],
        about,
    )


def export_student(source: Path, target: Path) -> Path:
    """Copy a student to ``target`` (.safetensors) and write a model card beside it (.md).

    Raises:
        UserError: another ending (ONNX and torch.export are not in this version), or a place that cannot be written.
    """
    if target.suffix != ".safetensors":
        raise UserError(
            f"export to '{target.suffix or target.name}' is not in this version: name the target *.safetensors"
        )
    student = load_student(source, trust_code=False) if not _is_given(source) else None
    atomic_write_bytes(target, source.read_bytes())
    if student is not None:
        atomic_write_text(target.with_suffix(".md"), _card(student, target))
    return target


def _is_given(source: Path) -> bool:
    from classroomkd.models.checkpoints import read_checkpoint

    model = read_checkpoint(source, what="student")[1].get("model", "")
    return model.startswith(("given:", "py:"))


def _card(student: Student, target: Path) -> str:
    about = student.metadata
    channels, height, width = student.shape
    with torch.no_grad():
        macs = models.multiply_adds(student.module, student.shape)
    names = ", ".join(student.classes[:20]) + (", …" if len(student.classes) > 20 else "")
    return f"""# {student.model}, {len(student.classes)} classes

Taught with classroomkd {about.get("classroomkd", __version__)} by the method `{about.get("method", "?")}`
(seed {about.get("seed", "?")}) on {about.get("data", "?")}.

- input: {channels} x {height} x {width}, pixels in 0..1, mean {_numbers(student.mean)}, std {_numbers(student.std)}
- output: {len(student.classes)} logits: {names}
- {models.parameters(student.module):,} parameters, {macs:,} multiply-adds

```python
import torch
from safetensors.torch import load_file
import classroomkd as ck

net = ck.models.create("{student.model}", num_classes={len(student.classes)}).eval()
net.load_state_dict(load_file("{target.name}"))
```
"""


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.4f}" for v in values) + ")"
