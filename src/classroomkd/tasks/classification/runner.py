"""ClassificationRunner: networks answer with ``(B, classes)`` logits; accuracy."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import bank, models
from classroomkd.classroom import Calibration, Mentor, Task
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError, did_you_mean
from classroomkd.functional import disagreement, pairs_apart, vote, vote_entropy
from classroomkd.models.about import classes
from classroomkd.models.building import start_pretrained
from classroomkd.models.checkpoints import read_metadata
from classroomkd.models.heads import reorder_head
from classroomkd.models.published import published
from classroomkd.taps.trace import at_rest
from classroomkd.tasks.classification.naming import named_by_mentors
from classroomkd.tasks.classification.spec import AGREEMENT
from classroomkd.tasks.classification.task import Classification
from classroomkd.tasks.runner import TaskRunner
from classroomkd.train.scoring import Score, calibration_error, calibration_of, score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from classroomkd.data import ImageSet, Part
    from classroomkd.recipe import Recipe, TrainSpec
    from classroomkd.recipe.schema import MentorSpec, PeerSpec, StudentSpec

__all__ = ["ClassificationRunner"]


class ClassificationRunner(TaskRunner):
    """Single-label classification."""

    has_together = True
    scores_vote = True
    suspects = (
        "wrong weights, another order of classes or some of them only (classes: [...] names its own, in its order), or "
        "another normalisation or size (mean, std, size)?"
    )

    @classmethod
    def named(
        cls, images: ImageSet, recipe: Recipe, given: Mapping[str, nn.Module], trust_code: bool = False
    ) -> ImageSet:
        """See the base."""
        return named_by_mentors(images, recipe, given, trust_code)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.context.classes

    @property
    def metric(self) -> str:
        """Accuracy; of a test part without labels agreement with the mentors' vote."""
        return AGREEMENT if self.by_vote(self.context.data.test) else "accuracy"

    @property
    def val_metric(self) -> str:
        """The same of the validation part."""
        return AGREEMENT if self.by_vote(self.context.data.val) else "accuracy"

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """``(classes,)``."""
        return (len(self.classes),)

    def task_for(self, train: TrainSpec, mentor: MentorSpec | None = None, module: nn.Module | None = None) -> Task:
        """See the base."""
        unlabelled = bool(getattr(self.context.data, "unlabelled", 0))
        return Classification(train.label_smoothing, unlabelled, **self.context.recipe.task.options)

    def resolve(self, spec: str, mentor: MentorSpec | None = None) -> nn.Module:
        """See the base."""
        count = len(self.answers_of(mentor))
        context = self.context
        return models.resolve(spec, count, trust_code=context.trust_code, in_channels=context.data.shape[0])

    def expect(self, answer: Tensor, role: str, mentor: MentorSpec | None) -> None:
        """See the base."""
        known = None if mentor is None or self.known(mentor) is None else len(self.answers_of(mentor))
        if answer.dim() == 2 and answer.shape[1] == (known or len(self.classes)):
            return
        got = f"{answer.shape[1]} classes" if answer.dim() == 2 else f"shape {tuple(answer.shape)}"
        if known is not None:
            raise UserError(f"{role}: the network answers {got}, its classes name {known}")
        knows = "; a mentor that knows some of them says which: classes: [...]" if mentor is not None else ""
        raise UserError(
            f"{role}: the network answers {got}, the data '{self.context.data.name}' has {len(self.classes)}{knows}"
        )

    def known(self, spec: MentorSpec) -> tuple[int, ...] | None:
        """Places of a mentor's classes among the data's; None when it knows them all.

        Raises:
            UserError: a class that the data does not have, or the same one twice.
        """
        names = self.answers_of(spec)
        unknown = [name for name in names if name not in self.classes]
        if unknown or len(set(names)) < len(names):
            what = f"no class '{unknown[0]}'{did_you_mean(unknown[0], self.classes)}" if unknown else "a class twice"
            shown = ", ".join(self.classes[:8]) + ", …" * (len(self.classes) > 8)
            raise UserError(
                f"mentor '{spec.name}': classes names {what}; the data '{self.context.data.name}' has "
                f"{len(self.classes)} ({shown}; @0 to @{len(self.classes) - 1} by place)"
            )
        return tuple(map(self.classes.index, names)) if spec.classes is not None or names != self.classes else None

    def answers_of(self, mentor: MentorSpec | None) -> tuple[str, ...]:
        """See the base: what the recipe says, then what a file written here says of its classes, by name."""
        if mentor is None or not mentor.taken_as_is or mentor.checkpoint is None:
            return self.classes if mentor is None or mentor.classes is None else self._named(mentor.classes)
        if mentor.classes is not None:
            return self._named(mentor.classes)
        written = self._written(mentor.checkpoint, read_metadata(mentor.checkpoint))
        if written is None:
            return self.classes
        self._compare(
            written, f"mentor '{mentor.name}'", mentor.checkpoint, "classes: [...] beside it says which is which"
        )
        return written

    def _named(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Classes by their names, where some are given by their place among the data's, which ``@2`` is."""
        return tuple(_class_name(name, self.classes) for name in classes)

    def _written(self, path: str, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
        """The classes that a file's metadata name; None where they name none.

        Names that a training script left count where they are the data's: what else they may be called, nobody knows.
        """
        if "classes_beside" in metadata:
            beside = tuple(json.loads(metadata["classes_beside"]))
            return beside if set(beside) <= set(self.classes) else None
        return classes(path, metadata["classes"]) if "classes" in metadata else None

    def _compare(self, written: tuple[str, ...], who: str, path: str, remedy: str) -> None:
        """Refuse classes that the data does not have.

        Raises:
            UserError: with the first that differs.
        """
        if unknown := [name for name in written if name not in self.classes]:
            raise UserError(
                f"{who}: {path} knows {len(written)} classes, the data '{self.context.data.name}' has "
                f"{len(self.classes)}, and '{unknown[0]}' is none of them{did_you_mean(unknown[0], self.classes)}; "
                f"{remedy}, reset_head: true starts without its head"
            )

    def meet(self, module: nn.Module, path: str, metadata: dict[str, str]) -> str:
        """See the base: the rows of the head are put into the data's order of classes."""
        written = self._written(path, metadata)
        if written is None or written == self.classes:
            return ""
        self._compare(written, "student", path, "take data of the same classes")
        if lacking := [name for name in self.classes if name not in written]:
            raise UserError(f"student: {path} does not know the class '{lacking[0]}'; reset_head: true starts without")
        context = self.context
        with at_rest(module):
            example = torch.linspace(-1, 1, 2 * math.prod(context.data.shape), device=context.runtime.device)
            reorder_head(module, [written.index(name) for name in self.classes], example.view(2, *context.data.shape))
        return "its classes were put into the data's order"

    def keeps_head(self, mentor: MentorSpec) -> bool:
        """See the base."""
        return published(mentor.model).classes == len(self.classes)

    def start_pretrained(self, module: nn.Module, spec: StudentSpec | MentorSpec | PeerSpec) -> dict[str, str]:
        """See the base."""
        channels, reset = self.context.data.shape[0], spec.reset_head
        return start_pretrained(module, spec.model, in_channels=channels, reset_head=reset)

    def check_network(
        self, module: nn.Module, role: str, mentor: MentorSpec | None = None, size: tuple[int, int] | None = None
    ) -> None:
        """See the base; a mentor that knows some classes is loaded, not trained."""
        handed = mentor is not None and mentor.name in self.context.given
        if mentor is not None and self.known(mentor) is not None and not mentor.taken_as_is and not handed:
            raise UserError(
                f"{role}: a mentor that knows some classes needs checkpoint: FILE; train: {{classes: [...]}} "
                "has the run train a specialist"
            )
        super().check_network(module, role, mentor, size)

    def wrap(self, spec: MentorSpec, module: nn.Module, mean: Any, std: Any, size: tuple[int, int] | None) -> Mentor:
        """See the base."""
        return Mentor(
            module,
            spec.name,
            mean=mean,
            std=std,
            size=size,
            taps=dict(spec.taps),
            classes=self.known(spec),
            num_classes=len(self.classes),
        )

    def lineage(self, spec: MentorSpec, mentor: Mentor) -> dict[str, Any]:
        """See the base: which classes it knows, where it does not know all."""
        return {"known": self.answers_of(spec)} if self.known(spec) is not None else {}

    def check_top(self, top: int | None) -> None:
        """See the base; :func:`~classroomkd.run.bank_choice.choose` looks at the number."""

    def codec(self, mentor: Mentor, top: int | None) -> bank.Codec:
        """See the base."""
        if top is None:
            return bank.Dense(self.answer_shape)
        return bank.TopK(len(self.classes), top, mentor.classes)

    def score(self, answers: Tensor, target: Tensor, ids: Tensor) -> Score:
        """See the base."""
        return score(answers, target, len(self.classes))

    def calibration(self, answers_MN: Tensor, target: Tensor) -> Calibration:
        """See the base."""
        return calibration_of(answers_MN, target)

    def together(self, answers_MN: Tensor) -> Tensor:
        """See the base: the logarithm of their mean probability at temperature 1."""
        return vote(answers_MN).log()

    def apart(self, answers_MB: Tensor) -> Tensor:
        """See the base: those whose likeliest class is not the same."""
        return pairs_apart(answers_MB)

    def by_vote(self, part: Part) -> bool:
        """See the base."""
        return len(part.target) > 0 and bool((part.target == UNLABELLED).all())

    def voted(self, answers_MN: Tensor) -> Tensor:
        """See the base: the class of the largest mean probability at temperature 1."""
        nothing = torch.full(answers_MN.shape[1:2], UNLABELLED, device=answers_MN.device)
        return Classification(unlabelled=True).agreed(answers_MN, nothing)

    def agreement(
        self, answers: Tensor, target: Tensor, answers_MN: Tensor, names: Sequence[str]
    ) -> Mapping[str, float]:
        """See the base: how often the student's class is that of each mentor, and its calibration against the vote."""
        mine, theirs = answers.argmax(-1).cpu(), answers_MN.argmax(-1).cpu()
        figures = {
            f"agreement with {name}": float((mine == its).double().mean())
            for name, its in zip(names, theirs, strict=True)
        }
        return {**figures, "calibration error": calibration_error(answers, target)}

    def opinions(self, answers_MB: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See the base: mean KL of the mentors to their vote, and the vote's entropy."""
        together = vote(answers_MB)
        classes = torch.cat([together.unsqueeze(0), answers_MB]).nan_to_num(-math.inf).argmax(-1)
        return disagreement(answers_MB), vote_entropy(together), classes

    def chance(self) -> tuple[float, str]:
        """See the base; :meth:`chance_of` the validation part's labels."""
        return self.chance_of(self.context.data.val.target)

    def chance_of(self, target: Tensor) -> tuple[float, str]:
        """See the base: three standard errors above always answering the largest class.

        Where the part is so small that this is more than all of it, the share of that class itself; nobody is below it
        where there is one class only.
        """
        n = max(len(target), 1)
        share = int(torch.bincount(target, minlength=1).max()) / n
        limit = share + 3 * (share * (1 - share) / n) ** 0.5
        words = f"chance is {share:.1%} (the largest class alone)"
        return (limit if limit < 1 else share if share < 1 else -1.0), words


def _class_name(name: str, classes: tuple[str, ...]) -> str:
    """A class by its name, or by its place among the data's classes, which ``@2`` is."""
    if name in classes or not (name.startswith("@") and name[1:].isascii() and name[1:].isdigit()):
        return name
    place = int(name[1:])
    return classes[place] if place < len(classes) else name
