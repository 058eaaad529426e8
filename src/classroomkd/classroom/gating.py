"""Skipping rows: a mentor runs only on the samples for which its answer can count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from classroomkd.classroom.lesson import Answers
from classroomkd.functional.constants import constant

__all__ = ["ask_where", "knows"]


@torch.no_grad()
def ask_where(forward: Callable[[Tensor], Answers], inputs: Tensor, where: Tensor | None) -> Answers:
    """A mentor's answers for the chosen samples, and NaN for the others, on which methods then leave the mentor out.

    Answers of a sample do not depend on the other samples of its batch (mentors are in evaluation mode), but for the
    last bits, since batches of other sizes may run through other kernels.

    Args:
        forward: the mentor.
        inputs: ``(B, ...)`` in its own space.
        where: ``(B,)`` bool; None = everywhere. Best on the CPU: on a GPU, finding its rows waits for the device.

    Returns:
        Prediction ``(B, C)`` and features ``(B, ...)``. Where nobody is asked, one sample runs all the same, since the
        shapes are the mentor's to say.
    """
    if where is None:
        return forward(inputs)
    rows = where.nonzero().squeeze(1).to(inputs.device, non_blocking=True)
    if len(rows) == len(inputs):
        return forward(inputs)
    count = len(rows)
    answers = forward(inputs.index_select(0, rows) if count else inputs[:1])

    def placed(x: Tensor) -> Tensor:
        whole = x.new_full((len(inputs), *x.shape[1:]), float("nan"))
        return whole.index_copy_(0, rows, x[:count])

    return Answers(placed(answers.prediction), {tap: placed(x) for tap, x in answers.features.items()})


def knows(classes: Sequence[Sequence[int] | None], count: int, target: Tensor) -> Tensor:
    """Which mentor knows the true class of which sample: ``(M, B)`` bool.

    Args:
        classes: by mentor, the places of its classes among the student's; None = it knows them all.
        count: C, the student's classes.
        target: ``(B,)`` int64; of a sample without a label (-1) nobody is known not to know the class.
    """
    place = target.clamp_min(0)
    known = []
    for own in classes:
        if own is None:
            known.append(torch.ones_like(target, dtype=torch.bool))
        else:
            held = set(own)
            table = constant(tuple(float(c in held) for c in range(count)), torch.bool, target.device)
            known.append(table[place] | (target < 0))
    return torch.stack(known)
