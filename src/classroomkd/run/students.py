"""One student: one arm of the grid, one seed, from recipe to files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import __version__, bank, methods, models
from classroomkd._sums import write_listed
from classroomkd.classroom import Classroom, Mentor
from classroomkd.run.finished import keep_entry, read_back
from classroomkd.run.mentor_cache import open_bank
from classroomkd.run.mentor_record import MentorRecord, calibration_of, load_mentor, ready_mentor
from classroomkd.run.networks import Networks
from classroomkd.train import scoring as ev
from classroomkd.train.loop import Notify, Result, Training
from classroomkd.train.optimize import FastMentor

if TYPE_CHECKING:
    from classroomkd.recipe import Arm
    from classroomkd.run.bank_choice import BankPlan

__all__ = ["build_classroom", "seed_folder", "teach_student", "untrained_classroom"]


def seed_folder(out: Path, arm: Arm, seed: int) -> Path:
    """Where one student's files go."""
    return out / arm.slug / f"seed{seed}"


def build_classroom(
    networks: Networks, bank_plan: BankPlan, arm: Arm, seed: int, mentors: Sequence[MentorRecord]
) -> Classroom:
    """Student, mentors and method of one arm and seed; equal seeds start every arm from the same weights."""
    context, runner = networks.context, networks.task_runner
    student = networks.student(seed)
    if context.recipe.student.checkpoint is not None:
        models.load_checkpoint(student, context.recipe.student.checkpoint, what="student")
    method = methods.compose(arm.parts)
    wanted = method.needs.mentors > 0
    needs, part = method.needs, context.student_part
    store = None
    teachers: list[Mentor] = []
    alone = False
    if wanted and mentors:
        store = open_bank(networks, bank_plan, needs, mentors)
        # Where the bank suffices, the networks themselves are not even loaded.
        alone = isinstance(store, bank.EpochCache) and not needs.heads
        teachers = [Mentor(_Stored(m.name), m.name) if alone else load_mentor(networks, m) for m in mentors]
    taught = {m.name: bool(m.taught_by) for m in context.recipe.mentors}
    torch.manual_seed(seed + 104729)  # of what the method builds, whether mentors have just been loaded or are stored
    classroom = Classroom(
        student,
        teachers,
        method,
        task=runner.task,
        mean=context.data.mean,
        std=context.data.std,
        taps=dict(context.recipe.student.taps),
        scores=[networks.task_runner.measure.rank(m.val_accuracy) for m in mentors],
        image_shape=context.data.shape,
        register=(part.ids, part.target),
        store=store,
        taught=[taught[m.name] for m in mentors],
    )
    for teacher in classroom.mentors:
        if isinstance(store, bank.FillOnMissCache) and bank_plan.taps:  # what it is asked for is stored for every arm
            networks.read(teacher, bank_plan.taps, needs.heads)
    if not alone:
        classroom.mentors.mentors = [networks.optimized(mentor) for mentor in classroom.mentors]
    fast = [mentor.name for mentor in classroom.mentors if isinstance(mentor, FastMentor)]
    networks.park(None if alone else fast)
    if method.needs.calibration:
        classroom.calibration = calibration_of(networks, mentors)
    return classroom.to(context.runtime.device)


def untrained_classroom(networks: Networks, arm: Arm, weights: bool = False) -> Classroom:
    """The classroom of an arm before anything is trained: for a dry run of taps, shapes, cost and scales.

    Args:
        networks: of the run.
        arm: whose.
        weights: load the weights of networks that have some.
    """
    context = networks.context
    recipe, part, student = context.recipe, context.student_part, networks.blank_student()
    if weights and recipe.student.checkpoint is not None:
        models.load_checkpoint(student, recipe.student.checkpoint, what="student")
    method = methods.compose(arm.parts)
    mentor_of = partial(ready_mentor, networks) if weights else networks.blank_mentor
    teachers = [mentor_of(m) for m in (recipe.mentors if method.needs.mentors > 0 else ())]
    torch.manual_seed(0)  # of what the method builds
    classroom = Classroom(
        student,
        teachers,
        method,
        task=networks.task_runner.task,
        mean=context.data.mean,
        std=context.data.std,
        taps=dict(recipe.student.taps),
        scores=[0.0] * len(teachers),
        image_shape=context.data.shape,
        register=(part.ids, part.target),
        taught=[bool(m.taught_by) for m in recipe.mentors] if teachers else [],
    )
    return classroom.to(context.runtime.device)


class _Stored(nn.Module):
    """Stands for a mentor whose answers all come from the bank."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, inputs: Tensor) -> Tensor:
        raise AssertionError(f"mentor '{self.name}' was asked a question that the bank should hold")


def teach_student(
    networks: Networks,
    bank_plan: BankPlan,
    arm: Arm,
    seed: int,
    mentors: Sequence[MentorRecord],
    out: Path,
    resume: bool,
    notify: Notify,
) -> dict[str, Any]:
    """Train, test and store one student; a finished one is read back instead.

    Returns:
        Its entry in ``summary.json``.
    """
    context, folder = networks.context, seed_folder(out, arm, seed)
    if resume and (entry := read_back(networks, arm, seed, folder, notify)) is not None:
        return entry
    classroom = build_classroom(networks, bank_plan, arm, seed, mentors)
    fit = Training(
        context.runtime,
        classroom,
        context.student_part,
        context.data.val,
        bank_plan.views,
        context.inputs,
        context.recipe.train,
        context.classes,
        seed,
        folder=folder,
        notify=notify,
        evaluate_fn=networks.task_runner.evaluate,
        higher_is_better=networks.task_runner.measure.higher_is_better,
        extra_sizes=context.extra_sizes(classroom),
        on_bad_mentor=context.recipe.on_bad_mentor,
        label=f"arm '{arm.label}'" if seed == context.recipe.seeds[0] else "",
    )
    result = fit.run(resume=resume)
    return _finish(networks, arm, seed, classroom, result, folder)


def _finish(
    networks: Networks, arm: Arm, seed: int, classroom: Classroom, result: Result, folder: Path
) -> dict[str, Any]:
    """Test the last, best and averaged student and write them."""
    context, runner = networks.context, networks.task_runner
    student, size = classroom.student, context.recipe.train.eval_batch_size
    about = {
        "task": context.recipe.task.name,
        "model": context.recipe.student.model,
        "classes": json.dumps(list(context.classes)),
        "preprocessing": json.dumps({"mean": context.data.mean, "std": context.data.std, "shape": context.data.shape}),
        "data": context.data.name,
        "data_size": json.dumps(context.recipe.data.size),
        "method": arm.label,
        "seed": str(seed),
        "classroomkd": __version__,
        **runner.about(),
    }

    def tested() -> ev.Score:
        with context.runtime.autocast():
            return runner.evaluate(student, context.data.test, context.inputs, size)

    last = {k: v.detach().clone() for k, v in student.state_dict().items()}
    last_score = tested()
    zero = context.runtime.is_zero
    if zero:
        models.save_checkpoint(last, folder / "student.safetensors", about | {"which": "last"}, listed=True)
    entry: dict[str, Any] = {
        "method": arm.label,
        "seed": seed,
        "test_last": last_score.accuracy,
        "test_best": last_score.accuracy,
        "val_last": result.val[-1].accuracy if result.val else None,
        "val_best": None,
        "best_epoch": result.best_epoch,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        **{k: round(v, 4) for k, v in result.cost.items() if math.isfinite(v)},
        **(result.scale.entry() if result.scale is not None else {}),
        **({"not_finite": result.not_finite} if result.not_finite else {}),
        **({"test_metrics": dict(last_score.more)} if last_score.more else {}),
    }
    if result.left_out:
        entry["left_out"] = result.left_out
    if isinstance(classroom.mentors.store, bank.FillOnMissCache):
        entry["mentor_answers"] = context.runtime.total(sum(classroom.mentors.store.asked))
    if result.best is not None:
        student.load_state_dict(result.best)
        entry["test_best"] = tested().accuracy
        entry["val_best"] = result.best_value
        if zero:
            models.save_checkpoint(
                result.best, folder / "student-best.safetensors", about | {"which": "best"}, listed=True
            )
    if result.ema is not None:
        student.load_state_dict(result.ema)
        entry["test_ema"] = tested().accuracy
        if zero:
            models.save_checkpoint(
                result.ema, folder / "student-ema.safetensors", about | {"which": "ema"}, listed=True
            )
    student.load_state_dict(last)
    if zero:
        teaching = result.teaching | {"test_per_class": last_score.per_class}
        write_listed(folder / "teaching.json", json.dumps(teaching))
        # The last checkpoint stays: the files can be made again from it without training.
        keep_entry(folder, entry)
    context.runtime.barrier()
    return entry
