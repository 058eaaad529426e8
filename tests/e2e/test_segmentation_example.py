"""examples/segmentation: a task and a data source that live outside the package and enter as plug-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import data, tasks
from classroomkd.cli.app import main
from classroomkd.data.sources import table as sources
from classroomkd.errors import UserError
from classroomkd.export import load_student

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "segmentation"
QUICK = [
    "data.options.train=60", "data.options.test=20", "train.epochs=2", "mentor_train.epochs=2", "student.samples=20",
    "seeds=[0]", "mentors=[{name: wide, model: segnet16}, {name: narrow, model: segnet8}]", "workers=2", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="module", params=["here", pytest.param("spawned", marks=pytest.mark.slow)])
def run_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A run in this process, or in processes of its own: nothing is installed, two workers are spawned."""
    home = tmp_path_factory.mktemp("segmentation")
    paths = [str(EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])]
    words = ["run", str(EXAMPLE / "figure_parts" / "demo.yaml"), *QUICK, "--out", str(home / "run"), "--quiet"]
    if request.param == "here":
        with on_the_path():
            assert main([*words, "workers=1"]) == 0
        return home / "run"
    made = subprocess.run(
        [sys.executable, "-m", "classroomkd", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return home / "run"


@contextmanager
def on_the_path() -> Iterator[None]:
    known = (tasks._plugins, tasks.find_row, sources._plugins, sources.find_entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        for cached in known:
            cached.cache_clear()
        yield
    for cached in known:
        cached.cache_clear()


@pytest.fixture(autouse=True)
def plugin() -> Iterator[None]:
    """The folder is on this process's path, too."""
    with on_the_path():
        yield


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_and_what_is_said_of_it(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((run_folder / "summary.json").read_text())
    assert (summary["task"], summary["metric"]) == ("segmentation", "mean IoU")
    assert (summary["metric_unit"], summary["higher_is_better"]) == ("fraction", True)
    assert [entry["method"] for entry in summary["entries"]] == ["none", "average", "classroomkd"]
    assert all(mentor["score"] == mentor["accuracy"] for mentor in summary["mentors"])
    teaching = json.loads((run_folder / "classroomkd" / "seed0" / "teaching.json").read_text())
    assert teaching["classes"] == ["ground", "legs", "trunk", "arms", "head"]
    rows = as_json(capsys, "compare", str(run_folder))
    assert "mean IoU" in json.dumps(rows)
    assert main(["compare", str(run_folder)]) == 0
    assert "mean IoU %" in capsys.readouterr().out
    assert main(["report", str(run_folder)]) == 0
    assert "mean IoU" in (run_folder / "report.html").read_text()


def test_students_are_scored_asked_and_exported(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from figure_parts.figures import draw

    student = str(run_folder / "average" / "seed0")
    entries = json.loads((run_folder / "summary.json").read_text())["entries"]
    score = as_json(capsys, "evaluate", student)
    assert score["accuracy"] == pytest.approx(entries[1]["test_last"])
    assert score["metrics"]["right cells"] > score["accuracy"]
    assert main(["evaluate", student, "--flip-test"]) == 2
    assert "--flip-test has no meaning for this student, whose task is segmentation" in capsys.readouterr().err
    (tmp_path / "images").mkdir()
    for index in range(2):
        Image.fromarray(draw(7, index, 48)[0].transpose(1, 2, 0)).save(tmp_path / "images" / f"{index}.png")
    assert main(["predict", student, str(tmp_path / "images"), "--json", "--draw", str(tmp_path / "drawn")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(list((tmp_path / "drawn").iterdir())) == 2
    assert all(sum(line["shares"].values()) == pytest.approx(1, abs=1e-3) for line in lines)
    assert main(["export", student, str(tmp_path / "student.safetensors")]) == 0
    assert "each cell of 4 x 4 pixels" in (tmp_path / "student.md").read_text()
    exported = load_student(tmp_path / "student.safetensors")
    assert exported.task == "segmentation"
    assert exported.module(torch.zeros(1, 3, 48, 48)).shape == (1, 5, 12, 12)
    with pytest.raises(UserError, match="--decode is for pose"):
        tasks.find_row("segmentation").open_files().graph(exported, "inside")


def test_networks_that_learn_together_answer_together(tmp_path: Path) -> None:
    from figure_parts.networks import build
    from figure_parts.runner import SegmentationRunner

    runner = object.__new__(SegmentationRunner)
    said = torch.stack([build("segnet8", 5, 3)(torch.rand(4, 3, 48, 48)) for _ in range(2)]).detach()
    torch.testing.assert_close(runner.together(said).exp(), said.softmax(2).mean(0))
    differ = (said[0].argmax(1) != said[1].argmax(1)).flatten(1).float().mean(1)
    torch.testing.assert_close(runner.apart(said), differ)
    words = [*QUICK[:2], "train.epochs=1", "seeds=[0]", "workers=1", "threads=1", "mentors=[]", "method=kdml"]
    peers = "peers=[{name: b, model: segnet8}, {name: t, model: segnet16, role: teacher}]"
    recipe = str(EXAMPLE / "figure_parts" / "demo.yaml")
    assert main(["run", recipe, *words, peers, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    (entry,) = json.loads((tmp_path / "run" / "summary.json").read_text())["entries"]
    whole = entry["variants"][-1]
    assert whole["kind"] == "ensemble"
    assert 0 <= whole["test_last"] <= 1
    assert 0 <= whole["disagreement"] <= 1
    assert "% of the test cells" in (tmp_path / "run" / "report.html").read_text()


def test_lists_and_inspect_know_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "segmentation" in {row["name"] for row in as_json(capsys, "list", "tasks")}
    assert "figure-parts" in {row["name"] for row in as_json(capsys, "list", "data")}
    assert "segnet8" in {row["name"] for row in as_json(capsys, "list", "models") if row["task"] == "segmentation"}
    assert as_json(capsys, "inspect", "segnet8")["task"] == "segmentation"


def test_views_move_the_mask_with_the_pixels() -> None:
    from figure_parts.figures import IGNORE
    from figure_parts.runner import score_cells
    from figure_parts.task import Segmentation, cells_of

    spec = {"source": "figure-parts", "options": {"train": 40, "test": 20}}
    images = data.load(spec, task="segmentation")
    pixels, target, ids = images.train.batch(torch.arange(4))
    views = data.make_views("crop_flip", view_seed=0, image_size=(48, 48), images=images)
    mirrored = torch.full((4,), 81)  # the untouched place, flipped
    moved, mask = views.render(pixels, target, ids, mirrored)
    assert torch.equal(moved, pixels.flip(-1))
    assert torch.equal(mask, target.flip(-1))
    _, mask = views.render(pixels, target, ids, torch.zeros(4, dtype=torch.int64))
    assert (mask == IGNORE).any()
    task, answer = Segmentation(), torch.randn(4, 5, 12, 12)
    assert not task.mask(mask).all()
    assert torch.equal(task.supervised(answer, mask) == 0, ~task.mask(mask))
    right = torch.nn.functional.one_hot(cells_of(target), 5).transpose(1, 2).reshape(4, 5, 12, 12).float()
    score = score_cells(right, target, 5)
    assert score.value == 1.0
    assert all(share == 1.0 for share in score.per_class if share is not None)
    assert np.isclose(score_cells(-right, target, 5).more["right cells"], 0.0)
