"""Kinds of bad input: each ends in one sentence with the place and a remedy, before any work, and leaves nothing."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from spoken import ending

from classroomkd import models
from classroomkd.cli.app import main

RECIPE = """\
data: {source: "imagefolder:photos", size: 32}
student: convnet4
mentors: [{name: big, model: convnet8, train: {epochs: 1}}]
method: average
train: {epochs: 1, batch_size: 8}
workers: 1
threads: 1
device: cpu
"""


def photos(folder: Path, classes: int = 2, each: int = 6) -> Path:
    for number in range(classes):
        (folder / f"kind{number}").mkdir(parents=True)
        for i in range(each):
            noise = np.random.default_rng(10 * number + i).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"kind{number}" / f"{i}.png")
    return folder


def people(folder: Path, change: Callable[[dict[str, Any]], object] = lambda scene: None) -> None:
    """A COCO folder of six pictures with a person each."""
    scene: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in range(1, 7)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [4, 3, 20, 22], "area": 300, "iscrowd": 0,
             "keypoints": [8, 6, 2, 10, 12, 2, 14, 20, 2]} for i in range(1, 7)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_hip", "right_hip"], "skeleton": []}],
    }  # fmt: skip
    change(scene)
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "annotations" / "people.json").write_text(json.dumps(scene))
    for i in range(1, 7):
        Image.fromarray(np.full((30, 40, 3), 20 * i, np.uint8)).save(folder / "images" / f"{i}.png")


def weights(classes: int = 2, **more: Any) -> dict[str, torch.Tensor]:
    return {**models.create("convnet8", num_classes=classes).state_dict(), **more}


def changed(name: str, value: Any) -> Callable[[Path], object]:
    """A checkpoint one of whose tensors is another."""

    def write(here: Path) -> None:
        state = weights()
        key = next(iter(state))
        state[key] = value(state[key]) if callable(value) else value
        torch.save(state, here / name)

    return write


def loaded(file: str) -> list[str]:
    return ["mentors=[{name: big, model: convnet8, checkpoint: %s}]" % file]  # noqa: UP031


POSE = ["pose/puppets", "data.source=coco-keypoints:people", "data.size=[32,24]", "data.options={}"]
KINDS: dict[str, tuple[Callable[[Path], object] | None, list[str], str]] = {
    # name: (what is put into the folder, the words after `run r.yaml`, what the sentence must name)
    "no such key": (None, ["train.epoch=3"], "'epochs'"),
    "no such section": (None, ["trian.epochs=3"], "train"),
    "no such method": (None, ["method=clasroomkd"], "classroomkd"),
    "no such option": (None, ["method={name: classroomkd, tua: 3}"], "tau"),
    "no such model": (None, ["student=resnet9"], "resnet"),
    "no such library": (None, ["student=tim:resnet18"], "timm"),
    "no such timm model": (None, ["student=timm:resnet81"], "timm"),
    "no such source": (None, ["data.source=imagefoldr:photos"], "imagefolder"),
    "no such folder": (None, ["data.source=imagefolder:fotos"], "fotos"),
    "no such task": (None, ["task=pse"], "pose"),
    "no such view": (None, ["data.views=flop"], "data.views"),
    "no such optimiser": (None, ["train.optimizer=adm"], "train.optimizer"),
    "no such device": (None, ["device=cuda:99"], "device"),
    "no such bank": (None, ["bank=view=3"], "bank"),
    "text for a number": (None, ["train.lr=fast"], "train.lr"),
    "negative epochs": (None, ["train.epochs=-1"], "train.epochs"),
    "no epochs": (None, ["train.epochs=0"], "train.epochs"),
    "negative rate": (None, ["train.lr=-0.1"], "train.lr"),
    "infinite rate": (None, ["train.lr=.inf"], "train.lr"),
    "a decay above one": (None, ["train.ema=1.5"], "train.ema"),
    "no batch": (None, ["train.batch_size=0"], "train.batch_size"),
    "an enormous size": (None, ["data.size=1000000"], "data.size"),
    "a tiny size": (None, ["data.size=2"], "data.size"),
    "two sizes for classes": (None, ["data.size=[32,24]"], "data.size"),
    "no seeds": (None, ["seeds=[]"], "seeds"),
    "a negative seed": (None, ["seeds=[-1]"], "seeds"),
    "the same seed twice": (None, ["seeds=[1,1]"], "seeds"),
    "no mentor for a method that needs one": (None, ["mentors=[]"], "mentor"),
    "two mentors of one name": (None, ["mentors=[{name: a, model: convnet4}, {name: a, model: convnet8}]"], "mentors"),
    "a mentor called student": (None, ["mentors=[{name: student, model: convnet8}]"], "student"),
    "two channels of a mean": (None, ["mentors.0.mean=[0.5,0.5]", "mentors.0.std=[0.5,0.5]"], "mentors.0.mean"),
    "a mean without a std": (None, ["mentors.0.mean=[0.5,0.5,0.5]"], "std"),
    "a std of zero": (None, ["mentors.0.mean=[0.5,0.5,0.5]", "mentors.0.std=[0,0,0]"], "std"),
    "a tap that is not there": (None, ["method=at", "student.taps={'@stage:-1': layer9}"], "layer9"),
    "an override without a value": (None, ["train.lr"], "train.lr"),
    "an override that is no yaml": (None, ["seeds=[1"], "seeds"),
    "broken yaml": (lambda here: (here / "r.yaml").write_text("data: [\n"), [], "r.yaml"),
    "yaml that is a list": (lambda here: (here / "r.yaml").write_text("- a\n"), [], "r.yaml"),
    "an empty recipe": (lambda here: (here / "r.yaml").write_text(""), [], "r.yaml"),
    "a recipe in another encoding": (lambda here: (here / "r.yaml").write_bytes(b"name: \xff\xfe\n"), [], "r.yaml"),
    "tabs in a recipe": (lambda here: (here / "r.yaml").write_text("train:\n\tlr: 1\n"), [], "r.yaml"),
    "a key twice": (lambda here: (here / "r.yaml").write_text(RECIPE + "device: cpu\n"), [], "device"),
    "a schema to come": (lambda here: (here / "r.yaml").write_text("schema: 99\n" + RECIPE), [], "schema"),
    "code that is not trusted": (None, ["student=py:os:getcwd"], "--trust-code"),
    "a checkpoint that is not there": (None, loaded("gone.pth"), "gone.pth"),
    "a checkpoint of other classes": (
        lambda here: torch.save(weights(7), here / "w.pth"), loaded("w.pth"), "w.pth"),
    "a checkpoint of another network": (
        lambda here: torch.save(models.create("vgg8", num_classes=2).state_dict(), here / "w.pth"),
        loaded("w.pth"), "w.pth"),
    "a checkpoint cut off": (
        lambda here: (torch.save(weights(), here / "a"), (here / "w.pth").write_bytes((here / "a").read_bytes()[:999])),
        loaded("w.pth"), "w.pth"),
    "an empty checkpoint": (lambda here: (here / "w.pth").write_bytes(b""), loaded("w.pth"), "w.pth"),
    "a checkpoint that is text": (
        lambda here: (here / "w.pth").write_text("version https://git-lfs"), loaded("w.pth"), "w.pth"),
    "a whole pickled module": (
        lambda here: torch.save(torch.nn.Linear(2, 2), here / "w.pth"), loaded("w.pth"), "w.pth"),
    "a safetensors head too long": (
        lambda here: (here / "w.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}"),
        loaded("w.safetensors"), "w.safetensors"),
    "a checkpoint that is a folder": (
        lambda here: (here / "w.pth").mkdir(), loaded("w.pth"), "w.pth"),
    "weights that are not finite": (
        changed("w.pth", lambda value: value * float("nan")), loaded("w.pth"), "finite"),
    "weights of whole numbers": (
        changed("w.pth", lambda value: value.to(torch.int8)), loaded("w.pth"), "int8"),
    "weights that are bool": (
        changed("w.pth", lambda value: value > 0), loaded("w.pth"), "bool"),
    "a checkpoint of nothing": (lambda here: save_file({}, here / "w.safetensors"),
                                loaded("w.safetensors"), "w.safetensors"),
    "a picture that is none": (
        lambda here: (here / "photos" / "kind0" / "0.png").write_text("not a picture"), [], "0.png"),
    "a picture cut off": (
        lambda here: (here / "photos" / "kind0" / "0.png").write_bytes(
            (here / "photos" / "kind0" / "1.png").read_bytes()[:200]), [], "0.png"),
    "an empty class": (lambda here: (here / "photos" / "none").mkdir(), [], "none"),
    "one class": (None, ["data.source=imagefolder:photos/kind0"], "photos/kind0"),
    "a file for a folder": (None, ["data.source=imagefolder:r.yaml"], "r.yaml"),
    "a folder of no pictures": (lambda here: (here / "empty" / "a").mkdir(parents=True),
                                ["data.source=imagefolder:empty"], "empty"),
    "a limit below the classes": (None, ["data.limit=1"], "data.limit"),
    "parts that leave nothing": (None, ["data.val_fraction=1.0"], "data.val_fraction"),
    "one sample a batch under batch norm": (None, ["train.batch_size=1", "student=timm:mobilenetv3_small_100",
                                                   "data.size=32"], "batch_size"),
    "a metric that the people do not allow": (
        people, [*POSE, "data.options.metric=PCKh@0.5"], "data.options.metric"),
    "a metric that is none": (people, [*POSE, "data.options.metric=best"], "data.options.metric"),
    "annotations of no joints": (
        lambda here: people(here, lambda scene: scene["categories"][0].pop("keypoints")), POSE, "people.json"),
    "keypoints of another skeleton": (
        lambda here: people(here, lambda scene: scene["annotations"][0].update(keypoints=[1, 2, 2])), POSE,
        "keypoints"),
    "pictures that are gone": (
        lambda here: people(here, lambda scene: [image.update(file_name=f"x{image['id']}.png")
                                                 for image in scene["images"]]), POSE, "x1.png"),
    "a skeleton that is not theirs": (people, [*POSE, "data.options.skeleton=mpii"], "data.options.metric"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_ends_in_one_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    put, words, named = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    photos(tmp_path / "photos")
    if put is not None:
        put(tmp_path / "people" if put is people else tmp_path)
        if words[: len(POSE)] == POSE and not (tmp_path / "people").exists():
            (tmp_path / "people").mkdir()
            for name in ("annotations", "images"):
                (tmp_path / name).rename(tmp_path / "people" / name)
    recipe = [] if words[:1] == POSE[:1] else ["r.yaml"]
    before = sorted(tmp_path.iterdir())
    code = main(["run", *recipe, *words, "--out", "run", "--quiet"])
    said = ending(capsys)
    assert code == 2, said
    assert said.startswith("error: "), said
    assert named in said, said
    assert "should not happen" not in said
    assert "object at 0x" not in said
    # One sentence; a list of mistakes and a short table are more lines of it, each of them to the point.
    assert len(said.splitlines()) <= 8, said
    assert not (tmp_path / "run" / "summary.json").exists()
    assert sorted(path for path in tmp_path.iterdir() if path.name not in ("run", ".cache")) == before


def test_there_are_sixty() -> None:
    assert len(KINDS) >= 60
