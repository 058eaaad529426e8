"""The base of all task runners."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from classroomkd import bank, tasks
from classroomkd.classroom import Calibration, Mentor, Task, prediction_of
from classroomkd.classroom.batches import precision_of
from classroomkd.errors import UserError
from classroomkd.taps.trace import at_rest
from classroomkd.tasks.metric import Metric
from classroomkd.train.scoring import Score, answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from classroomkd.data import ImageSet, Part
    from classroomkd.recipe import Recipe, TrainSpec
    from classroomkd.recipe.schema import MentorSpec, PeerSpec, StudentSpec
    from classroomkd.run.context import RunContext
    from classroomkd.tasks.spec import TaskDescription
    from classroomkd.train.inputs import Inputs

__all__ = ["NetworkSource", "TaskRunner", "open_runner", "runner_of"]


class NetworkSource(Protocol):
    """Where a task's runner sees the networks that it built, each as it is now."""

    def blank_student(self) -> nn.Module:
        """The student for dry runs."""
        ...

    def mentor(self, name: str) -> nn.Module:
        """A mentor's network."""
        ...


class TaskRunner(ABC):
    """How the networks of a task are built, joined and scored, on the data of one run.

    Attributes:
        context: of the run.
        networks: of the run.
        samples: what they are called, for messages.
        suspects: what may be wrong with a mentor near chance, for messages.
    """

    samples: ClassVar[str] = "images"
    has_together: ClassVar[bool] = False  # whether :meth:`together` and :meth:`apart` give an answer
    scores_vote: ClassVar[bool] = False  # whether what the mentors say together of the test part is scored, all at once
    suspects: ClassVar[str] = "wrong weights, or another normalisation or size (mean, std, size)?"

    def __init__(self, context: RunContext, networks: NetworkSource) -> None:
        self.context, self.networks = context, networks

    @classmethod
    def named(
        cls, images: ImageSet, recipe: Recipe, given: Mapping[str, nn.Module], trust_code: bool = False
    ) -> ImageSet:
        """The data; where they do not name their classes, with names that the mentors give, of a task that has such.

        Raises:
            UserError: the mentors do not agree, or do not say.
        """
        return images

    @cached_property
    def task(self) -> Task:
        """The recipe's task, as a student is taught it."""
        return self.task_for(self.context.recipe.train)

    @property
    def description(self) -> TaskDescription:
        """What is known of the task without torch."""
        return tasks.describe(self.context.recipe.task.name)

    @property
    @abstractmethod
    def metric(self) -> str:
        """What ``Score.accuracy`` is, by its name in the field."""

    @property
    def measure(self) -> Metric:
        """Its unit, and whether more of it is better."""
        return self.description.measure(self.metric)

    @property
    def val_metric(self) -> str:
        """The same of the validation part, where that is scored under other conditions than the test part."""
        return self.metric

    @property
    @abstractmethod
    def answer_shape(self) -> tuple[int, ...]:
        """Shape of the student's answer to one sample."""

    @property
    def answer_size(self) -> int:
        """How many numbers that is."""
        return math.prod(self.answer_shape)

    @abstractmethod
    def task_for(self, train: TrainSpec, mentor: MentorSpec | None = None, module: nn.Module | None = None) -> Task:
        """The task, with a training section's own label smoothing; for a mentor's own training, of its network."""

    @abstractmethod
    def resolve(self, spec: str, mentor: MentorSpec | None = None) -> nn.Module:
        """A network by name, as the student or a mentor of this run has it.

        Raises:
            UserError: no such network.
        """

    @abstractmethod
    def expect(self, answer: Tensor, role: str, mentor: MentorSpec | None) -> None:
        """Refuse a network by its answer to two blank images.

        Raises:
            UserError: it does not answer what this data asks.
        """

    @abstractmethod
    def score(self, answers: Tensor, target: Tensor, ids: Tensor) -> Score:
        """How good answers (N, …), in the student's form, to un-augmented samples are."""

    @abstractmethod
    def calibration(self, answers_MN: Tensor, target: Tensor) -> Calibration:
        """What held-out answers (M, N, …) say about the mentors."""

    def blank_calibration(self, mentors: int) -> Calibration:
        """A calibration that changes nothing, for dry runs."""
        device, units = self.context.runtime.device, len(self.context.classes)
        return Calibration(torch.ones(mentors, device=device), torch.ones(mentors, units, device=device))

    @abstractmethod
    def chance(self) -> tuple[float, str]:
        """The score at or below which a mentor has learned nothing, and words for it; below the best score there is."""

    def by_vote(self, part: Part) -> bool:
        """Whether a part has no truth, and what the mentors agree on stands for one; never where there is no vote."""
        return False

    def voted(self, answers_MN: Tensor) -> Tensor:
        """Targets (N,) that the mentors agree on by their answers (M, N, …); -1 where nobody's is finite."""
        raise NotImplementedError

    def together(self, answers_MN: Tensor) -> Tensor:
        """One answer (N, …) that several networks give together, from theirs (M, N, …); where ``has_together``."""
        raise NotImplementedError

    def apart(self, answers_MB: Tensor) -> Tensor:
        """Of the answers (M, B, …) of several networks the share of pairs that do not say the same, (B,)."""
        raise NotImplementedError

    def agreement(
        self, answers: Tensor, target: Tensor, answers_MN: Tensor, names: Sequence[str]
    ) -> Mapping[str, float]:
        """Figures of a student's answers (N, …) on a part without a truth, by name: against mentors and their vote."""
        raise NotImplementedError

    def opinions(self, answers_MB: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of mentors' answers (M, B, …) to samples without a truth how far they are apart (B,), their doubts (B,) and,
        of classes, what the vote and each of them says (M + 1, B); where :attr:`Task.has_vote`."""
        raise NotImplementedError

    def identified(self, ids: Tensor) -> dict[str, list[str]]:
        """Columns that say which samples these ids are, beside the names of their files."""
        return {}

    def chance_of(self, target: Tensor) -> tuple[float, str]:
        """As :meth:`chance`, for targets (N,) that were voted."""
        raise NotImplementedError

    def check_top(self, top: int | None) -> None:
        """Refuse ``bank: …,top=K`` for answers that are not one distribution over classes.

        Raises:
            UserError: they are not.
        """
        if top is not None:
            raise UserError("bank: top=K keeps the largest logits of a classifier; leave it out for this task")

    def codec(self, mentor: Mentor, top: int | None) -> bank.Codec:
        """How a mentor's answer is stored, with only its ``top`` largest logits where asked."""
        return bank.Dense(self.answer_shape)

    def wrap(self, spec: MentorSpec, module: nn.Module, mean: Any, std: Any, size: tuple[int, int] | None) -> Mentor:
        """A network as the mentor that the recipe describes, with its own normalisation and (H, W)."""
        return Mentor(module, spec.name, mean=mean, std=std, size=size, taps=dict(spec.taps))

    def lineage(self, spec: MentorSpec, mentor: Mentor) -> dict[str, Any]:
        """What a wrapped mentor's answers depend on beside its weights and preprocessing; part of their key."""
        return {}

    def taught_by(self) -> dict[str, Any]:
        """The options of the recipe's task that say what a student, or an assistant, is taught."""
        return {}

    def about(self) -> dict[str, str]:
        """What a student's file says about its answers, beside classes and preprocessing."""
        return {}

    def comes_trained(self, spec: str) -> bool:
        """Whether networks of this name are built with their published weights."""
        return False

    def keeps_head(self, mentor: MentorSpec) -> bool:
        """Whether a mentor's published weights answer what the run asks, so that it need not be trained."""
        return False

    def start_pretrained(self, module: nn.Module, spec: StudentSpec | MentorSpec | PeerSpec) -> dict[str, str]:
        """Load the published weights of a network's library into it; the head is reset where it does not fit.

        Returns:
            As :func:`classroomkd.models.start_pretrained`.

        Raises:
            UserError: they cannot be had.
        """
        raise UserError(f"'{spec.model}' has no published weights here; give weights: FILE")

    def meet(self, module: nn.Module, path: str, metadata: dict[str, str]) -> str:
        """Bring what a student's file, just loaded, answers into the data's order by the names in its metadata.

        Returns:
            What was done, or nothing.

        Raises:
            UserError: other names than the data's.
        """
        return ""

    def answers_of(self, mentor: MentorSpec | None) -> tuple[str, ...]:
        """The names of what a mentor, or with None the student, answers, in its order."""
        return tuple(self.context.classes)

    def refuse_training(self, index: int) -> str | None:
        """Why mentor ``index`` cannot be trained as its section says; None where it can."""
        return None

    @torch.no_grad()
    def blank_answer(self, module: nn.Module, role: str, size: tuple[int, int] | None = None) -> Tensor:
        """A network's answer to two blank images of (H, W), or of the data's.

        Raises:
            UserError: it does not take them.
        """
        context = self.context
        shape = (2, context.data.shape[0], *(size or context.data.shape[1:]))
        try:
            with at_rest(module):
                blank = torch.zeros(shape, device=context.runtime.device, dtype=precision_of(module))
                return prediction_of(module(blank)).float()
        except UserError as error:
            raise UserError(f"{role}: {error}") from error
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"{role}: the network does not take images of shape {shape[1:]}: {first}. "
                "Set data.size to what it expects, or choose another model"
            ) from error

    def check_network(
        self, module: nn.Module, role: str, mentor: MentorSpec | None = None, size: tuple[int, int] | None = None
    ) -> None:
        """The network must take blank images and answer what this data asks."""
        self.expect(self.blank_answer(module, role, size), role, mentor)

    def evaluate(self, network: nn.Module, part: Part, inputs: Inputs, batch_size: int) -> Score:
        """Score a network on the un-augmented samples of a part."""
        predictions, target = answers(network, part, inputs, batch_size, self.context.base_views)
        return self.score(predictions, target, part.ids)


def runner_of(task: str) -> type[TaskRunner]:
    """The class of runners of a task."""
    found: type[TaskRunner] = tasks.find_row(task).load("runner")
    return found


def open_runner(context: RunContext, networks: NetworkSource) -> TaskRunner:
    """The runner of a run's task."""
    return runner_of(context.recipe.task.name)(context, networks)
