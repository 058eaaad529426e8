"""Everything that can be wrong with a run, found before any work: networks, checkpoints, parts, methods, places."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from classroomkd import methods, models
from classroomkd._files import writing
from classroomkd.classroom import ClassInfo
from classroomkd.errors import UserError
from classroomkd.run import assistants
from classroomkd.run.bank_choice import BankPlan, plan_bank
from classroomkd.run.batch_check import check_batches, check_optimizer
from classroomkd.run.folder import check_data
from classroomkd.run.mentor_data import mentor_part
from classroomkd.run.students import untrained_classroom
from classroomkd.train.optimize import check_compiler

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from classroomkd.recipe import Arm
    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.networks import Networks

__all__ = ["check"]


def check(
    networks: Networks, resumed: Path | None = None, share: tuple[int, int] = (0, 1), ahead: bool = False
) -> tuple[BankPlan, dict[str, Any]]:
    """Run every network dry, read every checkpoint, fit every method; all problems in one error.

    Args:
        networks: of the run.
        resumed: the run folder that is gone on with; None: a new one.
        share, ahead: of :class:`~classroomkd.run.bank_choice.BankPlan`.

    Returns:
        What is stored of the mentors' answers, and the sizes of the networks, ``{"student": …, "mentors": {name: …}}``,
        each with ``model``, ``parameters`` and ``multiply_adds``.

    Raises:
        UserError: whatever is wrong, a line each.
    """
    context = networks.context
    recipe, problems = context.recipe, list[str]()
    sizes, plans = dict[str, dict[str, Any]](), list[BankPlan]()

    def attempt(what: Callable[[], Any]) -> None:
        try:
            what()
        except UserError as error:
            problems.append(str(error))

    def bank() -> None:
        plan = plan_bank(networks, share, ahead)
        networks.task_runner.check_top(plan.choice.spec.top)
        plans.append(plan)

    def student() -> None:
        sizes["student"] = _network(networks, networks.blank_student(), recipe.student, "student")

    def mentor(index: int, spec: MentorSpec) -> None:
        sizes[spec.name] = _network(networks, networks.mentor(spec.name), spec, f"mentors.{index} ({spec.name})")

    if resumed is not None:
        attempt(partial(check_data, resumed, context))
    attempt(partial(_check_places, networks))
    attempt(bank)
    attempt(student)
    attempt(partial(check_batches, networks, None))
    for index, spec in enumerate(recipe.mentors):
        attempt(partial(mentor, index, spec))
        if not networks.has_weights(spec):
            attempt(partial(_check_training, networks, index))
        if spec.taught_by is not None:
            attempt(partial(assistants.check_assistant, networks, index))
    if len(sizes) == 1 + len(recipe.mentors):  # a network that is wrong by itself has been named
        problems += _arm_problems(networks)
    if problems:
        raise UserError("\n".join(problems))
    return plans[0], {"student": sizes["student"], "mentors": {m.name: sizes[m.name] for m in recipe.mentors}}


def _network(networks: Networks, module: nn.Module, spec: Any, role: str) -> dict[str, Any]:
    """Run one network dry and load its checkpoint; ``spec``: the recipe's section about it."""
    context = networks.context
    mentor = None if role == "student" else spec
    size = None if mentor is None else mentor.shape
    networks.task_runner.check_network(module, role, mentor, size)
    if spec.checkpoint is not None:
        if mentor is None:
            models.load_checkpoint(module, spec.checkpoint, what=role)
        else:
            networks.load(mentor.name, str(spec.checkpoint))
    shape = (context.data.shape[0], *(size or context.data.shape[1:]))
    return {
        "model": spec.model,
        "parameters": models.parameters(module),
        "multiply_adds": models.multiply_adds(module, shape),
    }


def _check_places(networks: Networks) -> None:
    """The cache can be written, a compiler is there, mentors are not called like the student."""
    context, recipe = networks.context, networks.context.recipe
    with writing(context.cache):
        context.cache.mkdir(parents=True, exist_ok=True)
    if recipe.mentor_compile or recipe.train.compile or any(m.train and m.train.compile for m in recipe.mentors):
        check_compiler(context.runtime.device)
    if any(m.name == "student" for m in recipe.mentors):
        raise UserError("mentors: one is called 'student'; give it another name")


def _check_training(networks: Networks, index: int) -> None:
    """Whether the run can train mentor ``index``."""
    context = networks.context
    own, shared = context.mentor_train(index).precision, context.recipe.train.precision
    if own != shared:
        raise UserError(
            f"mentors.{index}.train.precision is {own}; one run has one precision (train.precision {shared})"
        )
    if (why := networks.task_runner.refuse_training(index)) is not None:
        raise UserError(why)
    part, _ = mentor_part(context, index)
    spec = context.recipe.mentors[index]
    if not networks.can_train(spec.name):
        raise UserError(f"mentors.{index}: nothing in '{spec.model}' can be trained; give checkpoint: FILE")
    if len(part) < 2:
        raise UserError(f"mentors.{index}.train leaves {len(part)} samples to train on; it needs at least 2")
    check_batches(networks, index)


def _arm_problems(networks: Networks) -> list[str]:
    """What the arms cannot work with; the same for several arms is said once."""
    labels = dict[str, list[str]]()
    for arm in networks.context.recipe.arms():
        try:
            _check_arm(networks, arm)
        except UserError as error:
            labels.setdefault(str(error), []).append(f"'{arm.label}'")
    return [f"arm{'s' * (len(arms) > 1)} {', '.join(arms)}: {text}" for text, arms in labels.items()]


def _check_arm(networks: Networks, arm: Arm) -> None:
    method, recipe = methods.compose(arm.parts), networks.context.recipe
    check_optimizer(method, recipe.train, f"arm '{arm.label}'", "train")
    if method.needs.features:
        untrained_classroom(networks, arm)  # every tap is found and every pair of shapes matched
        return
    names = [m.name for m in recipe.mentors]
    taught = [m.taught_by is not None for m in recipe.mentors]
    method.setup(ClassInfo(networks.task_runner.task, names, [0.0] * len(names), taught=taught))
