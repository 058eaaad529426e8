from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_run import ARMS, MENTORS, fake_run
from rich.console import Console

from classroomkd.cli.app import main
from classroomkd.report import Summary, load_summary, markdown, mentor_rows, result_rows, rich_mentors, rich_results
from classroomkd.report import vocabulary as words
from classroomkd.report.headline import cautions, headline, main_arm, verdict
from classroomkd.report.rows import kept_apart
from classroomkd.report.table import notes


def make(
    arms: dict[str, list[float]], *, data: str = "d", name: str = "run", test: int = 1000, **more: object
) -> Summary:
    entries = [
        {
            "method": label,
            "seed": seed,
            "test_last": score,
            "test_best": score,
            "val_last": score,
            "step_ms": 11.0,
            "floor_ms": 10.0,
        }
        for label, scores in arms.items()
        for seed, score in enumerate(scores)
        if score >= 0
    ]
    raw = {
        "schema": 1,
        "name": name,
        "data": {"name": data, "test": test},
        "student": {"model": "s", "parameters": 1000},
        "arms": [
            {"label": label, "method": label.split()[0], "status": "reconstructed" if "re" in label.split() else ""}
            for label in arms
        ],
        "entries": entries,
    }
    return Summary.model_validate(raw | more)


GAIN = {"none": [0.70, 0.71, 0.72], "average": [0.75, 0.76, 0.78], "classroomkd": [0.80, 0.82, 0.81]}


def show(table: object, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, color_system=None).print(table)
    file.flush()
    return raw.getvalue().decode(encoding)


def test_rows_are_numbers_for_json() -> None:
    rows = result_rows(make(GAIN))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    last = rows[2]
    assert last["test_last"] == {"n": 3, "mean": pytest.approx(0.81), "sd": pytest.approx(0.01)}
    assert last["vs"]["none"]["mean"] == pytest.approx(0.10)
    assert last["vs"]["none"]["verdict"] == "gain"
    assert last["cost_ratio"] == pytest.approx(1.1)
    assert rows[0]["vs"] == {"none": None, "average": None}  # not the mirror of the next row
    assert rows[1]["vs"]["average"] is None
    assert rows[1]["vs"]["none"]["n"] == 3


def test_baseline_by_label_then_method() -> None:
    rows = result_rows(make({"none long": [0.9, 0.9], "none": [0.5, 0.6], "kd": [0.6, 0.8]}))
    assert rows[2]["vs"]["none"]["arm"] == "none"
    rows = result_rows(make({"none long": [0.9, 0.9], "kd": [0.6, 0.8]}))
    assert rows[1]["vs"]["none"]["arm"] == "none long"


def test_a_loss_is_as_plain_as_a_gain() -> None:
    worse = make({"none": GAIN["classroomkd"], "average": GAIN["average"], "classroomkd": [0.70, 0.73, 0.70]})
    text = show(rich_results(result_rows(worse)), 100)
    assert "▼" in text
    best = main_arm(result_rows(worse), worse)
    assert verdict(best)[0] == "The mentors hurt: the student alone is better."
    good = make(GAIN)
    assert verdict(main_arm(result_rows(good), good)) == [
        "The mentors helped.",
        "It did better than plain averaging of the same mentors.",
    ]


def test_headline() -> None:
    run = make({"none": [0.70, 0.71, 0.72], "average": [0.80, 0.82, 0.80], "classroomkd": [0.80, 0.81, 0.82]})
    text = headline(main_arm(result_rows(run), run))
    assert text == (
        "classroomkd 81.0 ± 1.0 %, +10.0 [10.0, 10.0] points over the student alone; "
        "+0.3 [−3.5, 4.1] against plain averaging."
    )
    one = make({"none": [0.7], "classroomkd": [0.8]})
    main = main_arm(result_rows(one), one)
    assert headline(main) == "classroomkd 80.0 %, +10.0 points over the student alone."
    assert "no interval" in verdict(main)[0]
    empty = make({"none": [], "kd": []})
    assert headline(main_arm(result_rows(empty), empty)) == "No student has finished yet."
    assert headline(main_arm(result_rows(make({"none": [0.5]})), make({"none": [0.5]}))) == "The student alone: 50.0 %."


def test_headline_arm_is_chosen_on_validation_not_on_test() -> None:
    run = make({"none": [0.5], "kd": [0.9], "classroomkd": [0.6]})
    for entry in run.entries:
        entry.val_last = {"kd": 0.1, "classroomkd": 0.2}.get(entry.method, 0.9)
    found = main_arm(result_rows(run), run)
    assert found is not None
    assert found["arm"] == "classroomkd"
    assert any("best on the validation part, of 2" in text for text in cautions(run, result_rows(run)))


def test_unfinished_runs_pair_what_they_share_and_say_so() -> None:
    run = make({"none": [0.70, 0.71, 0.72], "classroomkd": [0.80, -1, 0.83]})
    row = result_rows(run)[1]
    assert (row["test_last"]["n"], row["missing"], row["vs"]["none"]["n"], row["vs"]["none"]["unpaired"]) == (
        2,
        [1],
        2,
        [1],
    )
    assert any("classroomkd lacks seed 1" in line for line in notes(result_rows(run)))
    assert any("classroomkd lacks 1" in line for line in cautions(run, result_rows(run)))


def test_a_reconstruction_says_what_it_is_on_joints() -> None:
    row = {**result_rows(make(GAIN))[1], "status": "reconstructed"}
    assert any(line.endswith("not from the authors' code.") for line in notes([row]))
    assert any("this project's design" in line for line in notes([{**row, "task": "pose", "metric": "PCKh@0.5"}]))


def test_compare_borrows_a_baseline_from_a_like_run_only() -> None:
    a, b = make(GAIN, name="a"), make({"kd": [0.9, 0.9, 0.8]}, name="b")
    row = result_rows([b, a])[0]
    assert (row["vs"]["none"]["run"], row["vs"]["none"]["n"]) == ("a", 3)
    assert any("'none' of a" in line for line in notes(result_rows([b, a])))
    assert result_rows([make({"kd": [0.9]}, data="other"), a])[0]["vs"]["none"] is None


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [
        load_summary(fake_run(tmp_path / name, epochs=1, seeds=[0], arms=ARMS[:1], mentors=MENTORS[:1]))
        for name in "ab"
    ]
    assert [row["run"] for row in result_rows(runs)] == ["a", "b"]
    assert len(mentor_rows(runs)) == 1


@pytest.mark.parametrize("width", [30, 40, 60, 72, 80, 100, 140])
def test_tables_fit(tmp_path: Path, width: int) -> None:
    long = [
        *ARMS[:2],
        ("classroomkd, filtering off, T 4", "classroomkd", {}, "reconstructed", 0.1),
        ("kd|[red]x", "kd", {}, "", -0.05),
    ]
    run = load_summary(fake_run(tmp_path / "r", epochs=1, arms=long, test=10000))
    for table in (rich_results(result_rows(run)), rich_mentors(mentor_rows(run))):
        lines = show(table, width).splitlines()
        assert max(map(len, lines)) <= width
    body = show(rich_results(result_rows(run)), width).splitlines()[:5]
    assert sum("±" in line for line in body) == 4  # one line a row: nothing wrapped
    if width >= 80:
        for part in ("vs alone", "vs average", "step", "test %", "[red]x"):
            assert part in "\n".join(body)
        assert "†" in show(rich_results(result_rows(run)), width)


def test_prose_that_does_not_fit_goes_below(tmp_path: Path) -> None:
    run = load_summary(fake_run(tmp_path / "r", epochs=1, seeds=[0]))
    wide, narrow = (show(rich_mentors(mentor_rows(run)), width) for width in (200, 80))
    assert "note" in wide.splitlines()[0]
    assert "note" not in narrow.splitlines()[0]
    assert "wrn upper: specialist: upper-body classes whole, 10 % of the others" in narrow


def test_ascii_terminals_get_ascii() -> None:
    class Plain(Console):
        encoding = "ascii"

    out = io.StringIO()
    Plain(file=out, width=80, color_system=None).print(rich_results(result_rows(make(GAIN))))
    assert out.getvalue().isascii()


def test_markdown_escapes_and_has_every_column() -> None:
    text = markdown(result_rows(make({"none": [0.5, 0.6], "classroomkd a|b<i>\n": [0.7, 0.9]})))
    lines = text.splitlines()
    assert lines[0].startswith("| arm | n | test % |")
    assert "classroomkd a\\|b\\<i>" in lines[3]
    assert len({line.replace("\\|", "").count("|") for line in lines[:4]}) == 1
    assert markdown([]) == "No results yet.\n"


def test_words() -> None:
    assert [words.count(n) for n in (None, 0, 987, 999_600, 78042, 1_234_567, 2.05e9)] == [
        "–",
        "0",
        "987",
        "1.00 M",
        "78.0 k",
        "1.23 M",
        "2.05 G",
    ]
    assert [words.duration(s) for s in (0.84, 42, 143.2, 7500, 400_000)] == [
        "0.8 s",
        "42 s",
        "2 min 23 s",
        "2 h 05 min",
        "4 d 15 h",
    ]
    assert [words.signed(x) for x in (0.051, -0.0031, -0.0001, 0.0)] == ["+5.1", "−0.3", "0.0", "0.0"]
    assert words.shorten("classroomkd no filtering", 12) == "classr…ering"
    assert [words.decimals_for(n) for n in (None, 1500, 10000)] == [1, 1, 2]


def test_tables_load_neither_torch_nor_a_chart_library() -> None:
    code = "import sys, classroomkd.report; print(sorted({'torch', 'altair', 'vl_convert'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


TRAIN = {"epochs": 20, "lr": 0.05, "log_every": 50, "eval_every": 1, "checkpoint_every": 1, "eval_batch_size": 256}
PARTS = {"train": "t", "student": "s", "val": "v", "test": "e"}


def known_run(root: Path, arms: list[Any], *, train: dict[str, Any] | None = None, **data: Any) -> Summary:
    """A fake run whose summary also says exactly what was used, as runs of this version do."""
    fake_run(root, name=root.name, arms=arms, epochs=1, seeds=[0, 1], mentors=MENTORS[:1])
    raw = json.loads((root / "summary.json").read_text())
    raw["data"] |= {"fingerprint": "f", "parts": PARTS, "vote": "v"} | data
    raw["train"] = TRAIN | (train or {})
    (root / "summary.json").write_text(json.dumps(raw))
    return load_summary(root)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({}, None),
        ({"train": {"log_every": 1, "eval_every": 2, "checkpoint_every": 3, "eval_batch_size": 4}}, None),
        ({"parts": PARTS | {"train": "more mentors' samples"}}, None),
        ({"fingerprint": "", "parts": None}, None),  # an earlier version's
        ({"fingerprint": "g"}, "trained on other data"),
        ({"parts": PARTS | {"student": "x"}}, "trained on other data"),
        ({"parts": PARTS | {"val": "x"}}, "scored on other data"),
        ({"parts": PARTS | {"test": "x"}}, "scored on other data"),
        ({"vote": "another"}, "scored against the vote of other mentors"),
        ({"vote": "v"}, None),
        ({"train": {"lr": 0.1, "epochs": 30, "log_every": 1}}, "another training: epochs, lr"),
    ],
)
def test_a_baseline_is_borrowed_only_where_nothing_else_differs(
    tmp_path: Path, other: dict[str, Any], why: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = known_run(tmp_path / "a", ARMS[:1]), known_run(tmp_path / "b", ARMS[3:], **other)
    row = result_rows([b, a])[0]
    if why is None:
        assert row["vs"]["none"]["run"] == "a"
        assert row["apart"] == {}
        assert kept_apart([row]) == []
        return
    assert row["vs"]["none"] is None
    assert row["apart"] == {"none": [{"arm": "none", "run": "a", "why": why}]}
    for option in ([], ["--markdown"]):
        assert main(["compare", str(tmp_path / "b"), str(tmp_path / "a"), *option]) == 0
        assert f"Not compared with 'none' of a: b ({why})." in " ".join(capsys.readouterr().out.split())


def test_another_run_may_still_lend_it(tmp_path: Path) -> None:
    other = known_run(tmp_path / "other", ARMS[:1], train={"lr": 0.1})
    row = result_rows([known_run(tmp_path / "b", ARMS[3:]), other, known_run(tmp_path / "a", ARMS[:1])])[0]
    assert row["vs"]["none"]["run"] == "a"
    assert row["apart"] == {}


def test_the_student_alone_costs_itself() -> None:
    rows = result_rows(make(GAIN))
    assert [row["cost_ratio"] for row in rows] == [1.0, pytest.approx(1.1), pytest.approx(1.1)]
    assert words.ratio(rows[0]["cost_ratio"]) == "1.00×"
    assert result_rows(make({"none": [], "kd": [0.5]}))[0]["cost_ratio"] is None
