"""Joints where the data have none: the mentors say which there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from classroomkd.data.keypoints.options import metric_for
from classroomkd.data.keypoints.skeleton_union import named_skeleton
from classroomkd.data.labels import unlabelled
from classroomkd.data.skeleton import Skeleton
from classroomkd.errors import UserError
from classroomkd.models.checkpoints import read_metadata
from classroomkd.tasks.pose.written import written_skeleton

if TYPE_CHECKING:
    from torch import nn

    from classroomkd.data import ImageSet, Part
    from classroomkd.data.keypoints.people import People, Persons
    from classroomkd.recipe import Recipe
    from classroomkd.recipe.schema import MentorSpec

__all__ = ["in_recipe", "named_by_mentors", "of_mentor", "with_skeleton"]


def named_by_mentors(images: ImageSet, recipe: Recipe, given: Mapping[str, nn.Module]) -> ImageSet:
    """Data without names of joints, with those of the first mentor that says its own.

    Another mentor may know other joints: they meet by name.

    Raises:
        UserError: no mentor says which joints it answers.
    """
    said = (of_mentor(spec, given) for spec in recipe.mentors if spec.taught_by is None)
    skeleton = next((found for found in said if found is not None), None)
    if skeleton is None:
        raise UserError(
            "data: nobody says which joints there are, neither the data nor a mentor; name them in "
            "data.options.skeleton (coco, mpii, lsp, coco+mpii), or in a mentor's skeleton"
        )
    return with_skeleton(images, skeleton)


def in_recipe(spec: MentorSpec) -> Skeleton | None:
    """The joints that the recipe says a mentor answers; None where it does not.

    Raises:
        UserError: an unknown skeleton.
    """
    if isinstance(spec.skeleton, str):
        try:
            return named_skeleton(spec.skeleton)
        except UserError as error:
            text = str(error).replace("data.options.skeleton", f"mentor '{spec.name}'")
            raise UserError(f"{text}; or give the list of its joints") from error
    if spec.skeleton is None:
        return None
    return Skeleton(spec.name, tuple(spec.skeleton), (), (0.079,) * len(spec.skeleton), (), ())


def of_mentor(spec: MentorSpec, given: Mapping[str, nn.Module]) -> Skeleton | None:
    """The joints that the recipe says a mentor answers, or that its file says; None where neither does.

    Raises:
        UserError: an unknown skeleton.
    """
    if spec.skeleton is not None:
        return in_recipe(spec)
    if spec.name in given or not spec.taken_as_is or spec.checkpoint is None:
        return None
    about = read_metadata(spec.checkpoint)
    return written_skeleton(spec.checkpoint, about) if about.get("task") == "pose" and "skeleton" in about else None


def with_skeleton(images: ImageSet, skeleton: Skeleton) -> ImageSet:
    """Data of persons of whom nobody has joints, with the joints that they are to have."""
    assert images.people is not None
    return replace(
        images.map(lambda part: _part(part, len(skeleton))),
        classes=skeleton.joints,
        skeleton=skeleton,
        people=_people(images.people, len(skeleton)),
        metric=metric_for(skeleton, "gt"),
    )


def _part(part: Part, joints: int) -> Part:
    return unlabelled(replace(part, target=torch.zeros(len(part), joints, 3, device=part.target.device)))


def _people(people: People, joints: int) -> People:
    def bare(persons: Persons) -> Persons:
        return replace(persons, joints=np.zeros((len(persons), joints, 3)))

    return replace(people, persons=bare(people.persons), others=bare(people.others))
