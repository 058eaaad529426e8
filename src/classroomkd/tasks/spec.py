"""What is known of a task before torch is loaded: the base of every task's ``spec.py``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from classroomkd._section import Section
from classroomkd.tasks.metric import Metric
from classroomkd.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    from classroomkd.data.images import ImageSet
    from classroomkd.data.spec import DataSettings
    from classroomkd.tasks.start import Start

__all__ = ["TaskDescription"]


class TaskDescription:
    """A task as recipes, lists and reports know it. A task's ``spec.py`` has a subclass; importing it loads no torch.

    Attributes:
        name: of the row.
        options: what may stand beside the task's name in a recipe.
        reads: what a data source must give: ``classes``, ``persons``, or a word that a source by plug-in has.
        samples: that in words, for messages: ``people with joints``.
        resizes: whether its inputs are whole pictures, which ``data.resize`` brings to one size.
        partly: of ``data.labels`` and ``data.unlabelled`` those that it takes where its samples have no class.
        views: names of the augmentations that the task allows.
        offers: what methods may ask for beside credibility and divergence, see ``MethodEntry.asks``.
        spelled: metrics by name, in as many words as a reader needs who meets them first.
        vocabulary: what its scores, units and samples are called.
        counted: what ``classroomkd inspect`` counts in an answer: it has an option of that name.
        usual_count: how many of them where nobody says it.
        answer_files: endings of files of answers that ``classroomkd evaluate`` scores in place of a student.
        demos: ``--data`` of ``classroomkd demo`` to a recipe file, the first for when nobody says which.
        next_step: the line that a demo ends with.
        start: what ``classroomkd init`` calls a first recipe for data of this task; empty where there is none.
    """

    name: ClassVar[str]
    options: ClassVar[type[Section]] = Section
    reads: ClassVar[str]
    samples: ClassVar[str]
    resizes: ClassVar[bool] = True
    partly: ClassVar[frozenset[str]] = frozenset()
    views: ClassVar[tuple[str, ...]] = ("none",)
    offers: ClassVar[frozenset[str]] = frozenset()
    spelled: ClassVar[Mapping[str, str]] = {}
    vocabulary: ClassVar[Vocabulary] = Vocabulary()
    counted: ClassVar[str] = "classes"
    usual_count: ClassVar[int] = 100
    answer_files: ClassVar[tuple[str, ...]] = ()
    demos: ClassVar[Mapping[str, Path]] = {}
    next_step: ClassVar[str] = ""
    start: ClassVar[str] = ""

    def load(self, wanted: DataSettings, *, trust_code: bool = False) -> ImageSet:
        """The data set that a recipe's ``data:`` describes.

        Raises:
            UserError: for anything wrong with it, naming the place and the remedy.
        """
        raise NotImplementedError

    def look(self, place: Path) -> Start:
        """What is proposed for a first recipe for the data in a folder; asked only where the task has a ``start``.

        Raises:
            UserError: they are not of this task, or cannot be read.
        """
        raise NotImplementedError

    def measure(self, metric: str) -> Metric:
        """The unit and direction of a metric of this task, by its name."""
        return Metric(metric)

    def by_unit(self, metric: str, figures: Collection[str]) -> str:
        """The score by class or joint that stands beside ``metric``, which a run with these ``figures`` has."""
        return metric

    def model_problem(self, name: str, trust_code: bool) -> str | None:
        """Why there is no network of this name, or None: the end of a sentence."""
        return None

    def library_name(self, model: str) -> str | None:
        """The network of timm or torchvision whose published weights a network of this name can start from."""
        return None

    def weights_problem(self, model: str, weights: str | None) -> str | None:
        """Why a network of this name cannot start from a recipe's ``weights``, or None: the end of a sentence.

        ``weights`` is ``pretrained``, ``trained``, a file, or None for fresh ones, which a name must not deny.
        """
        if weights != "pretrained" and weights != "trained" and "timm:" not in model and "torchvision:" not in model:
            return None  # without loading torch
        from classroomkd.models.published import weights_problem

        return weights_problem(model, weights, self.library_name(model))

    def mentor_only(self, model: str) -> bool:
        """Whether the networks of a name can teach but not be taught."""
        return False

    def knows(self, model: str) -> bool:
        """Whether a name is one of a network that only this task has."""
        return False

    def models(self) -> list[dict[str, Any]]:
        """The networks of this task, one row each: ``name``, ``family``, ``parameters``."""
        return []

    def usual_size(self, model: str) -> tuple[int, int]:
        """(H, W) of the input of a network, where nobody says it."""
        return 32, 32
