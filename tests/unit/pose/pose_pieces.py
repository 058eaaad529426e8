"""Made-up persons for tests of codings: joints anywhere in the crop, and answers that are nearly right."""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.tasks.pose.coding import Coding, Size


def people(count: int, size: Size, joints: int = 17, margin: float = 0.0, seed: int = 0) -> Tensor:
    """Targets (count, joints, 3), all visible, at least ``margin`` pixels from the border."""
    chance = torch.Generator().manual_seed(seed)
    span = torch.tensor([size[1] - 1.0, size[0] - 1.0]) - 2 * margin
    place = torch.rand(count, joints, 2, generator=chance) * span + margin
    return torch.cat([place, torch.full((count, joints, 1), 2.0)], -1)


def answers(coding: Coding, target: Tensor, mentors: int = 0, noise: float = 0.3, seed: int = 0) -> Tensor:
    """What a network might say, (B, K, …), or (mentors, B, K, …)."""
    chance = torch.Generator().manual_seed(seed)
    shape = ((mentors,) if mentors else ()) + (len(target), *coding.answer_shape)
    return coding.ideal(target) * 0.8 + noise * torch.randn(shape, generator=chance)
