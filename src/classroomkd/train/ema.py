"""The moving average of the student's weights, without a question to the device in the step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average", "too_slow"]

LEFT = 0.05  # the share of its first weights that an average may end with


def too_slow(decay: float | None, updates: int) -> str:
    """What a user should read about an average that is slower than its training; empty where it is not.

    Args:
        decay: ``train.ema``.
        updates: steps of the optimiser in the whole training.
    """
    if decay is None or decay**updates <= LEFT:
        return ""
    fits = f"train.ema={1 - 10 / updates:.3g}" if updates >= 20 else "train.ema=null"
    return (
        f"train.ema={decay:g} averages over about {1 / (1 - decay):,.0f} steps and the training has {updates:,}: the "
        f"averaged student stays near its first weights; try {fits}"
    )


class Average:
    """An exponential moving average of a network's parameters and buffers.

    The first update copies, later ones move by ``1 - decay`` towards the network; integers (counts of batches) are
    copied. ``torch.optim.swa_utils.AveragedModel`` does the same and asks the device twice a step whether it is the
    first.

    Args:
        network: of whom; it is copied and left as it is.
        decay: in (0, 1).

    Attributes:
        module: the averaged network; its weights have no gradient.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights after a step of its optimiser."""
        own, new = _values(self.module), _values(network)
        moving = [i for i, value in enumerate(own) if value.is_floating_point()] if self.updates else []
        if moving:
            torch._foreach_lerp_([own[i] for i in moving], [new[i] for i in moving], 1 - self.decay)
        for i in sorted(set(range(len(own))) - set(moving)):
            own[i].copy_(new[i])
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.module.load_state_dict(state["module"])
        self.updates = int(state["updates"])


def _values(network: nn.Module) -> list[Tensor]:
    return [value.detach() for value in (*network.parameters(), *network.buffers())]
