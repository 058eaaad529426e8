"""Files of results, and what the queue does with students that come and that fail. Nothing is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_study import ARMS, TOY, put, store, student

from benchmarks.evidence import results as module
from benchmarks.evidence import status
from benchmarks.evidence.cells import Cell, cell_of
from benchmarks.evidence.plan import wanted
from benchmarks.evidence.queue import Queue
from benchmarks.evidence.results import CURVE, Store, harvested, took
from benchmarks.evidence.study import Arm, Study
from classroomkd import _files
from classroomkd.errors import Interrupted, UserError

KD = cell_of(TOY, TOY.panels[0], ARMS[2])
NONE = cell_of(TOY, TOY.panels[0], ARMS[0])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    results = store(tmp_path)
    results.add("toy", KD, 3, student(0.5, cost_ratio=1.3), {"made_by": {"torch": "2"}})
    results.fail("toy", KD, 10, "the loss is not finite")
    results.add("toy", KD, 1, student(0.25), {"made_by": {"torch": "2"}})
    again = store(tmp_path)
    assert again.about(KD) == results.about(KD)
    assert again.students(KD) == {1: student(0.25), 3: student(0.5, cost_ratio=1.3)}
    assert again.failures(KD) == {10: "the loss is not finite"}
    assert (again.scores(KD), again.scores(KD, "seconds")) == ({1: 0.25, 3: 0.5}, {1: 10.0, 3: 10.0})
    assert again.about(KD)["recipe"] == json.loads(json.dumps(KD.said))
    assert [(study, key) for study, key, _ in again] == [("toy", KD.key)]
    assert again.students(NONE) == {}


def test_a_line_a_student_in_the_order_of_the_seeds(tmp_path: Path) -> None:
    """So that a student more is a line more, whenever it came."""
    results, file = store(tmp_path), tmp_path / "results" / "toy" / f"{KD.key}.json"
    put(results, KD, s10=0.5, s2=0.4)
    before = file.read_text().splitlines()
    put(results, KD, s9=0.3)
    after = file.read_text().splitlines()
    assert [line.split(":")[0].strip() for line in after if '"test_last"' in line] == ['"2"', '"9"', '"10"']
    assert [line for line in before if line not in after] == []
    assert len(after) == len(before) + 1


def test_one_order_gives_one_file(tmp_path: Path) -> None:
    texts = set()
    for place, seeds in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        results = store(tmp_path / place)
        for seed in seeds:
            put(results, KD, **{f"s{seed}": seed / 10})
        texts.add((tmp_path / place / "results" / "toy" / f"{KD.key}.json").read_text())
    assert len(texts) == 1


def test_a_file_is_there_as_a_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "atomic_write_text", _files.atomic_write_text)
    results, file = store(tmp_path), tmp_path / "results" / "toy" / f"{KD.key}.json"
    put(results, KD, s0=0.5)
    before = file.read_bytes()

    def fails(*given: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(_files.os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        put(results, KD, s1=0.5)
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert store(tmp_path).students(KD).keys() == {0}


def test_a_cell_that_two_studies_share_stays_in_one_file(tmp_path: Path) -> None:
    results = store(tmp_path)
    put(results, KD, s0=0.5)
    results.add("another", KD, 1, student(0.6), {})
    assert [file.parent.name for file in (tmp_path / "results").glob("*/*.json")] == ["toy"]
    assert store(tmp_path).scores(KD) == {0: 0.5, 1: 0.6}


def test_missing_are_seeds_that_are_neither_finished_nor_known_to_fail(tmp_path: Path) -> None:
    results = store(tmp_path)
    put(results, KD, s0=0.5)
    results.fail("toy", KD, 2, "?")
    assert results.missing(KD, (0, 1, 2, 3)) == (1, 3)
    assert store(tmp_path).missing(KD, (0, 2)) == ()


# --- a student's folder -----------------------------------------------------------------------------------------------


def folder(place: Path, epochs: int, **entry: Any) -> Path:
    place.mkdir(parents=True)
    found = {**student(0.6, 0.7), "method": "kd-0123", "seed": 0, "step_ms": 3.2, "floor_ms": 3.1, **entry}
    found.pop("val_curve")
    (place / "entry.json").write_text(json.dumps(found))
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        lines.append({"kind": "train", "step": 3 * epoch, "epoch": epoch, "loss": 1.0})
        lines.append({"kind": "val", "step": 3 * epoch, "epoch": epoch, "accuracy": epoch / 333, "loss": 1.0})
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def test_what_is_kept_of_a_student(tmp_path: Path) -> None:
    kept = harvested(folder(tmp_path / "seed0", 3, test_metrics={"pck": 0.5}, not_finite={"a": 1}, left_out=2))
    assert kept == {
        "test_last": 0.6, "test_best": 0.6, "val_last": 0.7, "val_best": 0.7, "best_epoch": 1, "steps": 24,
        "seconds": 10.0, "step_ms": 3.2, "cost_ratio": 1.2, "test_metrics": {"pck": 0.5}, "not_finite": {"a": 1},
        "left_out": 2, "val_curve": [[1, 0.003], [2, 0.006], [3, 0.009]],
    }  # fmt: skip


def test_of_networks_that_learned_together_each_ones_score_is_kept(tmp_path: Path) -> None:
    variants = [
        {"name": "student", "kind": "trainee", "test_last": 0.5},
        {"name": "twin", "kind": "trainee", "test_last": 0.4},
        {"name": "t", "kind": "trainee", "test_last": 0.7, "role": "teacher"},
        {"name": "student", "kind": "ema", "test_last": 0.9},
        {"name": "ensemble", "kind": "ensemble", "test_last": 0.6, "disagreement": 0.25},
    ]
    assert harvested(folder(tmp_path / "seed0", 3, variants=variants))["together"] == {
        "members": {"student": 0.5, "twin": 0.4}, "teachers": {"t": 0.7}, "ensemble": 0.6, "disagreement": 0.25,
    }  # fmt: skip


def test_time_is_the_processor_s_where_it_is_known() -> None:
    assert took(student(0.6, steps=500, step_ms=4.0, seconds=99.0)) == pytest.approx(2.0)
    assert took(student(0.6, seconds=99.0)) == 99.0


@pytest.mark.parametrize("epochs", [1, 20, 39, 40, 45, 200])
def test_a_long_curve_is_thinned_and_ends_at_the_end(tmp_path: Path, epochs: int) -> None:
    curve = harvested(folder(tmp_path / "seed0", epochs))["val_curve"]
    assert curve[-1] == [epochs, round(epochs / 333, 4)]
    assert min(epochs, CURVE) <= len(curve) < 2 * CURVE
    assert [epoch for epoch, _ in curve] == sorted({epoch for epoch, _ in curve})


# --- the queue --------------------------------------------------------------------------------------------------------


class Trained(Queue):
    """A queue whose runs end at once; ``troubled`` methods stop their run, ``failing`` ones their student."""

    troubled: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    stop_after: int = 10**6

    def mentor(self, mentor: Any) -> Path:
        """A file in place of one that is trained."""
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / f"{mentor.name}.safetensors"
        file.touch()
        return file

    def _session(self, name: str, study: Study, batch: Any, recipe: Any, folder: Path) -> None:
        self.runs = [*getattr(self, "runs", []), (tuple(c.grid[0]["name"] for c in batch), recipe.seeds)]
        if any(cell.grid[0]["name"] in self.troubled for cell in batch):
            raise ValueError("a mistake of its own")
        for cell in batch:
            for seed in self.store.missing(cell, recipe.seeds):
                self.stop_after -= 1
                if self.stop_after < 0:
                    raise Interrupted("stopped by SIGTERM")
                if cell.grid[0]["name"] in self.failing:
                    self.store.fail(name, cell, seed, "the loss is not finite")
                else:
                    self.store.add(name, cell, seed, student(0.5), {})


def queue(place: Path, **how: Any) -> Trained:
    made = Trained(None, store(place), place / "out", lambda text: None)
    for key, value in how.items():
        setattr(made, key, value)
    return made


def complete(results: Store, but: str = "") -> bool:
    return not any(
        results.missing(w.cell, w.seeds) for w in wanted("toy", TOY, results) if but not in str(w.cell.grid) or not but
    )


@pytest.mark.usefixtures("studies")
def test_arms_of_one_base_are_trained_in_one_run(tmp_path: Path) -> None:
    made = queue(tmp_path)
    assert made.run(["toy"]) is True
    assert complete(made.store)
    assert made.runs[:2] == [(("none",), (100, 101))] * 2
    assert (("average",) * 3 + ("kd",) * 3, (100, 101)) in made.runs
    before = len(made.runs)
    assert made.run(["toy"]) is True
    assert len(made.runs) == before  # nothing is left to train


@pytest.mark.usefixtures("studies")
def test_failures_are_not_tried_again(tmp_path: Path) -> None:
    made = queue(tmp_path, failing=("kd",))
    assert made.run(["toy"]) is True
    assert complete(made.store)
    tried = len(made.runs)
    again = queue(tmp_path, failing=("kd",))
    again.runs = []
    assert again.run(["toy"]) is True
    assert (len(again.runs), tried > 0) == (0, True)


@pytest.mark.usefixtures("studies")
def test_a_method_in_trouble_does_not_cost_the_others(tmp_path: Path) -> None:
    made = queue(tmp_path, troubled=("kd",))
    assert made.run(["toy"]) is False
    assert set(made.troubles.values()) == {"ValueError: a mistake of its own"}
    assert complete(made.store, but="kd")
    assert not complete(made.store)
    mended = queue(tmp_path)
    assert mended.run(["toy"]) is True  # another sitting tries again
    assert complete(mended.store)


@pytest.mark.usefixtures("studies")
def test_a_cut_queue_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = queue(tmp_path / "whole")
    whole.run(["toy"])
    for _ in range(100):
        if queue(tmp_path / "cut", stop_after=7).run(["toy"]):
            break
    texts = [
        {file.name: file.read_text() for file in (tmp_path / place / "results").glob("*/*.json")}
        for place in ("whole", "cut")
    ]
    assert texts[0] == texts[1]


@pytest.mark.usefixtures("studies")
def test_status_says_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "core_hours", lambda study, queue: 10.0)
    status.status(["toy"], queue(tmp_path))
    # Two rates and three candidates of three arms by two seeds; four rows and three lengths by three.
    assert capsys.readouterr().out == "toy: 0 of 43 students; about 10.0 core-hours left\n"
    made = queue(tmp_path, failing=("kd",))
    made.run(["toy"])
    status.status(["toy"], made)
    assert capsys.readouterr().out == "toy: 43 of 43 students (12 of them could not be finished)\n"


def test_data_that_nobody_gave_are_asked_for(tmp_path: Path) -> None:
    real = replace(TOY, data={"source": "cifar100"}, mentors=())
    cell = cell_of(real, TOY.panels[0], Arm("none"))
    with pytest.raises(UserError, match="where are the data"):
        queue(tmp_path).folder(cell)
    assert queue(tmp_path).folder(KD) == ""


def test_keys_of_the_queue_are_not_in_the_key(tmp_path: Path) -> None:
    own = queue(tmp_path).own([4])
    assert Cell({**KD.keys, **own}, KD.grid, KD.mentors, KD.changes).key == KD.key
