"""What a network is known by: libraries' the same on every machine, the user's own by what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd.run import fingerprint as module
from classroomkd.run.fingerprint import network_fingerprint as fingerprint

SETUP: Any = SimpleNamespace(
    data=SimpleNamespace(shape=(3, 32, 32)), runtime=SimpleNamespace(device=torch.device("cpu"))
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return models.create("convnet4", 10)


class Scaled(nn.Module):
    """A user's wrapper whose number is no tensor."""

    def __init__(self, inside: nn.Module, scale: float) -> None:
        super().__init__()
        self.inside, self.scale = inside, scale

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.scale * self.inside(x)
        return said


def test_another_processors_last_bits_do_not_make_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    here = fingerprint(SETUP, network(), own=False)
    elsewhere = network()
    plain = type(elsewhere).forward
    monkeypatch.setattr(type(elsewhere), "forward", lambda self, x: plain(self, x) * (1 + 2**-23))
    assert fingerprint(SETUP, elsewhere, own=False) == here
    assert fingerprint(SETUP, elsewhere, own=True) != fingerprint(SETUP, Scaled(network(), 1.0), own=True)


def test_weights_layers_and_versions_make_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {fingerprint(SETUP, network(), own=False)}
    trained, thick = network(), network()
    with torch.no_grad():
        next(trained.parameters()).view(-1)[0] += 1e-6
    next(m for m in thick.modules() if isinstance(m, nn.BatchNorm2d)).eps = 1e-3
    known |= {fingerprint(SETUP, trained, own=False), fingerprint(SETUP, thick, own=False)}
    for made in ("1.0", "1.1"):
        monkeypatch.setattr(module, "version", lambda name, made=made: made)
        known.add(fingerprint(SETUP, Scaled(network(), 1.0), own=False))
    assert len(known) == 5


def test_a_users_code_is_known_by_what_it_says() -> None:
    assert fingerprint(SETUP, Scaled(network(), 1.0), own=True) == fingerprint(SETUP, Scaled(network(), 1.0), own=True)
    assert fingerprint(SETUP, Scaled(network(), 1.0), own=True) != fingerprint(SETUP, Scaled(network(), 2.0), own=True)
