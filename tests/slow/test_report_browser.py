"""The report in a real browser: drawn whole, nothing loaded, nothing sticking out, in light, dark, phone and print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "report"))

import chromium
from fake_run import ARMS, CLASSES, MENTORS, fake_run

from classroomkd.cli.app import main
from classroomkd.report import write_report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine")]

SIZES = [(1280, False), (1280, True), (390, False), (390, True)]
OVERFLOW = """
[...document.querySelectorAll('.chart')].flatMap((box) => {
  const card = box.closest('.card').getBoundingClientRect();
  return [...box.querySelectorAll('svg text, svg path, svg line')]
    .map((mark) => [mark.textContent, mark.getBoundingClientRect()])
    .filter(([, r]) => r.width && (r.left < card.left - 1 || r.right > card.right + 1))
    .map(([text, r]) => [box.id, text, r.left - card.left, r.right - card.right]);
})
"""
OVERLAPS = """
[...document.querySelectorAll('.chart .role-axis-label')].flatMap((group) => {
  const boxes = [...group.querySelectorAll('text')].filter((t) => t.textContent && getComputedStyle(t).opacity > 0
    && !(t.getAttribute('transform') || '').match(/rotate/)).map((t) => [t.textContent, t.getBoundingClientRect()]);
  const found = [];
  for (let i = 1; i < boxes.length; i++) {
    const [a, b] = [boxes[i - 1][1], boxes[i][1]];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 3)
      found.push([boxes[i - 1][0], boxes[i][0]]);
  }
  return found;
})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fake_run(tmp_path_factory.mktemp("browser") / "demo")
    write_report(run)
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    with chromium.Browser() as found:
        yield found


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_ready_offline_and_inside_its_width(browser: chromium.Browser, folder: Path, width: int, dark: bool) -> None:
    browser.open(folder / "report.html", width=width, dark=dark)
    assert browser.evaluate("document.title") == "demo · classroomkd · ready"
    assert browser.errors() == []
    assert browser.loads() == [(folder / "report.html").resolve().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OVERFLOW) == []
    assert browser.evaluate(OVERLAPS) == []
    assert browser.evaluate("document.querySelectorAll('.chart').length") == 13
    assert (
        browser.evaluate("[...document.querySelectorAll('.chart')].filter((c) => !c.querySelector('svg')).length") == 0
    )


def test_every_mark_is_there_and_labelled(browser: chromium.Browser, folder: Path) -> None:
    browser.open(folder / "report.html")
    charts: list[dict[str, Any]] = browser.evaluate(
        """[...document.querySelectorAll('.chart')].map((box) => ({
          title: box.closest('figure').querySelector('figcaption').firstChild.textContent,
          described: [box, ...box.querySelectorAll('[role="graphics-document"]')].some((e) => e.ariaLabel),
          marks: [...box.querySelectorAll('[role="graphics-symbol"]')].map((m) => m.ariaLabel),
        }))"""
    )
    by_title = {chart["title"]: chart for chart in charts}
    cells = len(MENTORS) * len(CLASSES)
    for title in ("Active, % of the class", "Own test accuracy, %"):
        assert sum(text.startswith("mentor: ") for text in by_title[title]["marks"]) == cells
    dots = [text for text in by_title["Every seed, test %"]["marks"] if "seed" in text]
    assert len(dots) == 5 * len(ARMS)
    for name, *_ in MENTORS:
        assert any(f"mentor: {name}" in text for text in by_title["Active, % of samples"]["marks"])
    assert all(chart["described"] for chart in charts)
    assert all(all(chart["marks"]) for chart in charts)
    entries = json.loads((folder / "summary.json").read_text())["entries"]
    ours = [entry["test_last"] for entry in entries if entry["method"] == "classroomkd"]
    heading = browser.evaluate("document.querySelector('h1').textContent").replace("\u00a0", " ")
    assert heading.startswith(f"classroomkd {100 * sum(ours) / len(ours):.1f} ± ")


def test_colours_follow_the_scheme(browser: chromium.Browser, folder: Path) -> None:
    looks = """(() => {
      const line = document.querySelector('.chart path[stroke^="var"]');
      const text = document.querySelector('.chart text');
      const look = getComputedStyle;
      return [look(document.body).backgroundColor, look(text).fill, look(line).stroke];
    })()"""
    seen = []
    for dark, media in ((False, ""), (True, ""), (True, "print")):
        browser.open(folder / "report.html", dark=dark, media=media)
        seen.append(browser.evaluate(looks))
    assert all(a != b for a, b in zip(seen[0], seen[1], strict=True))
    assert seen[2][1:] == seen[0][1:]  # paper is light


def test_legend_lights_up_one_series(browser: chromium.Browser, folder: Path) -> None:
    browser.open(folder / "report.html")
    faint = "document.querySelectorAll('#teaching .chart .mark-line path[opacity=\"0.12\"]').length"
    press = """(async () => {
      document.querySelector('#teaching .legend button').click();
      await new Promise((resolve) => setTimeout(resolve, 300));
    })()"""
    assert browser.evaluate(faint) == 0
    browser.evaluate(press)
    assert browser.evaluate(faint) == 3 * (len(MENTORS) - 1)
    assert browser.evaluate("document.querySelector('#teaching .legend button').getAttribute('aria-pressed')") == "true"
    browser.evaluate(press)
    assert browser.evaluate(faint) == 0


def test_without_scripts_there_is_still_a_report(browser: chromium.Browser, folder: Path) -> None:
    browser.open(folder / "report.html", width=390, script=False)
    tree = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    html = browser.call("DOM.getOuterHTML", nodeId=tree)["outerHTML"]
    assert "The scores are in the table above." in html
    assert "<svg" in html  # legends and swatches
    assert "ready</title>" not in html
    layout = browser.call("Page.getLayoutMetrics")
    assert layout["cssContentSize"]["width"] <= 390


def test_many_arms_unfold(browser: chromium.Browser, tmp_path: Path) -> None:
    arms = [ARMS[0], *((f"classroomkd {k}", "classroomkd", {}, "paper", 0.02) for k in range(5))]
    run = fake_run(
        tmp_path / "many", arms=arms, seeds=[0, 1], epochs=3, classes=[f"a long class name {k}" for k in range(60)]
    )
    browser.open(write_report(run), width=390)
    drawn = "document.querySelectorAll('.chart svg').length"
    before = browser.evaluate(drawn)
    unfold = """(async () => {
      document.querySelector('#teaching details').open = true;
      await new Promise((resolve) => setTimeout(resolve, 1500));
    })()"""
    browser.evaluate(unfold)
    assert browser.evaluate(drawn) == before + 6
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.evaluate(OVERFLOW) == []
    assert browser.errors() == []


def test_names_are_never_run(browser: chromium.Browser, tmp_path: Path) -> None:
    evil = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    classes = [evil, "a\"b'c", "${1}", "", "", "datum.value", "'+alert(1)+'"]
    run = fake_run(
        tmp_path / "evil",
        name=evil,
        classes=classes,
        seeds=[0, 1],
        epochs=3,
        notes=[evil],
        arms=[ARMS[0], (evil, "classroomkd", {"x": evil}, evil, 0.1)],
        mentors=[(evil, evil, 0.9, None), ("b", evil, 0.7, "upper")],
    )
    browser.open(write_report(run))
    assert browser.evaluate("document.title").endswith("ready")
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.loads() == [(run / "report.html").resolve().as_uri()]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a teacher, students and a mentor, with long names."""
    recipe = Path(__file__).parents[2] / "recipes" / "kdml" / "puppets.yaml"
    out = tmp_path_factory.mktemp("together") / "run"
    words = [
        "data.options.train=60", "data.options.test=20", "train.epochs=2", "mentor_train.epochs=1", "student=convnet4",
        "mentors=[{name: a mentor whose name is long, model: convnet8}]",
        "peers=[{name: peer-with-a-long-name, model: convnet4, copies: 3}, {name: t, model: convnet8, role: teacher}]",
        "methods=[kdml,{name: kdml, teacher: frozen, label: frozen}]",
    ]  # fmt: skip
    assert main(["run", str(recipe), *words, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_trainees_and_who_taught_whom_stay_inside(
    browser: chromium.Browser, together: Path, width: int, dark: bool
) -> None:
    browser.open(together / "report.html", width=width, dark=dark)
    assert browser.errors() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OVERFLOW) == []
    assert browser.evaluate(OVERLAPS) == []
    assert browser.evaluate("document.querySelectorAll('#trainees .chart svg').length") == 2 * 3
    cells = "[...document.querySelectorAll('#trainees [role=\"graphics-symbol\"]')].map((m) => m.ariaLabel || '')"
    squares = [text for text in browser.evaluate(cells) if "learner: " in text]
    # four students learn from three others and the teacher, or the mentor
    assert len(squares) == 2 * 4 * 4
