"""Pose as recipes, lists and reports know it; without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from classroomkd._section import Section
from classroomkd.data.spec import PERSON_VIEWS
from classroomkd.errors import UserError
from classroomkd.models.pose.catalogue import mentor_only, pose_names, pose_table
from classroomkd.tasks.spec import TaskDescription
from classroomkd.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    from classroomkd.data.images import ImageSet
    from classroomkd.data.spec import DataSettings
    from classroomkd.tasks.start import Start

__all__ = ["AGREEMENT", "BY_JOINT", "PoseOptions", "PoseSpec"]

Positive = Annotated[float, Field(gt=0)]

AGREEMENT = "agreement"  # what is measured where nobody of a part has joints

BY_JOINT = ("PCKh@0.5", "PCK@0.2", "PCK@0.2_box")
"""What says which joints are right, where the metric that counts does not: the first that a run has."""


class PoseOptions(Section):
    """What a pose student is taught and how it is judged."""

    per: Literal["joint", "person"] = Field(
        default="joint", description="Whether mentors are compared with the student joint by joint or person by person."
    )
    distil_hidden: bool = Field(default=True, description="Whether joints without a label are distilled, too.")
    flip_test: bool = Field(default=False, description="Score the mean of a crop's and its mirror image's answers.")
    loss: Literal["mse", "kl"] = Field(default="mse", description="Of a heatmap student: squared error or scaled KL.")
    scale: Positive = Field(default=15.0, description="What a heatmap is multiplied by before a softmax.")
    beta: Positive = Field(default=10.0, description="What SimCC logits are multiplied by before a softmax.")
    decoder: Literal["dark", "quarter", "argmax"] = Field(default="dark", description="How a heatmap is read.")


class PoseSpec(TaskDescription):
    """Where each joint of a person is."""

    name = "pose"
    options = PoseOptions
    reads = "persons"
    samples = "people with joints"
    resizes = False
    partly = frozenset({"labels", "unlabelled"})
    views = PERSON_VIEWS
    offers = frozenset({"distributions", "joints", "votes"})
    spelled: ClassVar[Mapping[str, str]] = {AGREEMENT: "agreement with the mentors on joints"}
    vocabulary = Vocabulary(
        unit="joint",
        units="joints",
        samples="persons",
        seen="persons",
        spot="joint",
        share="% of the persons with a joint",
        share_of="share of the persons with the joint",
        whole="persons with the joint",
        rebuilt="rebuilt from a description; what it does on joints is this project's design (none was released)",
    )
    counted = "joints"
    usual_count = 17
    answer_files = (".json", ".jsonl")
    demos: ClassVar[Mapping[str, Path]] = {"puppets": Path(__file__).with_name("demo.yaml")}
    next_step = "classroomkd run pose/coco data.source=coco-keypoints:DIR   your own people, annotated as COCO does"
    start = "pose"

    def load(self, wanted: DataSettings, *, trust_code: bool = False) -> ImageSet:
        """Persons, cropped."""
        from classroomkd.data.keypoints.assemble import load_people

        return load_people(wanted, trust_code=trust_code, task=self.name)

    def by_unit(self, metric: str, figures: Collection[str]) -> str:
        """Some PCK: OKS-AP is of persons. Agreement is of joints itself."""
        return (
            metric
            if metric.startswith("PCK") or metric == AGREEMENT
            else next((name for name in BY_JOINT if name in figures), "PCK")
        )

    def look(self, place: Path) -> Start:
        """People whose joints are annotated, in COCO's or MPII's format."""
        from classroomkd.tasks.pose.start import start

        return start(place)

    def model_problem(self, name: str, trust_code: bool) -> str | None:
        """By the name alone: nothing is built."""
        from classroomkd.models.pose import check_pose

        try:
            check_pose(name, trust_code=trust_code)
        except UserError as error:
            return str(error)
        return None

    def library_name(self, model: str) -> str | None:
        """See the base: of its body."""
        from classroomkd.models.pose.published import library_name

        return library_name(model)

    def weights_problem(self, model: str, weights: str | None) -> str | None:
        """See the base; those that can only teach have published weights already."""
        return None if weights == "pretrained" and self.mentor_only(model) else super().weights_problem(model, weights)

    def mentor_only(self, model: str) -> bool:
        """Published weights that are frozen."""
        return mentor_only(model)

    def knows(self, model: str) -> bool:
        """Names of the table, and bodies with a head for joints."""
        kind, colon, _ = model.partition(":")
        return kind in ("simcc", "heatmap", "vitpose") if colon else model in pose_names()

    def models(self) -> list[dict[str, Any]]:
        """See the base; with ``size`` and ``needs``."""
        return [{**row, "size": "x".join(map(str, row["size"]))} for row in pose_table()]

    def usual_size(self, model: str) -> tuple[int, int]:
        """The table's, else the field's 256 x 192."""
        sizes: dict[str, tuple[int, int]] = {row["name"]: row["size"] for row in pose_table()}
        return sizes.get(model, (256, 192))
