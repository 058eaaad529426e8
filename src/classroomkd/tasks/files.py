"""What happens with the files of a task's students, and what its verbs tell the user: the base of every task's."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from classroomkd import tasks
from classroomkd.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from classroomkd.data import ImageSet
    from classroomkd.export import Student
    from classroomkd.export.graph import Graph
    from classroomkd.recipe import Arm
    from classroomkd.run.networks import Networks

__all__ = ["EvaluateRequest", "PredictRequest", "Shown", "TaskFiles", "files_of", "refuse_options"]

Shown = tuple[Mapping[str, Any], Callable[[], None]]  # an answer as plain data, and what prints it


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be scored.

    Attributes:
        student: who.
        path: of its file.
        source: the data, where it is not the run's own.
        recipe: the run's, where the student lies in a run folder.
        part: test, val, train or all.
        unreadable: refuse or skip.
        device: where.
        trust_code: whether ``py:`` names may run.
        flip_test, official: options that not every task takes; None: not said.
        run: the folder of the run that the student lies in.
    """

    student: Student
    path: Path
    source: str | None
    recipe: dict[str, Any] | None
    part: str
    unreadable: str
    device: torch.device
    trust_code: bool
    flip_test: bool | None = None
    official: bool = False
    run: Path | None = None

    def check(self, images: ImageSet) -> None:
        """Whether these are the images that the student's run was made with: the run's own must be, of others it is
        said.

        Raises:
            UserError: the run's own data have changed since; a score of them would not be the run's.
        """
        from classroomkd.run.folder import stored_data

        made = None if self.run is None else stored_data(self.run)
        if made is None:
            return
        same = made.fingerprint == images.fingerprint
        if self.source is not None:
            told = (
                "these are the images of the student's run, those it was taught with among them"
                if same and self.part in ("train", "all")
                else "these are the images of the student's run"
                if same
                else "these are other images than those of the student's run"
            )
            print(f"note: {told}", file=sys.stderr)
            return
        parts = ("train", "val", "test") if self.part == "all" else (self.part,)
        if not same or any(made.parts.get(name) != getattr(images, name).digest() for name in parts):
            raise UserError(
                f"{self.run} was made with other images or another split of '{images.name}' than there are now, so a "
                "score of these would not be the run's; put them back, or say that others are meant: --data SOURCE"
            )

    def spec(self, **sizes: Any) -> dict[str, Any]:
        """The data section: the run's own, or the source that was given at the student's size.

        Raises:
            UserError: neither is there.
        """
        if self.source is not None:
            return {"source": self.source, "unreadable": self.unreadable, **sizes}
        if self.recipe is None:
            raise UserError(
                f"{self.path} lies in no run folder; say which data to score it on: --data imagefolder:DIR (pose: "
                "coco-keypoints:DIR)"
            )
        own = self.recipe.get("data")
        if not isinstance(own, dict):
            raise UserError(
                f"{self.run}/recipe.yaml is damaged (it has no data); put it back, or name the data: --data"
            )
        return {str(k): v for k, v in own.items() if v is not None}


@dataclass(frozen=True)
class PredictRequest:
    """What is to be predicted, and where to.

    Attributes:
        student: who does it.
        images: as typed: a file or a folder.
        files: the images.
        out: None for standard output.
        lines: JSON lines and not CSV, where ``out`` does not say.
        device: where.
        batch_size: images or persons at once.
        top, boxes, draw, flip_test: options that not every task takes; None or False: not said.
    """

    student: Student
    images: Path
    files: list[Path]
    out: Path | None
    lines: bool
    device: torch.device
    batch_size: int
    top: int | None = None
    boxes: Path | None = None
    draw: Path | None = None
    flip_test: bool = False


class TaskFiles(ABC):
    """A task's students in their files, and what ``evaluate``, ``predict``, ``export`` and ``inspect`` do for it.

    Attributes:
        evaluate_options, predict_options: which of the options that not every task takes this one does.
    """

    evaluate_options: ClassVar[tuple[str, ...]] = ()
    predict_options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, model: str, classes: tuple[str, ...], shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """A student's network, with fresh weights, for inputs of ``shape`` (C, H, W)."""

    def read_answers(self, path: Path, about: Mapping[str, str], size: tuple[int, int]) -> Any:
        """What a file's metadata say about the meaning of answers beside ``classes``: ``Student.answers``.

        Raises:
            UserError: they do not say it.
        """
        return None

    def written_out(self, student: Student) -> dict[str, str]:
        """Metadata that an exported file needs, because only the run's folder says it."""
        return {}

    @abstractmethod
    def card(self, student: Student, target: Path) -> str:
        """The model card of an exported student, with lines that run."""

    @abstractmethod
    def graph(self, student: Student, decode: str | None) -> Graph:
        """What becomes an ONNX graph; ``decode`` is ``inside``, ``outside`` or not said.

        Raises:
            UserError: ``decode`` means nothing for this task.
        """

    @abstractmethod
    def evaluate(self, asked: EvaluateRequest) -> Shown:
        """Score a student on data.

        Raises:
            UserError: data that do not fit the student, and what loading them raises.
        """

    def evaluate_answers(self, path: Path, source: str | None, part: str | None, official: bool) -> Shown:
        """Score a file of answers, whoever wrote it, where the task's description has ``answer_files``.

        Raises:
            UserError: they do not fit.
        """
        raise UserError(f"{path}: a file of answers cannot be scored for this task")

    @abstractmethod
    def predict(self, asked: PredictRequest) -> list[str]:
        """Write what a student says about images; returns what was left out, and why.

        Raises:
            UserError: nothing could be read.
        """

    def write_prediction_samples(
        self, networks: Networks, out: Path, arms: Sequence[Arm], mentors: Sequence[Mapping[str, Any]]
    ) -> Path | None:
        """Keep samples of the test part with what everybody says about them in the run's folder, for its page."""
        return None

    @abstractmethod
    def network(self, model: str, count: int, shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """A network by name for ``classroomkd inspect``, with answers of ``count`` classes or joints.

        Raises:
            UserError: there is none.
        """

    def head(self, module: nn.Module, model: str, shape: tuple[int, int, int]) -> str | None:
        """What a network of :meth:`network` answers, where there is more to say than their number."""
        return None


def files_of(task: str) -> TaskFiles:
    """The files of a task, by its name.

    Raises:
        UserError: an unknown name, or a plug-in that cannot be loaded.
    """
    files: TaskFiles = tasks.find_row(task).open_files()
    return files


def refuse_options(student: Student, options: Mapping[str, Any], taken: Sequence[str]) -> None:
    """Refuse options that were given and mean nothing for a student's task.

    Raises:
        UserError: naming the first of ``options`` that is not None or False and not among ``taken``.
    """
    for name, value in options.items():
        if value is not None and value is not False and name.lstrip("-").replace("-", "_") not in taken:
            raise UserError(f"{name} has no meaning for this student, whose task is {student.task}; leave it out")
