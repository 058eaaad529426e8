"""A trained student as a file: weights in safetensors, what it needs to be used in the metadata, a card beside it.

What depends on the task (how the network is built, what its answers mean, what the card says) its ``TaskFiles`` knows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from classroomkd import models, tasks
from classroomkd._stored import read_yaml
from classroomkd.errors import UserError
from classroomkd.export.find import find_student, own_run
from classroomkd.export.onnx_file import open_onnx
from classroomkd.models.about import Described, described

if TYPE_CHECKING:
    from classroomkd.tasks.pose.written import PoseAnswers

__all__ = ["Prediction", "Student", "files_of", "find_student", "load_student", "own_recipe", "own_run", "read_student"]


class Prediction(NamedTuple):
    """What a student says about N images.

    Attributes:
        names: the most probable class of each, N names.
        probabilities: (N, classes) float32 on the CPU, in the order of ``Student.classes``.
    """

    names: tuple[str, ...]
    probabilities: Tensor


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
        resize: how pictures are brought to ``size``, see ``classroomkd.data.geometry``; files of versions that did not
            say it mean ``pad``.
        answers: what the task knows of its answers beside ``classes``, see ``TaskFiles.read_answers``.
    """

    module: nn.Module
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, int, int]
    size: int | None
    model: str
    metadata: dict[str, str]
    answers: Any = None
    resize: str = "pad"

    def __call__(self, images: Any, *more: Any, **options: Any) -> Any:
        """What the student says about images; no gradient. The same as ``classroomkd predict``.

        Args:
            images: a path, a Pillow image, uint8 pixels (h, w), (h, w, 3) or (3, h, w), a batch (N, 3, h, w) or
                (N, h, w, 3), or a list of them, of any size; of persons one picture.
            more, options: what the task takes beside them, of persons ``boxes``; see ``TaskFiles.ask``.

        Returns:
            Of classes a :class:`Prediction`, whose rows are the images, one too; of persons joints (P, K, 3).

        Raises:
            UserError: an image that cannot be read, or is none.
        """
        return files_of(self.metadata, Path(self.model)).ask(self, images, *more, **options)

    predict = __call__

    def __repr__(self) -> str:
        """One line: the network's own text would be pages."""
        names = ", ".join([*self.classes[:5], *["…"][: len(self.classes) > 5]])
        shape = "x".join(map(str, self.shape))
        return f"Student({self.model}, {self.task} of {len(self.classes)}: {names}; {shape}, resize: {self.resize})"

    @property
    def device(self) -> torch.device:
        """Where its network is: ``student.module.to("cuda")`` moves it."""
        first = next(self.module.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def pose(self) -> PoseAnswers | None:
        """The answers of a pose student, else None."""
        from classroomkd.tasks.pose.written import PoseAnswers

        return self.answers if isinstance(self.answers, PoseAnswers) else None

    @property
    def task(self) -> str:
        """What it was taught."""
        return self.metadata.get("task", tasks.DEFAULT)

    @property
    def side(self) -> int | None:
        """The ``size`` of the geometry rule that brings other images to ``shape``; None for one that is not square."""
        _, height, width = self.shape
        return self.size or (height if height == width else None)


def load_student(
    path: str | Path, module: nn.Module | None = None, *, which: str = "last", trust_code: bool = False
) -> Student:
    """Rebuild a student from its file, ready to be called: ``student = ck.load_student(run); student("photo.jpg")``.

    Args:
        path: a ``student.safetensors`` of a run, an exported one (``.onnx``, too), or a folder: see
            :func:`find_student`.
        module: the network to load into, when it was handed in from Python; None = built by the name in the file.
        which: of a folder's files ``last``, ``best`` or ``ema``.
        trust_code: allow a ``py:`` name.

    Raises:
        UserError: not such a file, a task that this version does not know, or a network that has to be handed in.
    """
    path = find_student(Path(path), which) if Path(path).is_dir() else Path(path)
    if path.suffix == ".onnx":
        return _of_onnx(path)
    _, about = read_student(path)
    files, known = _known(path, about)
    if module is not None:
        module = copy.deepcopy(module).float()  # as the file is, whatever was handed over
    elif about["model"].startswith("given:"):
        raise UserError(
            f"{path}: the student is a network that was handed in from Python ({about['model'][6:]}); build it there "
            "and load the file with safetensors.torch.load_file"
        )
    else:
        module = files.network(about["model"], len(known.classes), known.shape, trust_code)
    models.load_checkpoint(module, path, what="student")
    return _made(path, about, module.eval(), files, known)


def _of_onnx(path: Path) -> Student:
    """An exported graph. One that normalises itself takes pixels in 0..255: mean 0 and std 1/255."""
    network, about, pixels = open_onnx(path)
    student = _made(path, about, network, *_known(path, about))
    channels = student.shape[0]
    return replace(student, mean=(0.0,) * channels, std=(1 / 255,) * channels) if pixels else student


def _known(path: Path, about: dict[str, str]) -> tuple[Any, Described]:
    """The files of a student's task, and what its metadata say.

    Raises:
        UserError: they lack something, or are of a task that this version does not know.
    """
    missing = [k for k in ("model", "classes", "preprocessing") if k not in about]
    if missing:
        raise UserError(f"{path} is not a student of this package: its metadata lacks {', '.join(missing)}")
    return files_of(about, path), described(path, about)


def _made(path: Path, about: dict[str, str], module: nn.Module, files: Any, known: Described) -> Student:
    return Student(
        module, known.classes, known.mean, known.std, known.shape, known.size, about["model"], about,
        files.read_answers(path, about, known.shape[1:]), known.resize or "pad",
    )  # fmt: skip


def read_student(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A student's tensors and metadata, where its file is what was written.

    Raises:
        UserError: it is gone, damaged, or another one than the list of checksums beside it says.
    """
    from classroomkd._sums import SUMS, damage, is_listed
    from classroomkd.models.checkpoints import read_checkpoint

    if is_listed(path) and (wrong := damage(path)) is not None:
        raise UserError(
            f"{path} {wrong}; the run makes it again with --resume (a file that you have changed yourself: take its "
            f"line out of {path.parent / SUMS})"
        )
    return read_checkpoint(path, what="student")


def files_of(about: dict[str, str], path: Path) -> Any:
    """What a student's task does with files: its ``TaskFiles``."""
    task = about.get("task", tasks.DEFAULT)
    if task not in tasks.names():
        raise UserError(f"{path}: its task is '{task}', which this version does not know: pip install -U classroomkd")
    return tasks.find_row(task).open_files()


def own_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe of the run whose folder a student lies in; None where it lies in none."""
    folder = own_run(path)
    return None if folder is None else read_yaml(folder / "recipe.yaml", remedy="put it back, or take the student out")
