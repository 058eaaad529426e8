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
from classroomkd.classroom.trainees import STUDENT
from classroomkd.errors import Diverged
from classroomkd.run import diverged
from classroomkd.run.finished import BEST, EMA, ENTRY, LAST, PEERS, TEACHING, file_of, read_back, seed_folder
from classroomkd.run.judging import Judging
from classroomkd.run.mentor_cache import open_bank
from classroomkd.run.mentor_record import MentorRecord, calibration_of, load_mentor, ready_mentor
from classroomkd.run.networks import Networks
from classroomkd.run.selves import blank_selves, identities, load_selves, ranks, val_answers
from classroomkd.run.selves import taught as taught_selves
from classroomkd.run.stages import added_up, draws_of, take_over, trainee
from classroomkd.run.variants import variants
from classroomkd.train import scoring as ev
from classroomkd.train.loop import Notify, Result, Training
from classroomkd.train.optimize import FastMentor

if TYPE_CHECKING:
    from classroomkd.recipe import Arm
    from classroomkd.run.bank_choice import BankPlan

__all__ = ["build_classroom", "teach_student", "untrained_classroom"]


def build_classroom(
    networks: Networks,
    bank_plan: BankPlan,
    arm: Arm,
    seed: int,
    mentors: Sequence[MentorRecord],
    folder: Path | None = None,
) -> Classroom:
    """Student, mentors and method of one arm and seed; equal seeds start every arm from the same weights.

    Of a stage its own, begun where it begins: ``folder`` holds the stages before it.
    """
    context, student = networks.context, trainee(networks, arm, arm.lead, seed, folder)
    method = methods.compose(arm.parts, peers=len(arm.peers))
    needs, store, alone = method.needs, None, False
    teachers: list[Mentor] = []
    selves = load_selves(networks, arm, folder) if needs.mentors > 0 and folder is not None else []
    if needs.mentors > 0 and mentors:
        store = None if selves else open_bank(networks, bank_plan, needs, mentors)
        # Where the bank suffices, the networks themselves are not even loaded.
        alone = isinstance(store, bank.EpochCache) and not needs.heads
        teachers = [Mentor(_Stored(m.name), m.name) if alone else load_mentor(networks, m) for m in mentors]
    peers = {name: trainee(networks, arm, name, seed, folder) for name in context.peers_of(arm)}
    scores = [networks.task_runner.measure.rank(m.val_accuracy) for m in mentors]
    taught = [context.mentor(m.name).taught_by is not None for m in mentors]
    if selves:
        teachers, taught = [*teachers, *selves], [*taught, *taught_selves(networks, arm)]
        scores += ranks(networks, selves, Judging.of(networks, mentors))
    # Of what the method builds, whether mentors have just been loaded or are stored.
    torch.manual_seed(draws_of(arm, seed) + 104729)
    classroom = _classroom(networks, arm, student, teachers, method, scores, taught, store, peers, seed=seed)
    if needs.learned and folder is not None:
        take_over(classroom.method, arm, folder)
    for teacher in classroom.mentors:
        if isinstance(store, bank.FillOnMissCache) and bank_plan.taps:  # what it is asked for is stored for every arm
            networks.read(teacher, bank_plan.taps, needs.heads)
    if not alone:
        classroom.mentors.mentors = [networks.optimized(mentor) for mentor in classroom.mentors]
    fast = [mentor.name for mentor in classroom.mentors if isinstance(mentor, FastMentor)]
    networks.park(None if alone else fast)
    if needs.calibration:
        classroom.calibration = calibration_of(networks, mentors, val_answers(networks, selves))
    return classroom.to(context.runtime.device)


def untrained_classroom(networks: Networks, arm: Arm, weights: bool = False) -> Classroom:
    """The classroom of an arm before anything is trained: for a dry run of taps, shapes, cost and scales.

    Args:
        networks: of the run.
        arm: whose.
        weights: load the weights of networks that have some.
    """
    recipe, leads = networks.context.recipe, arm.lead == STUDENT
    student = networks.blank_student() if leads else networks.peer(networks.context.peer(arm.lead), 0)
    if weights and leads:
        networks.begin(student)
    method = methods.compose(arm.parts, peers=len(arm.peers))
    mentor_of = partial(ready_mentor, networks) if weights else networks.blank_mentor
    teachers = [mentor_of(m) for m in (recipe.mentors if method.needs.mentors > 0 else ())]
    taught = [m.taught_by is not None for m in recipe.mentors] if teachers else []
    if method.needs.mentors > 0:
        teachers, taught = [*teachers, *blank_selves(networks, arm)], [*taught, *taught_selves(networks, arm)]
    peers = {name: networks.peer(spec, 0) for name, spec in networks.context.peers_of(arm).items()}
    torch.manual_seed(0)  # of what the method builds
    classroom = _classroom(networks, arm, student, teachers, method, [0.0] * len(teachers), taught, peers=peers)
    return classroom.to(networks.context.runtime.device)


def _classroom(
    networks: Networks,
    arm: Arm,
    student: nn.Module,
    teachers: Sequence[nn.Module],
    method: Method,
    scores: Sequence[float],
    taught: Sequence[bool],
    store: bank.Bank | None = None,
    peers: Mapping[str, nn.Module] | None = None,
    *,
    seed: int = 0,
) -> Classroom:
    """The student, its peers and its teachers, of these scores on the validation part; ``taught``: the assistants.

    ``seed``: of the run, for branches.
    """
    context, part = networks.context, networks.context.student_part
    selves = identities(networks, arm) if teachers else []  # behind the other teachers
    return Classroom(
        student,
        teachers,
        method,
        task=networks.task_runner.task,
        mean=context.data.mean,
        std=context.data.std,
        taps=dict(context.recipe.student.taps) if arm.lead == STUDENT else {},
        scores=scores,
        image_shape=context.data.shape,
        register=(part.ids, part.target),
        store=store,
        taught=taught,
        outliers=context.recipe.train.outliers,
        outlier_weight=context.recipe.train.outlier_weight,
        peers=peers,
        teachers=[name for name in peers or {} if method.needs.teachers and context.peer(name).role == "teacher"],
        selves=[*[None] * (len(teachers) - len(selves)), *selves],
        branches=networks.branches(arm.lead, number, seed) if (number := method.needs.branches - 1) else None,
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
    earlier: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Train, test and store one student; a finished one is read back instead.

    ``arm`` may be a stage of one; ``earlier`` has then the entries of those before it.

    Returns:
        Its entry in ``summary.json``.

    Raises:
        Diverged: the training did, now or in an earlier attempt.
    """
    context, folder = networks.context, seed_folder(out, arm, seed)
    if resume and (entry := read_back(networks, arm, seed, folder, notify)) is not None:
        return entry
    if resume and (before := diverged.recall(folder)) is not None:
        raise before
    classroom = build_classroom(networks, bank_plan, arm, seed, mentors, out / arm.slug / f"seed{seed}")
    judging = Judging.of(networks, mentors)
    for one in (arm.lead, *arm.peers):
        for text in networks.remarks(STUDENT if one == STUDENT else f"peer '{one}'"):
            notify({"event": "note", "text": text})
    training = Training(
        context.runtime,
        classroom,
        context.student_part,
        judging.val,
        bank_plan.views,
        context.inputs,
        context.train_of(arm),
        context.classes,
        draws_of(arm, seed),
        folder=folder,
        notify=notify,
        evaluate_fn=networks.task_runner.evaluate,
        higher_is_better=networks.task_runner.measure.higher_is_better,
        chooses=judging.chooses,
        extra_sizes=context.extra_sizes(classroom),
        on_bad_mentor=context.recipe.on_bad_mentor,
        goes_on=classroom.method.has_head or (arm.stage is not None and not arm.stage.last),
        label=f"arm '{arm.title}'" if seed == context.recipe.seeds[0] else "",
        peers={name: context.train_of(arm, name) for name in context.peers_of(arm)},
        together=networks.task_runner.together if networks.task_runner.has_together else None,
        apart=networks.task_runner.apart if networks.task_runner.has_together else None,
    )
    try:
        result = training.run(resume=resume)
    except Diverged as error:
        told = error if arm.stage is None else Diverged(f"stage '{arm.stage.name}': {error}")
        if context.runtime.is_zero:
            diverged.remember(folder, told)
        context.runtime.barrier()
        raise told from error.__cause__
    return _finish(networks, arm, seed, classroom, result, folder, judging, earlier)


def _finish(
    networks: Networks,
    arm: Arm,
    seed: int,
    classroom: Classroom,
    result: Result,
    folder: Path,
    judging: Judging,
    earlier: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Test the last, best and averaged student and write them."""
    context, runner = networks.context, networks.task_runner
    student, size = classroom.student, context.recipe.train.eval_batch_size
    about = {
        "task": context.recipe.task.name,
        "model": context.recipe.student.model if arm.lead == STUDENT else context.peer(arm.lead).model,
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
    if zero and arm.lead != STUDENT:
        about["peer"] = arm.lead
        (folder / PEERS).mkdir(exist_ok=True)

    def tested(which: str, weights: dict[str, Tensor], file: str) -> ev.Score:
        """Test the student with these weights, and write them."""
        student.load_state_dict(weights)
        with context.runtime.autocast():
            score = judging.test_score(student, context.inputs, size)
        if zero:
            file = file_of(arm.lead, file)
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
    if result.findings:
        entry["findings"] = {name: round(value, 6) for name, value in result.findings.items()}
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
    cards = {name: about | {"peer": name} for name in classroom.peers.branches}
    cards |= {name: about | {"model": spec.model, "peer": name} for name, spec in context.peers_of(arm).items()}
    if others := variants(networks, judging, classroom, result, entry, folder, cards, arm.lead):
        entry["variants"] = others
    if arm.stage is not None:
        entry["taught"] = arm.method
        entry = added_up(arm, earlier, entry) if arm.stage.last else entry
    if zero:
        teaching = result.teaching | {"test_per_class": last_score.per_class}
        write_listed(folder / TEACHING, json.dumps(finite(teaching)))
        # The last checkpoint stays: the files can be made again from it without training.
        write_listed(folder / ENTRY, json.dumps(finite(entry), indent=1))
    context.runtime.barrier()
    return entry
