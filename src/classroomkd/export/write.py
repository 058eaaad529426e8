"""Writing a student alone: weights, an ONNX graph or a program of torch.export, a model card beside each.

The file is tried before it is written: the lines of its own card are carried out on pictures, and must say what
``classroomkd predict`` says. Only what an export wrote is replaced.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors
from torch import nn

from classroomkd import models
from classroomkd._compat import installed
from classroomkd._files import atomic_write_bytes, atomic_write_text
from classroomkd.errors import UserError
from classroomkd.export.card import card_of
from classroomkd.export.graph import Made, onnx_file, program_file
from classroomkd.export.lines import Form, quoted
from classroomkd.export.sample import pictures_for
from classroomkd.export.student import Student, files_of, load_student, read_student

__all__ = ["Exported", "export_student", "ship", "written_here"]

CARD = "<!-- This card was written by classroomkd export, which may replace it. -->"
_ENDINGS = (".safetensors", ".onnx", ".pt2")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        card: beside it; None where the network is code of the user's own.
        made: what the file takes and gives.
        difference: the largest between what the card's lines say and ``predict`` (of probabilities; of persons in
            pixels); None where it was not tried.
        tried: on what, or why not.
    """

    path: Path
    card: Path | None
    made: Made
    difference: float | None
    tried: str


def export_student(
    source: Path,
    target: Path,
    *,
    module: nn.Module | None = None,
    trust_code: bool = False,
    decode: Literal["inside", "outside"] | None = None,
    raw: bool = False,
    with_resize: bool = False,
    images: Path | None = None,
    force: bool = False,
) -> Path:
    """Write a student alone, with a model card beside it; see :func:`ship`, which gives more than the path."""
    form = Form(target, decode, raw, with_resize)
    return ship(source, form, module=module, trust_code=trust_code, images=images, force=force).path


def ship(
    source: Path,
    form: Form,
    *,
    module: nn.Module | None = None,
    trust_code: bool = False,
    images: Path | None = None,
    force: bool = False,
) -> Exported:
    """Write a student alone: a copy (``.safetensors``), ONNX (``.onnx``), or a program of torch.export (``.pt2``).

    A graph takes uint8 pixels at the student's size, any batch, and normalises them itself: ``images`` (N, 3, H, W) to
    ``logits`` and ``probabilities``, of persons ``crops`` to ``joints`` (N, K, 3). ``raw``: normalised floats
    ``pixels`` to ``logits`` or ``joints``. ``with_resize``: ONNX that takes pictures of any one size. ``decode:
    outside``: of persons the network's own ``answer``.

    Args:
        source: the student's file.
        form: where to, and how.
        module: the network, when it was handed in from Python.
        trust_code: allow a ``py:`` name.
        images: pictures to try the file on; None: the run's own data, where the student lies in a run.
        force: replace the target whatever it is; else only what an export wrote is replaced. The card never replaces
            another file.

    Raises:
        UserError: another ending, packages that a format needs, a network that cannot be traced, a place that cannot be
            written, or a file there that is not of an export.
        RunStopped: the lines of the card do not say what ``predict`` says; nothing was written.
    """
    target = form.target
    if not force and os.path.lexists(target) and not written_here(target):
        raise UserError(f"{target} exists already, and no export wrote it; name another file")
    _check(form)
    if source.suffix == ".onnx":
        raise UserError(f"{source} is an ONNX file, whose weights are not taken out; export the student it was made of")
    own = read_student(source)[1].get("model", "").startswith(("given:", "py:"))  # which no card can show how to build
    if target.suffix == ".safetensors" and own:
        atomic_write_bytes(target, source.read_bytes())
        return Exported(target, None, Made(b""), None, "the network is code of your own")
    card = _card_of(target)
    if os.path.lexists(card) and not written_here(card):
        raise UserError(
            f"{card} exists already, and the model card of {target.name} would replace it; name another file to export "
            "to, or move it"
        )
    student = load_student(source, module, trust_code=trust_code)
    student.module.to("cpu")
    made = _MAKERS[target.suffix](student, form, source)
    text = f"{card_of(student, source, form)}{CARD}\n"
    difference, tried = _try(student, source, form, made, text, images)
    atomic_write_bytes(target, made.content)
    atomic_write_text(card, text)
    return Exported(target, card, made, difference, tried)


def _card_of(target: Path) -> Path:
    """``NAME.md``; where that is the card of another format that lies there, ``NAME.onnx.md``."""
    card = target.with_suffix(".md")
    others = [other for ending in _ENDINGS if (other := target.with_suffix(ending)) != target and other.exists()]
    if others and written_here(card):
        text = card.read_text(encoding="utf-8", errors="replace")
        if any(quoted(other.name) in text for other in others) and quoted(target.name) not in text:
            return target.with_name(f"{target.name}.md")
    return card


def _check(form: Form) -> None:
    """Refuse endings and options that mean nothing together.

    Raises:
        UserError: they do.
    """
    if form.target.suffix not in _ENDINGS:
        raise UserError(
            f"export to '{form.target.suffix or form.target.name}' is not in this version: name the target "
            f"{', '.join(f'*{ending}' for ending in _ENDINGS[:-1])} or *{_ENDINGS[-1]}"
        )
    if form.target.suffix == ".safetensors":
        given = {"--decode": form.decode is not None, "--raw": form.raw, "--with-resize": form.with_resize}
        if wrong := next((option for option, is_given in given.items() if is_given), None):
            raise UserError(f"{wrong} is for ONNX: name the target *.onnx, or leave it out")


def _copied(student: Student, form: Form, source: Path) -> Made:
    """The weights, as they are, or with what only the run's folder says."""
    more = files_of(student.metadata, source).written_out(student)
    if not more:
        return Made(source.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "student.safetensors"
        models.save_checkpoint(student.module, copy, {**student.metadata, **more})
        return Made(copy.read_bytes())


_MAKERS: dict[str, Callable[[Student, Form, Path], Made]] = {
    ".safetensors": _copied,
    ".onnx": lambda student, form, source: onnx_file(student, form),
    ".pt2": lambda student, form, source: program_file(student, form),
}


def _try(
    student: Student, source: Path, form: Form, made: Made, card: str, images: Path | None
) -> tuple[float | None, str]:
    """Carry out the card's lines on pictures: the largest difference to ``predict``, and what they were.

    Raises:
        RunStopped: they say something else.
    """
    files = files_of(student.metadata, source)
    if not files.lines(student, form):
        return None, "this task's card has no lines to try"
    if form.target.suffix == ".onnx" and not installed("onnxruntime"):
        return None, "onnxruntime is not installed"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"student{form.target.suffix}"
        file.write_bytes(made.content)
        sample = pictures_for(student, source, Path(folder), images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the runtimes' remarks about their own future
            difference, tried = files.compare(student, form, card, file, sample)
    return difference, f"{tried}{sample.said}"


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


def _mentions(path: Path) -> bool:
    return b"classroomkd" in path.read_bytes()  # among the metadata


_WRITTEN: dict[str, Callable[[Path], bool]] = {
    ".md": _is_card,
    ".safetensors": _is_student,
    ".onnx": _mentions,
    ".pt2": _mentions,
}
