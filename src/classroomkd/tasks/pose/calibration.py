"""Held-out calibration of pose mentors: their temperature and how far they are to be believed, joint by joint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from classroomkd.classroom import Calibration, Task

__all__ = ["calibrate"]


@torch.no_grad()
def calibrate(task: Task, answers_MN: Tensor, target: Tensor) -> Calibration:
    """The temperature by the supervised loss on a grid, 1/8 to 8; the ceiling by the mean credibility.

    Args:
        task: of the student's coding.
        answers_MN: translated answers (M, N, K, …) on the validation part.
        target: (N, K, 3).

    Returns:
        Temperatures (M,), 1 for a mentor that knows no labelled joint, and ceilings (M, K) above 0.
    """
    from classroomkd.classroom import Calibration

    mask, grid = task.mask(target), torch.linspace(-3, 3, 25).exp2()
    temperatures = []
    for answer in answers_MN:
        known = mask & task.log_credibility(answer, target).isfinite()  # joints it does not know are no evidence
        if not bool(known.any()):
            temperatures.append(torch.ones(()))
            continue
        costs = [task.supervised(answer / scale, target).where(known, 0.0).sum() for scale in grid]
        temperatures.append(grid[torch.stack(costs).argmin().cpu()])
    credibility = task.credibility(answers_MN, target).nan_to_num(0.0).where(mask, 0.0).sum(1)
    ceiling = credibility / mask.sum(0).clamp_min(1)
    return Calibration(torch.stack(temperatures).to(ceiling.device), ceiling.float().clamp_min(1e-6))
