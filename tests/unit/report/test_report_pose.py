"""The same page, tables and lines for joints: other words, further figures, pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fake_pose import fake_pose, gallery
from fake_run import ARMS, MENTORS, fake_run
from rich.console import Console
from test_report_page import Page

from classroomkd.data.skeleton import LSP
from classroomkd.report import (
    load_summary,
    markdown,
    mentor_rows,
    result_rows,
    rich_figures,
    rich_mentors,
    rich_results,
    write_picture,
    write_report,
)
from classroomkd.report.vocabulary import CLASSES, figure_name, vocabulary, vocabulary_of

SMALL: dict[str, Any] = {"seeds": [0, 1], "epochs": 3}


class PosePage(Page):
    """As a browser would see it; an input has no end tag either."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag == "input":
            self._open.pop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_pose(tmp_path_factory.mktemp("pose") / "demo", **SMALL)


@pytest.fixture(scope="module")
def page(folder: Path) -> PosePage:
    return PosePage(write_report(folder))


def shown(renderable: Any, width: int = 200) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(renderable)
    return file.getvalue()


def test_no_word_of_classification_is_left(page: PosePage, folder: Path) -> None:
    text = page.text[: page.text.index("Settings Made by")]
    for word in ("accuracy", "Accuracy", "classes", "class ", "labels trained", "test samples"):
        assert word not in text, word
    specs = json.dumps(page.json("charts"))
    for word in ("accuracy", "class"):
        assert word not in specs.replace("classroomkd", "")
    for phrase in (
        " % PCK@0.2, +", "14 joints", "PCK@0.2 on 400 test persons", "persons trained on", "Test PCK@0.2 on each joint",
        "Active, % of joints", "What changed, joint by joint", "Own test PCK@0.2", "1,800 persons",
    ):  # fmt: skip
        assert phrase in page.text, phrase
    assert "mentor × joint pairs" in page.text


def test_heat_map_is_mentor_by_joint(page: PosePage) -> None:
    specs = page.json("charts").values()
    spec = next(spec for spec in specs if spec.get("description", "").startswith("Active, % of the joint"))
    assert spec["description"].endswith("a row a joint, a column a mentor")
    cells = [row for rows in spec["datasets"].values() for row in rows]
    assert {(row["mentor"], row["joint"]) for row in cells} == {(m[0], j) for m in MENTORS for j in LSP.joints}


def test_further_figures_are_means_over_seeds_by_arm(page: PosePage, folder: Path) -> None:
    rows = result_rows(load_summary(folder))
    entries = [e for e in json.loads((folder / "summary.json").read_text())["entries"] if e["method"] == "none"]
    values = [e["test_metrics"]["AP_gtbox:AP50"] for e in entries]
    assert rows[0]["metrics"]["AP_gtbox:AP50"]["mean"] == pytest.approx(sum(values) / 2)
    assert "AP_gtbox:AP_M" not in rows[0]["metrics"]  # -1: nobody of that size
    assert "AP_gtbox:AP_L" not in rows[0]["metrics"]  # NaN
    cell = f"{50 * sum(values):.1f}"
    for text in (page.text, shown(rich_figures(rows)), markdown(rows)):
        assert "AP50_gtbox" in text
        assert "AP_gtbox, hidden joints alone" in text
        assert cell in text
    assert "| test, % | none | average |" in markdown(rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_tables_name_the_score(folder: Path) -> None:
    rows, mentors = result_rows(load_summary(folder)), mentor_rows(load_summary(folder))
    assert "PCK@0.2 %" in shown(rich_results(rows))
    assert "400 test persons of lsp" in shown(rich_results(rows))
    assert "persons seen" in shown(rich_mentors(mentors))
    assert all(len(line) <= 80 for line in shown(rich_results(rows), 80).splitlines()[:6])
    assert (rows[0]["task"], rows[0]["metric"]) == ("pose", "PCK@0.2")


def test_scores_of_two_kinds_are_named_by_row_and_never_subtracted(folder: Path, tmp_path: Path) -> None:
    other = fake_pose(tmp_path / "ap", metric="AP_gtbox", pictures=False, name="ap", arms=ARMS[3:], **SMALL)
    rows = result_rows([load_summary(folder), load_summary(other)])
    assert rows[-1]["vs"] == {"none": None, "average": None}
    text = shown(rich_results(rows))
    assert "score" in text
    assert "AP_gtbox" in text
    assert "PCK@0.2" in text
    assert "test %" in text


def test_joints_have_the_score_that_is_by_joint(tmp_path: Path) -> None:
    run = fake_pose(tmp_path / "ap", metric="AP_gtbox", **SMALL)
    text = PosePage(write_report(run)).text
    assert "Test PCK@0.2 on each joint" in text
    assert "AP_gtbox on 400 test persons" in text


def test_the_validation_part_s_score_has_its_own_name(tmp_path: Path) -> None:
    """A detector's boxes are the test part's alone."""
    run = fake_pose(tmp_path / "ap", metric="AP_detector", pictures=False, **SMALL)
    assert "Validation AP_detector" in PosePage(write_report(run)).text
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"val_metric": "AP_gtbox"}))
    text = PosePage(write_report(run)).text
    assert "Validation AP_gtbox" in text
    assert "Validation AP_detector" not in text
    assert "AP_detector on 400 test persons" in text


def test_picture_says_the_metric(folder: Path, tmp_path: Path) -> None:
    svg = write_picture(folder, tmp_path / "p.svg").read_text()
    for part in ("Test PCK@0.2, %", "% of joints a mentor was active on", "% of the persons with a joint", "head_top"):
        assert part in svg
    assert "ccuracy" not in svg


def test_words() -> None:
    assert vocabulary("classification") == vocabulary("classification", "accuracy") == CLASSES
    assert vocabulary("pose", "AP_gtbox", "PCK@0.2").by_unit == "PCK@0.2"
    assert vocabulary("pose", "mAP").title == "mAP"
    assert CLASSES.title == "Accuracy"
    assert vocabulary_of([{}, {"task": "pose", "metric": "AP_gtbox"}]) == CLASSES
    assert CLASSES.marks("classification") == {}
    assert figure_name("AP_gtbox:visible") == "AP_gtbox, visible joints alone"
    assert [figure_name(n) for n in ("AP_gtbox:AR_M", "PCK@0.2")] == ["AR_M_gtbox", "PCK@0.2"]


def test_every_person_is_drawn_and_described(page: PosePage, folder: Path) -> None:
    kept = json.loads((folder / "gallery.json").read_text())
    images = [a["href"] for t, a in page.attributes if t == "image"]
    assert images == [person["crop"] for person in kept["persons"]]
    labels = [str(a["aria-label"]) for t, a in page.attributes if t == "svg" and a.get("role") == "img"]
    assert len(labels) == 24
    assert labels[0].startswith("Person 1 (worst), im0100.jpg: student alone OKS ")
    for name, *_ in MENTORS:
        assert all(name in label for label in labels)
    assert "Worst of classroomkd" in page.text
    assert "Drawn at random" in page.text
    assert "12 of the other 388, drawn at random" in page.text
    assert any(a.get("href") == "#pictures" for t, a in page.attributes if t == "a")
    assert len(page.source) < 3_000_000


def test_series_are_switched_without_script_and_have_their_colours(page: PosePage) -> None:
    boxes = [a for t, a in page.attributes if t == "input"]
    assert [box["id"] for box in boxes] == [f"show-{k}" for k in range(7)]
    assert ["checked" in box for box in boxes] == [True] * 3 + [False] * 4
    assert page.tags["label"] == len(boxes)
    layers = [a for t, a in page.attributes if t == "g" and str(a.get("class", "")).startswith("k")]
    assert len(layers) == 24 * 7
    styles = {str(a["class"]).split()[0]: a["style"] for a in layers}
    assert styles == {
        "k0": "--c:var(--ink)", "k1": "--c:var(--alone)", "k2": "--c:var(--accent)",
        **{f"k{3 + k}": f"--c:var(--hues-{k})" for k in range(4)},
    }  # fmt: skip
    for k in range(7):
        assert f"#pictures:has(#show-{k}:not(:checked)) .k{k} {{ display: none; }}" in page.source
    assert "#show-7" not in page.source


def test_places_are_drawn_where_they_are(page: PosePage, folder: Path) -> None:
    kept = json.loads((folder / "gallery.json").read_text())
    start = page.source.index('class="k0 truth"')
    layer = page.source[start : page.source.index("</g>", start)]
    truth = kept["persons"][0]["truth"]
    scale = 400 / 128
    spots = [f"M{round((x + 0.5) * scale)} {round((y + 0.5) * scale)}h0" for x, y, v in truth if v]
    dots, holes = (layer.split(f'class="{name}" d="')[1].split('"')[0] for name in ("dot", "hole"))
    assert dots == "".join(spots)
    hidden = [f"M{round((x + 0.5) * scale)} {round((y + 0.5) * scale)}h0" for x, y, v in truth if v == 1]
    assert holes == "".join(hidden)


def test_a_run_without_pictures_has_its_page(tmp_path: Path) -> None:
    page = PosePage(write_report(fake_pose(tmp_path / "r", pictures=False, **SMALL)))
    assert page.tags["image"] == page.tags["input"] == 0
    assert "Pictures" not in page.text
    assert ".crops" not in page.source
    assert ".crops" not in Page(write_report(fake_run(tmp_path / "c", **SMALL))).source


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "gallery.json: schema"),
        pytest.param({"who": []}, "more or fewer answers", marks=pytest.mark.slow),
        pytest.param({"size": [0, 3]}, "greater than 0", marks=pytest.mark.slow),
        pytest.param(
            {"skeleton": {"joints": ["a"], "links": []}}, "joints that are not those of its skeleton",
            marks=pytest.mark.slow,
        ),
        (None, "cut off or damaged"),
    ],
)  # fmt: skip
def test_damaged_pictures_are_said_and_left_out(tmp_path: Path, change: dict[str, Any] | None, says: str) -> None:
    run = fake_pose(tmp_path / "r", pictures=False, **SMALL)
    made = gallery([a[0] for a in ARMS], [m[0] for m in MENTORS])
    (run / "gallery.json").write_text('{"schema"' if change is None else json.dumps(made | change))
    page = PosePage(write_report(run))
    assert says in page.text
    assert page.tags["image"] == 0


def test_hostile_pictures(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    arms = [ARMS[0], (evil, "classroomkd", {}, "", 0.04)]
    run = fake_pose(tmp_path / "r", arms=arms, mentors=[(evil + "m", "x", 0.9, None)], pictures=False, **SMALL)
    made = gallery(["none", evil, "unknown"], [evil + "m"], headline=evil)
    made["persons"][0]["image"] = evil
    (run / "gallery.json").write_text(json.dumps(made))
    page = PosePage(write_report(run))
    assert page.source.count("<script") == 4
    assert page.tags["image"] == 24
    assert page.tags["input"] == 4  # the truth, the student alone, the headline's, the mentor
    made["persons"][0]["crop"] = 'data:image/svg+xml;base64,AA"'
    (run / "gallery.json").write_text(json.dumps(made))
    assert "persons.0.crop" in PosePage(write_report(run)).text
