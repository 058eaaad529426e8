from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import ARMS, CLASSES, MENTORS, fake_run

from classroomkd.errors import UserError
from classroomkd.report import write_picture, write_report
from classroomkd.report.html import Html, el, json_for_script, table

EVIL = "<script>alert(1)</script>"
NASTY = [
    EVIL,
    "a\"b'c&amp;",
    "</script><img src=x onerror=alert(1)>",
    "",
    "",
    "日本語",
    "${x}",
    "x" * 200,
    "datum.value",
    "-->",
]


class Page(HTMLParser):
    """What a browser would see: elements, attributes, scripts, text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in ("meta", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def json(self, name: str) -> Any:
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("report") / "demo")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path)


def test_headline_and_tables_say_the_result(page: Page, folder: Path) -> None:
    entries = json.loads((folder / "summary.json").read_text())["entries"]
    scores = {label: [e["test_last"] for e in entries if e["method"] == label] for label in ("none", "classroomkd")}
    mean = sum(scores["classroomkd"]) / 5
    gain = sum(a - b for a, b in zip(scores["classroomkd"], scores["none"], strict=True)) / 5
    heading = page.text[page.text.index("classroomkd 8") :]
    assert heading.startswith(f"classroomkd {100 * mean:.1f} ± ")
    assert f"+{100 * gain:.1f} [" in heading[:60]
    assert "points over the student alone" in heading
    assert "against plain averaging." in heading
    assert "The mentors helped." in page.text
    assert "Mentors were trained on up to 3,600 labels, the student on 1,800" in page.text
    assert "not a benchmark" in page.text
    for name, *_ in MENTORS:
        assert name in page.text
    assert "reconstructed" in page.text
    assert "torch" in page.text
    assert "model: wrn_16_1" in page.text


def test_self_contained(page: Page) -> None:
    for tag, attributes in page.attributes:
        for key in ("src", "href", "srcset", "poster", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), (tag, key, value)
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#|data:)", page.source[: page.source.index("</style>")])
    assert page.tags["iframe"] == page.tags["object"] == page.tags["img"] == 0


def test_only_our_two_scripts_may_run(page: Page) -> None:
    policy = next(str(a["content"]) for t, a in page.attributes if a.get("http-equiv") == "Content-Security-Policy")
    run = [text for attrs, text in page.scripts if attrs.get("type") != "application/json"]
    hashes = ["sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert re.findall(r"'(sha256-[^']+)'", policy) == hashes
    assert len(hashes) == 2
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_library_is_inlined_once_and_page_is_small(page: Page) -> None:
    assert sum(len(text) > 300_000 for _, text in page.scripts) == 1
    assert len(page.source) < 2_000_000


def test_charts_have_places_captions_and_words(page: Page) -> None:
    specs = page.json("charts")
    places = [a["id"] for t, a in page.attributes if a.get("class") == "chart"]
    assert places == list(specs)
    assert len(places) == page.tags["figure"] == page.tags["figcaption"] == page.tags["noscript"] == 13
    for spec in specs.values():
        assert spec["width"] == "container"
        assert "config" not in spec
        for rows in spec["datasets"].values():
            lines = Counter((row.get("arm"), row.get("mentor"), row.get("seed")) for row in rows if "epoch" in row)
            assert max(lines.values(), default=0) <= 300
    text = json.dumps(specs)
    assert "NaN" not in text
    assert "http" not in re.sub(r'"\$schema": "[^"]*"', "", text)


def test_colours_are_the_same_for_a_series_everywhere(page: Page) -> None:
    found: dict[str, set[str]] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            scale = node.get("scale") or {}
            if node.get("field") in ("arm", "mentor", "who") and isinstance(scale.get("range"), list):
                for name, colour in zip(scale["domain"], scale["range"], strict=True):
                    if isinstance(colour, str):
                        found.setdefault(name, set()).add(colour)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(page.json("charts"))
    assert set(found) == {a[0] for a in ARMS} | {m[0] for m in MENTORS}
    assert all(len(colours) == 1 for colours in found.values()), found
    assert len({next(iter(found[m[0]])) for m in MENTORS}) == 4


def test_heat_map_holds_the_recorded_shares(page: Page, folder: Path) -> None:
    shares = [
        json.loads((folder / "classroomkd" / f"seed{s}" / "teaching.json").read_text())["active"] for s in range(5)
    ]
    expected = 100 * sum(share[1][3] for share in shares) / 5
    cells = [
        row["value"]
        for spec in page.json("charts").values()
        if spec.get("description", "").startswith("Active, % of the class")
        for rows in spec["datasets"].values()
        for row in rows
        if (row["mentor"], row["class"]) == (MENTORS[1][0], CLASSES[3])
    ]
    assert cells == [pytest.approx(expected, rel=1e-4)]


def test_vega_lite_draws_every_chart_with_labelled_marks(page: Page) -> None:
    import vl_convert

    config = page.json("config")
    for name, spec in page.json("charts").items():
        svg = vl_convert.vegalite_to_svg(spec | {"width": 360, "config": config})
        marks = svg.count('role="graphics-symbol"')
        assert marks >= 7, name  # the difference to averaging: two dots, two spans, zero, two axes
        assert "undefined" not in svg


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = fake_run(
        tmp_path / "evil",
        name=EVIL,
        classes=NASTY,
        arms=[ARMS[0], (EVIL, "kd", {}, "", -0.03), ('c" onmouseover="x', "classroomkd", {"a": EVIL}, EVIL, -0.04)],
        mentors=[(EVIL, EVIL, 0.9, None), ('m "2"', "</script>", 0.8, "upper")],
        notes=[EVIL],
        seeds=[0, 1],
        epochs=4,
    )
    found = Page(write_report(run))
    assert found.tags["script"] == 4
    assert found.tags["img"] == found.tags["b"] - 1 == 0
    assert not any(key.startswith("on") for _, attributes in found.attributes for key in attributes)
    assert EVIL in found.text
    assert "The mentors hurt" in found.text or "No clear difference" in found.text
    assert found.source.count("<script") == found.source.count("</script>") == 4
    write_picture(run, tmp_path / "p.svg")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": []}, "No student has finished yet"),
        ({"seeds": [3]}, "One seed has no interval"),
        ({"missing": {"classroomkd": [1]}, "seeds": [0, 1, 2]}, "classroomkd lacks 1"),
        ({"mentors": [], "arms": ARMS[:1]}, "This run has no mentors"),
        pytest.param({"arms": ARMS[:2]}, "No method of this run weighs its mentors", marks=pytest.mark.slow),
        pytest.param({"arms": ARMS[3:]}, "no student alone in this run", marks=pytest.mark.slow),
        ({"classes": [f"c{k}" for k in range(120)], "seeds": [0]}, "Drawn are the 100 of 120 classes"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    found = Page(write_report(fake_run(tmp_path / "r", **({"seeds": [0, 1], "epochs": 3} | change))))
    assert says in found.text
    assert list(found.json("charts")) == [a["id"] for _, a in found.attributes if a.get("class") == "chart"]


def test_bare_summary_and_lost_logs(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"schema": 1, "entries": [{"method": "kd", "seed": 0, "test_last": 0.5}]}')
    (tmp_path / "environment.json").write_text("{")
    found = Page(write_report(tmp_path))
    assert "kd 50.0 %" in found.text
    assert "No validation accuracy has been logged" in found.text


def test_failure_leaves_the_old_report(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pictures(folder: Path, tmp_path: Path) -> None:
    svg = write_picture(folder, tmp_path / "p.svg").read_text()
    for part in ("points over the student alone", "Who taught what", "Who taught when", "hands on hips", "vgg noisy"):
        assert part in svg
    png = write_picture(folder, tmp_path / "p.png", theme="dark").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") > 1500
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        write_picture(folder, tmp_path / "p.jpg")
    with pytest.raises(UserError, match="light, dark"):
        write_picture(folder, tmp_path / "p.png", theme="sepia")
    assert (
        "Who taught"
        not in write_picture(
            fake_run(tmp_path / "n", mentors=[], arms=ARMS[:1], epochs=2), tmp_path / "n.svg"
        ).read_text()
    )


def test_html_builder() -> None:
    assert el("p", "a<b", el("b", "&"), None, class_="x", hidden=True, title='"', id=None) == (
        '<p class="x" hidden title="&quot;">a&lt;b<b>&amp;</b></p>'
    )
    assert isinstance(el("br"), Html)
    assert "<" not in json_for_script({"a": "</script><!--\u2028"})
    assert json.loads(json_for_script({"a": "</script><!--\u2028"})) == {"a": "</script><!--\u2028"}
    with pytest.raises(ValueError, match="JSON compliant"):
        json_for_script(float("nan"))
    assert '<td class="num">1</td>' in table([("n", ""), ("x", "num")], [["r", "1"]], "c")


def test_an_arm_that_treats_all_alike_gets_a_sentence_not_flat_charts(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "r", seeds=[0], epochs=2)
    for name, value in (("average", None), ("classroomkd", 0.5)):
        log = run / name / "seed0" / "metrics.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        for row in rows:
            if row["kind"] == "train":
                varied = [1.0, value or 1.0, 1.0, 1.0]
                row["mentors"] = {"active": [1.0] * 4, "weight": varied, "temperature": [4.0] * 4, "none_active": 0.0}
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Page(write_report(run))
    assert "Every mentor alike, throughout: active on 100 % of samples, weight 1.00, temperature 4.0." in found.text
    titles = [spec["description"] for spec in found.json("charts").values()]
    assert sum(title.startswith("Mean weight by epoch") for title in titles) == 1


def test_planned_seeds_that_no_arm_has_finished_are_missing(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "r", seeds=[0, 1], epochs=2)
    raw = json.loads((run / "summary.json").read_text()) | {"seeds": [0, 1, 2]}
    (run / "summary.json").write_text(json.dumps(raw))
    text = Page(write_report(run)).text
    assert "8 of 12 students finished" in text
    assert "classroomkd lacks 2" in text
