"""Figures in README and docs: every kind of mark, what is refused, and that pages are what the results say."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_study import ARMS, TOY, finish, put, store

from benchmarks.evidence import marks, plots, render
from benchmarks.evidence.cells import cell_of
from benchmarks.evidence.marks import WRITERS, filled
from benchmarks.evidence.protocol import Table, table
from benchmarks.evidence.study import Arm, Panel, Study
from benchmarks.evidence.words import setting
from classroomkd import methods
from classroomkd.errors import UserError

SMALL = TOY.panels[0]


def version(method: str) -> int:
    return methods.entries()[method].version


NOT_YET = "not measured yet"
MEANS = {"none": 0.5, "average": 0.52, "kd": 0.53}
# By seed, so that differences have a spread.
GAPS = {"none": (0.0, 0.0, 0.0), "average": (-0.002, 0.0, 0.002), "kd": (0.02, -0.01, -0.01)}


@pytest.fixture
def tables(studies: dict[str, Study], tmp_path: Path) -> dict[str, Table]:
    """Two panels: one is measured."""
    results = store(tmp_path)
    score = lambda cell, seed: MEANS[n := cell.grid[0]["name"]] + GAPS[n][seed % 100 % 3]  # noqa: E731
    finish(results, test=score, val=lambda cell, seed: 0.5)
    return {"toy/small": table("toy", studies["toy"], SMALL, results)}


@pytest.fixture
def page(tmp_path: Path, tables: dict[str, Table]) -> Callable[[str], str]:
    """What becomes of README's text."""
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)

    def write(text: str, where: str = "README.md") -> str:
        for each in (root / "README.md", root / where):
            each.parent.mkdir(exist_ok=True, parents=True)
            each.write_text("")
        (root / where).write_text(text)
        return filled(root, tables)[root / where]

    return write


def mark(said: str, inside: str = "") -> str:
    return f"<!-- evidence: {said} -->{inside}<!-- /evidence -->"


@pytest.mark.parametrize(
    ("said", "figure"),
    [
        ("score toy/small average", "52.0 ± 0.2"),
        ("score toy/small plain kd", "53.0 ± 1.7"),
        ("gain toy/small average", "+2.0 [1.5, 2.5]"),
        ("base toy/small kd", "+1.0 [−3.7, 5.7]"),
        ("base toy/small none", "−2.0 [−2.5, −1.5]"),
        ("base toy/small average", NOT_YET),  # it is the base
        ("vote toy/small", "62.5"),
    ],
)
def test_figures_in_a_sentence(page: Callable[[str], str], said: str, figure: str) -> None:
    assert page(f"It has {mark(said, 'old')} %, and that.\n") == f"It has {mark(said, figure)} %, and that.\n"


def test_a_short_table(page: Callable[[str], str]) -> None:
    assert page(mark("table toy/small none, average", "\n\nold\n\n")) == mark(
        "table toy/small none, average",
        "\n\n"
        "| arm | test % | vs student alone | vs average | step |\n"
        "|:---|---:|---:|---:|---:|\n"
        "| average | 52.0 ± 0.2 | ▲ +2.0 [1.5, 2.5] | – | 1.20× |\n"
        "| student alone | 50.0 ± 0.0 | – | ▼ −2.0 [−2.5, −1.5] | 1.00× |\n"
        "\n",
    )
    everyone = page(mark("table toy/small"))
    assert [line.split(" |")[0][2:] for line in everyone.splitlines()[4:-2]] == [
        "kd",
        "plain kd",
        "average",
        "student alone",
    ]


def test_every_row_of_a_method(page: Callable[[str], str]) -> None:
    rows = page(mark("rows kd")).splitlines()[2:-2]
    assert rows[0].startswith("| study | arm |")
    assert [row.split(" | ")[:3] for row in rows[2:]] == [
        ["| Toy: Small", "kd", "3"],
        ["| Toy: Small", "plain kd", "3"],
    ]
    assert page(mark("rows crd")) == mark("rows crd", f"\n\n{NOT_YET}\n\n")


def test_a_decision(page: Callable[[str], str]) -> None:
    assert page(mark("decision toy/small")) == mark(
        "decision toy/small",
        "On top: kd, 53.0 ± 1.7 %, +3.0 [−1.3, 7.3] points above the student alone. "
        "Not told from it: plain kd; average. Not shown to be above the student alone: kd; plain kd.",
    )
    assert page(mark("decision toy/small average")) == mark(
        "decision toy/small average",
        "On top: average, 52.0 ± 0.2 %, +2.0 [1.5, 2.5] points above the student alone. "
        "Every other one is told from it.",
    )


def test_a_decision_says_who_is_still_to_come(tables: dict[str, Table]) -> None:
    some = {"toy/small": replace(tables["toy/small"], lacking=["kd", "average"])}
    assert WRITERS["decision"](some, "toy/small", []).endswith(". Still to come: kd; average.")
    assert WRITERS["decision"](some, "toy/small", ["average"]).endswith(". Still to come: average.")


def test_every_kind_is_tried_here() -> None:
    assert sorted(WRITERS) == ["base", "decision", "gain", "rows", "score", "table", "vote"]


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("score toy/large kd", NOT_YET),
        ("gain toy/large kd", NOT_YET),
        ("base toy/large kd", NOT_YET),
        ("decision toy/large", NOT_YET),
        ("vote toy/large", NOT_YET),
        ("table toy/large", f"\n\n{NOT_YET}\n\n"),
    ],
)
def test_what_is_not_measured_yet_is_said_so(
    page: Callable[[str], str], studies: dict[str, Study], said: str, written: str
) -> None:
    studies["toy"] = replace(TOY, panels=(SMALL, replace(SMALL, name="large", title="Large")))
    assert page(mark(said, "12.3")) == mark(said, written)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("score toi/small kd", "there is no study 'toi'"),
        ("score toy/smal kd", r"there is no panel 'smal' \(did you mean 'small'\?\)"),
        ("score toy/small kdd", r"study 'toy' has no arm 'kdd' \(did you mean 'kd'\?\)"),
        ("table toy/small kd, averag", "study 'toy' has no arm 'averag'"),
        ("decision toy/small averag", "study 'toy' has no arm 'averag'"),
        ("score toy/small", "one arm is wanted"),
        ("gain toy/small kd, average", "one arm is wanted"),
        ("scores toy/small kd", "'scores' is not one of score, gain, base, table, decision, rows, vote"),
        ("rows kdd", r"there is no method 'kdd' \(did you mean 'kd'\?\)"),
    ],
)
def test_unknown_words_are_refused_with_page_and_mark(page: Callable[..., str], said: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^docs/deep/a\.md: <!-- evidence: {said} -->: {message}"):
        page(mark(said), "docs/deep/a.md")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- evidence: score toy/small kd -->50.0",
        "<!-- evidence: score -->50.0<!-- /evidence -->",
        "<!-- evidence score toy/small kd -->50.0<!-- /evidence -->",
        "50.0<!-- /evidence -->",
        # Not closed, with another one after it: all between the two would be lost.
        "<!-- evidence: score toy/small kd -->50.0 and <!-- evidence: score toy/small kd -->50.0<!-- /evidence -->",
    ],
)
def test_a_mark_that_is_none_is_refused(page: Callable[[str], str], text: str) -> None:
    with pytest.raises(UserError, match=r"README\.md: .*evidence.*: a mark is <!-- evidence: WHAT PLACE ARMS -->"):
        page(text)


def test_filling_again_changes_nothing(page: Callable[[str], str]) -> None:
    kinds = [f"{what} {'kd' if what == 'rows' else 'toy/small'}" for what in WRITERS]
    text = "\n".join(mark(f"{kind} kd" if kind[:4] in ("scor", "gain", "base") else kind) for kind in kinds)
    once = page(f"# A page\n\n{text}\n\nThe end.\n")
    assert NOT_YET not in once
    assert page(once) == once


def test_pages_without_marks_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("No evidence, and <!-- another comment -->.")
    assert filled(tmp_path, {}) == {}


def test_arms_may_have_commas_in_their_names(page: Callable[[str], str], studies: dict[str, Study]) -> None:
    studies["toy"] = replace(TOY, arms=(*ARMS, Arm("kd, no label", ARMS[2].entries)))
    assert page(mark("score toy/small kd, no label")) == mark("score toy/small kd, no label", NOT_YET)
    rows = page(mark("table toy/small kd, no label, kd, none")).splitlines()[4:-2]
    assert [row.split(" | ")[0] for row in rows] == ["| kd", "| student alone"]
    with pytest.raises(UserError, match="has no arm 'no'"):
        page(mark("table toy/small kd, no"))


def test_settings_in_words() -> None:
    assert setting({}) == "default"
    assert setting({"weight_decay": 0.0005, "rule": "batch", "beta": 8}) == "weight_decay 0.0005, rule batch, beta 8"


# --- the project's own pages ------------------------------------------------------------------------------------------


def test_committed_pages_are_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are left out: the width of their letters is the machine's."""
    monkeypatch.setattr(plots, "_svg", lambda chart: "")
    stale = [
        str(file.relative_to(render.ROOT))
        for file, text in render.rendered().items()
        if file.suffix != ".svg" and (not file.exists() or file.read_text() != text)
    ]
    assert not stale, f"{', '.join(stale)}: run python -m benchmarks.evidence render"


def test_render_shows_what_was_found(
    tmp_path: Path, studies: dict[str, Study], tables: dict[str, Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "_svg", lambda chart: f"<svg>{len(str(chart.to_dict())) > 100}")
    monkeypatch.setattr(render, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(mark("score toy/small average"))
    files = render.rendered(store(tmp_path))
    assert {file.name for file in files} == {"RESULTS.md", "results.csv", "toy.svg", "toy-small.svg", "README.md"}
    text = files[render.HERE / "RESULTS.md"]
    assert "## Toy\n\nWhich?\n\n`python -m benchmarks.evidence run toy`\n\n![Toy: " in text
    assert "| average | 3 | 52.0 ± 0.2 | 52.0 | ▲ +2.0 [1.5, 2.5] | – |" in text
    assert "Mentors, test %: puppets-a, puppets-b. Seeds: 3. Tuned on the validation part, seeds 100, 101." in text
    assert "3: 50.0; from 1 to 1.5 +0.0 [0.0, 0.0]: **converged**." in text
    assert files[tmp_path / "README.md"] == mark("score toy/small average", "52.0 ± 0.2")
    lines = list(csv.DictReader(files[render.HERE / "results.csv"].splitlines()))
    # A line for every student there is, those of the tuning as well.
    assert len(lines) == sum(len(content["students"]) for _, _, content in store(tmp_path))
    line = next(line for line in lines if line["methods"] == "average" and line["seed"] == "0")
    assert (line["study"], line["student"], line["versions"]) == ("toy", "convnet4", f"{version('average')}")
    scores = [float(line[key]) for key in ("test_last", "test_best", "val_last", "seconds")]
    assert scores == [0.518, 0.518, 0.5, 10.0]


def test_every_student_says_its_model_and_versions(tmp_path: Path) -> None:
    """A resnet8 too, which the key leaves out."""
    results = store(tmp_path)
    small = replace(SMALL, changes={"student.model": "resnet8"})
    put(results, cell_of(TOY, small, Arm("two", ({"name": "kd"}, {"name": "at"}))), s4=0.5)
    (line,) = csv.DictReader(render._every_student(results).splitlines())
    said = [line[key] for key in ("student", "methods", "versions", "seed", "test_last")]
    assert said == ["resnet8", "kd+at", f"{version('kd')}+{version('at')}", "4", "0.5"]


def test_a_table_says_where_its_settings_are_from(studies: dict[str, Study]) -> None:
    assert render._tuned(TOY, Panel("far", "Far", tuned="toy/small")) == "Settings and rate as chosen for toy/small."
    assert render._tuned(replace(TOY, tune=None), SMALL).startswith("Nothing was tuned: every arm at its defaults")


def test_nothing_found_is_no_section(
    tmp_path: Path, studies: dict[str, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("")
    files = render.rendered(store(tmp_path))
    assert "##" not in files[render.HERE / "RESULTS.md"]
    assert len(files[render.HERE / "results.csv"].splitlines()) == 1


def test_marks_may_stand_in_readme_and_docs() -> None:
    found = [page.relative_to(render.ROOT) for page in marks.pages(render.ROOT)]
    assert found[0] == Path("README.md")
    assert Path("docs/methods/kd.md") in found
