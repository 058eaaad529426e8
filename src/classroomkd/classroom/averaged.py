"""Averages of a student and its branches that take part in the loss: mean teachers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classroomkd.taps.taps import prediction_of, remove_readers, unwrapped

__all__ = ["Averaged", "Buffers"]

Buffers = Literal["copy", "own"]


class Averaged:
    """Averages of several networks, which keep sharing among themselves what these share.

    They answer as in training: a BatchNorm among them normalises by the batch. Update g (from 0) moves the parameters
    to φ · average + (1 - φ) · network with φ = min(1 - 1 / (g + 1), decay), so that the first one copies.

    Args:
        networks: a student, and its branches by name.

    Attributes:
        networks: the averages, by the same names; nothing of them requires gradients.
        updates: how many there were.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        copies = copy.deepcopy([unwrapped(network) for network in networks.values()])
        self.networks: dict[str, nn.Module] = dict(zip(networks, copies, strict=True))
        for network in self.networks.values():
            remove_readers(network)
            network.requires_grad_(False).train()
        self.updates = 0

    @torch.no_grad()
    def answers(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Their predictions ``(B, …)`` without gradient: of one batch, or each of its own."""
        each = inputs if len(inputs) > 1 else [inputs[0]] * len(self.networks)
        return tuple(prediction_of(net(x)) for net, x in zip(self.networks.values(), each, strict=True))

    @torch.no_grad()
    def update(self, networks: Mapping[str, nn.Module], decay: float, buffers: Buffers = "copy") -> None:
        """Take in what was learned.

        Args:
            networks: of whom these are averages.
            decay: the largest φ.
            buffers: ``copy``: running statistics are the networks'; ``own``: those of the averages' own passes.
        """
        phi = min(1 - 1 / (self.updates + 1), decay)
        pairs: dict[int, tuple[Tensor, Tensor]] = {}
        for name, average in self.networks.items():
            live = unwrapped(networks[name])
            pairs |= {id(a): (a, p) for a, p in zip(average.parameters(), live.parameters(), strict=True)}
            if buffers == "copy":
                for mine, theirs in zip(average.buffers(), live.buffers(), strict=True):
                    mine.copy_(theirs)
        own, new = [a for a, _ in pairs.values()], [p.detach() for _, p in pairs.values()]
        if self.updates:
            torch._foreach_lerp_(own, new, 1 - phi)
        else:
            torch._foreach_copy_(own, new)
        self.updates += 1

    def apply(self, change: Callable[[Tensor], Tensor]) -> None:
        """Follow to a device or a precision, as modules do."""
        for network in self.networks.values():
            network._apply(change)  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"networks": {name: net.state_dict() for name, net in self.networks.items()}, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.updates = int(state["updates"])
