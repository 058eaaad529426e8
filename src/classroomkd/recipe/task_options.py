"""The options of each task, which stand beside its name: ``task: {name: pose, per: person}``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from classroomkd.recipe.training import Section

__all__ = ["OPTIONS", "ClassificationOptions", "PoseOptions"]

Positive = Annotated[float, Field(gt=0)]


class ClassificationOptions(Section):
    """None: label smoothing belongs to the training."""


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


OPTIONS: dict[str, type[Section]] = {"classification": ClassificationOptions, "pose": PoseOptions}
