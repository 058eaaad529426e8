"""A recipe with nothing left to guess: inherited training keys and the methods' default options written in.

Training keys are inherited in layers, the later winning: the defaults, ``train``, ``mentor_train``, a mentor's own
``train``. Where a layer changes ``schedule``, the keys that only the old schedule reads are not inherited. Mentors
do not inherit what is said of the student's own parts (``freeze``, ``layer_decay``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from classroomkd import tasks
from classroomkd.data.spec import RESIZE
from classroomkd.recipe.arms import FRESH
from classroomkd.recipe.peers import selves_of, taken_by, trainees_of, written_out
from classroomkd.recipe.schema import ArmSpec, MentorTrain, MethodSpec, PeerSpec, Recipe, StageSpec, TaughtBy
from classroomkd.recipe.training import OF_ONE_NETWORK, ONLY_WITH, TrainSpec

__all__ = ["inherit", "resolve", "training_layers"]


def inherit(base: TrainSpec, layer: TrainSpec | None) -> MentorTrain:
    """``base`` with the keys that ``layer`` sets itself; every key of the result counts as set."""
    given = {key: getattr(layer, key) for key in layer.model_fields_set} if layer is not None else {}
    values = {key: getattr(base, key) for key in TrainSpec.model_fields}
    for key, (decider, _) in ONLY_WITH.items():
        if given.get(decider, values[decider]) != values[decider]:
            values[key] = TrainSpec.model_fields[key].default
    own = {key: field.default for key, field in MentorTrain.model_fields.items() if key not in values}
    return MentorTrain.model_validate({**values, **own, **given})


def training_layers(
    train: TrainSpec, mentor_train: TrainSpec | None, mentors: list[TrainSpec | None]
) -> tuple[TrainSpec, list[MentorTrain]]:
    """The mentors' defaults and every mentor's training with all keys inherited."""
    own = {key: TrainSpec.model_fields[key].default for key in OF_ONE_NETWORK}
    defaults = inherit(train.model_copy(update=own), mentor_train)
    return TrainSpec.model_validate(defaults.model_dump(include=set(TrainSpec.model_fields))), [
        inherit(defaults, own) for own in mentors
    ]


def resolve(recipe: Recipe) -> Recipe:
    """The recipe as the engine reads it; resolving again changes nothing."""
    own, selves = ([m for m in recipe.mentors if (m.made_from is not None) == made] for made in (False, True))
    defaults, trained = training_layers(recipe.train, recipe.mentor_train, [mentor.train for mentor in own])
    mentors = tuple(
        mentor.model_copy(
            update={
                "train": None if mentor.taken_as_is else spec,
                "taught_by": _assistant(mentor.taught_by, recipe.task.name),
            }
        )
        for mentor, spec in zip(own, trained, strict=True)
    )
    train = TrainSpec.model_validate(recipe.train.model_dump())  # every key counts as set from here on
    written = partial(_written, task=recipe.task.name, declared=recipe.peers)
    resize = recipe.data.resize or (RESIZE[0] if tasks.describe(recipe.task.name).resizes else None)
    update = {
        "data": recipe.data.model_copy(update={"resize": resize}),
        "train": train,
        "mentor_train": defaults,
        "mentors": mentors,
        "peers": written_out(recipe.peers),
        "method": recipe.method and tuple(map(written, recipe.method)),
        "methods": recipe.methods and tuple(tuple(map(written, arm)) for arm in recipe.methods),
    }
    resolved = recipe.model_copy(update=update)
    resolved._selves = (*recipe.selves, *(one for spec in selves for one in selves_of(spec, resolved)))
    return resolved


def _assistant(taught_by: TaughtBy | None, task: str) -> TaughtBy | None:
    """The method written in."""
    if taught_by is None:
        return None
    entries = taught_by.method or (MethodSpec.model_validate({"name": taught_by.parts[0][0]}),)
    return taught_by.model_copy(update={"method": tuple(_with_defaults(entry, task) for entry in entries)})


def _written(entry: ArmSpec, task: str, declared: Sequence[PeerSpec]) -> ArmSpec:
    """An arm's entry with its defaults, or its stages with theirs."""
    if entry.stages is None:
        return _with_defaults(entry, task, declared)
    stages = list[StageSpec]()
    for stage in entry.stages:
        update = {
            "method": tuple(_with_defaults(one, task) for one in stage.method),
            "trainees": trainees_of(stage, declared),
            "start": stage.start or (stages[-1].name if stages else FRESH),
        }
        stages.append(stage.model_copy(update=update))
    return entry.model_copy(update={"stages": tuple(stages)})


M = TypeVar("M", bound=MethodSpec)


def _with_defaults(entry: M, task: str, declared: Sequence[PeerSpec] = ()) -> M:
    from classroomkd import methods

    options = methods.filled(entry.name, entry.options, task)
    peers = taken_by(entry, declared) or None  # a stage says itself who learns
    return type(entry).model_validate({"name": entry.name, "label": entry.label, "peers": peers, **options})
