"""Where the time of a step goes, with a user's own networks: ``classroomkd bench``.

Three steps are timed, interleaved: the student alone (the floor), with the mentors online, and with their answers from
a bank. The bank is a real one with a few batches of made-up answers; what reading a batch costs does not depend on how
many there are. Networks are untrained, which does not change what they cost.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classroomkd.bank import Bank
from classroomkd.classroom import Batch
from classroomkd.recipe.bank_spec import BankSpec
from classroomkd.run.bank_choice import BankPlan, Choice
from classroomkd.run.bench_setting import alone, endless, prepared, stand_in, student_layout
from classroomkd.run.networks import Networks
from classroomkd.train.inputs import Batches
from classroomkd.train.step import StepRunner
from classroomkd.train.stopwatch import Clock

if TYPE_CHECKING:
    from classroomkd.recipe import Arm

__all__ = ["PARTS", "measure"]

DATA, STUDENT, BANK, LOSS, RECORD = "data, augmentation", "student forward", "bank read", "loss", "record"
BACKWARD, UPDATE = "backward", "update"
PARTS = (DATA, STUDENT, BANK, LOSS, BACKWARD, UPDATE, RECORD)  # beside the mentors, one part each
ALONE, ONLINE, STORED, AGAIN = "alone", "online", "bank", "again"
BATCHES = 4  # of the stand-in for the training part


def measure(networks: Networks, bank_plan: BankPlan, rounds: int = 7) -> dict[str, Any]:
    """Time the step of every arm that asks mentors; nothing of the run is changed and nothing is kept.

    Returns:
        ``{"clock", "batch", "steps", "arms", "bank"}``: an arm has ``step_ms`` and ``parts`` by ``alone``, ``online``
        and ``bank``, ``mentors`` (ms, and share of the online step), ``dearest`` (the mentor that costs most),
        ``x_floor`` and ``x_floor_bank``, and ``again``, the student alone over itself; all are medians over rounds,
        and ``quartiles`` has [q1, q3] of each under the same names (``mentors``: by name). ``bank`` has, by kind, what
        a training with its share of the filling would cost over the student alone, with the dearest arm. ``teaches``:
        whether the method adds anything to the student's own loss; where nobody is asked only that is timed.
    """
    context, arms = networks.context, networks.context.recipe.trainings()
    clock = Clock(context.runtime.device)
    taught = [arm for arm, _ in context.banked]  # one with frozen selves has no bank to be held against
    last = student_layout(networks)
    timed = [_arm(networks, bank_plan, arm, last, clock, rounds) for arm in taught or arms[:1]]
    train = context.recipe.train
    steps = len(Batches(context.student_part, bank_plan.views, train.batch_size, 0, ratio=train.unlabelled_ratio))
    dearest = max(timed, key=lambda arm: arm["x_floor"] or 1.0)
    return {
        "clock": clock.name,
        "threads": torch.get_num_threads(),
        "device": str(context.runtime.device),
        "batch": context.recipe.train.batch_size,
        "steps": steps,
        "rounds": rounds,
        "arms": timed,
        "bank": _savings(bank_plan.choice, dearest, steps) if dearest["x_floor"] else None,
    }


def _savings(choice: Choice, arm: dict[str, Any], steps: int) -> dict[str, Any]:
    """By kind of bank, the cost of one training and of each where all share it, over the student alone."""
    alone = arm["step_ms"][ALONE] * steps * choice.epochs / 3.6e6  # hours
    kinds = {}
    for kind in choice.answers:
        other = replace(choice, spec=BankSpec.parse(kind))
        one, every = (other.total(arm["x_floor"], arm["x_floor_bank"], n) for n in (1, max(choice.trainings, 1)))
        kinds[kind] = {
            "answers": round(other.asked(), 1),
            "one_training": round(one, 3),
            "all_trainings": round(every, 3),
            "hours": round(alone * every * choice.trainings, 5),
        }
    return {
        "arm": arm["label"],
        "chosen": str(choice.spec),
        "why": choice.why,
        "epochs": choice.epochs,
        "trainings": choice.trainings,
        "hours_alone": round(alone * choice.trainings, 5),
        "kinds": kinds,
    }


def _arm(networks: Networks, bank_plan: BankPlan, arm: Arm, last: bool, clock: Clock, rounds: int) -> dict[str, Any]:
    """One arm's step, taken apart."""
    context = networks.context
    with ExitStack() as stack:
        runner = stack.enter_context(prepared(networks, arm, last))
        floor, names = alone(networks, last), runner.classroom.mentors.names
        part = context.student_part.subset(
            torch.arange(min(len(context.student_part), BATCHES * context.recipe.train.batch_size))
        )
        sources = dict.fromkeys((ALONE, AGAIN, ONLINE), endless(context, part, bank_plan.views))
        store = None
        if names:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            store, space = stand_in(networks, bank_plan, runner.classroom, part, folder)
            sources[STORED] = endless(context, part, space)
            for name in ("stage", "lookup", "features"):
                stack.enter_context(clock.watching(BANK, store, name))
        for used in (floor, runner):
            _watch(stack, clock, used, context.recipe.train.compile)

        def step(column: str) -> None:
            used = floor if column in (ALONE, AGAIN) else runner
            _step(clock, used, sources[column], store if column == STORED else None)

        columns = [ALONE, AGAIN, ONLINE, STORED] if names else [ALONE, AGAIN]
        # An update comes once a group of batches, a method's own step once a period.
        whole = {column: math.lcm(runner.classroom.method.period, runner.accumulation_steps) for column in columns}
        taken = _rounds(clock, whole | dict.fromkeys((ALONE, AGAIN), floor.accumulation_steps), rounds, step)
    return {**_summed(arm.title, taken, names), "teaches": runner.classroom.method.teaches}


def _rounds(
    clock: Clock, columns: Mapping[str, int], rounds: int, step: Callable[[str], None]
) -> dict[str, list[dict[str, float]]]:
    """By column and round, seconds by part of a step, as a mean over so many that all that comes up is in them."""
    taken: dict[str, list[dict[str, float]]] = {column: [] for column in columns}
    order = list(columns)
    for i in range(rounds + 1):
        turn = i % len(order)
        for column in order[turn:] + order[:turn]:
            clock.taken = {}
            for _ in range(columns[column]):
                step(column)
            if i:  # the first pays for memory and kernels
                taken[column].append({part: seconds / columns[column] for part, seconds in clock.taken.items()})
    return taken


def _summed(label: str, taken: dict[str, list[dict[str, float]]], names: list[str]) -> dict[str, Any]:
    """Medians and quartiles over rounds; ratios are those of a round."""
    whole = {column: [sum(took.values()) for took in rounds] for column, rounds in taken.items()}

    def over(column: str) -> list[float] | None:
        if column not in whole:
            return None
        return _quarters([a / b for a, b in zip(whole[column], whole[ALONE], strict=True)])

    def part(name: str, column: str) -> list[float]:
        return _quarters([1000 * took.get(name, 0.0) for took in taken[column]])

    shown = [column for column in (ALONE, ONLINE, STORED) if column in taken]
    ratios = {"x_floor": over(ONLINE), "x_floor_bank": over(STORED), "again": over(AGAIN)}
    measured = {
        "step_ms": {column: _quarters([1000 * seconds for seconds in whole[column]]) for column in shown},
        "parts": {name: {column: part(name, column) for column in shown} for name in PARTS},
        "mentors": {name: part(_mentor(name), ONLINE) for name in names},
        **ratios,
    }
    medians = _of_each(measured, lambda quarters: quarters[1])
    shares = {name: ms / medians["step_ms"][ONLINE] for name, ms in medians["mentors"].items()}
    return {
        "label": label,
        "step_ms": medians["step_ms"],
        "parts": medians["parts"],
        "mentors": [{"name": name, "ms": medians["mentors"][name], "share": share} for name, share in shares.items()],
        "dearest": max(shares, key=lambda name: shares[name], default=None),
        **{name: medians[name] for name in ratios},
        "quartiles": _of_each(measured, lambda quarters: quarters[::2]),
    }


def _of_each(measured: Any, pick: Callable[[list[float]], Any]) -> Any:
    """The same nested mappings, with what is picked of every [q1, median, q3] in them; None stays."""
    if isinstance(measured, dict):
        return {name: _of_each(value, pick) for name, value in measured.items()}
    return None if measured is None else pick(measured)


def _quarters(values: list[float]) -> list[float]:
    """[q1, median, q3]."""
    return statistics.quantiles(values, n=4, method="inclusive")


def _step(clock: Clock, context: StepRunner, source: Iterator[Batch], store: Bank | None) -> None:
    """One step, in the order of the training loop; a store answers for the mentors."""
    room = context.classroom
    room.mentors.store = store
    with clock(DATA):
        batch = next(source)
    with clock(LOSS):
        lesson = context.lesson(batch)
        lesson.conclude(room.method(lesson))
    with clock(RECORD):
        context.record.add(lesson)
    with clock(BACKWARD):
        context.backward(lesson.loss)
    with clock(UPDATE):
        context.update()
    with clock(LOSS):
        room.method.after_step(context, lesson)
    context.progress.step += 1


def _mentor(name: str) -> str:
    return f"mentor {name}"


def _watch(stack: ExitStack, clock: Clock, context: StepRunner, compiled: bool) -> None:
    """Time the student's and each mentor's calls wherever they happen."""
    room = context.classroom
    stack.enter_context(clock.watching(DATA, context, "inputs"))
    # A clock inside what is compiled would cut it into pieces.
    students = ((context.learner.module, "forward"), (room, "answer")) if compiled else ((room.reader, "forward"),)
    for owner, name in students:
        stack.enter_context(clock.watching(STUDENT, owner, name))
    for mentor in room.mentors:
        for name in ("prepare", "forward", "head"):
            stack.enter_context(clock.watching(_mentor(mentor.name), mentor, name))
