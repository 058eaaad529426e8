"""Schedules: shares of the training and epochs, from step to step; and the word where nobody tells the time."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd import methods
from classroomkd.classroom import Lesson, PlainContext
from classroomkd.classroom.schedule import make_schedule
from classroomkd.errors import UserError
from classroomkd.recipe import Recipe, make_recipe

X, Y = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def room(method: str | ck.Method = "dkd", **given: Any) -> ck.Classroom:
    method = methods.create(method, **given) if isinstance(method, str) else method
    return ck.Classroom(net(), [net(1)], method)


def factor(lesson: Lesson) -> float | Tensor:
    assert lesson.outcome is not None
    return lesson.outcome.coefficients["distilled"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [  # at 0, 2.5, 5 and 10 of 10 epochs
        ("constant", [1, 1, 1, 1]),
        ({"warmup": {"epochs": 5}}, [0.2, 0.7, 1, 1]),
        ({"warmup": {"epochs": 0.5}}, [0.05, 0.55, 1, 1]),
        ({"warmup": {"epochs": 1}}, [0.05, 0.3, 0.55, 1]),
        ({"decay": {"epochs": 5}}, [1, 0.5, 0, 0]),
        ({"decay": {"epochs": 1}}, [1, 0.75, 0.5, 0]),
        ({"after": {"epochs": 2.5}}, [0, 1, 1, 1]),
        ({"after": {"epochs": 0.5}}, [0, 0, 1, 1]),
        ({"until": {"epochs": 2.5}}, [1, 0, 0, 0]),
        ({"until": {"epochs": 0.5}}, [1, 1, 0, 0]),
    ],
)
def test_a_length_up_to_1_is_a_share_and_above_it_epochs(value: Any, expected: list[float]) -> None:
    schedule = make_schedule(value)
    assert [schedule(epoch, epoch / 10) for epoch in (0, 2.5, 5, 10)] == pytest.approx(expected)


def test_a_third_of_the_training_is_not_over_at_the_first_step() -> None:
    schedule = make_schedule({"warmup": {"epochs": 0.33}})
    for epochs in (1, 4, 240):  # the same ramp, however long the training is
        ramp = [schedule(progress * epochs, progress) for progress in (0, 0.1, 0.2, 0.33)]
        assert ramp == pytest.approx([0.05, 0.05 + 0.1 / 0.33, 0.05 + 0.2 / 0.33, 1])


@pytest.mark.parametrize("share", [0.1, 0.3, 1 / 3, 0.7])
@pytest.mark.parametrize("epochs", [3, 10, 30, 240])
def test_a_share_ends_at_its_epoch(share: float, epochs: int) -> None:
    until, after = (make_schedule({name: {"epochs": share}}) for name in ("until", "after"))
    for epoch in range(epochs):
        over = round(epoch / epochs, 12) >= round(share, 12)
        assert (until(epoch, epoch / epochs), after(epoch, epoch / epochs)) == (not over, over)


def test_the_factor_is_one_question_of_the_method() -> None:
    method = methods.create("average", schedule={"decay": {"epochs": 1}})
    taught = room(method)
    taught.epochs, taught.epoch = 8, 6
    lesson = taught(X, Y)
    assert lesson.progress == 0.75
    assert method.factor_of(lesson) == factor(lesson) == 0.25


def test_the_time_can_be_told_in_three_ways() -> None:
    for told in ({"epochs": 24, "epoch": 1}, {"progress": 1 / 24}, {"epochs": 24, "progress": 1 / 24}):
        taught = room()
        for key, value in told.items():
            setattr(taught, key, value)
        assert taught.progress == pytest.approx(1 / 24)
        assert factor(taught(X, Y)) == pytest.approx(0.55)
    taught = room("average", schedule={"decay": {"epochs": 4}})
    taught.epochs, taught.progress = 10, 0.3
    assert factor(taught(X, Y)) == pytest.approx(0.25)  # 3 epochs of 10
    taught.epoch = 12  # who goes on behind the last epoch is at its end
    taught.clock.share = None
    assert taught.progress == 1
    for wrong in (-0.1, 1.5):
        with pytest.raises(UserError, match=r"classroom\.progress is the share .*, between 0 and 1, not"):
            taught.progress = wrong


def said(taught: ck.Classroom, steps: int = 3) -> list[str]:
    """The warnings of some steps."""
    context = PlainContext(taught, torch.optim.SGD(taught.parameters(), lr=0.01))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(steps):
            taught(X, Y).loss.backward()
            taught.method.step(context, {"inputs": X, "target": Y})
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize("parts", [[("dkd", {})], [("dtkd", {})], [("kd", {}), ("dkd", {})]])
def test_a_loop_that_never_tells_the_time_is_told_how(parts: list[tuple[str, dict[str, Any]]]) -> None:
    (text,) = said(room(methods.compose(parts)))
    assert "schedule 'warmup' of the mentors' terms stays at 0.05, for nobody says how far the training is" in text
    assert "set classroom.epochs = EPOCHS once and classroom.epoch = EPOCH" in text
    assert "classroom.progress = EPOCH / EPOCHS" in text


def test_a_rule_that_asks_for_the_epoch_is_no_exception() -> None:
    def taught() -> ck.Classroom:
        nets = [ck.models.create(name, num_classes=3) for name in ("convnet4", "convnet4")]
        return ck.Classroom(nets[0], nets[1:], methods.create("camkd", rule="reference"), image_shape=(3, 32, 32))

    def warned(room: ck.Classroom) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for _ in range(3):
                room(torch.randn(6, 3, 32, 32), Y)
        return [str(warning.message) for warning in found]

    (text,) = warned(taught())
    assert text.startswith("method 'CAMKD' stays in its first epoch, for nobody says how far the training is: set ")
    told = taught()
    told.epoch = 0.0
    assert warned(told) == []


def test_no_word_where_the_time_is_told_or_nothing_asks_for_it() -> None:
    for told in ({"epochs": 24, "epoch": 0}, {"progress": 0.0}):
        taught = room()
        for key, value in told.items():
            setattr(taught, key, value)
        assert said(taught) == []
    assert said(room("average")) == []
    assert said(room(schedule="constant")) == []
    assert said(room().eval()) == []
    assert said(room(), steps=0) == []


def test_a_share_of_an_unknown_length_is_of_240_and_says_so() -> None:
    taught = room()
    taught.epoch = 9
    assert factor(taught(X, Y)) == pytest.approx(0.5)  # as released
    (text,) = said(taught)
    assert "is a share of the training, and nobody says how many epochs there are; 240 are assumed" in text
    taught = room(schedule={"warmup": {"epochs": 20}})
    taught.epoch = 9  # epochs need no length
    assert said(taught) == []
    taught = room(schedule={"warmup": {"epochs": 20}})
    taught.progress = 0.5
    assert "is of epochs, and nobody says how many" in said(taught)[0]


REMARKS = [
    ({"warmup": {"epochs": 20}}, "rises until the training ends, so the mentors hardly teach in full"),
    ({"warmup": {"epochs": 12}}, "rises until the training ends"),
    ({"warmup": {"epochs": 1}}, "rises until the training ends"),
    ({"after": {"epochs": 12}}, "is 0 until the training ends, so the mentors never teach"),
    ({"until": {"epochs": 40}}, "is 1 until the training ends, so it changes nothing"),
    ({"decay": {"epochs": 48}}, "is 0.75 when the training ends, not 0"),
]


@pytest.mark.parametrize(("value", "text"), REMARKS)
def test_a_schedule_that_the_training_is_too_short_for(value: Any, text: str) -> None:
    taught = room(schedule=value)
    taught.epochs, taught.epoch = 12, 0
    (warned,) = said(taught)
    assert text in warned
    recipe: Recipe = make_recipe(
        {
            "data": "puppets",
            "student": "convnet4",
            "mentors": ["convnet8"],
            "methods": ["kd", {"name": "dkd", "schedule": value}],
            "train": {"epochs": 12},
        }
    )
    (noted,) = recipe.notes()
    assert noted.startswith(f"method dkd: schedule {next(iter(value))} (")
    assert text in noted


def test_an_assistants_schedule_has_its_own_training() -> None:
    taught_by = {"mentors": "a", "method": {"name": "dkd", "schedule": {"warmup": {"epochs": 5}}}}
    content = {
        "data": "puppets",
        "student": "convnet4",
        "mentors": ["a", {"name": "b", "model": "convnet8", "train": {"epochs": 4}, "taught_by": taught_by}],
        "method": {"name": "dkd", "schedule": {"warmup": {"epochs": 5}}},
        "train": {"epochs": 12},
    }
    content["mentors"][0] = {"name": "a", "model": "convnet8"}  # type: ignore[index]
    (noted,) = make_recipe(content).notes()
    assert "schedule warmup (5 of 4 epochs) rises until the training ends" in noted


@pytest.mark.parametrize("epochs", [1, 4, 12, 240])
def test_the_built_in_ramp_is_short_in_every_training(epochs: int) -> None:
    for name in ("dkd", "dtkd"):
        schedule = methods.create(name).schedule
        assert schedule.remark(epochs) is None
        assert schedule(0.0, 0.0) == 0.05
        assert schedule(0.08 * epochs, 0.08) == 1.0
        assert methods.entries()[name].version >= 2
