"""What a run is going to do and cost, before it does it: ``--dry-run``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from classroomkd import methods
from classroomkd.classroom import Classroom, Mentor
from classroomkd.engine.context import EngineContext
from classroomkd.engine.floor import probe
from classroomkd.engine.inputs import Batches
from classroomkd.engine.optim import build_optimizer
from classroomkd.engine.record import Record
from classroomkd.engine.setup import Setup

__all__ = ["plan"]


def plan(setup: Setup) -> dict[str, Any]:
    """Sizes, counts and measured cost of every arm, with untrained networks in place of the trained ones.

    Returns:
        ``{"data", "arms", "seeds", "steps", "students", "bank"}``; an arm has ``mentor_forwards`` (a step), ``x_floor``
        (its step over the student alone, mentors online) and ``x_floor_bank`` (with stored answers; None without).
    """
    recipe = setup.recipe
    batches = Batches(setup.student_part, setup.views, recipe.train.batch_size, 0)
    batch = next(batches.epoch(0))
    fixed = setup.views is not setup.base_views
    arms = []
    for arm in recipe.arms():
        method = methods.compose(arm.parts)
        wanted = method.needs.mentors > 0
        context = _context(setup, arm, wanted)
        costs, asks = probe(context, batch), context.classroom.method.asks
        asked = len(recipe.mentors) if asks is None else len(asks)
        bank = wanted and fixed and not method.needs.features
        if bank:
            blank = torch.zeros(len(recipe.mentors), len(batch["ids"]), len(setup.classes), device=setup.runtime.device)
            context.classroom.mentors.store = _Blank(blank)
            stored = probe(context, batch)["cost_ratio"]
        arms.append(
            {
                "label": arm.label,
                "mentor_forwards": 0 if not wanted or bank else asked,
                "x_floor": round(costs["cost_ratio"], 2),
                "x_floor_bank": round(stored, 2) if bank else None,
                "step_ms": round(costs["step_ms"], 2),
            }
        )
    passes = 0
    if fixed and setup.views.count is not None:
        passes = len(recipe.mentors) * setup.views.count * len(setup.student_part)
    return {
        "data": {
            "name": setup.data.name,
            "classes": len(setup.classes),
            "shape": list(setup.data.shape),
            "train": len(setup.data.train),
            "student_train": len(setup.student_part),
            "val": len(setup.data.val),
            "test": len(setup.data.test),
        },
        "arms": arms,
        "seeds": list(recipe.seeds),
        "steps": len(batches) * recipe.train.epochs,
        "students": len(arms) * len(recipe.seeds),
        "bank": {"kind": recipe.bank, "mentor_answers_once": passes} if fixed else None,
    }


class _Blank:
    """A store that always answers the same: what looking up costs does not depend on what is there."""

    def __init__(self, answers: Tensor) -> None:
        self.answers = answers

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        return self.answers[:, : len(ids)].clone()


def _context(setup: Setup, arm: Any, wanted: bool) -> EngineContext:
    recipe = setup.recipe
    student = setup.build(recipe.student.model, "student", 0)
    teachers = []
    if wanted:
        for m in recipe.mentors:
            size = (m.size, m.size) if m.size else None
            teachers.append(Mentor(setup.build(m.model, m.name, 0), m.name, mean=m.mean, std=m.std, size=size))
    method = methods.compose(arm.parts)
    classroom = Classroom(student, teachers, method, task=setup.task, mean=setup.data.mean, std=setup.data.std)
    if method.needs.calibration:
        from classroomkd.engine.scoring import calibration_of

        k = len(setup.classes)
        blank = torch.zeros(len(teachers), k, k, device=setup.runtime.device)
        classroom.calibration = calibration_of(blank, torch.arange(k, device=setup.runtime.device))
    classroom.to(setup.runtime.device)
    record = Record(len(teachers), len(setup.classes), setup.runtime.device)
    optimizer = build_optimizer(classroom.parameters(), recipe.train)
    return EngineContext(setup.runtime, classroom, optimizer, setup.inputs, record)
