"""Segmentation as recipes, lists and reports know it; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from classroomkd.data.spec import SPATIAL_VIEWS
from classroomkd.errors import did_you_mean
from classroomkd.tasks.spec import TaskDescription
from classroomkd.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    from classroomkd.data.images import ImageSet
    from classroomkd.data.spec import DataSettings

__all__ = ["WIDTHS", "SegmentationSpec"]

WIDTHS = {"segnet8": 8, "segnet16": 16, "segnet32": 32}
"""The networks of this task, and the width of each."""


class SegmentationSpec(TaskDescription):
    """A class for each cell of a coarse grid."""

    name = "segmentation"
    reads = "masks"
    samples = "pictures with a mask"
    views = SPATIAL_VIEWS["mask"]
    offers = frozenset({"distributions"})
    vocabulary = Vocabulary(
        samples="pictures",
        seen="pictures",
        spot="cell",
        share="% of a class's cells",
        share_of="share of the class's cells",
        whole="cells of the class",
    )
    usual_count = 5
    demos: ClassVar[Mapping[str, Path]] = {"figure-parts": Path(__file__).with_name("demo.yaml")}
    next_step = "classroomkd run my-recipe.yaml   with task: segmentation, and data that gives masks"

    def load(self, wanted: DataSettings, *, trust_code: bool = False) -> ImageSet:
        """Pictures with a mask of their own size each."""
        from classroomkd.data.loading import load_images

        return load_images(wanted, trust_code=trust_code, task=self.name, reads=self.reads)

    def model_problem(self, name: str, trust_code: bool) -> str | None:
        """Only the networks of this folder."""
        if name in WIDTHS:
            return None
        return f"unknown network for segmentation '{name}'{did_you_mean(name, WIDTHS)}; there are {', '.join(WIDTHS)}"

    def knows(self, model: str) -> bool:
        """See the base."""
        return model in WIDTHS

    def models(self) -> list[dict[str, Any]]:
        """See the base."""
        return [{"name": name, "family": "figure_parts"} for name in WIDTHS]

    def usual_size(self, model: str) -> tuple[int, int]:
        """That of the drawn pictures."""
        return 48, 48
