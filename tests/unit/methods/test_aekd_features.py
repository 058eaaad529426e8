"""AEKD's hints where the gradients that should weigh the mentors cancel over the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from classroomkd import methods, tasks
from classroomkd.classroom import ClassInfo, Classroom, Shapes
from classroomkd.errors import UserError
from classroomkd.taps.adapters import adapter

TAP = "@stage:-1"
NORMALISED = ("conv", "bottleneck")
# Of student and mentor; the projector works at the smaller sides of the two.
ONE_PLACE = [((6,), (8,))]
ONE_PLACE += [((6, 1, 1), (8, 1, 1)), ((6, 4, 4), (8, 1, 1)), ((6, 1, 1), (8, 4, 4)), ((6, 1, 4), (8, 4, 1))]
SEVERAL = [((6, 2, 2), (8, 2, 2)), ((6, 1, 2), (8, 1, 2)), ((6, 4, 4), (8, 1, 2))]


def share_left(own: tuple[int, ...], theirs: tuple[int, ...], kind: Any) -> float:
    """How much is left of the pulls on a student's map when they are added up over a batch of 16."""
    torch.manual_seed(0)
    projector = adapter(own, theirs, kind).double()
    x = torch.randn(16, *own, dtype=torch.float64, requires_grad=True)
    far = (projector(x) - torch.randn(16, *theirs, dtype=torch.float64)).square().sum()
    (pull,) = torch.autograd.grad(far, x)
    return (pull.sum(0).norm() / pull.norm()).item()


@pytest.mark.parametrize(("own", "theirs"), ONE_PLACE + SEVERAL)
@pytest.mark.parametrize("kind", [*NORMALISED, "linear"])
def test_what_is_refused_is_what_cancels(own: tuple[int, ...], theirs: tuple[int, ...], kind: str) -> None:
    """In float64, where rounding leaves less than 1e-12 of it, and anything else far more."""
    cancels = kind in NORMALISED and (own, theirs) in ONE_PLACE
    left = share_left(own, theirs, kind)
    assert left < 1e-12 if cancels else left > 1e-3
    shapes = Shapes(5, {TAP: own}, {TAP: (theirs, theirs)})
    info = ClassInfo(tasks.create("classification"), ["a", "b"], shapes=shapes)
    method = methods.create("aekd", features=True, projector=kind)
    if not cancels:
        method.setup(info)
        return
    with pytest.raises(UserError, match=r"one place only.*projector: linear.*larger map"):
        method.setup(info)


def test_one_mentor_or_no_features_need_no_weights() -> None:
    shapes = Shapes(5, {TAP: (6, 1, 1)}, {TAP: ((8, 1, 1),)})
    methods.create("aekd", features=True).setup(ClassInfo(tasks.create("classification"), ["a"], shapes=shapes))
    methods.create("aekd").setup(ClassInfo(tasks.create("classification"), ["a", "b"]))
    methods.create("aekd", features=True).setup(ClassInfo(tasks.create("classification"), ["a", "b"]))


def strided(width: int) -> nn.Module:
    """Five strides, as backbones for large images have them: 32 pixels become one place."""
    torch.manual_seed(width)
    stages, channels = [], 3
    for _ in range(5):
        stages.append(nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU()))
        channels = width
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def test_a_strided_backbone_on_small_images() -> None:
    def room(tap: str, **given: Any) -> Classroom:
        method = methods.create("aekd", features=True, tap=tap, **given)
        return Classroom(strided(4), [strided(6), strided(8)], method, image_shape=(3, 32, 32))

    with pytest.raises(UserError, match="tap '4' have one place only"):
        room("4")
    for found in (room("4", projector="linear"), room("3")):
        assert found(torch.randn(4, 3, 32, 32), torch.arange(4)).loss.isfinite()
