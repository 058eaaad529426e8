"""Pictures without labels, bit by bit: hidden labels, stored answers, a training that goes on within an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from banked import furthest
from colours import Colours
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import Dataset
from unlabelled import Channels, killed_within_an_epoch, photos, small

import classroomkd as ck

SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.05, "device": "cpu"}


class Relabelled(Dataset[tuple[Image.Image, int]]):
    """Colours with labels of one's own."""

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels, self.of = labels, Colours(len(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return self.of[i][0], self.labels[i]


class Alone(Dataset[Image.Image]):
    """Colours without labels."""

    def __init__(self, n: int) -> None:
        self.of = Colours(n)

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, i: int) -> Image.Image:
        return self.of[i][0]


def taught(root: Path, name: str, data: Any, method: Any = "classroomkd", **more: Any) -> dict[str, torch.Tensor]:
    """The student of one arm."""
    mentors = {"sure": Channels(6.0), "unsure": Channels(0.7)}
    settings = {**SHORT, "cache": str(root / "cache"), **more}
    run = ck.distill(small(), mentors, data, method, out=root / name, **settings)
    found: dict[str, torch.Tensor] = load_file(
        run.folder / run.summary["arms"][0]["folder"] / "seed0/student.safetensors"
    )
    return found


def kept(labels: Sequence[int]) -> list[int]:
    """Ids of the training samples that keep their label."""
    part = ck.data.load(with_labels(labels)).train
    found: list[int] = part.ids[part.labelled].tolist()
    return found


def with_labels(labels: Sequence[int]) -> dict[str, Any]:
    names = ("red", "green", "blue")
    parts = {"train": Relabelled(labels), "val": Colours(9), "test": Colours(9)}
    return {**parts, "classes": names, "labels": {"share": 0.25}}


@pytest.mark.parametrize(
    "method", ["classroomkd", pytest.param({"name": "camkd", "feature_weight": 0}, marks=pytest.mark.slow), "votes"]
)
def test_a_hidden_label_reaches_no_loss(tmp_path: Path, method: Any) -> None:
    labels = [i % 3 for i in range(48)]
    shown = kept(labels)
    others = [i for i in range(48) if i not in shown]
    for i, k in ((i, k) for i in others for k in others if labels[i] < labels[k]):
        swapped = list(labels)
        swapped[i], swapped[k] = labels[k], labels[i]
        if kept(swapped) == shown:
            break
    assert swapped != labels
    first = taught(tmp_path, "first", with_labels(labels), method, bank="off")
    again = taught(tmp_path, "again", with_labels(swapped), method, bank="off")
    assert furthest(first, again) == 0
    seen = list(labels)
    seen[shown[0]], seen[shown[-1]] = labels[shown[-1]], labels[shown[0]]
    assert kept(seen) == shown
    assert seen != labels
    assert furthest(first, taught(tmp_path, "seen", with_labels(seen), method, bank="off")) > 0


@pytest.mark.parametrize("ratio", [pytest.param(None, marks=pytest.mark.slow), 2.0])
def test_stored_answers_teach_pictures_without_labels_as_asked_ones(tmp_path: Path, ratio: float | None) -> None:
    data = {"train": Colours(24), "val": Colours(9), "test": Colours(9), "unlabelled": Alone(40), "views": "none"}
    online, stored, again = (
        taught(tmp_path, name, data, bank=bank, unlabelled_ratio=ratio)
        for name, bank in (("online", "off"), ("stored", "exact"), ("again", "exact"))
    )
    assert furthest(stored, again) == 0
    assert furthest(online, stored) < 0.01  # answers are stored in half precision
    assert furthest(online, taught(tmp_path, "alone", data, "none", unlabelled_ratio=ratio)) > 0.01


def test_a_training_goes_on_within_an_epoch_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"train": Colours(24), "val": Colours(9), "test": Colours(9), "unlabelled": Alone(40)}
    more = {"unlabelled_ratio": 2.0, "outliers": 0.5, "bank": "off", "log_every": 2}
    whole = taught(tmp_path, "whole", data, **more)
    with killed_within_an_epoch(monkeypatch):
        taught(tmp_path, "cut", data, **more)
    went_on = taught(tmp_path, "cut", data, resume=True, **more)
    assert furthest(whole, went_on) == 0
    assert (tmp_path / "cut" / "to_label.csv").exists()


def test_a_dataset_without_targets_is_taught_by_one_call(tmp_path: Path) -> None:
    run = ck.distill(
        small(), [Channels(6.0), Channels(0.7)], Alone(60), out=tmp_path / "run", cache=str(tmp_path / "c"), **SHORT
    )
    assert run.summary["metric"] == "agreement"
    assert run.summary["data"]["labelled"] == 0
    assert next(iter(run.summary["unlabelled"]["first"][0])) == "id"


def test_a_folder_and_a_dataset_are_the_same_pictures(tmp_path: Path) -> None:
    source = f"images:{photos(tmp_path / 'photos', 48)}"
    assert furthest(taught(tmp_path, "files", source), taught(tmp_path, "items", Alone(48))) == 0
