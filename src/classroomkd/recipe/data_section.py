"""The ``data`` section of a recipe, as plain values; nothing is opened and torch is not imported."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from classroomkd._limits import MOST_SIDE
from classroomkd.data.spec import SHARD, labels_problem, shard_problem
from classroomkd.recipe.training import Count, Fraction, Section
from classroomkd.tasks import TASKS

__all__ = ["DataSpec", "LabelsSpec", "Names", "Seed", "Text"]

Seed = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=8, le=MOST_SIDE)]
Pair = Annotated[tuple[Side, Side], Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]

_VIEWS = {
    "anyOf": [
        {"enum": [*dict.fromkeys(view for row in TASKS.values() for view in row.description.views)], "type": "string"},
        {"type": "null"},
    ]
}


def _shard(value: Any) -> Any:
    """A shard as it is written.

    Raises:
        ValueError: it is none.
    """
    if (sentence := shard_problem(value)) is not None:
        raise ValueError(sentence)
    return value


Shard = Annotated[
    str | None,
    BeforeValidator(_shard),
    WithJsonSchema({"anyOf": [{"pattern": SHARD, "type": "string"}, {"type": "null"}]}),
]


class LabelsSpec(Section):
    """Which training images have a label."""

    share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Share of the labels of each class that training sees, one at least, drawn by split_seed; 0: none. "
        "The other images train without a label.",
    )

    file: Text | None = Field(
        default=None,
        description="Names and classes of pictures of images:DIR: csv (NAME,CLASS) or json ({NAME: CLASS}). Pictures "
        "that it does not name train without a label.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> LabelsSpec:
        if (sentence := labels_problem(self.model_dump())) is not None:
            raise ValueError(sentence)
        return self


class DataSpec(Section):
    """Where images come from and how they are split: ``source``, or ``train`` with ``val`` and ``test`` beside it."""

    source: Text | None = Field(default=None, description="One source that is split: puppets, digits, cifar100:DIR, …")
    train: Text | None = Field(default=None, description="Source of the training part, when the parts live apart.")
    val: Text | None = Field(
        default=None, description="Source of the validation part; null: split off the training part."
    )
    test: Text | None = Field(default=None, description="Source of the test part.")
    val_fraction: Fraction = Field(default=0.1, description="Share of the training part kept for validation.")
    test_fraction: Fraction = Field(
        default=0.2, description="Share kept for testing, where the source has no test part."
    )
    split_seed: Seed = Field(default=0, description="Seed of the split; the same for every run that is compared.")
    shard: Shard = Field(
        default=None,
        description="Of the training images, validation included, the k-th of n equal, stratified shards, k from 1; "
        "`limit` then caps them.",
    )
    limit: Count | None = Field(default=None, description="Stratified cap on training images, validation included.")
    test_limit: Count | None = Field(default=None, description="Stratified cap on test images.")
    classes: Names | None = Field(
        default=None,
        description="Names of the classes: of images:DIR, whose pictures have none; of other sources their own in the "
        "order that is wanted, or new ones. null: the source's, else the mentors'.",
    )
    labels: LabelsSpec | None = Field(default=None, description="Which training images have a label; null: all.")
    unlabelled: Annotated[Text | Names | None, Field(union_mode="left_to_right")] = Field(
        default=None,
        description="Pictures that join the training part without a label: a source, for example images:DIR, or a list "
        "of some. Of a source with labels they are not read. `limit` and `shard` do not act on them.",
    )
    size: Annotated[Side | Pair | None, Field(union_mode="left_to_right")] = Field(
        default=None,
        description="Side of the images in pixels, [height, width] for pose; null: the source's own, at least 32.",
    )
    resize: Literal["crop", "letterbox", "pad", "stretch"] | None = Field(
        default=None,
        description="How pictures are brought to that size: crop (the default: the shorter side resized, the middle "
        "kept), letterbox (all of it, black around), stretch, or pad (enlarged in whole steps only, black around). Not "
        "for pose.",
    )
    views: Annotated[Text | None, WithJsonSchema(_VIEWS)] = Field(
        default=None, description="Augmentation; null: the source's own."
    )
    view_seed: Seed = Field(default=0, description="Seed of the augmentation; belongs to the data, not to the run.")
    unreadable: Literal["refuse", "skip"] = Field(
        default="refuse", description="What to do with an image that cannot be decoded."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the source, e.g. puppets' counts.")
