"""What a resumed run must not do: mix methods, data or processes, or believe an answer to another question."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import classroomkd as ck
from classroomkd._sums import write_listed
from classroomkd.cli.app import main


def test_another_method_under_the_same_name_is_refused(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any
) -> None:
    run = ["run", smoke, *quick, "train.epochs=1", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(run) == 0
    assert main([*run, "method.tau=1", "--resume"]) == 2
    assert "the arm 'classroomkd'" in capsys.readouterr().err
    assert main([*run, "methods=[none,classroomkd]", "--resume"]) == 0  # more arms are welcome
    made = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [e["method"] for e in made["entries"]] == ["none", "classroomkd"]


def photos(folder: Path) -> None:
    """Three classes of grey pictures."""
    for c, label in enumerate("abc"):
        (folder / label).mkdir(parents=True)
        for i in range(14):
            Image.fromarray(np.full((32, 32, 3), 20 * c + i, np.uint8)).save(folder / label / f"{i}.png")


def test_changed_images_are_refused(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    photos(tmp_path / "photos")
    words = [w for w in quick if "options" not in w and "samples" not in w]
    own = [
        f"data=imagefolder:{tmp_path / 'photos'}",
        "mentors=[]",
        "method=none",
        "train.epochs=1",
        "student.samples=null",
    ]
    run = ["run", smoke, *words, *own, "--out", str(tmp_path / "run"), "--quiet"]
    assert main(run) == 0
    (tmp_path / "photos" / "a" / "3.png").unlink()
    capsys.readouterr()
    assert main([*run, "--resume"]) == 2
    assert "other images" in capsys.readouterr().err


def test_data_may_move(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    photos(tmp_path / "photos")
    words = [w for w in quick if "options" not in w and "samples" not in w]
    words += ["mentors=[]", "method=none", "train.epochs=1", "student.samples=null", "--out", str(tmp_path / "run")]

    def run(place: str, *more: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["run", smoke, *words, f"data=imagefolder:{tmp_path / place}", "--quiet", *more])
        return code, capsys.readouterr().err

    assert run("photos")[0] == 0
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    code, said = run("elsewhere", "seeds=[0,1]", "--resume")
    assert code == 0
    assert "note: data.source: read from another place than before, with the same content" in said
    assert [e["seed"] for e in json.loads((tmp_path / "run" / "summary.json").read_text())["entries"]] == [0, 1]
    assert "another place" not in run("elsewhere", "seeds=[0,1]", "--resume")[1]  # it is the recipe's now
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "changed")
    (tmp_path / "changed" / "a" / "3.png").unlink()
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    code, said = run("changed", "--resume")
    assert code == 2
    assert "other images or another split" in said
    assert "read from another place now (data.source)" in said
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before
    (tmp_path / "run" / "data.json").unlink()
    code, said = run("changed", "--resume")
    assert code == 2
    assert "data.source differ(s)" in said
    assert run("changed", "data.val_fraction=0.3", "--resume")[0] == 2  # everything else is compared as ever
    other = main(["run", smoke, *words, "data=digits", "--quiet", "--resume"])
    assert other == 2
    assert "data.source" in capsys.readouterr().err


def test_two_processes_do_not_share_a_folder(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    import multiprocessing

    run = ["run", smoke, *quick, "method=none", "train.epochs=1", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(run) == 0
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path / "run" / ".lock"), ready, release))
    other.start()
    try:
        assert ready.wait(60)
        capsys.readouterr()
        assert main([*run, "--resume"]) == 2
        assert "another process" in capsys.readouterr().err
    finally:
        release.set()
        other.join()
    assert main([*run, "--resume"]) == 0


def hold(path: str, ready: Any, release: Any) -> None:
    with open(path, "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        ready.set()
        release.wait(60)


class Scaled(nn.Module):
    """The same tensors, another answer."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.inner(x)


def test_the_bank_tells_networks_apart_that_share_their_tensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = ck.models.create("convnet4", num_classes=10)
    data = {"source": "puppets", "options": {"train": 60, "test": 20, "image_size": 32}}
    run = ck.distill(
        "convnet4", {"sharp": Scaled(inner, 0.1), "flat": Scaled(inner, 30.0)}, data, "average", out=tmp_path / "run",
        epochs=1, bank="views=2", check_mentors="off", device="cpu", cache=str(tmp_path / "cache"),
    )  # fmt: skip
    assert [m["forwards"] for m in run.summary["mentors"]] == [100, 100]  # 50 samples, two views
    assert len(list((tmp_path / "cache" / "bank").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bank=exact", "data.views=resized_crop"], "no end"),
        (["bank=views=9999"], "views"),
        (["cache=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_what_fails_early_leaves_no_folder(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, words: list[str], expected: str
) -> None:
    assert main(["run", smoke, *quick, *words, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_damaged_records_are_named(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    run = ["run", smoke, *quick, "method=none", "train.epochs=1", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(run) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    (tmp_path / "run" / "none" / "seed0" / "entry.json").write_text("{")
    capsys.readouterr()
    assert main([*run[:-1], "--resume"]) == 0  # its checkpoint makes it again
    assert "entry.json is not what was written" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "file").write_text("")
    assert main([*run[:-3], "--out", str(tmp_path / "file"), "--quiet"]) == 2
    assert "is a file" in capsys.readouterr().err


def test_the_time_of_all_attempts_is_counted(tmp_path: Path, quick: list[str], smoke: str) -> None:
    out = tmp_path / "run"
    run = ["run", smoke, *quick, "method=none", "train.epochs=1", "--out", str(out), "--quiet"]
    assert main(run) == 0
    made = json.loads((out / "summary.json").read_text())
    write_listed(out / "summary.json", json.dumps(made | {"seconds": 1000.0}))
    assert main([*run, "seeds=[0,1]", "--resume"]) == 0
    again = json.loads((out / "summary.json").read_text())["seconds"]
    assert 1000 < again < 1100
    write_listed(out / "summary.json", json.dumps(made | {"seconds": "long"}))
    assert main([*run, "seeds=[0,1]", "--resume"]) == 0
    assert json.loads((out / "summary.json").read_text())["seconds"] < 100
