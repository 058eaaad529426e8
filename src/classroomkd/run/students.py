"""One student: one arm of the grid, one seed, from recipe to files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import __version__, bank, methods, models
from classroomkd._stored import finite
from classroomkd._sums import write_listed
from classroomkd.classroom import Classroom, Mentor, Method
from classroomkd.errors import Diverged
from classroomkd.run import diverged
from classroomkd.run.finished import BEST, EMA, ENTRY, LAST, TEACHING, read_back
from classroomkd.run.judging import Judging
from classroomkd.run.mentor_cache import open_bank
from classroomkd.run.mentor_record import MentorRecord, calibration_of, load_mentor, ready_mentor
from classroomkd.run.networks import Networks
from classroomkd.run.variants import exported, variants
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
    context, student = networks.context, networks.student(seed)
    networks.begin(student)
    method = methods.compose(arm.parts)
    needs, store, alone = method.needs, None, False
    teachers: list[Mentor] = []
    if needs.mentors > 0 and mentors:
        store = open_bank(networks, bank_plan, needs, mentors)
        # Where the bank suffices, the networks themselves are not even loaded.
        alone = isinstance(store, bank.EpochCache) and not needs.heads
        teachers = [Mentor(_Stored(m.name), m.name) if alone else load_mentor(networks, m) for m in mentors]
    peers = {name: networks.peer(spec, seed) for name, spec in context.peers_of(arm).items()}
    scores = [networks.task_runner.measure.rank(m.val_accuracy) for m in mentors]
    taught = [context.mentor(m.name).taught_by is not None for m in mentors]
    torch.manual_seed(seed + 104729)  # of what the method builds, whether mentors have just been loaded or are stored
    classroom = _classroom(networks, student, teachers, method, scores, taught, store, peers)
    for teacher in classroom.mentors:
        if isinstance(store, bank.FillOnMissCache) and bank_plan.taps:  # what it is asked for is stored for every arm
            networks.read(teacher, bank_plan.taps, needs.heads)
    if not alone:
        classroom.mentors.mentors = [networks.optimized(mentor) for mentor in classroom.mentors]
    fast = [mentor.name for mentor in classroom.mentors if isinstance(mentor, FastMentor)]
    networks.park(None if alone else fast)
    if needs.calibration:
        classroom.calibration = calibration_of(networks, mentors)
    return classroom.to(context.runtime.device)


def untrained_classroom(networks: Networks, arm: Arm, weights: bool = False) -> Classroom:
    """The classroom of an arm before anything is trained: for a dry run of taps, shapes, cost and scales.

    Args:
        networks: of the run.
        arm: whose.
        weights: load the weights of networks that have some.
    """
    recipe, student = networks.context.recipe, networks.blank_student()
    if weights:
        networks.begin(student)
    method = methods.compose(arm.parts)
    mentor_of = partial(ready_mentor, networks) if weights else networks.blank_mentor
    teachers = [mentor_of(m) for m in (recipe.mentors if method.needs.mentors > 0 else ())]
    taught = [m.taught_by is not None for m in recipe.mentors] if teachers else []
    peers = {name: networks.peer(spec, 0) for name, spec in networks.context.peers_of(arm).items()}
    torch.manual_seed(0)  # of what the method builds
    classroom = _classroom(networks, student, teachers, method, [0.0] * len(teachers), taught, peers=peers)
    return classroom.to(networks.context.runtime.device)


def _classroom(
    networks: Networks,
    student: nn.Module,
    teachers: Sequence[nn.Module],
    method: Method,
    scores: Sequence[float],
    taught: Sequence[bool],
    store: bank.Bank | None = None,
    peers: Mapping[str, nn.Module] | None = None,
) -> Classroom:
    """The student, its peers and its teachers, of these scores on the validation part; ``taught``: the assistants."""
    context, part = networks.context, networks.context.student_part
    return Classroom(
        student,
        teachers,
        method,
        task=networks.task_runner.task,
        mean=context.data.mean,
        std=context.data.std,
        taps=dict(context.recipe.student.taps),
        scores=scores,
        image_shape=context.data.shape,
        register=(part.ids, part.target),
        store=store,
        taught=taught,
        outliers=context.recipe.train.outliers,
        outlier_weight=context.recipe.train.outlier_weight,
        peers=peers,
        teachers=[spec.name for spec in context.recipe.peers if spec.role == "teacher" and spec.name in (peers or {})],
    )


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
        Its entry in ``summary.json``, with the scores of who is exported.

    Raises:
        Diverged: the training did, now or in an earlier attempt.
    """
    context, folder = networks.context, seed_folder(out, arm, seed)
    if resume and (entry := read_back(networks, arm, seed, folder, notify)) is not None:
        return exported(entry, context.recipe.export)
    if resume and (before := diverged.recall(folder)) is not None:
        raise before
    classroom = build_classroom(networks, bank_plan, arm, seed, mentors)
    judging = Judging.of(networks, mentors)
    peers = context.peers_of(arm)
    for name in ("student", *(f"peer '{one}'" for one in peers)):
        for text in networks.remarks(name):
            notify({"event": "note", "text": text})
    training = Training(
        context.runtime,
        classroom,
        context.student_part,
        judging.val,
        bank_plan.views,
        context.inputs,
        context.recipe.train,
        context.classes,
        seed,
        folder=folder,
        notify=notify,
        evaluate_fn=networks.task_runner.evaluate,
        higher_is_better=networks.task_runner.measure.higher_is_better,
        chooses=judging.chooses,
        extra_sizes=context.extra_sizes(classroom),
        on_bad_mentor=context.recipe.on_bad_mentor,
        label=f"arm '{arm.label}'" if seed == context.recipe.seeds[0] else "",
        peers={name: context.peer_train(spec) for name, spec in peers.items()},
        together=networks.task_runner.together if networks.task_runner.has_together else None,
        apart=networks.task_runner.apart if networks.task_runner.has_together else None,
    )
    try:
        result = training.run(resume=resume)
    except Diverged as error:
        if context.runtime.is_zero:
            diverged.remember(folder, error)
        context.runtime.barrier()
        raise
    return exported(_finish(networks, arm, seed, classroom, result, folder, judging), context.recipe.export)


def _finish(
    networks: Networks,
    arm: Arm,
    seed: int,
    classroom: Classroom,
    result: Result,
    folder: Path,
    judging: Judging,
) -> dict[str, Any]:
    """Test the last, best and averaged student and write them."""
    context, runner = networks.context, networks.task_runner
    student, size = classroom.student, context.recipe.train.eval_batch_size
    about = {
        "task": context.recipe.task.name,
        "model": context.recipe.student.model,
        "classes": json.dumps(list(context.classes)),
        "preprocessing": json.dumps({**context.preprocessing, "shape": context.data.shape}),
        "data": context.data.name,
        "data_size": json.dumps(context.recipe.data.size),
        "method": arm.label,
        "seed": str(seed),
        "classroomkd": __version__,
        **runner.about(),
    }

    zero = context.runtime.is_zero

    def tested(which: str, weights: dict[str, Tensor], file: str) -> ev.Score:
        """Test the student with these weights, and write them."""
        student.load_state_dict(weights)
        with context.runtime.autocast():
            score = judging.test_score(student, context.inputs, size)
        if zero:
            models.save_checkpoint(weights, folder / file, about | {"which": which}, listed=True)
        return score

    last = {k: v.detach().clone() for k, v in student.state_dict().items()}
    last_score = tested("last", last, LAST)
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
        entry["test_best"] = tested("best", result.best, BEST).accuracy
        entry["val_best"] = result.best_value
    if result.ema is not None:
        entry["test_ema"] = tested("ema", result.ema, EMA).accuracy
    student.load_state_dict(last)
    cards = {name: about | {"model": spec.model, "peer": name} for name, spec in context.peers_of(arm).items()}
    if others := variants(networks, judging, classroom, result, entry, folder, cards):
        entry["variants"] = others
    if zero:
        teaching = result.teaching | {"test_per_class": last_score.per_class}
        write_listed(folder / TEACHING, json.dumps(finite(teaching)))
        # The last checkpoint stays: the files can be made again from it without training.
        write_listed(folder / ENTRY, json.dumps(finite(entry), indent=1))
    context.runtime.barrier()
    return entry
