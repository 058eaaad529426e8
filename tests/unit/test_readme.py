"""The README works as it is written, and the documents hold together: links, names, options, recipes."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import documents
import pytest
from documents import PAGES, ROOT, Block, Reader, Skimmer

from classroomkd import data, methods
from classroomkd.cli.app import VERBS
from classroomkd.data.sources.table import PERSON_OPTIONS
from classroomkd.functional.classroom import _RULES
from classroomkd.models.pose import pose_table
from classroomkd.tasks import TASKS, offering
from classroomkd.tasks.pose.judging import METRICS

README = ROOT / "README.md"
WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
RECIPES = [
    b for page in PAGES[1:] for b in documents.blocks(page) if b.language == "yaml" and not b.said.startswith("into ")
]
METHOD_PAGES = ROOT / "docs" / "methods"

pages = pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.relative_to(ROOT).as_posix())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    documents.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_readme_works_from_top_to_bottom(desk: Path) -> None:
    reader = Reader()
    for block in documents.blocks(README):
        reader.carry_out(block)
    verbs = {line.split()[1] for line in reader.done if line.startswith("classroomkd ")}
    assert verbs >= set(VERBS) - {"demo"}
    for made in ("runs/three/report.html", "runs/photos/report.html", "ship/student.safetensors", "classes.csv"):
        assert (desk / made).is_file(), made
    assert len((desk / "classes.csv").read_text().splitlines()) == 1 + 3 * 14


@pytest.mark.parametrize("block", documents.blocks(README), ids=str)
def test_every_block_of_the_readme_works_by_itself(block: Block, desk: Path) -> None:
    """Python is run, recipes are loaded, runs are planned, other commands parsed; the slow tier carries out all."""
    Skimmer().carry_out(block)


def test_the_skimmer_notices_what_does_not_work(desk: Path) -> None:
    for wrong in (
        "classroomkd run smoke student=resnet9 --out runs/a",
        "classroomkd evaluate runs/a --offical",
        "classroomkd bank fil smoke",
        "classroomkd bank fill smoke --vews 8",
        "classroomkd lst methods",
        "classroomkd export",
        "make coffee",
    ):
        with pytest.raises(Exception, match=r"."):
            Skimmer().carry_out(Block(README, 1, "sh", wrong + "\n"))
    Skimmer().carry_out(Block(README, 1, "sh", "classroomkd bank fill smoke bank=views=8\n"))


def test_the_reader_notices_what_does_not_work(desk: Path) -> None:
    def block(language: str, text: str, said: str = "") -> Block:
        return Block(README, 1, language, text, said)

    reader = Reader()
    for wrong in (
        block("sh", "classroomkd run smoke student=resnet9 --dry-run\n"),
        block("sh", "make coffee\n"),
        block("sh", "rm -rf /\n"),
        block("sh", "python examples/nothing.py\n"),
        block("yaml", "train: {epoch: 3}\n"),
        block("python", "left_over\n"),
        block("ruby", "1\n"),
    ):
        with pytest.raises(Exception, match=r"."):
            reader.carry_out(wrong)
    reader.carry_out(block("python", "left_over = 1\n"))
    reader.carry_out(block("python", "assert left_over == 1\n", "continues"))
    with pytest.raises(NameError):
        reader.carry_out(block("python", "left_over\n"))


@pytest.mark.parametrize("block", RECIPES, ids=str)
def test_recipes_in_the_documents_load(block: Block, desk: Path) -> None:
    Reader().carry_out(block)


@pages
def test_links_lead_somewhere(page: Path) -> None:
    assert not documents.broken_links(page)


def test_links_of_the_readme_are_whole() -> None:
    """It is shown where the project's files are not: on a package index, in a wheel's metadata."""
    assert documents.PROJECT in (ROOT / "pyproject.toml").read_text()
    assert not re.findall(r"\]\((?!https://|#)[^)]*\)", documents.prose(README))


def test_a_link_to_a_file_that_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f"[a]({documents.PROJECT}/blob/main/docs/nothing.md) [b]({documents.PROJECT}/blob/main/docs/runs.md#no)"
    )
    assert len(documents.broken_links(page)) == 2


@pages
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert "TODO" not in page.read_text()


def test_figures_stand_beside_their_command() -> None:
    """Percentages and factors belong into the blocks that name the command they come from."""
    text = documents.prose(README)
    for name in ("demo", "results"):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        assert text.count(begin) == text.count(end) == 1
        within = text[text.index(begin) : text.index(end)]
        assert re.search(r"classroomkd demo|python (-m )?benchmarks|make demo", within), f"{name}: say the command"
        text = text.replace(within, "")
    assert not re.findall(r"\d\s?%|\d\s?(?:×|points)", text)


def test_every_way_of_testing_is_documented_and_in_ci() -> None:
    targets = re.findall(r"^(lint|first-hour|test[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"lint", "first-hour", "test", "test-portable", "test-slow"} <= set(targets)
    for target in targets:
        assert re.search(rf"^make {target}$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
        assert re.search(rf"^make {target} ", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)


def test_every_verb_is_explained() -> None:
    everything = "\n".join(page.read_text() for page in PAGES)
    for verb in VERBS:
        assert f"classroomkd {verb}" in everything, verb


def test_recipes_that_are_named_exist() -> None:
    for page in WRITTEN:
        for name in re.findall(r"recipes/[\w/-]+\.yaml", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"


def test_tests_that_are_named_exist() -> None:
    """The errata say by which test each trap is guarded."""
    for page in WRITTEN:
        for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text()):
            assert re.search(rf"def {name}\(", (ROOT / file).read_text()), f"{page.name}: {file}::{name}"


def test_every_method_has_its_page_and_its_row() -> None:
    rows = {row["name"]: row for row in documents.table_after(README, "## Methods")}
    ours = [name for name, entry in methods.entries().items() if entry.status != "plug-in"]
    assert [re.sub(r"\[`?|`?\]\(.*\)", "", name) for name in rows] == ours
    assert {p.stem for p in METHOD_PAGES.glob("*.md")} == set(ours)
    assert "reconstructed" in rows[next(r for r in rows if "[`classroomkd`]" in r)]["status"]
    for name in ours:
        text = (METHOD_PAGES / f"{name}.md").read_text()
        for heading in ("## Rule", "## Options", "## Source and deviations", "## Cost", "## When it hurts"):
            assert f"\n{heading}\n" in text, f"{name}.md lacks {heading}"
        assert f"**Status**: {methods.METHODS[name].status}" in text


@pytest.mark.parametrize("name", list(methods.METHODS))
def test_options_and_defaults_on_a_methods_page_are_the_real_ones(name: str) -> None:
    fields = {k: f.default for k, f in methods.options_model(name).model_fields.items() if k not in methods.COMMON}
    if not fields:
        return
    table = documents.table_after(METHOD_PAGES / f"{name}.md", "## Options")
    rows = {row["option"]: row["default"].replace("`", "") for row in table}

    def written(value: object) -> str:
        text = "null" if value is None else str(value)
        return (text.lower() if text in ("True", "False") else text).removesuffix(".0")

    anywhere = methods.defaults(name)  # what null stands for, where a rule has its own

    def on_tasks(key: str) -> list[str]:
        own = {task: methods.defaults(name, task)[key] for task in offering(methods.METHODS[name].asks)}
        return [f"{task} {written(value)}" for task, value in own.items() if value != anywhere[key]]

    assert rows == {key: ", ".join([written(usual), *on_tasks(key)]) for key, usual in fields.items()}


def test_what_is_each_rules_own() -> None:
    rows = {row["rule"]: row for row in documents.table_after(METHOD_PAGES / "classroomkd.md", "### Each rule's own")}
    assert set(rows) == set(_RULES)
    for name, spec in _RULES.items():
        assert rows[name]["gate"] == spec.gate
        own = methods.defaults("classroomkd", None, {"rule": name})
        assert {key: rows[name][key] for key in ("normalise", "floor", "supervised")} == {
            key: f"{own[key]}".removesuffix(".0") for key in ("normalise", "floor", "supervised")
        }
        neutral = {"1/M": 1 / 5, "1": 1.0}[rows[name]["weight without gate"]]
        assert spec.neutral(5) == neutral
        fixed = {"4": 4.0, "1": 1.0, "1 + tau/10": 2.2}[rows[name]["fixed_temperature"]]
        assert spec.fixed(12.0) == pytest.approx(fixed)


def test_the_reference_is_up_to_date() -> None:
    path = ROOT / "docs" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.reference() == (ROOT / "docs" / "reference.md").read_text(), "run: python docs/make_reference.py"
    assert module.schema_text() == module.SCHEMA_FILE.read_text(), "run: python docs/make_reference.py"


def test_options_networks_and_metrics_of_pose_are_the_real_ones() -> None:
    page = ROOT / "docs" / "pose.md"
    rows = {row["option"]: row["default"] for row in documents.table_after(page, "## The task's options")}
    real = {key: str(field.default) for key, field in TASKS["pose"].description.options.model_fields.items()}
    assert rows == {k: (v.lower() if v in ("True", "False") else v.removesuffix(".0")) for k, v in real.items()}
    rows = {row["name"]: row for row in documents.table_after(page, "## Networks")}
    for row in pose_table():
        shown = rows.pop(row["name"])
        assert shown["parameters"] == f"{row['parameters']:,}", row["name"]
        assert shown["crop"] == "{} x {}".format(*row["size"]), row["name"]
    assert not rows
    said = page.read_text()
    for option in PERSON_OPTIONS:
        assert f"`{option}`" in said, option
    for metric in METRICS:
        assert f"`{metric}`" in said, metric


def test_the_decoders_errors_are_those_that_were_measured() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "decoders.json").read_text())
    page = ROOT / "docs" / "pose.md"
    assert f"`{record['command']}`" in page.read_text()
    text = page.read_text().partition("### Round trips")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    sizes = [cell.removesuffix(": px").replace(" ", "") for cell in rows[0][1::2]]
    shown = {(row[0], size): row[1 + 2 * i : 3 + 2 * i] for row in rows[2:] for i, size in enumerate(sizes)}
    measured = {(r["coding"], r["size"]): [f"{r['mean']:.3f}", f"{r['oks']:.4f}"] for r in record["rows"]}
    assert shown == measured


def test_every_source_and_every_view_is_described() -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    for row in data.describe_sources():
        assert f"`{row['pattern']}`" in text, row["pattern"]
    for name in data.view_names():
        assert f"`{name}`" in text, name
