"""Whether every arm has something to learn from, where some pictures have no label, or none has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from classroomkd import methods, tasks
from classroomkd.classroom.outliers import Outliers
from classroomkd.errors import UserError
from classroomkd.run.judging import by_vote

if TYPE_CHECKING:
    from torch import Tensor

    from classroomkd.classroom import Method
    from classroomkd.data import Part
    from classroomkd.recipe import Arm
    from classroomkd.run.networks import Networks

Parts = Sequence[tuple[str, Mapping[str, Any]]]

__all__ = ["check_judges", "check_labels", "check_outliers", "check_part", "label_remarks"]


def check_outliers(networks: Networks) -> None:
    """Whether the task has a vote whose entropy ``train.outliers`` could bound.

    Raises:
        UserError: it has none.
    """
    train = networks.context.recipe.train
    if train.outliers is not None:
        Outliers(networks.task_runner.task, train.outliers, train.outlier_weight)


def check_judges(networks: Networks) -> None:
    """Whether there is something to score on.

    Raises:
        UserError: a part without labels, and no mentor whose vote could stand for them.
    """
    if (parts := by_vote(networks)) and not networks.context.recipe.mentors:
        raise UserError(
            f"data: no image of the {' and the '.join(parts)} part has a label, and there is no mentor whose vote "
            "could stand for one; give data.test, and data.val, a source with labels"
        )


def check_labels(networks: Networks, arm: Arm, method: Method) -> None:
    """Whether an arm has the labels that it needs; see :func:`check_part`."""
    check_part(networks, arm.parts, method, networks.context.student_part)


def check_part(networks: Networks, parts: Parts, method: Method, part: Part) -> None:
    """Whether a method of these ``parts`` has the labels that it needs to teach on ``part``.

    Raises:
        UserError: no training picture has a label and the method learns from labels; the validation part has none and
            it calibrates mentors by it.
    """
    context = networks.context
    if method.needs.calibration and networks.task_runner.by_vote(context.data.val):
        raise UserError(
            "its credibility is judged by labels of the validation part, which has none; set credibility: train, or "
            "give data.val a source with labels"
        )
    if not _some_lack(networks) or _labelled(networks, part.target):
        return
    if method.needs.mentors == 0:
        raise UserError(
            "none of the training pictures has a label and nobody teaches, so there is nothing to learn from; leave "
            "this arm out, or give some of them labels (data.labels)"
        )
    if method.needs.truth:
        name, remedy = _of_truth(networks, parts)
        others = ", ".join(_without_labels(context.recipe.task.name))
        raise UserError(
            f"'{name}' needs labels by its rule, and no training picture has one{remedy}; these do without: {others}"
        )


def label_remarks(networks: Networks) -> Iterator[str]:
    """What a user should know of scores without labels, and of arms that use some pictures only, a sentence each."""
    context = networks.context
    yield from _of_scores(by_vote(networks))
    outliers, lack = context.recipe.train.outliers is not None, _some_lack(networks)
    if outliers and not lack:
        yield "train.outliers has no effect: every training picture has a label"
    if not lack:
        for arm in context.recipe.trainings():
            if methods.compose(arm.parts, context.recipe.task.name).for_unlabelled:
                yield f"arm '{arm.title}': every training picture has a label, so it is the student alone"
        return
    labelled, total = _labelled(networks, context.student_part.target), len(context.student_part)
    for arm in context.recipe.trainings():
        method = methods.compose(arm.parts, context.recipe.task.name)
        if method.needs.truth and labelled:
            name, remedy = _of_truth(networks, arm.parts)
            what = methods.method_class(name).without_labels
            yield f"arm '{arm.title}': {name} {what}; {labelled} of {total} pictures have a label{remedy}"
        if outliers and not method.weighs_samples:
            yield f"arm '{arm.title}': train.outliers does not act on its mentors' terms"


def _of_scores(parts: Sequence[str]) -> Iterator[str]:
    """What scores say where parts have no labels."""
    if "validation" in parts:
        yield "the validation part has no label: of each student the last epoch is taken; data.val: SOURCE gives labels"
    if "test" in parts:
        yield (
            "the test part has no label: students and mentors are scored by their agreement with the mentors' vote, "
            "which is no accuracy; data.test: SOURCE gives labels"
        )


def _some_lack(networks: Networks) -> bool:
    return networks.task_runner.task.has_unlabelled_units and bool(getattr(networks.context.data, "unlabelled", 0))


def _labelled(networks: Networks, target: Tensor) -> int:
    """How many samples have any unit with a truth."""
    return int(networks.task_runner.task.mask(target).flatten(1).any(1).sum())


def _of_truth(networks: Networks, parts: Parts) -> tuple[str, str]:
    """The first method that needs labels, and what else it could do, as the rest of a sentence."""
    task = networks.context.recipe.task.name
    built = {name: methods.create(name, task=task, **options) for name, options in parts}
    name = next(name for name, method in built.items() if method.needs.truth)
    choices = "unlabelled" in methods.options_model(name).model_fields
    return name, " (unlabelled: agreement takes what the mentors agree on for the label)" if choices else ""


def _without_labels(task: str) -> list[str]:
    """The methods of the table that do this task and, at their defaults, need no label."""
    found = []
    for name, entry in methods.entries().items():
        if task not in tasks.offering(entry.asks):
            continue
        try:
            needs = methods.create(name, task=task).needs
        except UserError:  # a plug-in that cannot be loaded, or has no defaults
            continue
        if needs.mentors and not needs.truth:
            found.append(name)
    return found
