"""Rows of the table of goals that need a GPU, a clone or an idle machine: what can be tried of them without."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from classroomkd.cli.app import main
from classroomkd.recipe import load_recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def shelf() -> Iterator[None]:
    """``benchmarks`` on the path, for its packages ``parts`` and ``peers``."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield
    finally:
        sys.path.remove(str(BENCHMARKS))


def cifar(folder: Path, train: int, test: int) -> Path:
    """Noise in the form of CIFAR-100's binary archive."""
    inner = folder / "cifar-100-binary"
    inner.mkdir(parents=True)
    for name, count in (("train", train), ("test", test)):
        records = torch.randint(0, 256, (count, 2 + 3072), dtype=torch.uint8)
        records[:, 1] = torch.arange(count) % 100
        (inner / f"{name}.bin").write_bytes(records.numpy().tobytes())
    (inner / "fine_label_names.txt").write_text("\n".join(f"class{k}" for k in range(100)))
    return folder


def test_the_gpu_row_runs_one_arm_of_the_shipped_recipe(
    shelf: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = importlib.import_module("parts.gpu")
    monkeypatch.setattr(gpu, "settle", lambda network: None)
    (tmp_path / "mine").mkdir()
    given = tmp_path / "mine" / "resnet20.pth"
    given.touch()
    mentors, untrained = gpu._mentors(given.parent, tmp_path)
    assert untrained == 5
    words = gpu.command(cifar(tmp_path / "data", 1, 1), mentors, tmp_path / "run")
    assert words[1:4] == ["-m", "classroomkd", "run"]
    made = load_recipe(words[4], [word for word in words[5:] if "=" in word])
    shipped = load_recipe(words[4], [f"data.source=cifar100:{tmp_path}"])
    assert [(m.name, m.model) for m in made.mentors] == [(m.name, m.model) for m in shipped.mentors]
    assert [Path(m.checkpoint) == given for m in made.mentors] == [m.name == "resnet20" for m in made.mentors]
    assert (made.seeds, made.train) == ((0,), shipped.train)
    assert made.train.epochs == 240
    (arm,) = made.arms()
    assert arm.slug in {a.slug for a in shipped.arms()}
    assert arm.slug.startswith("classroomkd")


def test_the_gpu_row_times_the_recipe(shelf: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, figures = importlib.import_module("parts.gpu"), importlib.import_module("parts.figures")
    small = tmp_path / "small.yaml"
    small.write_text(
        "data: {source: cifar100:x}\nstudent: convnet4\nmentors: [resnet8, {name: wide, model: convnet4}]\n"
        "methods: [none, {name: classroomkd, tau: 12}]\nthreads: 1\nworkers: 1\ncheck_mentors: off\n"
    )
    monkeypatch.setattr(gpu, "RECIPE", small)
    monkeypatch.setattr("classroomkd.report.write_report", lambda folder: None)

    def run(command: list[str], check: bool) -> argparse.Namespace:
        return argparse.Namespace(returncode=main(command[3:]))

    monkeypatch.setattr(gpu, "subprocess", argparse.Namespace(run=run))
    plan = figures.Plan(tmp_path, quick=True, data=cifar(tmp_path / "data", 300, 100))
    figure = gpu.minutes(plan, ["bank=views=1"]).figures["gpu_cifar100_minutes"]
    assert 0 < figure.values[0] < 2
    assert "2 of 2 mentors untrained" in figure.note
    (entry,) = json.loads((tmp_path / "cifar100" / "summary.json").read_text())["entries"]
    assert (entry["method"], entry["steps"]) == ("classroomkd", 2 * 4)
    # The run folder is there already.
    assert "ended with 2" in gpu.minutes(plan, ["bank=views=1"]).missing["gpu_cifar100_minutes"]
    plan.data = None
    assert "--data" in gpu.minutes(plan).missing["gpu_cifar100_minutes"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(figures.Skipped, match="no GPU"):
        gpu.rows(plan)


def test_peers_see_the_batches_and_answers_that_we_do(shelf: None, tmp_path: Path) -> None:
    ours, rounds = importlib.import_module("peers.ours"), importlib.import_module("peers.rounds")
    naive = importlib.import_module("peers.naive")
    args = argparse.Namespace(samples=200, batch=64, folder=tmp_path)
    given = ours.problem("convnet4", ["convnet4", "resnet8"], args)
    loader = ours.Loader(given)
    peer = naive.naive_step(given.student, list(given.mentors), loader.next)
    online, warm = ours.our_step(given, "average"), ours.our_step(given, "average", warm=True)
    assert isinstance(warm, rounds.Owing)
    first = peer()
    assert float(online()) == pytest.approx(first, rel=1e-4)
    assert float(warm()) == pytest.approx(first, rel=1e-3)  # stored in half precision
    fresh = given.feed()
    fresh.next()
    assert loader.feed.next()["ids"].tolist() == fresh.next()["ids"].tolist()
    for _ in range(4):  # an epoch of 200 images ends
        warm()


def test_a_step_bears_its_share_of_what_comes_once(shelf: None) -> None:
    rounds = importlib.import_module("peers.rounds")

    def work() -> None:
        sum(range(200_000))

    took = rounds.measure({"owing": rounds.Owing(lambda: None, work, 2), "free": lambda: None}, 3, warm_up=0)
    owed, whole = took["owing"][0], rounds._timed(work)
    assert owed[0] > 0.1 * whole[0]
    assert owed[0] > 10 * took["free"][0][0]


def test_every_clock_has_rounds_enough(shelf: None) -> None:
    steps = importlib.import_module("parts.steps")
    for file in sorted((BENCHMARKS / "parts").glob("*.py")):
        for own in re.findall(r"plan\.turns\((\d+)\)", file.read_text()):
            assert int(own) >= 21, file.name
    rounds = {case[0]: case[-1] for case in steps.CASES}
    assert min(rounds.values()) >= 21
    assert rounds["warm_over_alone_mobilenetv2"] >= 41
    assert "--rounds" not in (BENCHMARKS.parent / "Makefile").read_text()


def test_mentors_are_timed_by_both_clocks(shelf: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online, figures = importlib.import_module("parts.online"), importlib.import_module("parts.figures")
    mentors = importlib.import_module("parts.mentors")
    row = mentors.interleaved({"naive": lambda: sum(range(9999)), "again": lambda: sum(range(9999))}, "naive", 5)
    assert set(row["again"]) == {"median", "q1", "q3", "wall"}
    said = {"median": 0.7, "q1": 0.6, "q3": 0.8, "wall": 0.75, "error": 1e-7}
    names = ("again", "folded", "bf16")
    monkeypatch.setattr(online, "measure", lambda rounds, compiled: dict.fromkeys(names, said))
    found = online.rows(figures.Plan(tmp_path))
    assert found.figures["mentors_fp32_over_naive"].about()["wall"] == 0.75


def test_a_cold_read_has_a_second_one_beside_it(shelf: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, figures = importlib.import_module("parts.reading"), importlib.import_module("parts.figures")
    slabs = iter([(1.0, 1.0, 10**9), (2.0, 1.0, 10**9), (4.0, 1.0, 10**9), (1.0, 1.0, 10**9)] * 2)
    monkeypatch.setattr(reading, "FILES", 2)
    monkeypatch.setattr(reading, "_cold", lambda bank, view: next(slabs))
    monkeypatch.setattr(reading, "timed", lambda work, clock: 0.0)
    monkeypatch.setattr(reading, "measure", lambda cases, rounds: {name: [(1.0, 1.0)] * rounds for name in cases})
    figure = reading.rows(figures.Plan(tmp_path, quick=True)).figures["bank_cold_ms_per_64"]
    each = 1000 * 64 / 2048
    assert figure.values == [2 * each, 4 * each, 2 * each]  # the second view, the first, the second
    assert figure.again == [0.5, 0.25, 0.5]


def test_the_authors_loop_runs_in_the_environment_that_was_named(
    shelf: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rivals, figures = importlib.import_module("parts.rivals"), importlib.import_module("parts.figures")
    called: list[list[str]] = []
    row = {"median": 0.5, "q1": 0.4, "q3": 0.6}
    names = ("online_fp32", "online_bf16", "warm")
    ratios = {f"{name}_over_classroomkd_authors": row for name in names} | {"aa_classroomkd_authors": row}
    said = {"ratios": ratios, "wall_ratios": ratios, "peer": {"repository": "theirs", "commit": "0123456789abcdef"}}

    def run(command: list[str], **options: Any) -> Any:
        called.append(command)
        lacking = [] if command[0] == "peer-python" else ["einops"]
        return argparse.Namespace(
            stdout=json.dumps(said | {"settings": {"rounds": 21, "samples": 50_000, "stand_ins": lacking}})
        )

    monkeypatch.setattr(subprocess, "run", run)
    plan = figures.Plan(tmp_path, clones={"classroomkd": tmp_path}, peer_python="peer-python")
    theirs = rivals.classroomkd(plan).figures["warm_over_classroomkd_loop"].note
    plan.peer_python = None
    here = rivals.classroomkd(plan).figures["warm_over_classroomkd_loop"].note
    assert [command[0] for command in called] == ["peer-python", sys.executable]
    assert called[0][called[0].index("--samples") + 1] == "50000"
    assert "in the peers' environment; both sides crop and flip" in theirs
    assert "slab of 50,000 images" in theirs
    assert "without --peer-python, stand-ins for einops" in here
