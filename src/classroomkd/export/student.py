"""A trained student as a file: weights in safetensors, what it needs to be used in the metadata, a card beside it.

What depends on the task (how the network is built, what its answers mean, what the card says) is in one module a task.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import safetensors
from torch import nn

from classroomkd import models
from classroomkd._files import atomic_write_bytes, atomic_write_text
from classroomkd._stored import read_yaml
from classroomkd.errors import UserError
from classroomkd.models.about import described

if TYPE_CHECKING:
    from classroomkd.data.keypoints.crops import Canvas
    from classroomkd.data.skeleton import Skeleton
    from classroomkd.tasks.pose.coding import Coding

__all__ = ["Pose", "Student", "export_student", "find_student", "load_student", "own_recipe", "own_run", "written_here"]

CARD = "<!-- This card was written by classroomkd export, which may replace it. -->"

FILES = {"last": "student.safetensors", "best": "student-best.safetensors", "ema": "student-ema.safetensors"}

# task -> the module with ``build``, ``pose_of`` and ``card``
TASKS = {"classification": "classroomkd.export.classes", "pose": "classroomkd.export.joints"}


@dataclass(frozen=True)
class Pose:
    """What a pose student's answers mean, and how persons were cropped for it.

    Attributes:
        skeleton: its joints.
        coding: how an answer says where they are; ``coding.decode(answer)`` is (B, K, 3): x, y in pixels of the crop
            (the first pixel's centre is 0) and a score in 0..1.
        canvas: the crop's size, and how finely crops were stored.
        padding: by how much a person's box was enlarged.
    """

    skeleton: Skeleton
    coding: Coding
    canvas: Canvas
    padding: float


@dataclass(frozen=True)
class Student:
    """A student ready for use: the network in eval mode and what it expects and answers.

    Attributes:
        module: maps (B, C, H, W), pixels in 0..1 less ``mean`` and over ``std``, to logits or a pose answer.
        classes: names of what it knows: classes or joints.
        mean, std: per channel.
        shape: (C, H, W) of the input.
        size: ``data.size`` of the recipe, where it was one number.
        model: the network's name.
        metadata: of the file.
        pose: of a pose student, else None.
    """

    module: nn.Module
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, int, int]
    size: int | None
    model: str
    metadata: dict[str, str]
    pose: Pose | None = None

    @property
    def task(self) -> str:
        """What it was taught."""
        return self.metadata.get("task", "classification")

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


def load_student(path: str | Path, module: nn.Module | None = None, *, trust_code: bool = False) -> Student:
    """Rebuild a student from its file.

    Args:
        path: a ``student.safetensors`` of a run, or an exported one.
        module: the network to load into, when it was handed in from Python; None = built by the name in the file.
        trust_code: allow a ``py:`` name.

    Raises:
        UserError: not such a file, a task that this version does not know, or a network that has to be handed in.
    """
    path = Path(path)
    _, about = _read(path)
    missing = [k for k in ("model", "classes", "preprocessing") if k not in about]
    if missing:
        raise UserError(f"{path} is not a student of this package: its metadata lacks {', '.join(missing)}")
    kind = _kind(about, path)
    said = described(path, about)
    if module is None:
        if about["model"].startswith("given:"):
            raise UserError(
                f"{path}: the student is a network that was handed in from Python ({about['model'][6:]}); build it "
                "there and load the file with safetensors.torch.load_file"
            )
        module = kind.build(about["model"], said.classes, said.shape, trust_code)
    else:
        import copy

        module = copy.deepcopy(module)
    models.load_checkpoint(module, path, what="student")
    pose = kind.pose_of(path, about, said.shape[1:])
    return Student(module.eval(), said.classes, said.mean, said.std, said.shape, said.size, about["model"], about, pose)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A student's tensors and metadata, where its file is what was written.

    Raises:
        UserError: it is gone, damaged, or another one than the list of checksums beside it says.
    """
    from classroomkd._sums import SUMS, damage, is_listed
    from classroomkd.models.checkpoints import read_checkpoint

    if is_listed(path) and (said := damage(path)) is not None:
        raise UserError(
            f"{path} {said}; the run makes it again with --resume (a file that you have changed yourself: take its "
            f"line out of {path.parent / SUMS})"
        )
    return read_checkpoint(path, what="student")


def _kind(about: dict[str, str], path: Path) -> Any:
    """The module of a student's task."""
    task = about.get("task", "classification")
    if task not in TASKS:
        raise UserError(f"{path}: its task is '{task}', which this version does not know: pip install -U classroomkd")
    return importlib.import_module(TASKS[task])


def own_run(path: Path) -> Path | None:
    """The folder of the run that a student lies in; None where it lies in none."""
    return next((folder for folder in path.resolve().parents if (folder / "recipe.yaml").exists()), None)


def own_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe of the run whose folder a student lies in; None where it lies in none."""
    folder = own_run(path)
    return None if folder is None else read_yaml(folder / "recipe.yaml", remedy="put it back, or take the student out")


def export_student(
    source: Path,
    target: Path,
    *,
    module: nn.Module | None = None,
    trust_code: bool = False,
    decode: Literal["inside", "outside"] | None = None,
    force: bool = False,
) -> Path:
    """Write a student alone: a copy with a model card beside it (``.safetensors``, ``.md``), or ONNX (``.onnx``).

    Args:
        source: the student's file.
        target: where to; its ending says what.
        module: for ONNX, the network, when it was handed in from Python.
        trust_code: for ONNX, allow a ``py:`` name.
        decode: see :func:`classroomkd.export.graph.export_onnx`.
        force: replace ``target`` whatever it is; else only what an export wrote is replaced. The card never replaces
            another file.

    Raises:
        UserError: another ending, packages that ONNX needs, a network that cannot be written as ONNX, a place that
            cannot be written, or a file there that is not of an export.
    """
    if not force and os.path.lexists(target) and not written_here(target):
        raise UserError(f"{target} exists already, and no export wrote it; name another file")
    if target.suffix == ".onnx":
        from classroomkd.export.graph import export_onnx

        export_onnx(load_student(source, module, trust_code=trust_code), target, decode=decode)
        return target
    if target.suffix != ".safetensors":
        raise UserError(
            f"export to '{target.suffix or target.name}' is not in this version: name the target *.safetensors or "
            "*.onnx"
        )
    if decode is not None:
        raise UserError("--decode is for ONNX: name the target *.onnx, or leave it out")
    student = None if _is_own(source) else load_student(source)
    card = target.with_suffix(".md")
    if student is not None and os.path.lexists(card) and not written_here(card):
        raise UserError(
            f"{card} exists already, and the model card of {target.name} would replace it; name another file to export "
            "to, or move it"
        )
    if student is not None and student.pose is not None and "crop" not in student.metadata:
        # Only the run's folder says how persons were cropped, and the file leaves it.
        crop = {"padding": student.pose.padding, "canvas": student.pose.canvas.scale}
        models.save_checkpoint(student.module, target, {**student.metadata, "crop": json.dumps(crop)})
    else:
        atomic_write_bytes(target, source.read_bytes())
    if student is not None:
        atomic_write_text(card, f"{_kind(student.metadata, source).card(student, target)}\n{CARD}\n")
    return target


def written_here(path: Path) -> bool:
    """Whether an export wrote a file: a card by its last line, a student by what its file says of itself."""
    if path.is_symlink() or not path.is_file():
        return False
    kind = _WRITTEN.get(path.suffix)
    return kind is not None and kind(path)


def _is_card(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2 * len(CARD), 0))
        return file.read().decode(errors="replace").rstrip().endswith(CARD)


def _is_student(path: Path) -> bool:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            about: dict[str, str] = file.metadata() or {}
            return "model" in about and "classroomkd_schema" in about
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError):
        return False


_WRITTEN: dict[str, Callable[[Path], bool]] = {
    ".md": _is_card,
    ".safetensors": _is_student,
    ".onnx": lambda path: b"classroomkd" in path.read_bytes(),  # among the metadata
}


def _is_own(source: Path) -> bool:
    """Whether the network is code of the user's, which a card cannot show how to build."""
    model = _read(source)[1].get("model", "")
    return model.startswith(("given:", "py:"))
