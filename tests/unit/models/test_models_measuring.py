"""Counts against hand-made ones, and a dry run that leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd.errors import UserError


class Everything(nn.Module):
    """Each counted kind once, one shared weight, one layer called twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, (3, 1), padding=(1, 0), groups=2)  # 8*2*3 + 8 parameters
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=4, bias=False)  # 8*1*4
        self.twice = nn.Conv2d(4, 4, 1, bias=False)  # 16
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, bias=False)  # 4*4*4
        self.linear = nn.Linear(4, 5)  # 25
        self.tied = nn.Linear(4, 5)
        self.tied.weight = self.linear.weight  # + 5 for the bias
        self.unused = nn.Linear(100, 100)  # 10,100
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.conv(x))
        x = self.twice(self.twice(x))
        tokens = x.flatten(2).transpose(1, 2)
        attended, _ = self.attention(tokens, tokens, tokens)
        return self.drop(self.linear(attended.mean(1)) + self.tied(attended.mean(1)))


def test_parameters_count_shared_ones_once() -> None:
    assert models.parameters(Everything()) == (8 * 2 * 3 + 8) + 32 + 16 + 64 + 25 + 5 + 10_100


def test_multiply_adds_of_every_kind() -> None:
    conv = 8 * 6 * 6 * (4 // 2) * 3
    up = (8 * 6 * 6) * (4 // 4) * 4
    twice = 2 * (4 * 12 * 12) * 4
    attention = 4 * (144 * 4) * 4
    linear = 2 * 4 * 5
    assert models.multiply_adds(Everything(), (4, 6, 6)) == conv + up + twice + attention + linear


def test_summary_lists_what_can_be_tapped() -> None:
    rows = {row["name"]: row for row in models.summary(Everything(), (4, 6, 6))}
    assert list(rows) == ["conv", "up", "twice", "attention", "linear", "tied", "drop"]
    assert rows["up"] == {
        "name": "up",
        "type": "ConvTranspose2d",
        "output_shape": (4, 12, 12),
        "parameters": 32,
        "multiply_adds": 8 * 6 * 6 * 4,
        "calls": 1,
        "overwritten": False,
    }
    assert rows["twice"]["calls"] == 2
    assert rows["attention"]["output_shape"] is None  # a tuple


def test_a_container_has_what_is_inside_it() -> None:
    module = models.create("resnet8", 10)
    rows = {row["name"]: row for row in models.summary(module, (3, 32, 32))}
    tops = [row for name, row in rows.items() if "." not in name]
    assert sum(row["parameters"] for row in tops) == models.parameters(module)
    assert sum(row["multiply_adds"] for row in tops) == models.multiply_adds(module, (3, 32, 32))
    assert rows["layer2"]["parameters"] == sum(value.numel() for value in module.get_submodule("layer2").parameters())


def test_overwritten_outputs_are_marked() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert [row["overwritten"] for row in models.summary(module, (3, 8, 8))] == [True, False, False, False]


def test_the_dry_run_changes_nothing() -> None:
    module = models.create("resnet8", 10).train()
    module.get_submodule("bn1").eval()
    modes = {name: layer.training for name, layer in module.named_modules()}
    before = {key: value.clone() for key, value in module.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    models.summary(module, (3, 16, 16))
    assert torch.equal(torch.rand(1), expected)
    assert modes == {name: layer.training for name, layer in module.named_modules()}
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_dry_run_that_fails_says_why_and_leaves_no_hooks() -> None:
    module = models.create("resnet8", 10).train()
    with pytest.raises(UserError, match=r"CifarResNet cannot take one image of 4x8x8 .*RuntimeError"):
        models.multiply_adds(module, (4, 8, 8))
    assert module.training
    assert not any(layer._forward_hooks for layer in module.modules())


def test_half_precision_modules_are_measured_too() -> None:
    module = models.create("convnet4", 3).to(torch.bfloat16)
    assert models.multiply_adds(module, (3, 16, 16)) == models.multiply_adds(module.float(), (3, 16, 16))


def test_class_count() -> None:
    assert models.class_count(models.create("convnet4", 3), (3, 16, 16)) == 3
    with pytest.raises(UserError, match=r"must answer with logits \(B, classes\), not shape \(B, 4, 4, 4\)"):
        models.class_count(nn.Conv2d(3, 4, 1), (3, 4, 4))
    with pytest.raises(UserError, match="something else than one tensor"):
        models.class_count(nn.LSTM(3, 4), (3, 3))
