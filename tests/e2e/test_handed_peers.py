"""Peers from Python: by name, and as modules, which are left as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import classroomkd as ck
from classroomkd.errors import UserError

KEYS: dict[str, Any] = {
    "data": {"source": "puppets", "options": {"train": 60, "test": 30, "image_size": 32}},
    "epochs": 1, "device": "cpu", "threads": 1, "seeds": (0, 1),
}  # fmt: skip


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return ck.models.create("convnet4", num_classes=10)


def test_peers_are_modules_or_names(tmp_path: Path) -> None:
    peers = {"b": network(1), "c": "convnet8", "d": {"model": network(2), "train": {"lr": 0.01}}}
    before = copy.deepcopy(peers["b"]).state_dict()  # type: ignore[union-attr]
    run = ck.distill(network(0), [], method="dml", peers=peers, out=tmp_path / "run", **KEYS)
    for entry in run.summary["entries"]:
        assert [v["name"] for v in entry["variants"]] == ["student", "b", "c", "d", "ensemble"]
    assert all(torch.equal(value, before[key]) for key, value in peers["b"].state_dict().items())  # type: ignore[union-attr]
    assert [peer["model"] for peer in run.summary["peers"]] == ["given:TinyNet", "convnet8", "given:TinyNet"]


def test_two_of_a_class_are_numbered(tmp_path: Path) -> None:
    run = ck.distill("convnet4", [], method="dml", peers=[network(1), network(2)], out=tmp_path / "run", **KEYS)
    assert [peer["name"] for peer in run.summary["peers"]] == ["TinyNet-0", "TinyNet-1"]


def test_one_peer_may_stand_alone(tmp_path: Path) -> None:
    run = ck.distill("convnet4", [], method="dml", peers=network(1), out=tmp_path / "run", **KEYS)
    assert run.summary["entries"][0]["variants"][1]["name"] == "TinyNet"


TWICE = network(1)


@pytest.mark.parametrize(
    ("peers", "sentence"),
    [
        ([ck.Mentor(network(1))], "a mentor is frozen, a peer is trained"),
        ([{"model": network(1), "copies": 2}], "would be the same network; hand over each"),
        ([3], "a peer is a int; give a model name"),
        ({"TinyNet": network(1)}, "a peer is called 'TinyNet' like a mentor"),
        ([TWICE, TWICE], "the same module is listed twice among the peers"),
        ({"b": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 7))}, "peer 'b'"),
        ({"b": network(1).requires_grad_(False)}, "nothing in"),
    ],
)
def test_what_cannot_be_a_peer_is_said_before_any_work(tmp_path: Path, peers: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ck.distill("convnet4", [network(5)], method="dml", peers=peers, out=tmp_path / "run", **KEYS)
    assert not (tmp_path / "run").exists()
