"""The command line under torchrun, as users type it: two ranks, gloo, nothing switched off."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from classroomkd import methods, models
from classroomkd.cli.app import main
from classroomkd.tasks import offering

NAMES = sorted(name for name, entry in methods.entries().items() if "classification" in offering(entry.asks))

RECIPE = {
    "data": {"source": "puppets", "options": {"train": 60, "test": 20, "image_size": 32, "hard": 0.1}},
    "student": {"model": "convnet8"},
    "mentors": [
        {"name": "big", "model": "convnet8"},
        {"name": "help", "model": "convnet8", "taught_by": ["big"]},  # takd wants an assistant
    ],
    "train": {"epochs": 1, "batch_size": 16, "lr": 0.02},
    "device": "cpu",
    "threads": 1,
    "check_mentors": "off",
}

SLOW = pytest.mark.slow
PEERS = [{"name": "peer", "model": "convnet8"}]  # for methods that take some
TEACHERS = [{"name": "teacher", "model": "convnet8", "role": "teacher"}]


def torchrun(
    folder: Path, recipe: dict[str, Any], *more: str, options: Sequence[str] = ("--standalone",), timeout: float = 540
) -> subprocess.CompletedProcess[str]:
    """``torchrun --nproc-per-node 2 -m classroomkd run RECIPE --out FOLDER/run``."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [
        sys.executable, "-m", "torch.distributed.run", *options, "--nproc-per-node=2", "-m", "classroomkd", "run",
        str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--quiet", *more,
    ]  # fmt: skip
    return subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def check(folder: Path, names: Sequence[str]) -> None:
    entries = json.loads((folder / "run" / "summary.json").read_text())["entries"]
    assert sorted(entry["method"] for entry in entries) == sorted(names)
    for entry in entries:
        assert min(entry["step_ms"], entry["floor_ms"]) > 0, entry
        assert math.isfinite(entry["cost_ratio"]), entry
        assert entry["method"] != "none" or entry["cost_ratio"] == 1.0


# One of each kind: without a mentor, with weights, projectors, a memory, virtual steps, an assistant, peers, a teacher.
KINDS = ["none", "classroomkd", "fitnet", "crd", "mmkd", "takd", "ctslmkt", "kdml", "one", "pcl"]


@pytest.mark.parametrize("names", [pytest.param(KINDS, id="kinds"), pytest.param(NAMES, id="all", marks=SLOW)])
def test_one_run_teaches_by_every_method(tmp_path: Path, names: list[str]) -> None:
    """Methods with trainable parts of their own too, whose cost is measured against a step that does not use them."""
    done = torchrun(tmp_path, {**RECIPE, "methods": names, "peers": PEERS + TEACHERS})
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path, names)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_method_alone(tmp_path: Path, name: str) -> None:
    recipe = {**RECIPE, "methods": [name], "bank": "views=2"}
    needs = methods.create(name).needs
    if needs.views > 2:
        recipe["bank"] = f"views={needs.views}"
    if needs.takes_peers:
        recipe["peers"] = PEERS + TEACHERS * needs.teachers
    done = torchrun(tmp_path, recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path, [name])
    bank = json.loads((tmp_path / "run" / "summary.json").read_text())["bank"]
    assert bank is None or bank["forwards"] == 2 * 2 * 50  # mentors, views and samples, of both ranks


@pytest.mark.slow
def test_stages_and_frozen_selves_are_everybodys(tmp_path: Path) -> None:
    """Killed between stages, too: the ranks find the same stages finished."""
    stages = [
        {"name": "alone", "method": "none", "trainees": "all", "epochs": 1},
        {"name": "apart", "method": "kd", "trainees": "peer", "epochs": 1},
        {"name": "again", "method": ["dml", {"name": "kd", "mentor": "self-student"}], "epochs": 1, "start": "fresh"},
    ]
    mentors = [*RECIPE["mentors"], {"name": "self", "from": "alone"}]  # type: ignore[misc]
    recipe = {**RECIPE, "mentors": mentors, "peers": PEERS, "methods": [{"label": "staged", "stages": stages}]}
    done = torchrun(tmp_path, recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path, ["staged"])
    folder = tmp_path / "run" / "staged" / "seed0"
    whole = {name: load_file(folder / name) for name in ("student.safetensors", "peers/peer.safetensors")}
    for path in folder.iterdir():
        if path.name != "stages":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "stages" / "apart" / "entry.json").unlink()
    done = torchrun(tmp_path, recipe, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    for name, tensors in whole.items():
        assert all(torch.equal(value, tensors[key]) for key, value in load_file(folder / name).items())


@pytest.mark.slow
def test_one_run_teaches_joints_by_every_method(tmp_path: Path) -> None:
    """Of the last batch one rank has a single person, the other two."""
    names = sorted(name for name, entry in methods.entries().items() if "pose" in offering(entry.asks))
    recipe = {
        **RECIPE,
        "task": "pose",
        "data": {
            "source": "puppets", "size": 48, "views": "person",
            "options": {"train": 70, "test": 20, "image_size": 64, "metric": "PCK@0.2"},
        },
        "student": {"model": "simcc_tiny"},
        "mentors": [{**mentor, "model": "simcc_tiny"} for mentor in RECIPE["mentors"]],  # type: ignore[attr-defined]
        "peers": [{**peer, "model": "simcc_tiny"} for peer in PEERS + TEACHERS],
        "train": {"epochs": 1, "batch_size": 12, "optimizer": "sgd", "lr": 0.002, "drop_last": False},
    }  # fmt: skip
    done = torchrun(tmp_path, {**recipe, "methods": names})
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path, names)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "bench"])
def test_a_cost_is_measured_and_printed_once(tmp_path: Path, verb: str) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "methods": ["fitnet", "kd"]}))
    more = ["--dry-run"] if verb == "run" else []
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "classroomkd"]
    done = subprocess.run(
        [*command, verb, str(tmp_path / "recipe.yaml"), "--json", *more], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    arms = json.loads(done.stdout)["arms"]  # one object, not two
    assert all(arm["x_floor"] > 0 for arm in arms)


@pytest.mark.slow
def test_two_ranks_judge_by_the_vote_as_one_does(tmp_path: Path) -> None:
    """Pictures alone: every rank scores against the same vote, and one writes the list of pictures to label."""
    (tmp_path / "photos").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number:02}.png")
    mentors = []
    for name in ("a", "b"):
        about = {"classes": json.dumps(["left", "right", "middle"])}
        models.save_checkpoint(models.create("convnet8", 3), tmp_path / f"{name}.safetensors", about)
        mentors.append({"name": name, "model": "convnet8", "weights": str(tmp_path / f"{name}.safetensors")})
    recipe = {
        **RECIPE,
        "data": f"images:{tmp_path / 'photos'}",
        "mentors": mentors,
        "methods": ["classroomkd", "votes"],
    }
    recipe["cache"] = str(tmp_path / "cache")
    done = torchrun(tmp_path, recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path, ["classroomkd", "votes"])
    two = json.loads((tmp_path / "run" / "summary.json").read_text())
    listed = (tmp_path / "run" / "to_label.csv").read_text()
    alone = [
        "run",
        str(tmp_path / "recipe.yaml"),
        "workers=1",
        "methods=[classroomkd]",
        "--out",
        str(tmp_path / "one"),
        "--quiet",
    ]
    assert main(alone) == 0
    one = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert two["metric"] == "agreement"
    assert two["data"]["vote"] == one["data"]["vote"]
    assert [m["accuracy"] for m in two["mentors"]] == [m["accuracy"] for m in one["mentors"]]
    assert listed == (tmp_path / "one" / "to_label.csv").read_text()
