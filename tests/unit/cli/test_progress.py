"""Progress: bars on a terminal, plain lines elsewhere, and a time left that counts work which is really done."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from classroomkd.cli import progress
from classroomkd.cli.progress import Watch

Made = tuple[Watch, StringIO]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds on the clock of the watch."""
    seconds = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    return seconds


@pytest.fixture
def watching(now: list[float]) -> Callable[..., Made]:
    """A watch and what it draws on."""

    def make(live: bool = False, **more: Any) -> Made:
        paper = StringIO()
        return Watch(Console(file=paper, force_terminal=live, width=120), **more), paper

    return make


def planned(watch: Watch, *jobs: str, epochs: int = 10, **more: Any) -> None:
    watch(
        {"event": "plan", "jobs": [{"job": j, "kind": "student", "epochs": epochs, "work": 100, **more} for j in jobs]}
    )


def step(job: str, epoch: float, epochs: int = 10, **more: Any) -> dict[str, Any]:
    return {"event": "step", "job": job, "epoch": epoch, "epochs": epochs, "loss": 1.5, "x_floor": 2.414, **more}


def test_a_log_file_gets_lines_with_loss_cost_and_time_left(watching: Callable[..., Made], now: list[float]) -> None:
    watch, paper = watching()
    with watch:
        planned(watch, "none · seed 0", "kd · seed 0")
        watch({"event": "start", "job": "none · seed 0"})
        for epoch in range(1, 11):
            now[0] += 2
            watch(step("none · seed 0", epoch, data_wait=0.25))
            watch({"event": "epoch", "job": "none · seed 0", "epoch": epoch})
        watch({"event": "done", "job": "none · seed 0", "entry": {"test_last": 0.5}})
    lines = paper.getvalue().splitlines()
    # Two seconds an epoch and a line every five: at 6, 12 and 18 seconds.
    assert [line.split()[0] for line in lines] == ["6", "12", "18", "20"]
    assert lines[0].endswith(
        "student none · seed 0: epoch 3.0 of 10, loss 1.500, relative cost 2.41, data wait 25%  (about 34 s left)"
    )
    assert lines[3].endswith("50.0% on test  (about 20 s left)")


def test_a_mentor_that_cannot_be_scored_yet_has_answered(watching: Callable[..., Made]) -> None:
    watch, paper = watching()
    with watch:
        planned(watch, "big", "small")
        for name, score in (("big", float("nan")), ("small", 0.5)):
            watch({"event": "done", "job": name, "mentor": {"accuracy": score}})
    assert [line.partition("mentor ")[2] for line in paper.getvalue().splitlines()] == [
        "big: has answered", "small: 50.0% on test",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["student", "mentor"])
def test_the_score_on_validation_stays_in_sight(watching: Callable[..., Made], now: list[float], kind: str) -> None:
    watch, paper = watching()
    with watch:
        planned(watch, "a", kind=kind)
        watch({"event": "start", "job": "a"})
        for epoch in (1.0, 2.0, 3.0):
            now[0] += 8
            watch(step("a", epoch))
            watch({"event": "val", "job": "a", "epoch": epoch, "accuracy": float("nan") if epoch == 2 else 0.712})
            watch({"event": "epoch", "job": "a", "epoch": epoch})
    lines = paper.getvalue().splitlines()
    assert "val" not in lines[0]
    assert f"{kind} a: epoch 2.0 of 10, loss 1.500, val 71.2%, relative cost 2.41" in lines[1]
    assert "val 71.2%" in lines[2]
    live, paper = watching(live=True)
    with live:
        planned(live, "a", kind=kind)
        for event in ({"event": "start", "job": "a"}, {"event": "val", "job": "a", "epoch": 1, "accuracy": 0.5}):
            live(event)
        live(step("a", 1.5))
        (said,) = [task.fields["say"] for task in live._progress.tasks if "a" in task.description.split()]
        assert said.startswith("epoch 1.5 of 10  loss 1.500  val 50.0%")


def test_a_long_run_neither_fills_the_log_nor_falls_silent(watching: Callable[..., Made], now: list[float]) -> None:
    watch, paper = watching()
    planned(watch, "kd", epochs=240)
    watch({"event": "start", "job": "kd"})
    for i in range(1, 20 * 360 + 1):  # twenty hours, a report every ten seconds
        now[0] += 10
        watch(step("kd", 240 * i / 7200, 240))
    at = [0, *(int(line.split()[0]) for line in paper.getvalue().splitlines())]
    apart = [b - a for a, b in pairwise(at)]
    assert apart[0] == 10
    assert max(apart) == progress.MOST
    assert 100 < len(apart) < 350


def test_quiet_says_nothing(watching: Callable[..., Made], now: list[float]) -> None:
    watch, paper = watching(quiet=True)
    with watch:
        planned(watch, "kd")
        watch({"event": "start", "job": "kd"})
        now[0] += 60
        watch(step("kd", 3.0))
        watch({"event": "done", "job": "kd", "entry": {"test_last": 0.5}})
    assert paper.getvalue() == ""


def test_a_terminal_gets_bars(watching: Callable[..., Made], now: list[float]) -> None:
    watch, paper = watching(live=True)
    with watch:
        planned(watch, "kd", "none")
        watch({"event": "start", "job": "kd"})
        now[0] += 60
        for epoch in (0.5, 5.0):
            watch(step("kd", epoch))
        bar, whole = watch._progress.tasks[1], watch._progress.tasks[0]
        assert (bar.completed, bar.total, bar.fields["say"]) == (
            5,
            10,
            "epoch 5.0 of 10  loss 1.500  relative cost 2.41",
        )
        assert whole.percentage == 25
        watch._progress.refresh()
        watch({"event": "done", "job": "kd", "entry": {"test_last": 0.5}})
        assert [task.description for task in watch._progress.tasks] == ["all together"]
        assert (whole.percentage, whole.fields["say"]) == (50, "1 of 2")
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", paper.getvalue())
    assert "relative cost 2.41" in drawn
    assert "50.0% on test\n" in drawn.replace("\r", "")  # the time left is beside the bar
    assert "of 10," not in drawn


def test_what_was_done_before_is_no_work(watching: Callable[..., Made], now: list[float]) -> None:
    watch, paper = watching()
    planned(watch, "cached", "resumed", "broken", "last")
    for name in ("cached", "resumed"):
        watch({"event": "start", "job": name})
        if name == "resumed":
            now[0] += 10
            watch(step(name, 8.5))  # it goes on in its ninth epoch
            whole = watch._progress.tasks[0]
            assert (whole.completed, whole.total) == pytest.approx((5, 400 - 100 - 80))
        watch({"event": "done", "job": name, "entry": {"test_last": 0.5}})
    watch({"event": "start", "job": "broken"})
    watch({"event": "done", "job": "broken", "error": "a loss that is not finite"})
    watch({"event": "start", "job": "last"})
    for epoch in (1.0, 2.0):
        now[0] += 5
        watch(step("last", epoch))
    line = paper.getvalue().splitlines()[-1]
    # In twenty seconds two of the resumed one's epochs and two of the last one's; eight are left.
    assert line.endswith("epoch 2.0 of 10, loss 1.500, relative cost 2.41  (about 40 s left)")
    assert watch._progress.tasks[0].percentage == pytest.approx(100 / 3)


def test_filling_counts_answers_of_all_mentors(watching: Callable[..., Made], now: list[float]) -> None:
    watch, paper = watching()
    planned(watch, "a", "b", "c", epochs=0, answers=True)
    whole = watch._progress.tasks[0]
    watch({"event": "start", "job": "a"})
    for epoch in (3.0, 6.0):  # it has to be trained first, which stores no answer
        now[0] += 50
        watch(step("a", epoch, 6))
        assert whole.completed == 0
    for done in (25, 50):  # half of its hundred are there
        now[0] += 5
        watch({"event": "filling", "job": "a", "done": done, "all": 50, "seconds": done / 5, "left": 0.0})
    assert (whole.completed, whole.total) == (50, 250)
    watch({"event": "done", "job": "a", "answers": 50})
    watch({"event": "start", "job": "b"})
    watch({"event": "done", "job": "b", "answers": 0})
    assert (whole.completed, whole.total, whole.fields["say"]) == (50, 150, "2 of 3")
    watch({"event": "start", "job": "c"})
    now[0] += 10
    watch({"event": "filling", "job": "c", "done": 50, "all": 100, "seconds": 10.0, "left": 10.0})
    watch({"event": "filling", "job": "c", "done": 100, "all": 100, "seconds": 20.0, "left": 0.0})
    watch({"event": "done", "job": "c", "answers": 100})
    assert (whole.percentage, whole.fields["say"]) == (100, "3 of 3")
    assert len(watch._progress.tasks) == 1
    lines = [line.split("s  ", 1)[1] for line in paper.getvalue().splitlines()]
    assert lines == [
        "student a: epoch 3.0 of 6, loss 1.500, relative cost 2.41",
        "student a: epoch 6.0 of 6, loss 1.500, relative cost 2.41",
        "student a: answers stored 50% (25 of 50)  (about 45 s left)",
        "student a: answers stored 100% (50 of 50)  (about 40 s left)",
        "mentor a: 50 samples answered now  (about 40 s left)",
        "mentor b: 0 samples answered now  (about 20 s left)",
        "student c: answers stored 50% (50 of 100)  (about 10 s left)",
        "mentor c: 100 samples answered now",
    ]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_terminal_that_was_closed_is_nothing_to_stop_for(number: int) -> None:
    class Closed(StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number))

    watch = Watch(Console(file=Closed(), force_terminal=True))
    plan = [{"job": "a", "kind": "student", "epochs": 2, "work": 1.0}]
    calls = [lambda: watch.say("word"), lambda: watch({"event": "note", "text": "word"})]
    watch({"event": "plan", "jobs": plan})
    for call in calls:
        if number == errno.EIO:
            call()
        else:
            with pytest.raises(OSError, match="No space"):
                call()
