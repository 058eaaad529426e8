"""Arms that the bench trains without labels read none: other labels change neither loss nor gradient."""

from __future__ import annotations

import pytest
import torch
from rooms import IDS, batch, classroom, said
from torch import Tensor

from benchmarks.evidence.study import Arm, load_study

UNTOLD = [arm for arm in load_study("no_label").arms if arm.name.endswith(", no label")]


def taught(arm: Arm, shift: int) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a step whose labels are ``shift`` classes off."""
    (entry,) = arm.entries
    room = classroom(entry["name"], {key: value for key, value in entry.items() if key != "name"}, said())
    images, target = batch()
    classes = int(target.max()) + 1
    torch.manual_seed(3)
    loss = room(images, (target + shift) % classes, ids=IDS).loss
    loss.backward()
    return loss.detach(), [p.grad for p in room.student.parameters() if p.grad is not None]


@pytest.mark.parametrize("arm", UNTOLD, ids=lambda arm: arm.name)
def test_it_hears_mentors_alone(arm: Arm) -> None:
    (loss, grads), (other, theirs) = taught(arm, 0), taught(arm, 1)
    assert torch.equal(loss, other)
    assert len(grads) == len(theirs) > 0
    assert all(map(torch.equal, grads, theirs))
    assert any(grad.abs().max() > 0 for grad in grads)
