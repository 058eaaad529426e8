"""Optimisers and learning-rate schedules, as functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd.train.parts import groups, one_rule

if TYPE_CHECKING:
    from classroomkd.classroom import Classroom
    from classroomkd.recipe import TrainSpec

__all__ = ["build_optimizer", "learning_rate", "milestones", "optimizer_of", "set_learning_rate", "whole_rate"]


def build_optimizer(
    classroom: Classroom, spec: TrainSpec, example: Callable[[], Tensor] | None = None
) -> torch.optim.Optimizer:
    """SGD or AdamW over all parameters that require gradients, fused where device and precision allow it.

    Not in fp16: its scaler skips steps, a skipped first step leaves the fused SGD's momentum unset, and Fabric clips no
    gradients for an optimiser that unscales by itself.
    Those that the method updates by itself (``Method.meta_parameters``), and those of peers, are left out. Weight decay
    acts on all of them, biases and norms included, as in the benchmark recipes, unless ``no_decay`` says otherwise;
    ``layer_decay`` gives stages rates of their own, for which ``example`` gives a batch of the student's inputs.
    """
    others = (p for name in classroom.peers.networks for p in classroom.trained_with(name))
    own = {id(p) for part in (classroom.method.meta_parameters(), others) for p in part}
    trainable = [p for p in classroom.parameters() if p.requires_grad and id(p) not in own]
    return optimizer_of(trainable, spec, classroom, classroom.student, example)


def optimizer_of(
    trainable: list[nn.Parameter],
    spec: TrainSpec,
    whole: nn.Module,
    student: nn.Module | None = None,
    example: Callable[[], Tensor] | None = None,
) -> torch.optim.Optimizer:
    """The same over these parameters.

    Args:
        trainable: they.
        spec: of the training.
        whole: the module that they are in.
        student: the network in it whose stages have rates of their own; None: ``whole``.
        example: as in :func:`build_optimizer`.
    """
    plain = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trainable)
    fused = bool(trainable) and plain and spec.precision != "fp16"
    what: Any = trainable
    if not one_rule(spec):
        assert example is not None or spec.layer_decay in (None, 1.0)
        what = groups(trainable, whole, student or whole, spec, example or (lambda: torch.empty(0)))
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(what, lr=spec.lr, weight_decay=spec.weight_decay, fused=fused)
    return torch.optim.SGD(
        what,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        weight_decay=spec.weight_decay,
        fused=fused,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups of parameters a learning rate, or their share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"] if "scale" in group else rate


def whole_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate that groups have their share of."""
    first = optimizer.param_groups[0]
    return float(first["lr"] / first["scale"]) if "scale" in first else float(first["lr"])


def milestones(spec: TrainSpec) -> list[float]:
    """The epochs at which a multi-step schedule drops; values below 1 are fractions of the training.

    The default is 150, 180 and 210 of 240 epochs, at any length.
    """
    given = spec.milestones if spec.milestones is not None else [0.625, 0.75, 0.875]
    return [m * spec.epochs if m < 1 else float(m) for m in given]


def learning_rate(spec: TrainSpec) -> Callable[[float], float]:
    """The learning rate at an epoch (a float; 2.5 is half-way through the third).

    Warm-up is linear from ``warmup_lr`` to ``lr``, also downwards (the released ClassroomKD schedule falls from 0.05
    to 0.01 over 120 epochs). Multi-step rates change at whole epochs, cosine ones with every step.
    """
    drops = milestones(spec)

    def multistep(epoch: float) -> float:
        return float(spec.lr * spec.gamma ** sum(math.floor(epoch) >= m - 1e-9 for m in drops))

    def cosine(epoch: float) -> float:
        done = (epoch - spec.warmup_epochs) / max(spec.epochs - spec.warmup_epochs, 1e-9)
        return float(spec.min_lr + 0.5 * (spec.lr - spec.min_lr) * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))))

    shapes: dict[str, Callable[[float], float]] = {
        "multistep": multistep,
        "cosine": cosine,
        "constant": lambda epoch: float(spec.lr),
    }
    main = shapes[spec.schedule]

    def rate(epoch: float) -> float:
        if epoch < spec.warmup_epochs:
            return float(spec.warmup_lr + (spec.lr - spec.warmup_lr) * epoch / spec.warmup_epochs)
        return main(epoch)

    return rate
