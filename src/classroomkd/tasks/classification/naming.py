"""Class names where the data have none: the mentors say them, or at least how many there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from classroomkd import models
from classroomkd.classroom import prediction_of
from classroomkd.classroom.batches import precision_of
from classroomkd.errors import UserError
from classroomkd.models.about import classes
from classroomkd.models.checkpoints import read_checkpoint, read_metadata
from classroomkd.models.heads import head_keys
from classroomkd.models.published import published
from classroomkd.models.unwrapping import unwrap
from classroomkd.recipe.sections import PRETRAINED, TRAINED
from classroomkd.taps.trace import at_rest

if TYPE_CHECKING:
    from classroomkd.data import ImageSet
    from classroomkd.recipe import Recipe
    from classroomkd.recipe.schema import MentorSpec

__all__ = ["named_by_mentors"]

_SAY = "say in data.classes: [...] which there are, in order, and in a mentor's classes: [...] which are its own"


def named_by_mentors(
    images: ImageSet, recipe: Recipe, given: Mapping[str, nn.Module], trust_code: bool = False
) -> ImageSet:
    """Data without class names, with those of the mentors, in the order of the first that has some.

    A mentor says its classes in the recipe, or its file does. Where no mentor has names they are called 0, 1, … and are
    as many as the mentors answer.

    Raises:
        UserError: mentors with other classes; none that says how many; one that would have to be trained.
    """
    mentors = [spec for spec in recipe.mentors if spec.taught_by is None]
    if not mentors:
        raise UserError("data: nobody says which classes there are, neither the data nor a mentor; give data.classes")
    for index, spec in enumerate(recipe.mentors):
        if spec.taught_by is None and spec.name not in given and (spec.weights is None or spec.reset_head):
            raise UserError(
                f"mentors.{index} ({spec.name}): no training image has a label to train it on; give it weights: FILE"
            )
    names = {spec.name: found for spec in mentors if (found := _names(spec, given)) is not None}
    silent = [spec for spec in mentors if spec.name not in names]
    if not names:
        return _numbered(images, silent, given, trust_code)
    first, known = next(iter(names.items()))
    for other, its in names.items():
        _compare(first, known, other, its)
    note: list[str] = []
    if silent:
        who = ", ".join(f"'{spec.name}'" for spec in silent)
        note.append(f"mentor {who} does not name its classes: taken to be those of mentor '{first}', in that order")
    return replace(images, classes=known, notes=(*images.notes, *note))


def _names(spec: MentorSpec, given: Mapping[str, nn.Module]) -> tuple[str, ...] | None:
    """The names of a mentor's classes, in its order; None where nobody says them.

    Raises:
        UserError: places among classes that nobody has named.
    """
    if spec.classes is not None:
        if places := [name for name in spec.classes if name.startswith("@")]:
            raise UserError(
                f"mentor '{spec.name}': classes names {places[0]}, a place among the data's classes, which have no "
                f"names; {_SAY}"
            )
        return tuple(spec.classes)
    if spec.name in given or not spec.taken_as_is or spec.checkpoint is None:
        return None
    metadata = read_metadata(spec.checkpoint)
    if "classes_beside" in metadata:
        return tuple(json.loads(metadata["classes_beside"]))
    return classes(spec.checkpoint, metadata["classes"]) if "classes" in metadata else None


def _compare(first: str, known: tuple[str, ...], other: str, its: tuple[str, ...]) -> None:
    """Refuse mentors that do not know the same classes; their order does not matter.

    Raises:
        UserError: with the first class that one of them lacks.
    """
    for one, two, has, lacks in ((first, other, known, its), (other, first, its, known)):
        if absent := [name for name in has if name not in lacks]:
            raise UserError(
                f"mentors '{first}' and '{other}' do not know the same classes: '{absent[0]}' of '{one}' is none of "
                f"the {len(lacks)} of '{two}'; {_SAY}"
            )


def _numbered(
    images: ImageSet, mentors: list[MentorSpec], given: Mapping[str, nn.Module], trust_code: bool
) -> ImageSet:
    """Data whose classes are called 0, 1, …, as many as the mentors answer.

    Raises:
        UserError: mentors that answer differently many, or do not say.
    """
    counts = {spec.name: _count(spec, given, images, trust_code) for spec in mentors}
    first, count = next(iter(counts.items()))
    for other, its in counts.items():
        if its != count:
            raise UserError(f"mentor '{first}' answers {count} classes, mentor '{other}' {its}; {_SAY}")
    note = (
        f"neither the data nor a mentor names the classes: they are called 0 to {count - 1}, as the mentors answer, "
        "and all mentors are taken to have them in one order; data.classes: [...] names them"
    )
    return replace(images, classes=tuple(map(str, range(count))), notes=(*images.notes, note))


def _count(spec: MentorSpec, given: Mapping[str, nn.Module], images: ImageSet, trust_code: bool) -> int:
    """How many classes a mentor answers.

    Raises:
        UserError: it cannot be seen.
    """
    if spec.name in given:
        return _answered(spec, given[spec.name], images)
    if spec.weights == PRETRAINED:
        return published(spec.model).classes
    if spec.weights == TRAINED or spec.checkpoint is None:
        raise UserError(f"mentor '{spec.name}': nobody says which classes it answers; {_SAY}")
    with torch.random.fork_rng(devices=[]):
        network = models.resolve(spec.model, 2, trust_code=trust_code, in_channels=images.shape[0])
    own = {key: value for key, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    what = f"mentor '{spec.name}'"
    state, _, _ = unwrap(read_checkpoint(spec.checkpoint, what=what)[0], set(own), f"{spec.checkpoint} of {what}")
    rows = {len(state[key]) for key in head_keys(network, own, state) if key in state and state[key].dim()}
    if len(rows) != 1:
        raise UserError(f"mentor '{spec.name}': {spec.checkpoint} does not show how many classes it answers; {_SAY}")
    return rows.pop()


@torch.no_grad()
def _answered(spec: MentorSpec, module: nn.Module, images: ImageSet) -> int:
    """The width of a network's answer to two blank images."""
    shape = (2, images.shape[0], *(spec.shape or images.shape[1:]))
    first = next(module.parameters(), torch.zeros(()))
    try:
        with at_rest(module):
            answer = prediction_of(module(torch.zeros(shape, device=first.device, dtype=precision_of(module))))
    except Exception as error:
        said = str(error).strip().splitlines()
        raise UserError(
            f"mentor '{spec.name}': the network does not take images of shape {shape[1:]}: "
            f"{said[0] if said else type(error).__name__}. Set data.size, or the mentor's size, to what it expects"
        ) from error
    if answer.dim() != 2:
        raise UserError(f"mentor '{spec.name}': the network answers shape {tuple(answer.shape)}, not (images, classes)")
    return answer.shape[1]
