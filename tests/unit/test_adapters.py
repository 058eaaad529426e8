"""Adapters: shapes, precisions, single values, gradients, and pairs that cannot be brought together."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from classroomkd.errors import UserError
from classroomkd.taps.adapters import AdapterKind, BatchNorm, Resize, adapter

KINDS = get_args(AdapterKind)
MAPS = [(8, 4, 4), (8, 2, 3), (16, 7, 7), (1, 1, 1), (5, 9, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_maps_come_out_in_the_mentors_shape(kind: AdapterKind) -> None:
    for student, mentor in itertools.product(MAPS, MAPS):
        module = adapter(student, mentor, kind)
        out = module(torch.randn(3, *student))
        assert out.shape == (3, *mentor)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        assert any(isinstance(m, Resize) for m in module) == (student[1:] != mentor[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_vectors(kind: AdapterKind) -> None:
    module = adapter((6,), (10,), kind)
    out = module(torch.randn(4, 6))
    assert out.shape == (4, 10)
    assert (out >= 0).all() == (kind != "linear")


def test_layers_are_those_of_the_table() -> None:
    def layers(module: nn.Module) -> list[str]:
        return [type(m).__name__ for m in module]

    conv = adapter((6, 4, 4), (10, 4, 4))
    assert layers(conv) == ["Conv2d", "BatchNorm", "ReLU"]
    assert sum(p.numel() for p in conv.parameters()) == 6 * 10 + 10 + 20
    assert sum(p.numel() for p in adapter((6, 4, 4), (10, 4, 4), "linear").parameters()) == 6 * 10 + 10
    assert sum(p.numel() for p in adapter((6,), (10,), "linear").parameters()) == 6 * 10 + 10
    narrow = adapter((6, 4, 4), (10, 4, 4), "bottleneck")
    assert layers(narrow) == ["Conv2d", "BatchNorm", "ReLU"] * 3
    assert sum(p.numel() for p in narrow.parameters()) == 6 * 3 + 6 + 9 * 9 + 6 + 3 * 10 + 20
    assert layers(adapter((6,), (10,), "bottleneck")) == ["Linear", "BatchNorm", "ReLU"] * 2


def test_larger_maps_are_averaged_and_smaller_ones_interpolated() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(Resize((4, 4))(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(Resize((16, 16))(x), F.interpolate(x, scale_factor=2, mode="bilinear"))
    torch.testing.assert_close(Resize((1, 1))(x)[..., 0, 0], x.mean((2, 3)))
    assert Resize((8, 8))(x) is x
    assert Resize((4, 16))(x).shape == (2, 3, 4, 16)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6,), (6, 4, 4), (6, 1, 1)])
def test_any_precision_and_a_single_sample_in_training(kind: AdapterKind, shape: tuple[int, ...]) -> None:
    module = adapter(shape, (10, *shape[1:]), kind)
    for dtype, batch in itertools.product((torch.bfloat16, torch.float16, torch.float64), (1, 2)):
        out = module(torch.randn(batch, *shape).to(dtype))
        assert out.dtype == torch.float32
        assert out.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.randn(1, *shape).bfloat16()).isfinite().all()


def test_a_single_value_is_normalised_by_the_running_statistics() -> None:
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(5, 4) * 3 + 1
    torch.testing.assert_close(ours(x), theirs(x))
    state = {name: value.clone() for name, value in ours.state_dict().items()}
    one = ours(x[:1])
    torch.testing.assert_close(one, theirs.eval()(x[:1]))
    torch.testing.assert_close(ours(x[:1, :, None, None])[..., 0, 0], one)
    torch.testing.assert_close(dict(ours.state_dict()), state, rtol=0, atol=0)
    with pytest.raises(ValueError, match="more than 1 value"):
        theirs.train()(x[:1])


def test_pairs_that_cannot_meet() -> None:
    what = "tap '@stage:-1' of mentor 'vgg8'"
    with pytest.raises(UserError, match="tap '@stage:-1' of mentor 'vgg8': the student's activation of 8x4x4 cannot"):
        adapter((8, 4, 4), (16,), what=what)
    with pytest.raises(UserError, match="a vector of 8 cannot be brought to the mentor's 16x2x2"):
        adapter((8,), (16, 2, 2))
    with pytest.raises(UserError, match="did you mean 'linear'"):
        adapter((8,), (8,), "linea")  # type: ignore[arg-type]
