"""One arm with one seed: one training, or its stages one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd.run.students import teach_student
from classroomkd.run.variants import exported

if TYPE_CHECKING:
    from classroomkd.recipe import Arm
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.mentor_record import MentorRecord
    from classroomkd.run.networks import Networks
    from classroomkd.train.loop import Notify

__all__ = ["teach_arm"]


def teach_arm(
    networks: Networks,
    bank_plan: BankPlan,
    arm: Arm,
    seed: int,
    mentors: Sequence[MentorRecord],
    out: Path,
    resume: bool,
    notify: Notify,
) -> dict[str, Any]:
    """:func:`teach_student` of an arm, or of its stages one after the other.

    Returns:
        The arm's entry in ``summary.json``, with the scores of who is exported.
    """
    entries, done = list[dict[str, Any]](), 0
    whole = sum(map(networks.context.epochs_of, arm.trainings))
    for training in arm.trainings:
        tell = partial(_behind, notify, done, whole) if arm.stages else notify
        entries.append(teach_student(networks, bank_plan, training, seed, mentors, out, resume, tell, entries))
        done += networks.context.epochs_of(training)
    return exported(entries[-1], networks.context.recipe.export)


def _behind(notify: Notify, done: int, whole: int, event: dict[str, Any]) -> None:
    """Pass on an event of a stage as one of the whole arm: so many epochs are done, of so many."""
    shifted = {"epoch": event["epoch"] + done} if "epoch" in event else {}
    total = {"epochs": whole} if "epochs" in event else {}
    notify({**event, **shifted, **total})
