"""What happens with the files of a task's students, and what its verbs tell the user: the base of every task's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from classroomkd import tasks
from classroomkd.errors import UserError
from classroomkd.tasks.requests import EvaluateRequest, PredictRequest, note_padding, placed

if TYPE_CHECKING:
    from classroomkd.export import Student
    from classroomkd.export.graph import Graph
    from classroomkd.export.lines import Form
    from classroomkd.export.sample import Sample
    from classroomkd.recipe import Arm
    from classroomkd.run.networks import Networks

__all__ = [
    "EvaluateRequest",
    "PredictRequest",
    "Shown",
    "TaskFiles",
    "files_of",
    "note_padding",
    "placed",
    "refuse_options",
]

Shown = tuple[Mapping[str, Any], Callable[[], None]]  # an answer as plain data, and what prints it


class TaskFiles(ABC):
    """A task's students in their files, and what ``evaluate``, ``predict``, ``export`` and ``inspect`` do for it.

    Attributes:
        pipeline_tag: what hubs call such a model, in the card's head.
        evaluate_options, predict_options: which of the options that not every task takes this one does.
    """

    pipeline_tag: ClassVar[str] = ""
    evaluate_options: ClassVar[tuple[str, ...]] = ()
    predict_options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def network(self, model: str, count: int, shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """A network by name, with fresh weights, for inputs of ``shape`` (C, H, W) and ``count`` classes or joints.

        Raises:
            UserError: there is none.
        """

    def head(self, module: nn.Module, model: str, shape: tuple[int, int, int]) -> str | None:
        """What a network of :meth:`network` answers, where there is more to say than their number."""
        return None

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
        """The middle of an exported student's model card: what it takes and gives."""

    def lines(self, student: Student, form: Form) -> str:
        """Python for the card, which asks the exported file about pictures; empty: none.

        In it ``form.name`` is the file and ``"photo.jpg"`` a picture.
        """
        return ""

    def compare(self, student: Student, form: Form, card: str, file: Path, sample: Sample) -> tuple[float, str]:
        """Carry out the card's :meth:`lines` on pictures and compare them with what the student says.

        Args:
            student: who says what is right.
            form: how it is exported.
            card: the whole text.
            file: where the exported file is for now.
            sample: the pictures.

        Returns:
            The largest difference, and what is said of it before the pictures' name.

        Raises:
            RunStopped: the file, or the card's lines, answer otherwise than the student.
            UserError: a task whose cards have lines does not say how to compare them.
        """
        raise UserError(f"the task {student.task} has lines for cards, and no compare() that tries them; add one")

    @abstractmethod
    def graph(self, student: Student, decode: str | None) -> Graph:
        """What becomes an ONNX graph; ``decode`` is ``inside``, ``outside`` or not said.

        Raises:
            UserError: ``decode`` means nothing for this task.
        """

    @abstractmethod
    def evaluate(self, request: EvaluateRequest) -> Shown:
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
    def predict(self, request: PredictRequest) -> list[str]:
        """Write what a student says about images; returns what was left out, and why.

        Raises:
            UserError: nothing could be read.
        """

    def ask(self, student: Student, images: Any, *more: Any, **options: Any) -> Any:
        """What a student says about images, for ``student(images, …)``: the same as :meth:`predict` writes.

        Raises:
            UserError: images that cannot be read, or that this task's students can only be asked through ``module``.
        """
        raise UserError(
            f"a student of {student.task} cannot be called; ask its network, student.module, which takes normalised "
            "pixels"
        )

    def write_prediction_samples(
        self, networks: Networks, out: Path, arms: Sequence[Arm], mentors: Sequence[Mapping[str, Any]]
    ) -> Path | None:
        """Keep samples of the test part with what everybody says about them in the run's folder, for its page."""
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
