"""Whether every arm has something to learn from, where some pictures have no label, or none has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from classroomkd import methods, tasks
from classroomkd.classroom.outliers import Outliers
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from classroomkd.classroom import Method
    from classroomkd.recipe import Arm
    from classroomkd.run.networks import Networks

__all__ = ["check_labels", "check_outliers", "label_remarks"]


def check_outliers(networks: Networks) -> None:
    """Whether the task has a vote whose entropy ``train.outliers`` could bound.

    Raises:
        UserError: it has none.
    """
    train = networks.context.recipe.train
    if train.outliers is not None:
        Outliers(networks.task_runner.task, train.outliers, train.outlier_weight)


def check_labels(networks: Networks, arm: Arm, method: Method) -> None:
    """Whether an arm has the labels that it needs.

    Raises:
        UserError: no training picture has a label and the arm learns from labels; the validation part has none and
            the arm calibrates mentors by it.
    """
    if not _some_lack(networks):
        return
    context = networks.context
    if method.needs.calibration and not _labelled(networks, context.data.val.target):
        raise UserError(
            "its credibility is judged by labels of the validation part, which has none; set credibility: train, or "
            "give data.val a source with labels"
        )
    if _labelled(networks, context.student_part.target):
        return
    if method.needs.mentors == 0:
        raise UserError(
            "none of the training pictures has a label and nobody teaches, so there is nothing to learn from; leave "
            "this arm out, or give some of them labels (data.labels)"
        )
    if method.needs.truth:
        name, remedy = _of_truth(networks, arm)
        others = ", ".join(_without_labels(context.recipe.task.name))
        raise UserError(
            f"'{name}' needs labels by its rule, and no training picture has one{remedy}; these do without: {others}"
        )


def label_remarks(networks: Networks) -> Iterator[str]:
    """What a user should know of arms that use some of the pictures only, a sentence each."""
    context = networks.context
    outliers, lack = context.recipe.train.outliers is not None, _some_lack(networks)
    if outliers and not lack:
        yield "train.outliers has no effect: every training picture has a label"
    if not lack:
        for arm in context.recipe.arms():
            if methods.compose(arm.parts, context.recipe.task.name).for_unlabelled:
                yield f"arm '{arm.label}': every training picture has a label, so it is the student alone"
        return
    labelled, total = _labelled(networks, context.student_part.target), len(context.student_part)
    for arm in context.recipe.arms():
        method = methods.compose(arm.parts, context.recipe.task.name)
        if method.needs.truth and labelled:
            name, remedy = _of_truth(networks, arm)
            what = methods.method_class(name).without_labels
            yield f"arm '{arm.label}': {name} {what}; {labelled} of {total} pictures have a label{remedy}"
        if outliers and not method.weighs_samples:
            yield f"arm '{arm.label}': train.outliers does not act on its mentors' terms"


def _some_lack(networks: Networks) -> bool:
    return networks.task_runner.task.has_unlabelled_units and bool(getattr(networks.context.data, "unlabelled", 0))


def _labelled(networks: Networks, target: Tensor) -> int:
    """How many samples have any unit with a truth."""
    return int(networks.task_runner.task.mask(target).flatten(1).any(1).sum())


def _of_truth(networks: Networks, arm: Arm) -> tuple[str, str]:
    """The arm's first method that needs labels, and what else it could do, as the rest of a sentence."""
    task = networks.context.recipe.task.name
    built = {name: methods.create(name, task=task, **options) for name, options in arm.parts}
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
