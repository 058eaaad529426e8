"""Classification as recipes, lists and reports know it; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from classroomkd._section import Section
from classroomkd.data.spec import IMAGE_VIEWS
from classroomkd.errors import UserError
from classroomkd.models.catalogue import ZOO, table
from classroomkd.tasks.spec import TaskDescription

if TYPE_CHECKING:
    from classroomkd.data.images import ImageSet
    from classroomkd.data.spec import DataSettings
    from classroomkd.tasks.start import Start

__all__ = ["AGREEMENT", "ClassificationOptions", "ClassificationSpec"]

AGREEMENT = "agreement"  # what is measured where a part has no label


class ClassificationOptions(Section):
    """None: label smoothing belongs to the training."""


class ClassificationSpec(TaskDescription):
    """One class an image."""

    name = "classification"
    options = ClassificationOptions
    reads = "classes"
    samples = "images with a class"
    views = IMAGE_VIEWS
    offers = frozenset({"distributions", "one_layer", "votes"})  # one_layer: an answer is one product with a weight
    spelled: ClassVar[Mapping[str, str]] = {AGREEMENT: "agreement with the mentors' vote"}
    demos: ClassVar[Mapping[str, Path]] = {
        "puppets": Path(__file__).with_name("demo-puppets.yaml"),
        "digits": Path(__file__).with_name("demo-digits.yaml"),
    }
    next_step = "classroomkd run own-images data.source=imagefolder:DIR   your own images in folders by class"
    start = "own-images"

    def load(self, wanted: DataSettings, *, trust_code: bool = False) -> ImageSet:
        """Images with a class each."""
        from classroomkd.data.loading import load_images

        return load_images(wanted, trust_code=trust_code, task=self.name)

    def look(self, place: Path) -> Start:
        """Folders of images by class."""
        from classroomkd.tasks.classification.start import start

        return start(place)

    def model_problem(self, name: str, trust_code: bool) -> str | None:
        """Why a classifier cannot be had. Library networks are built without memory for their weights."""
        if name in ZOO:
            return None
        if name.startswith("py:"):
            if name.count(":") != 2 or not all(name.split(":")):
                return "is not of the form py:package.module:factory"
            return (
                None if trust_code else "runs code that is not part of classroomkd; if you trust it, add --trust-code"
            )
        import torch

        from classroomkd.models.building import resolve

        try:
            with torch.device("meta"):
                resolve(name, num_classes=2)
        except UserError as error:
            if isinstance(error.__cause__, NotImplementedError):
                return None  # it looks at its weights while it is built; the dry run builds it with some
            return str(error)
        return None

    def library_name(self, model: str) -> str | None:
        """The same: all of timm's and torchvision's."""
        return model if model.partition(":")[0] in ("timm", "torchvision") else None

    def models(self) -> list[dict[str, Any]]:
        """See the base."""
        return table()
