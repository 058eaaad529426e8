"""What a peer has in a training beside its network: optimiser, learning rate, average, scores; and the ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd.classroom import prediction_of
from classroomkd.train.ema import Average
from classroomkd.train.optim import learning_rate, optimizer_of, set_learning_rate
from classroomkd.train.progress import Progress

if TYPE_CHECKING:
    from classroomkd.classroom import Classroom
    from classroomkd.recipe import TrainSpec
    from classroomkd.train.checkpoint import Component

__all__ = ["Apart", "Head", "Join", "Peer", "PeerResult", "Together", "peers_of"]

Join = Callable[[Tensor], Tensor]  # of answers (M, N, …) one, as TaskRunner.together
Apart = Callable[[Tensor], Tensor]  # of answers (M, N, …) a number a sample (N,), as TaskRunner.apart


@dataclass
class Peer:
    """A peer of one training.

    Attributes:
        name: its own.
        network: that is trained.
        raw_optimizer: over its parameters.
        rate: its learning rate at an epoch.
        average: of its weights; None: there is none.
        scores: on the validation part, with its best weights.
        optimizer: the same optimiser as the runtime has wrapped it.
    """

    name: str
    network: nn.Module
    raw_optimizer: torch.optim.Optimizer
    rate: Callable[[float], float]
    average: Average | None = None
    scores: Progress = field(default_factory=Progress)
    optimizer: Any = None

    def set_rate(self, position: float) -> None:
        """Take the learning rate of an epoch, in fractions."""
        set_learning_rate(self.raw_optimizer, self.rate(position))

    def components(self) -> dict[str, Component]:
        """What makes up its state, by the name that it has in a checkpoint."""
        place = f"peers.{self.name}"
        parts: dict[str, Component] = {
            f"{place}.network": self.network,
            f"{place}.optimizer": self.raw_optimizer,
            f"{place}.scores": self.scores,
        }
        return parts if self.average is None else {**parts, f"{place}.average": self.average}

    def result(self) -> PeerResult:
        """What it leaves."""
        scores = self.scores
        averaged = None if self.average is None else self.average.module.state_dict()
        best = scores.best[0] if scores.best[1] >= 0 else None
        last = scores.history[-1].value if scores.history else None
        return PeerResult(self.network, scores.best_weights, scores.best[1], best, averaged, last)


@dataclass(frozen=True)
class PeerResult:
    """What a peer of a finished training leaves; its network holds its last weights.

    Attributes:
        network: it.
        best: its weights after the best epoch; None = nothing was scored.
        best_epoch: that epoch; -1 = none.
        best_value: its score then.
        ema: its averaged weights.
        last_value: its score with its last weights.
    """

    network: nn.Module
    best: dict[str, Tensor] | None
    best_epoch: int
    best_value: float | None
    ema: dict[str, Tensor] | None
    last_value: float | None = None


def peers_of(classroom: Classroom, specs: Mapping[str, TrainSpec], shared: TrainSpec) -> dict[str, Peer]:
    """Those that a classroom trains beside the student, before their first step.

    Args:
        classroom: it.
        specs: how each is trained; those that are not named, branches among them, as ``shared`` says, all of them at
            one rate.
        shared: the student's training.
    """
    found, networks = {}, classroom.peers.networks
    for name in classroom.learning:
        network = networks[name]
        spec = specs.get(name) or shared.model_copy(update={"freeze": (), "layer_decay": None})
        average = None if spec.ema is None else Average(network, spec.ema)
        trainable = [p for p in classroom.trained_with(name) if p.requires_grad]
        optimizer = optimizer_of(trainable, spec, network)
        found[name] = Peer(name, network, optimizer, learning_rate(spec), average)
    return found


class Head(nn.Module):
    """A student and its branches that answer by their method's head (:meth:`.Method.together`).

    Args:
        classroom: of the method.
    """

    def __init__(self, classroom: Classroom) -> None:
        super().__init__()
        self.classroom = classroom

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Their answer to a batch."""
        answer = self.classroom.together(inputs)
        assert answer is not None
        return answer


class Together(nn.Module):
    """Several networks that answer as one.

    Args:
        networks: they.
        join: of their answers (M, N, …) one (N, …).
        apart: of these the share of pairs that do not say the same, (N,); None: nobody asks.
    """

    def __init__(self, networks: Sequence[nn.Module], join: Join, apart: Apart | None = None) -> None:
        super().__init__()
        self.networks, self.join, self.apart = nn.ModuleList(networks), join, apart
        self._differ: list[Tensor] = []

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Their answer to a batch."""
        answers = torch.stack([prediction_of(network(inputs)).float() for network in self.networks])
        if self.apart is not None:
            self._differ.append(self.apart(answers))
        return self.join(answers)

    def disagreement(self) -> float | None:
        """The share of pairs that did not say the same, over all that was asked so far; waits for the device."""
        return float(torch.cat(self._differ).double().mean()) if self._differ else None
