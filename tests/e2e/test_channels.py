"""kcd by the command line: with banks, in a dry run, by stages, as an assistant's method; what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_segmentation_example import EXAMPLE, QUICK, on_the_path

from classroomkd.cli.app import main

TWINS = ["mentors=[{name: other, model: convnet8}]", "student=convnet8", "seeds=[0]", "check_mentors=off"]
FOUND = {"top10_before", "top10_after", "top10_chance"}


def entries(smoke: str, quick: list[str], out: Path, *words: str) -> list[dict[str, Any]]:
    assert main(["run", smoke, *quick, *TWINS, *words, "--out", str(out), "--quiet"]) == 0
    found: list[dict[str, Any]] = json.loads((out / "summary.json").read_text())["entries"]
    return found


def test_what_was_found_is_in_the_summary_whoever_gives_the_answers(
    tmp_path: Path, quick: list[str], smoke: str
) -> None:
    arms = "methods=[kcd,{name: kcd, match: identity, label: as they come}]"
    matched, plain = entries(smoke, quick, tmp_path / "off", arms, "bank=off")
    assert set(matched["findings"]) == FOUND
    assert plain["findings"]["top10_after"] == plain["findings"]["top10_before"] == matched["findings"]["top10_before"]
    assert matched["findings"]["top10_chance"] == pytest.approx(10 / 32)
    (stored,) = entries(smoke, quick, tmp_path / "exact", "methods=[kcd]", "bank=exact")
    for key, value in stored["findings"].items():  # a stored answer is rounded, so a near tie may fall otherwise
        assert value == pytest.approx(matched["findings"][key], abs=0.1)
    assert stored["mentor_answers"] <= 2 * 90, "what the look has asked is not asked again in the two epochs"


def test_answers_of_fixed_views(tmp_path: Path, quick: list[str], smoke: str) -> None:
    (viewed,) = entries(smoke, quick, tmp_path / "views", "methods=[kcd]", "bank=views=2")
    assert set(viewed["findings"]) == FOUND


def test_it_stands_where_methods_stand(tmp_path: Path, quick: list[str], smoke: str) -> None:
    later = "{name: kcd, match: greedy, batch_norm: running}"
    stages = f"[{{name: alone, method: none, epochs: 1}}, {{name: then, epochs: 1, method: {later}}}]"
    taught = "{name: middle, model: convnet8, taught_by: {mentors: other, method: kcd}}"
    mentors = f"mentors=[{{name: other, model: convnet8}},{taught}]"
    arms = f"methods=[{{label: staged, stages: {stages}}}]"
    (staged,) = entries(smoke, quick, tmp_path / "run", mentors, arms, "mentor_train.epochs=1")
    assert set(staged["findings"]) == FOUND


def test_a_dry_run_goes_without_a_look(quick: list[str], smoke: str, capsys: pytest.CaptureFixture[str]) -> None:
    arms = "methods=[kcd,{name: kcd, cost: class, label: c},[kcd,at]]"
    assert main(["run", smoke, *quick, *TWINS, arms, "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["arms"]) == 3


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("{name: kcd, inner: at}", "methods.0: kcd: inner: 'at' gives the same"),
        ("{name: kcd, inner: {name: fitnet, projector: none, tap: nowhere}}", "arm 'kcd': no tap 'nowhere'"),
        ("{name: kcd, inner: {fitnet: {projector: none, wight: 3}}}", "did you mean 'weight'"),
        ("{name: kcd, match: hungarian}", "methods.0.match"),
        ("{name: fitnet, projector: none}", "arm 'fitnet': projector: none compares"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    arm: str, said: str, tmp_path: Path, quick: list[str], smoke: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = "mentors=[{name: wide, model: convnet16}]"
    words = ["run", smoke, *quick, *TWINS, wide, f"methods=[{arm}]", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) != 0
    told = capsys.readouterr().err
    assert told.count("error:") == 1
    assert said in " ".join(told.split())
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_task_of_somebody_elses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its maps are matched without a line of its own; it has no classes of pictures."""
    words = ["run", str(EXAMPLE / "figure_parts" / "demo.yaml"), *QUICK, "workers=1", "train.epochs=1", "--quiet"]
    with on_the_path():
        assert main([*words, "method={name: kcd, match: greedy}", "--out", str(tmp_path / "run")]) == 0
        assert main([*words, "method={name: kcd, cost: class}", "--out", str(tmp_path / "other")]) != 0
    (entry,) = json.loads((tmp_path / "run" / "summary.json").read_text())["entries"]
    assert set(entry["findings"]) == FOUND
    assert "take cost: spatial" in " ".join(capsys.readouterr().err.split())
