"""Who taught whom, out of logs: the last epoch, steps as weights, seeds, and lines that say something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from classroomkd.report.squares import square_of


def line(step: int, epoch: float, **given: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "epoch": epoch, "given": given}


def test_it_is_the_mean_over_the_last_epoch_by_steps_and_over_seeds() -> None:
    first = [
        line(10, 1.0, student={"b": 9.0}, b={"student": 9.0}),
        line(16, 1.6, student={"b": 1.0}, b={"student": 0.5}),
        line(20, 2.0, student={"b": 2.0}, b={"student": 0.5}),
    ]
    second = [line(20, 2.0, student={"b": 0.0}, b={"student": 0.5})]
    found = square_of([first, second], ["student", "b"], [])
    assert found is not None
    assert (found.names, found.trainees) == (("student", "b"), 2)
    assert found.values[1, 0] == pytest.approx(((6 * 1 + 4 * 2) / 10 + 0) / 2)
    assert found.values[0, 1] == 0.5
    assert np.isnan(found.values.diagonal()).all()


def test_mentors_stand_behind_the_trainees_where_they_taught_and_a_teacher_learns_from_nobody() -> None:
    lines = [line(5, 1.0, student={"big": 0.2, "t": 0.3}, b={"big": 0.1})]
    found = square_of([lines], ["student", "b", "t"], ["small", "big"])
    assert found is not None
    assert (found.names, found.trainees) == (("student", "b", "t", "big"), 3)
    assert found.values[3].tolist()[:2] == [0.2, 0.1]
    assert np.isnan(found.values[:, 2]).all()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"kind": "train", "step": 1, "epoch": 1.0}],
        [line(5, 1.0) | {"given": [1, 2]}],
        [line(5, 1.0, student=3.0)],
        [line(5, 1.0, student={"b": None, "c": "x", "d": float("nan"), "e": True})],
        [{"kind": "train", "step": "x", "epoch": 1.0, "given": {"student": {"b": 1.0}}}],
        [{"kind": "train", "step": 3, "epoch": None, "given": {"student": {"b": 1.0}}}],
    ],
)
def test_where_nobody_is_said_to_have_taught_there_is_none(lines: list[dict[str, Any]]) -> None:
    assert square_of([lines], ["student", "b"], []) is None
