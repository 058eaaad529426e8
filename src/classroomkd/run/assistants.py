"""Assistants: mentors whom other mentors teach while the run trains them. Who waits for whom, and their classroom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from classroomkd import methods
from classroomkd.classroom import Classroom
from classroomkd.run.answers_file import load_answers
from classroomkd.run.mentor_record import MentorRecord, calibration_of, load_mentor
from classroomkd.run.networks import Networks, mentor_seed

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.recipe import MentorSpec

__all__ = ["classroom_of", "described", "lineage", "taught_classroom", "teachers_of", "waves"]


def teachers_of(mentors: Sequence[MentorSpec], index: int) -> list[int]:
    """Positions of the mentors who teach mentor ``index``, in the order in which it names them."""
    spec, names = mentors[index].taught_by, [m.name for m in mentors]
    return [] if spec is None else [names.index(name) for name in spec.mentors]


def waves(mentors: Sequence[MentorSpec]) -> list[list[int]]:
    """Positions of all mentors in the order of their making: everybody's teachers stand in an earlier wave."""
    order: list[list[int]] = []
    ready: set[int] = set()
    while len(ready) < len(mentors):
        wave = [i for i in range(len(mentors)) if i not in ready and ready >= {*teachers_of(mentors, i)}]
        assert wave, "a circle of assistants; the recipe's checks refuse it"
        order.append(wave)
        ready |= {*wave}
    return order


def described(spec: MentorSpec) -> str:
    """One phrase for the report: ``taught by big (kd)``; empty for a mentor that nobody taught."""
    if spec.taught_by is None:
        return ""
    return f"taught by {', '.join(spec.taught_by.mentors)} ({' + '.join(name for name, _ in spec.taught_by.parts)})"


def lineage(
    spec: MentorSpec, teachers: Sequence[MentorRecord], task: Mapping[str, Any] | None = None, of: str | None = None
) -> dict[str, Any]:
    """What an assistant's cache key holds beside its own training: who its teachers are, and how they teach.

    ``task``: the options of the recipe's task, which say what is taught; ``of``: its name.

    Empty for a mentor that nobody taught, so that its key is what it was before there were assistants.
    """
    if spec.taught_by is None:
        return {}
    assert [t.name for t in teachers] == [*spec.taught_by.mentors]
    who = [{"is": _identity(t), "mean": t.mean, "std": t.std, "size": t.size, "model": t.model} for t in teachers]
    method = [(name, methods.lasting(name, options, of)) for name, options in spec.taught_by.parts]
    about: dict[str, Any] = {"mentors": who, "method": method}
    if versions := methods.raised(spec.taught_by.parts):
        about["versions"] = versions
    options = json.dumps(spec.taught_by.parts, default=str)
    if any(json.dumps(t.name) in options for t in teachers):  # an option calls one by name: which of them has it?
        about["names"] = [t.name for t in teachers]
    if task:
        about["task"] = dict(task)
    if spec.taps:
        about["taps"] = dict(spec.taps)
    return {"taught_by": about}


def _identity(record: MentorRecord) -> str:
    """A hash of its tensors. What code of the user's makes of them shows in the key of its answers alone.

    That key also holds a forward pass, whose last bits depend on the machine, so it is not used where weights suffice.
    They do not for a mentor that knows some classes: the same weights say something else in another order of classes.
    """
    suffices = record.weights and not record.model.startswith("py:")
    if suffices and not np.isneginf(load_answers(record.val_logits)[:1]).any():  # -inf: a class that it rules out
        return record.fingerprint
    return Path(record.val_logits).stem


def classroom_of(
    networks: Networks, index: int, module: nn.Module, records: Sequence[MentorRecord], part: Part
) -> Classroom:
    """What mentor ``index`` is trained in: alone with its labels, or with its teachers, who are asked online."""
    context, runner = networks.context, networks.task_runner
    spec = context.recipe.mentors[index]
    if spec.taught_by is None:
        return Classroom(module, (), "none", task=runner.task_for(context.mentor_train(index), spec, module))
    teachers = [load_mentor(networks, record) for record in records]
    torch.manual_seed(mentor_seed(spec) + 104729)  # of what the method builds, as for a student
    scores = [runner.measure.rank(record.val_accuracy) for record in records]
    classroom = taught_classroom(networks, index, module, teachers, part, scores)
    if classroom.method.needs.calibration:
        classroom.calibration = calibration_of(networks, records)
    return classroom.to(context.runtime.device)


def taught_classroom(
    networks: Networks,
    index: int,
    module: nn.Module,
    teachers: Sequence[nn.Module],
    part: Part,
    scores: Sequence[float],
) -> Classroom:
    """Mentor ``index`` with its teachers, of these scores on the validation part."""
    context, mentors = networks.context, networks.context.recipe.mentors
    spec = mentors[index]
    assert spec.taught_by is not None
    return Classroom(
        module,
        teachers,
        methods.compose(spec.taught_by.parts),
        task=networks.task_runner.task_for(context.mentor_train(index)),
        mean=context.data.mean,
        std=context.data.std,
        taps=dict(spec.taps),
        scores=scores,
        image_shape=context.data.shape,
        register=(part.ids, part.target),
        taught=[mentors[i].taught_by is not None for i in teachers_of(mentors, index)],
    )
