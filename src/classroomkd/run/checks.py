"""Everything that can be wrong with a run, found before any work: networks, checkpoints, parts, methods, places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classroomkd import methods, models, tasks
from classroomkd._files import writing
from classroomkd.classroom import ClassInfo
from classroomkd.errors import UserError
from classroomkd.recipe.sections import MentorSpec
from classroomkd.run.assistants import taught_classroom, teachers_of
from classroomkd.run.bank_choice import BankPlan, plan_bank
from classroomkd.run.folder import check_data
from classroomkd.run.label_checks import check_judges, check_labels, check_outliers, check_part, label_remarks
from classroomkd.run.mentor_data import mentor_part
from classroomkd.run.selves import identities
from classroomkd.run.selves import taught as taught_selves
from classroomkd.run.stages import check_start
from classroomkd.run.students import untrained_classroom
from classroomkd.train.inputs import batch_sizes, check_views, uneven
from classroomkd.train.optimize import check_compiler
from classroomkd.train.parts import check_parts, one_rule

if TYPE_CHECKING:
    from pathlib import Path

    from classroomkd.classroom import Method
    from classroomkd.recipe import Arm, TrainSpec
    from classroomkd.recipe.schema import PeerSpec
    from classroomkd.run.networks import Networks

__all__ = ["check", "remarks"]


def check(
    networks: Networks, resumed: Path | None = None, share: tuple[int, int] = (0, 1), ahead: bool = False
) -> tuple[BankPlan, dict[str, Any]]:
    """Run every network dry, read every checkpoint, fit every method; all problems in one error.

    Args:
        networks: of the run.
        resumed: the run folder that is gone on with; None: a new one.
        share, ahead: of :class:`~classroomkd.run.bank_choice.BankPlan`.

    Returns:
        What is stored of the mentors' answers, and the sizes of the networks, ``{"student": …, "mentors": {name: …}}``
        and, where there are some, ``"peers": {name: …}``, each with ``model``, ``parameters`` and ``multiply_adds``.

    Raises:
        UserError: whatever is wrong, a line each.
    """
    context = networks.context
    recipe, problems = context.recipe, list[str]()
    sizes, peers, plans = dict[str, dict[str, Any]](), dict[str, dict[str, Any]](), list[BankPlan]()

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
        if not any(parameter.requires_grad for parameter in networks.blank_student().parameters()):
            raise UserError(
                f"student: nothing in '{recipe.student.model}' can be trained; no parameter requires gradients"
            )

    def mentor(index: int, spec: MentorSpec) -> None:
        _check_statistics(index, spec, context.data.shape[0])
        sizes[spec.name] = _network(networks, networks.mentor(spec.name), spec, f"mentors.{index} ({spec.name})")

    def peer(spec: PeerSpec) -> None:
        who, network = f"peer '{spec.name}'", networks.peer(spec, 0)
        peers[spec.name] = _network(networks, network, spec, who)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UserError(f"{who}: nothing in '{spec.model}' can be trained; no parameter requires gradients")

    if resumed is not None:
        attempt(partial(check_data, resumed, context))
    attempt(partial(_check_places, networks))
    attempt(bank)
    attempt(student)
    attempt(partial(check_parts, networks.blank_student(), recipe.train, context.blank, "train"))
    attempt(partial(_check_batches, networks, None))
    attempt(partial(check_outliers, networks))
    attempt(partial(check_judges, networks))
    for index, spec in enumerate(recipe.mentors):
        attempt(partial(mentor, index, spec))
        if not networks.has_weights(spec):
            attempt(partial(_check_training, networks, index))
        if spec.taught_by is not None:
            attempt(partial(_check_assistant, networks, index))
    for one in recipe.peers:
        attempt(partial(peer, one))
    if len(sizes) == 1 + len(recipe.mentors) and len(peers) == len(
        recipe.peers
    ):  # a network that is wrong by itself has been named
        problems += _arm_problems(networks)
    for arm, needs in zip(recipe.trainings(), context.needs, strict=True) if plans else ():
        attempt(partial(check_views, needs.views, plans[0].views, f"arm '{arm.title}'"))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))  # a network that cannot be had is met more than once
    known = {"student": sizes["student"], "mentors": {m.name: sizes[m.name] for m in recipe.mentors}}
    return plans[0], {**known, "peers": peers} if peers else known


def _network(networks: Networks, module: nn.Module, spec: Any, role: str) -> dict[str, Any]:
    """Run one network dry and load its checkpoint; ``spec``: the recipe's section about it."""
    context = networks.context
    mentor = spec if isinstance(spec, MentorSpec) else None
    size = None if mentor is None else mentor.shape
    networks.task_runner.check_network(module, role, mentor, size)
    if role == "student":
        networks.begin(module)
    elif mentor is not None and mentor.taken_as_is and mentor.checkpoint is not None:
        networks.load(mentor.name, mentor.checkpoint)
    shape = (context.data.shape[0], *(size or context.data.shape[1:]))
    return {
        "model": spec.model,
        "parameters": models.parameters(module),
        "multiply_adds": models.multiply_adds(module, shape),
    }


def _check_statistics(index: int, spec: MentorSpec, channels: int) -> None:
    """A mentor's own normalisation has a number a channel."""
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if values is not None and len(values) not in (1, channels):
            raise UserError(
                f"mentors.{index}.{key} has {len(values)} numbers, images have {channels} channel"
                f"{'s' * (channels != 1)}; give one a channel"
            )


def remarks(networks: Networks) -> list[str]:
    """What looks wrong with the student's answers, and which arms use some of the pictures only, a sentence each.

    Of mentors it is said where they are scored.
    """
    sentence = networks.task_runner.task.doubt(networks.task_runner.blank_answer(networks.blank_student(), "student"))
    return [*([] if sentence is None else [f"the student {sentence}"]), *label_remarks(networks)]


def _check_places(networks: Networks) -> None:
    """The cache can be written, a compiler is there, mentors are not called like the student, and what the task does
    with finished students can be loaded."""
    context, recipe = networks.context, networks.context.recipe
    tasks.find_row(recipe.task.name).open_files()
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
    shape = (2, context.data.shape[0], *(spec.shape or context.data.shape[1:]))
    blank = partial(torch.zeros, shape, device=context.runtime.device)
    check_parts(networks.mentor(spec.name), context.mentor_train(index), blank, f"mentors.{index}.train")
    _check_batches(networks, index)


def _check_assistant(networks: Networks, index: int) -> None:
    """Whether mentor ``index`` can be taught as its recipe says: a dry run with networks as they are built."""
    context, mentors = networks.context, networks.context.recipe.mentors
    spec, train = mentors[index], context.mentor_train(index)
    assert spec.taught_by is not None
    teachers = [networks.blank_mentor(mentors[i]) for i in teachers_of(mentors, index)]
    module, method = networks.mentor(spec.name), methods.compose(spec.taught_by.parts)
    _check_optimizer(method, train, f"mentors.{index}.taught_by", f"mentors.{index}.train")
    try:
        part, _ = mentor_part(context, index)
        check_part(networks, spec.taught_by.parts, method, part)
        taught_classroom(networks, index, module, teachers, part, [0.0] * len(teachers))
    except UserError as error:
        raise UserError(f"mentors.{index}.taught_by: {error}") from error


def _arm_problems(networks: Networks) -> list[str]:
    """What the arms cannot work with; the same for several arms is said once."""
    labels = dict[str, list[str]]()
    for arm in networks.context.recipe.trainings():
        try:
            _check_arm(networks, arm)
        except UserError as error:
            labels.setdefault(str(error), []).append(f"'{arm.title}'")
    return [f"arm{'s' * (len(arms) > 1)} {', '.join(arms)}: {text}" for text, arms in labels.items()]


def _check_arm(networks: Networks, arm: Arm) -> None:
    method, recipe = methods.compose(arm.parts, peers=len(arm.peers)), networks.context.recipe
    _check_optimizer(method, recipe.train, f"arm '{arm.title}'", "train")
    check_labels(networks, arm, methods.compose(arm.parts, recipe.task.name))
    check_start(networks, arm)
    if method.needs.features or method.needs.trains_others:
        untrained_classroom(networks, arm)  # every tap is found and every pair of shapes matched
        return
    own, selves = [None for _ in recipe.mentors], identities(networks, arm)
    names = [m.name for m in (*recipe.mentors, *networks.context.selves_of(arm))]
    taught = [*(m.taught_by is not None for m in recipe.mentors), *taught_selves(networks, arm)]
    task, scores = networks.task_runner.task, [0.0] * len(names)
    method.setup(ClassInfo(task, names, scores, taught=taught, selves=[*own, *selves]))


def _check_optimizer(method: Method, train: TrainSpec, who: str, where: str) -> None:
    """Refuse an optimiser that the method cannot follow.

    Raises:
        UserError: virtual steps with anything but SGD, or with rates and decays that differ between parameters.
    """
    if method.needs.sgd and train.optimizer != "sgd":
        raise UserError(
            f"{who}: its virtual steps are SGD's, {where}.optimizer is {train.optimizer}; set "
            f"{where}.optimizer=sgd and an lr for it (0.05 is usual)"
        )
    if method.needs.sgd and not one_rule(train):
        raise UserError(
            f"{who}: its virtual steps follow one rule for all parameters; set {where}.layer_decay=null and "
            f"{where}.no_decay=none"
        )


def _check_batches(networks: Networks, mentor: int | None) -> None:
    """Whether the ranks can share a batch, and the network train on the smallest.

    Args:
        networks: of the run.
        mentor: whose training is meant; None: the student's.

    Raises:
        UserError: a size that does not divide by the ranks; a batch of one sample under batch normalisation that has
            nothing else to take a mean over.
    """
    context = networks.context
    recipe, world = context.recipe, context.runtime.world
    spec, part, key = recipe.train, context.student_part, "train"
    if mentor is not None:
        spec, part = context.mentor_train(mentor), mentor_part(context, mentor)[0]
        own = recipe.mentors[mentor].train
        key = f"mentors.{mentor}.train" if own else "mentor_train" if recipe.mentor_train else "train"
    if spec.batch_size % world:
        raise UserError(uneven(spec.batch_size, world).replace("train.batch_size", f"{key}.batch_size"))
    if world > 1 or len(part) < 1:
        return  # every rank is filled up to two samples
    whole = mentor is None and all(needs.whole_batch for needs in context.needs)
    drop = None if spec.drop_last == "auto" else bool(spec.drop_last)
    sizes, _ = batch_sizes(len(part), min(spec.batch_size, len(part)), drop, whole)
    if min(sizes) > 1:
        return
    size = None if mentor is None else recipe.mentors[mentor].shape
    image = torch.zeros(1, context.data.shape[0], *(size or context.data.shape[1:]))
    reasons = ((name, _refuses_one(network, image)) for name, network in _trained(networks, mentor))
    name, reason = next(((name, why) for name, why in reasons if why is not None), ("", None))
    if reason is None:
        return
    what, remedy = f"{key}.drop_last=false", f"leave {key}.drop_last at auto"
    if sizes[0] == 1:
        what, remedy = f"{key}.batch_size={spec.batch_size}", f"set {key}.batch_size to 2 or more"
    if len(part) == 1:
        what, remedy = "a training part of one sample", "give it more"
    raise UserError(
        f"{what} gives {name} a batch of one sample, which its batch normalisation cannot work with ({reason}); "
        f"{remedy}"
    )


def _trained(networks: Networks, mentor: int | None) -> Iterator[tuple[str, nn.Module]]:
    """What a training trains: a mentor, or the student and all peers."""
    recipe = networks.context.recipe
    if mentor is not None:
        yield recipe.mentors[mentor].name, networks.mentor(recipe.mentors[mentor].name)
        return
    yield "student", networks.blank_student()
    for spec in recipe.peers:
        yield f"peer '{spec.name}'", networks.peer(spec, 0)


def _refuses_one(network: nn.Module, image: torch.Tensor) -> str | None:
    """What torch says against training on one sample; None where it does not mind. The network stays as it is."""
    weights, training = {k: v.clone() for k, v in network.state_dict().items()}, network.training
    first = next(network.parameters(), image)
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            network.train()(image.to(first.device, first.dtype))
    except ValueError as error:
        return str(error).partition(",")[0] if "more than 1 value per channel" in str(error) else None
    finally:
        network.load_state_dict(weights)
        network.train(training)
    return None
