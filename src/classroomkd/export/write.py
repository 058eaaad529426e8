"""Writing a student alone: weights and a model card, or an ONNX graph; only what an export wrote is replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import safetensors
from torch import nn

from classroomkd import models
from classroomkd._files import atomic_write_bytes, atomic_write_text
from classroomkd._printable import printable
from classroomkd.errors import UserError
from classroomkd.export.student import files_of, load_student, read_student

__all__ = ["export_student", "written_here"]

CARD = "<!-- This card was written by classroomkd export, which may replace it. -->"


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
    if student is None:
        atomic_write_bytes(target, source.read_bytes())
        return target
    files = files_of(student.metadata, source)
    if more := files.written_out(student):
        models.save_checkpoint(student.module, target, {**student.metadata, **more})
    else:
        atomic_write_bytes(target, source.read_bytes())
    atomic_write_text(card, f"{printable(files.card(student, target))}\n{CARD}\n")
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
    model = read_student(source)[1].get("model", "")
    return model.startswith(("given:", "py:"))
