"""Arms without the labels they need are refused by name, and arms that use some of the pictures say so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from classroomkd import methods
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe
from classroomkd.run.label_checks import check_labels, check_outliers, label_remarks
from classroomkd.tasks.classification.task import Classification


def networks(*arms: Any, labelled: int, val: bool = True, outliers: float | None = None) -> Any:
    """A run of 10 training pictures, as far as the checks look at it."""
    target = torch.full((10,), -1)
    target[:labelled] = 0
    recipe = make_recipe(
        {
            "data": "puppets",
            "student": "convnet8",
            "mentors": ["vgg8"],
            "methods": list(arms),
            "train": {"outliers": outliers},
        }
    )
    held_out = SimpleNamespace(target=torch.zeros(3).long() if val else torch.full((3,), -1))
    context = SimpleNamespace(
        recipe=recipe,
        data=SimpleNamespace(unlabelled=10 - labelled, val=held_out, test=held_out),
        student_part=_Part(target),
    )
    runner = SimpleNamespace(
        task=Classification(unlabelled=labelled < 10), by_vote=lambda part: bool((part.target < 0).all())
    )
    return SimpleNamespace(context=context, task_runner=runner)


class _Part:
    def __init__(self, target: torch.Tensor) -> None:
        self.target = target

    def __len__(self) -> int:
        return len(self.target)


def checked(of: Any) -> None:
    for arm in of.context.recipe.arms():
        check_labels(of, arm, methods.compose(arm.parts, "classification"))


@pytest.mark.parametrize("name", ["camkd", "dkd", "crd", "mmkd", "amtml"])
def test_a_method_that_needs_labels_is_refused_without_any(name: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}' needs labels by its rule.*these do without: kd, average") as error:
        checked(networks(name, labelled=0))
    said = str(error.value).partition("do without: ")[2].split(", ")
    assert name not in said
    assert "classroomkd" in said
    (text,) = label_remarks(networks(name, labelled=3))
    assert "3 of 10 pictures have a label" in text
    assert name in text
    checked(networks(name, labelled=3))
    assert not list(label_remarks(networks(name, labelled=10)))


def test_the_remedy_is_named() -> None:
    with pytest.raises(UserError, match="unlabelled: agreement"):
        checked(networks("camkd", labelled=0))
    with pytest.raises(UserError, match="'classroomkd' needs labels"):
        checked(networks({"name": "classroomkd", "unlabelled": "skip"}, labelled=0))
    checked(networks({"name": "camkd", "unlabelled": "agreement"}, "classroomkd", "rkd", labelled=0))
    with pytest.raises(UserError, match="'dkd' needs labels"):
        checked(networks(["average", "dkd"], labelled=0))


def test_the_student_alone_has_nothing_to_learn_from() -> None:
    with pytest.raises(UserError, match="nothing to learn from"):
        checked(networks("none", labelled=0))
    checked(networks("none", labelled=1))


def test_votes_of_nothing_are_told() -> None:
    (text,) = label_remarks(networks("votes", "average", labelled=10))
    assert text == "arm 'votes': every training picture has a label, so it is the student alone"
    assert not list(label_remarks(networks("votes", labelled=9)))


def test_calibration_needs_labels_of_the_validation_part() -> None:
    arm = {"name": "classroomkd", "credibility": "calibrated"}
    with pytest.raises(UserError, match="labels of the validation part"):
        checked(networks(arm, labelled=5, val=False))
    checked(networks(arm, labelled=5))


def test_outliers_that_act_on_nothing_are_told() -> None:
    (text,) = label_remarks(networks("average", labelled=10, outliers=0.8))
    assert "every training picture has a label" in text
    assert not list(label_remarks(networks("average", "classroomkd", labelled=0, outliers=0.8)))
    (text,) = label_remarks(networks("dist", labelled=0, outliers=0.8))
    assert "arm 'dist': train.outliers does not act" in text
    check_outliers(networks("average", labelled=0, outliers=0.8))
    of = networks("average", labelled=0, outliers=0.8)
    of.task_runner.task = SimpleNamespace(has_vote=False, name="pose")
    with pytest.raises(UserError, match="pose lack"):
        check_outliers(of)
