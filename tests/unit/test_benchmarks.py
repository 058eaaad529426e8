"""The benchmark of all methods: what is trained and when, rows from students, tables from rows. Nothing is trained."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from classroomkd import data
from classroomkd import methods as table
from classroomkd.recipe import load_recipe
from classroomkd.tasks import offering

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """A script of the folder as a module, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


bench_methods, render = load("methods"), load("render")
planning = sys.modules["methods_plan"]


@pytest.fixture
def first_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table as it was when every method had version 1."""
    for name, entry in table.entries().items():
        monkeypatch.setitem(table.entries(), name, entry._replace(version=1))


def finish(out: Path, batch: Any, score: float | dict[str, float] = 0.5, cost: float = 1.0) -> None:
    """What a run leaves of a batch's students; ``score`` of all, or by label (0.5 where it says nothing)."""

    def score_of(label: str) -> float:
        return score if isinstance(score, float) else score.get(label, 0.5)

    for arm, label, options in batch.students:
        folder = out / batch.folder / label.replace(" ", "-")
        for seed in batch.seeds:
            (folder / f"seed{seed}").mkdir(parents=True, exist_ok=True)
            entry = {"test_last": score_of(label) + seed / 1000, "val_last": score_of(label), "cost_ratio": cost}
            (folder / f"seed{seed}" / "entry.json").write_text(json.dumps(entry))
        parts = [[e["name"], {k: v for k, v in e.items() if k != "name"}] for e in arm.spec(options, label)]
        (folder / "arm.json").write_text(json.dumps(parts))


def labels(batch: Any) -> list[str]:
    return [label for _, label, _ in batch.students]


ARMS = {arm.label: arm for arm in planning.ARMS}
TWO = [ARMS["average"], ARMS["kd best"], ARMS["kd best matched"]]


def test_arms_are_distinct_and_cover_the_methods() -> None:
    assert len(ARMS) == len(planning.ARMS)
    used = {entry["name"] for arm in planning.ARMS for entry in arm.entries} | {"none"}
    assert used == {name for name, entry in table.METHODS.items() if "classification" in offering(entry.asks)} - {
        "weighted"
    }
    assert all(label.replace(" ", "").isalnum() for label in ARMS)  # folders are found by label


@pytest.mark.usefixtures("first_versions")
def test_every_arm_tries_three_settings_and_is_a_recipe(tmp_path: Path) -> None:
    bench = planning.Bench(tmp_path, quick=bench_methods.SMOKE)
    for arm in TWO:
        tried = arm.candidates()
        assert len({json.dumps(c) for c in tried}) == 3
        recipe = bench.recipe([arm.spec(c, f"{arm.label} {i}") for i, c in enumerate(tried)], *arm.changes)
        assert [a.slug for a in recipe.arms()] == [f"{arm.label} {i}".replace(" ", "-") for i in range(3)]
    assert ARMS["rkd"].candidates() == [{"weight": 0.1}, {"weight": 1.0}, {"weight": 10.0}]
    with pytest.raises(Exception, match="no option 'nonsense'"):
        planning.Arm("kd", ({"name": "kd"},), "nonsense").candidates()


@pytest.mark.usefixtures("first_versions")
def test_plan_tunes_first_then_goes_seed_by_seed_native_before_matched(tmp_path: Path) -> None:
    bench, seen = planning.Bench(tmp_path), []
    for batch in planning.plan(bench, TWO, [0, 1], epochs=6):
        if not bench.missing(batch):
            continue
        seen.append((batch.folder, batch.seeds, labels(batch)))
        finish(tmp_path, batch, cost=2.5 if "kd best 0" in labels(batch) else 1.0)
    tries = [f"{arm} {i}" for arm in ("average", "kd best") for i in range(3)]
    assert seen == [
        ("tune-none-0.025", (100,), ["none"]),
        ("tune-none-0.05", (100,), ["none"]),
        ("tune-none-0.1", (100,), ["none"]),
        ("none-0.025", (0, 1), ["none"]),
        ("tune", (100,), tries),
        ("students", (0,), ["average", "kd best"]),
        ("students", (1,), ["average", "kd best"]),
        ("none-0.025-epochs15", (0, 1), ["none"]),
        ("tune", (100,), [f"kd best matched {i}" for i in range(3)]),
        ("students", (0,), ["kd best matched"]),
        ("students", (1,), ["kd best matched"]),
    ]


@pytest.mark.usefixtures("first_versions")
def test_a_cut_plan_goes_on_where_it_was(tmp_path: Path) -> None:
    bench = planning.Bench(tmp_path)
    every = planning.plan(bench, TWO, [0, 1], epochs=6)
    for _ in range(6):
        finish(tmp_path, next(b for b in every if bench.missing(b)))
    cut = next(b for b in every if bench.missing(b))
    assert (cut.folder, cut.seeds, labels(cut)) == ("students", (1,), ["average", "kd best"])
    finish(tmp_path, planning.Batch(cut.folder, cut.seeds, cut.students[:1]))
    again = next(b for b in planning.plan(bench, TWO, [0, 1], epochs=6) if bench.missing(b))
    assert again == cut
    assert [label for _, label, _ in bench.missing(again)] == ["kd best"]


@pytest.mark.usefixtures("first_versions")
def test_the_best_candidate_is_used_and_failed_students_are_left(tmp_path: Path) -> None:
    bench, arm = planning.Bench(tmp_path), ARMS["average"]
    for i, score in ((0, 0.3), (2, 0.6)):
        finish(tmp_path, planning.Batch("tune", (100,), ((arm, f"average {i}", {}),)), score)
    (tmp_path / "failures.json").write_text(json.dumps({"tune/average 1/100": "the term 'distilled' is not finite"}))
    batches = list(planning.plan(bench, [arm], [0], epochs=6, alone=False))
    assert bench.chosen(arm) == 2
    assert [bench.missing(b) for b in batches[:1]] == [[]]  # nothing of the tuning is tried again
    assert batches[-1].students == ((arm, "average", {"temperature": 8}),)
    assert planning.Bench(tmp_path, troubles={"average": "?"}).missing(batches[-1]) == []


@pytest.mark.usefixtures("first_versions")
def test_students_of_an_older_version_are_not_taken_for_todays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, arms = planning.Bench(tmp_path), [ARMS["average"], ARMS["kd best"]]
    for batch in planning.plan(bench, arms, [0], epochs=6):
        finish(tmp_path, batch)
    assert not any(bench.missing(batch) for batch in planning.plan(bench, arms, [0], epochs=6))
    before = bench_methods.collect(bench, [0], 6, {})
    monkeypatch.setitem(table.entries(), "kd", table.entries()["kd"]._replace(version=2))
    lacking = next(b for b in planning.plan(bench, arms, [0], epochs=6) if bench.missing(b))
    assert [label for _, label, _ in bench.missing(lacking)] == [f"kd best v2 {i}" for i in range(3)]
    assert [row["arm"] for row in bench_methods.collect(bench, [0], 6, {})["rows"]][-1] == "average"
    # Figures that were made before say so, whether they know versions or are from before there were any.
    for row in before["rows"]:
        for forgetful in ({}, {"versions": None}):
            said = "\n".join(render.table([row | forgetful]))
            assert ("(version 1 of kd, now 2)" in said) == (row["arm"] == "kd best")


def scores(*values: float) -> dict[int, dict[str, float]]:
    return {seed: {"test_last": value, "cost_ratio": 2.0} for seed, value in enumerate(values)}


def test_rows_are_paired_by_seed() -> None:
    row = bench_methods.row("kd", "native", scores(0.6, 0.7), scores(0.5, 0.61, 0.9), scores(0.65))
    assert (row["n"], row["seeds"], row["cost_ratio"]) == (2, [0, 1], 2.0)
    assert row["mean"] == pytest.approx(0.65)
    assert row["vs none"][0] == pytest.approx(0.095)
    assert row["vs none"][1] < row["vs none"][0] < row["vs none"][2]
    assert row["vs average"] == [pytest.approx(-0.05), None, None]
    assert row["pairs with none"] == 2


@pytest.mark.usefixtures("first_versions")
def test_results_and_tables_come_from_what_is_there(tmp_path: Path) -> None:
    bench = planning.Bench(tmp_path)
    empty = bench_methods.collect(bench, [0, 1], 6, {})
    assert empty["rows"] == []
    assert render.every_method(empty) == []
    for batch in planning.plan(bench, TWO, [0, 1], epochs=6):
        finish(tmp_path, batch, {"kd best": 0.4, "kd best matched": 0.6})
    file = tmp_path / "students" / "kd-best" / "seed1" / "entry.json"
    file.write_text(json.dumps({"test_last": 0.403, "val_last": 0.4, "cost_ratio": 1.25}))
    (tmp_path / "students" / "average" / "seed1" / "entry.json").unlink()
    found = bench_methods.collect(bench, [0, 1], 6, {"crd": "no such option"})
    assert [(r["arm"], r["strength"], r["n"]) for r in found["rows"]] == [
        ("none", "native", 2),
        ("none, 6 epochs", "native", 2),
        ("average", "native", 1),
        ("kd best", "native", 2),
        ("kd best", "matched", 2),
    ]
    assert found["rows"][3]["setting"] == {"temperature": 2}
    text = "\n".join(render.every_method(found))
    native, _, matched = text.partition("### Matched strength")
    row = next(line for line in native.splitlines() if line.startswith("| kd best |"))
    assert row.startswith("| kd best | 2 | 40.15 ± 0.21 | ▼ -9.90 [-11.17, -8.63] | -10.00 (one seed) | 1.12 | temp")
    assert native.index("| average |") < native.index("| kd best |")  # the best on top
    assert "Not complete (fewer than 2 seeds): average." in text
    assert "Not trained: crd." in text
    assert "| average | 1 |" in matched  # its native weights sum to 1
    assert "| kd best | 2 |" in matched


def test_tables_and_pages_are_those_of_the_results() -> None:
    """``python benchmarks/render.py`` has been run since the results changed."""
    files = render.rendered()
    assert any(file.parent.name == "methods" for file in files)
    for file, text in files.items():
        assert file.read_text() == text, f"{file.name}: run python benchmarks/render.py"


@pytest.mark.usefixtures("first_versions")
def test_a_method_s_page_gets_its_rows_once(tmp_path: Path) -> None:
    row = {"n": 5, "mean": 0.5, "sd": 0.01, "vs none": [0.02, 0.01, 0.03], "cost_ratio": 1.5, "strength": "native"}
    result = {"rows": [{"arm": name, **row} for name in ("kd best", "none, 9 epochs", "camkd with dist")]}
    result |= {"student": {"model": "resnet8"}, "mentors": [1, 2], "epochs": 3, "command": "make it"}
    (tmp_path / "methods.json").write_text(json.dumps(result))
    joints = {"arm": "kd best", "n": 3, "PCK@0.2": row, "AP_gtbox": row, "cost_ratio": None}
    (tmp_path / "pose.json").write_text(json.dumps(result | {"rows": [joints]}))
    for name in ("kd", "none", "camkd", "fitnet"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\n## Tests\n\nnone\n")
    for _ in range(2):
        for file, text in render.pages(tmp_path, tmp_path).items():
            file.write_text(text)
    page = (tmp_path / "kd.md").read_text()
    assert (
        page.count("## Measured") == page.count("| kd best | native | 5 | 50.00 ± 1.00 | ▲ +2.00 [1.00, 3.00] |") == 1
    )
    assert page.count("| kd best | 3 | 50.00 ± 1.00 | ▲ +2.00 [1.00, 3.00] | – | 50.00 | – |") == 1
    assert page.endswith("<!-- /rows -->\n\n## Tests\n\nnone\n")
    assert "| none, 9 epochs |" in (tmp_path / "none.md").read_text()
    assert "| camkd with dist |" in (tmp_path / "camkd.md").read_text()
    assert "Measured" not in (tmp_path / "fitnet.md").read_text()


def test_accuracy_of_the_bank_is_paired_by_seed_and_waits_for_all_seeds(tmp_path: Path) -> None:
    bench = load("accuracy")
    quality = sys.modules["parts.quality"] if "parts.quality" in sys.modules else load("parts/quality")
    name = "at_least_accuracy_views_8_points"

    def finish(bank: str, seeds: int, base: float) -> None:
        for seed in range(seeds):
            folder = tmp_path / bank / "classroomkd" / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "entry.json").write_text("{}")
            accuracy = base + seed / 100 + seed % 2 / 1000
            (folder / "unseen.json").write_text(json.dumps({"accuracy": accuracy, "images": 9500}))

    def told() -> Any:
        file = tmp_path / "accuracy.json"
        file.write_text(json.dumps(bench.collect(tmp_path, "classroomkd")))
        return quality.accuracy(file)

    assert "takes hours" in quality.accuracy(tmp_path / "nothing.json").missing[name]
    finish("exact", 6, 0.50)
    finish("views=8", 6, 0.51)
    finish("off", 2, 0.49)
    assert "not all of 14 seeds yet; less exact" in told().missing[name]
    assert "+1.00 points" in told().missing[name]
    finish("exact", 14, 0.50)
    finish("views=8", 14, 0.51)
    figure = told().figures[name]
    assert figure.values[0] == pytest.approx(1.0)
    assert figure.note.startswith("less exact")
    assert figure.note.endswith("n = 14 seeds, judged on 9,500 images")
    finish("off", 14, 0.49)
    assert told().figures[name].note.startswith("less online: +2.00 points")
    scale = load("scale")
    for few, shown in ((2, False), (3, True)):
        finish("views=8,top=5", few, 0.48)
        told()
        rows = scale.table_of_students({"students": json.loads((tmp_path / "accuracy.json").read_text())})
        assert ("Not measured" not in rows[0]) == shown
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["all logits", "top-5"]
    assert "-3.00 [-3.00, -3.00], n = 3" in rows[-1]


def test_the_settings_of_the_bank_are_told_apart() -> None:
    assert load("accuracy").named("exact, views=8,views=8,top=5") == ["exact", "views=8", "views=8,top=5"]


def test_accuracy_of_the_bank_is_judged_on_images_that_no_one_was_taught_on(tmp_path: Path) -> None:
    bench = load("accuracy")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "data: {source: puppets, limit: 30, val_fraction: 0.2, options: {train: 80, test: 20}}\n"
        "student: convnet4\nmentors: [{name: big, model: resnet8}]\nmethods: [average]\n"
    )
    test, *spare = bench.unseen(recipe)
    taught = data.load(load_recipe(str(recipe)).data)
    assert len(taught.train) + len(taught.val) == 30
    assert len(test) == 20
    found = torch.cat([part.ids for part in spare]).tolist()
    assert len(found) == len(set(found)) == 50
    assert not set(found) & set(torch.cat([taught.train.ids, taught.val.ids]).tolist())
