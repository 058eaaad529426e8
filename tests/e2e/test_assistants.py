"""A chain in one run: a large mentor, an assistant whom it teaches, a student whom the assistant teaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from classroomkd.cli.app import main
from classroomkd.cli.progress import Watch
from classroomkd.run import mentor_training, mentor_watch

MENTORS = "[{name: middle, model: convnet8, taught_by: %s}, {name: big, model: convnet16}]"  # the teacher comes second


def run(smoke: str, quick: list[str], out: Path, taught_by: str, *words: str) -> dict[str, Any]:
    mentors = f"mentors={MENTORS % taught_by}"
    given = ["run", smoke, *quick, mentors, "check_mentors=off", "train.epochs=1", *words, "--out", str(out), "--quiet"]
    assert main(given) == 0
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def weights(made: dict[str, Any], place: int) -> dict[str, Tensor]:
    return load_file(made["mentors"][place]["weights"])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(v.equal(b[k]) for k, v in a.items())


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, quick: list[str], smoke: str) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("chain") / "run"
    return run(smoke, quick, out, "big", "methods=[none,{name: kd, mentor: big},takd,dgkd]"), out


def test_big_teaches_middle_teaches_the_student(chain: tuple[dict[str, Any], Path]) -> None:
    made, out = chain
    assert [(m["name"], m["note"]) for m in made["mentors"]] == [("middle", "taught by big (kd)"), ("big", "")]
    assert [e["method"] for e in made["entries"]] == ["none", "kd", "takd", "dgkd"]
    taught = json.loads((out / "takd" / "seed0" / "teaching.json").read_text())
    assert taught["mentors"] == ["middle", "big"]
    lines = [json.loads(line) for line in (out / "takd" / "seed0" / "metrics.jsonl").read_text().splitlines()]
    said = [line["mentors"] for line in lines if line["kind"] == "train"][-1]
    assert said["active"][0] == 1
    assert said["active"][1] == 0


def test_it_is_resumed_and_taken_from_the_cache(
    chain: tuple[dict[str, Any], Path], tmp_path: Path, quick: list[str], smoke: str, capsys: Any
) -> None:
    made, out = chain
    before = Path(made["mentors"][0]["weights"]).stat().st_mtime_ns
    (out / "takd" / "seed0" / "entry.json").unlink()
    words = ["methods=[none,{name: kd, mentor: big},takd,dgkd]"]
    again = run(smoke, quick, out, "big", *words, "--resume")
    assert [e["test_last"] for e in again["entries"]] == [e["test_last"] for e in made["entries"]]
    other = run(smoke, quick, tmp_path / "other", "{mentors: [big], method: {kd: {temperature: 4.0}}}", "method=takd")
    assert other["mentors"][0]["weights"] == made["mentors"][0]["weights"]  # the same said in full
    assert Path(made["mentors"][0]["weights"]).stat().st_mtime_ns == before


def test_teaching_is_what_makes_it_another_network(
    chain: tuple[dict[str, Any], Path], tmp_path: Path, quick: list[str], smoke: str
) -> None:
    made, _ = chain
    alone = run(smoke, quick, tmp_path / "alone", "null", "method=average")
    assert not same(weights(made, 0), weights(alone, 0))
    assert same(weights(made, 1), weights(alone, 1))
    # A teacher whose term counts nothing leaves what labels alone give, to the bit: same data, order and start.
    deaf = "{mentors: big, method: {kd: {weight: 0, supervised_weight: 1}}}"
    silent = run(smoke, quick, tmp_path / "silent", deaf, "method=average")
    assert same(weights(silent, 0), weights(alone, 0))
    assert silent["mentors"][0]["weights"] != alone["mentors"][0]["weights"]
    # Another teacher of the same name is another assistant.
    later = run(smoke, quick, tmp_path / "later", "big", "method=average", "mentors.big.train={seed: 1}")
    assert later["mentors"][0]["weights"] != made["mentors"][0]["weights"]
    assert not same(weights(later, 0), weights(made, 0))


def test_methods_that_read_features_can_teach_an_assistant(tmp_path: Path, quick: list[str], smoke: str) -> None:
    by = "{mentors: [big], method: {name: average, feature_weight: 1.0}}"
    made = run(smoke, quick, tmp_path / "run", by, "method=takd")
    assert made["mentors"][0]["note"] == "taught by big (average)"
    assert not any("method" in name or "projector" in name for name in weights(made, 0))


def test_what_cannot_work_is_said_before_the_run(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    words = ["--out", str(tmp_path / "run"), "--quiet"]
    wrong = "mentors=[{name: a, model: convnet8, taught_by: b}, {name: b, model: convnet8, taught_by: a}]"
    assert main(["run", smoke, *quick, wrong, "method=takd", *words]) == 2
    assert "'a' is taught by 'b', 'b' by 'a'" in capsys.readouterr().err
    twice = MENTORS % "{mentors: big, method: [none, kd]}"
    assert main(["run", smoke, *quick, f"mentors={twice}", "method=takd", *words]) == 2
    assert "nobody would teach" in capsys.readouterr().err
    nowhere = MENTORS % "{mentors: big, method: {name: average, feature_weight: 1, tap: nowhere}}"
    assert main(["run", smoke, *quick, f"mentors={nowhere}", "method=takd", *words]) == 2
    assert "mentors.0.taught_by: no tap 'nowhere'" in capsys.readouterr().err
    assert main(["run", smoke, *quick, f"mentors={MENTORS % 'null'}", "method=takd", *words]) == 2
    assert "no mentor was taught by another" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_known_by_its_tensors(
    chain: tuple[dict[str, Any], Path], tmp_path: Path, quick: list[str], smoke: str
) -> None:
    """Not by its file: the same tensors stored another way give the same assistant."""
    made, _ = chain
    paths = []
    for form in ("safetensors", "pth"):
        file = tmp_path / f"big.{form}"
        tensors = load_file(made["mentors"][1]["weights"])
        save_file(tensors, file) if form == "safetensors" else torch.save({"state_dict": tensors}, file)
        big = f"{{name: big, model: convnet16, checkpoint: {file}}}"
        mentors = f"mentors=[{{name: middle, model: convnet8, taught_by: big}}, {big}]"
        out = tmp_path / form
        words = [mentors, "check_mentors=off", "train.epochs=1", "method=average", "--out", str(out), "--quiet"]
        assert main(["run", smoke, *quick, *words]) == 0
        paths.append(json.loads((out / "summary.json").read_text())["mentors"][0]["weights"])
    assert paths[0] == paths[1]


@pytest.mark.parametrize("method", ["kd", pytest.param("fitnet", marks=pytest.mark.slow)])
def test_progress_knows_how_good_a_mentor_is_and_changes_nothing(
    tmp_path: Path, quick: list[str], smoke: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    heard: list[dict[str, Any]] = []
    real = Watch.__call__

    def hear(self: Watch, event: dict[str, Any]) -> None:
        heard.append(event)
        real(self, event)

    monkeypatch.setattr(Watch, "__call__", hear)
    monkeypatch.setattr(mentor_watch, "SHARE", 1e9)
    made = []
    for name in ("scored", "plain"):
        words = [*quick[:-1], f"cache={tmp_path / name}", "method=average"]
        made.append(run(smoke, words, tmp_path / f"run-{name}", f"{{mentors: big, method: {method}}}"))
        scored = [(e["job"], e["epoch"]) for e in heard if e["event"] == "val" and e["job"] in ("big", "middle")]
        assert scored == ([("big", 1), ("big", 2), ("middle", 1), ("middle", 2)] if name == "scored" else [])
        assert all(0 <= e["accuracy"] <= 1 for e in heard if e["event"] == "val")
        heard.clear()
        monkeypatch.setattr(mentor_training, "with_scores", lambda networks, spec, module, notify: notify)
    assert all(same(weights(made[0], place), weights(made[1], place)) for place in (0, 1))
