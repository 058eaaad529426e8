"""What ``classroomkd init`` proposes for somebody's data, and the rules behind its numbers. Does not import torch.

A task's description looks at the data (:meth:`classroomkd.tasks.spec.TaskDescription.look`) and returns a
:class:`Start`; ``classroomkd.recipe.starting`` writes it down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

__all__ = ["Line", "Start", "largest_below", "training"]

_BATCHES = (64, 32, 16, 8, 4, 2)
_STEPS_AN_EPOCH = 20  # fewer, and an epoch is too coarse to choose the best one by
_EPOCHS = (20, 200)


class Line(NamedTuple):
    """A key of a recipe, its value, and the reason, which is one line."""

    key: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class Start:
    """A first recipe for the data in a folder.

    Attributes:
        title: what the data are, in a few words.
        found: what was seen in them, a sentence each.
        data, student, train: the lines of these sections, in order; without a source.
        source: of ``data``, in front of the place: ``imagefolder``.
        mentors: networks that the run trains where nothing else is named.
        mentor: how a trained network of one's own is named, as YAML; ``NAME`` and ``FILE`` are filled in.
        task: options of the recipe's task; None where the recipe need not name it.
    """

    title: str
    found: tuple[str, ...]
    source: str
    data: tuple[Line, ...]
    student: Line
    mentors: tuple[str, ...]
    mentor: str
    train: tuple[Line, ...]
    task: str | None = None


def largest_below(limit: float, sides: Sequence[int]) -> int:
    """The largest of ascending ``sides`` that is at most ``limit``, or the first."""
    return max((side for side in sides if side <= limit), default=sides[0])


def _updates(made: int, wanted: int) -> str:
    """The reason for a number of epochs, which make so many updates."""
    bounds = f"at least {_EPOCHS[0]}, at most {_EPOCHS[1]} epochs"
    return f"{made:,} updates, for about {wanted:,}; {bounds}"


def training(samples: int, updates: int, optimizer: str, rate: float, at: int) -> tuple[Line, ...]:
    """Batch size, epochs and learning rate for so many training samples.

    The batch is the largest power of two from 8 to 64 (less where there are fewer samples) that gives 20 steps an
    epoch. Epochs make ``updates`` steps, within 20 and 200. ``rate`` is what serves batches of ``at``: with the batch's
    size it goes up in proportion for sgd (Goyal et al. 2017), by the square root for adamw (Malladi et al. 2022).
    """
    wanted = max(8, samples // _STEPS_AN_EPOCH)
    batch = max(b for b in _BATCHES if b <= max(2, min(wanted, samples)))
    steps = max(1, samples // batch)
    epochs = min(max(-(-updates // steps), _EPOCHS[0]), _EPOCHS[1])
    share = batch / at
    factor, rule = (share, "in proportion") if optimizer == "sgd" else (sqrt(share), "by its square root")
    lr = float(f"{rate * factor:.2g}")
    return (
        Line("epochs", epochs, _updates(epochs * steps, updates)),
        Line(
            "batch_size", batch,
            f"a power of two that gives {steps} updates an epoch of {samples:,}; at most {_BATCHES[0]}",
        ),
        Line("optimizer", optimizer),
        Line("lr", lr, f"{rate:g} at a batch of {at}, {rule} with its size; lower it if the loss becomes nan"),
        Line("schedule", "cosine"),
        Line("warmup_epochs", 1),
    )  # fmt: skip
