from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_run import ARMS, fake_run

from classroomkd.errors import UserError
from classroomkd.report import collect, load_summary, read_metrics
from classroomkd.report.files import read_log


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "demo", epochs=3, seeds=[0, 1], arms=ARMS[:3])


def rewrite(run: Path, folder: Path, **changes: object) -> Path:
    raw = json.loads((run / "summary.json").read_text()) | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(raw))
    return folder


def test_folder_or_file(run: Path) -> None:
    summary = load_summary(run)
    assert summary.root == run
    assert load_summary(run / "summary.json") == summary
    assert summary.seeds() == [0, 1]
    assert set(summary.scores("average")) == {0, 1}
    assert summary.missing() == {}


def test_another_schema_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary\.json: written with summary schema 7; .* reads schema 1"):
        load_summary(rewrite(run, tmp_path / "new", schema=7))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cut off or damaged"),
        ('{"schema": 1, "entr', "cut off or damaged at line 1"),
        ("[1]", "not a run's summary"),
        ("{}", "not a run's summary"),
    ],
)
def test_half_written(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        load_summary(tmp_path)
    assert str(tmp_path / "summary.json") in str(caught.value)
    (tmp_path / "summary.json").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(UserError, match="not a text file"):
        load_summary(tmp_path)


def test_wrong_types_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary\.json: entries\.0\.seed: .*integer"):
        load_summary(rewrite(run, tmp_path / "bad", entries=[{"method": "none", "seed": "zero"}]))


def test_missing_and_unfinished(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        load_summary(tmp_path / "nowhere")
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(UserError, match=r"no student has finished.*--resume"):
        load_summary(tmp_path)


def test_numbers_that_are_none_are_missing(run: Path, tmp_path: Path) -> None:
    entries = [
        {"method": "none", "seed": 0, "test_last": float("nan")},
        {"method": "none", "seed": 1, "test_last": 0.5},
    ]
    summary = load_summary(rewrite(run, tmp_path / "nan", entries=entries))
    assert summary.scores("none") == {0: None, 1: 0.5}
    assert summary.missing() == {"average": [0, 1], "kd best": [0, 1]}


def test_entry_of_an_unlisted_arm_is_kept(run: Path, tmp_path: Path) -> None:
    summary = load_summary(rewrite(run, tmp_path / "x", entries=[{"method": "new", "seed": 0, "test_last": 0.5}]))
    assert [arm.label for arm in summary.arms][-1] == "new"


def test_a_damaged_line_of_metrics_costs_that_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    good = [json.dumps({"kind": "train", "step": step, "epoch": 0, "loss": 1.0}) for step in (5, 10)]
    file.write_text("\n".join(good) + '\n{"kind": "train", "st')
    assert [r["step"] for r in read_metrics(file)] == [5, 10]
    file.write_text("\n".join(good) + "\n17\n")
    assert len(read_metrics(file)) == 2
    file.write_text(good[0] + '\n{"kind": "tr\n' + good[1] + "\n")
    assert [r["step"] for r in read_metrics(file)] == [5, 10]
    assert read_log(file)[1] == [2]
    bad = [
        "17",
        '{"step": NaN}',
        '{"step": "5"}',
        '{"step": 5, "mentors": 3}',
        "[" * 99_999,
        f'{{"step": {"9" * 999}}}',
    ]
    file.write_text("\n".join([good[0], *bad, good[1]]) + "\n")
    assert read_log(file)[1] == [2, 3, 4, 5, 6, 7]
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl is a folder"):
        read_metrics(file)


def test_metrics_keep_the_later_of_a_step_done_twice(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [("train", 5, 1.0), ("train", 10, 2.0), ("val", 10, 3.0), ("train", 10, 4.0), ("train", 15, 5.0)]
    file.write_text("".join(json.dumps({"kind": k, "step": s, "loss": x}) + "\n" for k, s, x in rows))
    assert [r["loss"] for r in read_metrics(file)] == [1.0, 3.0, 4.0, 5.0]


def test_collect(run: Path, tmp_path: Path) -> None:
    for name in ("b10", "b9", "deep/inside/c"):
        rewrite(run, tmp_path / name, name=name)
    (tmp_path / "b11").mkdir()
    (tmp_path / "b11" / "recipe.yaml").write_text("")
    names = lambda *paths: [s.name for s in collect([str(p) for p in paths])]  # noqa: E731
    assert names(tmp_path) == ["b9", "b10", "deep/inside/c"]
    assert names(tmp_path / "b*") == ["b9", "b10"]
    assert names(tmp_path / "*" / "summary.json") == ["b9", "b10"]
    assert names(tmp_path / "b10", tmp_path / "b9", tmp_path / "b10" / "summary.json") == ["b10", "b9"]
    assert [s.name for s in collect(run)] == ["demo"]


def test_collect_says_what_is_wrong(run: Path, tmp_path: Path) -> None:
    rewrite(run, tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "going").mkdir()
    (tmp_path / "going" / "recipe.yaml").write_text("")
    for path, says in {
        "nine": "not found.*Runs in .*: mine",
        "x*": "nothing matches",
        "empty": "no run in this folder",
        "going": "no student has finished",
        "e*": "none of them is a run",
    }.items():
        with pytest.raises(UserError, match=says):
            collect([tmp_path / path])
    with pytest.raises(UserError, match="No run was given"):
        collect([])
