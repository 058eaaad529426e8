"""What a mentor scores that has learned nothing, and what is said of one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from classroomkd.run.experiment import Experiment
from classroomkd.tasks.classification.runner import ClassificationRunner


def runner(*counts: int) -> ClassificationRunner:
    """Of a validation part with so many samples a class."""
    target = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    context: Any = SimpleNamespace(
        classes=tuple(map(str, range(len(counts)))),
        data=SimpleNamespace(val=SimpleNamespace(target=target), test=SimpleNamespace(target=target)),
        recipe=SimpleNamespace(check_mentors="warn", task=SimpleNamespace(name="classification")),
    )
    return ClassificationRunner(context, None)  # type: ignore[arg-type]


def test_chance_is_the_largest_class() -> None:
    limit, words = runner(90, 10).chance()
    assert limit == pytest.approx(0.9 + 3 * 0.03)
    assert words == "chance is 90.0% (the largest class alone)"
    assert runner(10, 10, 10, 10).chance()[0] == pytest.approx(0.25 + 3 * (0.25 * 0.75 / 40) ** 0.5)


@pytest.mark.parametrize("counts", [(1,), (5,), (1, 1), (2, 2), (3, 1), (99, 1), (0, 4, 0), (1,) * 8, (6, 6)])
def test_the_top_is_never_chance(counts: tuple[int, ...]) -> None:
    limit, _ = runner(*counts).chance()
    assert limit < 1.0


@pytest.mark.parametrize(("score", "warned"), [(1.0, False), (0.5, True), (0.75, False)])
def test_few_validation_images_accuse_no_perfect_mentor(score: float, warned: bool) -> None:
    said: list[str] = []
    task_runner = runner(2, 2)
    context: Any = SimpleNamespace(recipe=task_runner.context.recipe, data=SimpleNamespace(val=range(4)))
    networks: Any = SimpleNamespace(context=context, task_runner=task_runner)
    work = Experiment(networks, None, {}, None, warn=said.append)  # type: ignore[arg-type]
    work._check_mentors(({"name": "a", "val_accuracy": score, "samples": None},))
    assert bool(said) == warned
    for text in said:
        assert "classes: [...]" in text
        assert "(mean, std, size)" in text
