"""HRNet and SimpleBaseline under the names of the authors' checkpoints: every name, and what the names compute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import _compat
from classroomkd.models import load_checkpoint
from classroomkd.models.pose import resolve_pose

pytestmark = pytest.mark.skipif(not _compat.installed("timm"), reason="timm is not installed")
State = dict[str, Tensor]


def norm_names(name: str) -> Iterator[str]:
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        yield f"{name}.{part}"


def pair_names(conv: str, norm: str) -> Iterator[str]:
    yield f"{conv}.weight"
    yield from norm_names(norm)


def hrnet_names(modules: tuple[int, int, int] = (1, 4, 3), blocks: int = 4) -> Iterator[str]:
    """The names of a published ``pose_hrnet_w32``, from its description: stages of 2, 3 and 4 branches."""
    for i in (1, 2):
        yield from pair_names(f"conv{i}", f"bn{i}")
    for block in range(4):
        for i in (1, 2, 3):
            yield from pair_names(f"layer1.{block}.conv{i}", f"layer1.{block}.bn{i}")
    yield from pair_names("layer1.0.downsample.0", "layer1.0.downsample.1")
    yield from pair_names("transition1.0.0", "transition1.0.1")
    for i in (1, 2, 3):
        yield from pair_names(f"transition{i}.{i}.0.0", f"transition{i}.{i}.0.1")
    for stage, count in zip((2, 3, 4), modules, strict=True):
        for module in range(count):
            top = f"stage{stage}.{module}"
            for branch in range(stage):
                for block in range(blocks):
                    for i in (1, 2):
                        place = f"{top}.branches.{branch}.{block}"
                        yield from pair_names(f"{place}.conv{i}", f"{place}.bn{i}")
            last = stage == 4 and module == count - 1
            for to in range(1 if last else stage):
                for since in range(stage):
                    place = f"{top}.fuse_layers.{to}.{since}"
                    if since > to:
                        yield from pair_names(f"{place}.0", f"{place}.1")
                    for step in range(to - since):
                        yield from pair_names(f"{place}.{step}.0", f"{place}.{step}.1")
    yield from ("final_layer.weight", "final_layer.bias")


def test_hrnet_w32_has_the_published_names() -> None:
    with torch.device("meta"):
        network = resolve_pose("hrnet_w32", 17, (64, 64))
    names = list(hrnet_names())
    assert len(names) == 1754
    assert set(network.state_dict()) == set(names)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["final_layer.weight"] == (17, 32, 1, 1)
    assert shapes["stage4.2.fuse_layers.0.3.0.weight"] == (32, 256, 1, 1)
    assert shapes["transition3.3.0.0.weight"] == (256, 128, 3, 3)


def stirred(state: State) -> State:
    """Numbers as in a trained network."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for name, value in state.items():
        x = torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        if value.dim() > 1:
            x = x * (1.4 / value[0].numel() ** 0.5)
        elif name.endswith("running_var"):
            x = x.abs() + 0.5
        elif value.dim() == 1:
            x = 0.2 * x + (0.6 if name.endswith("weight") else 0.0)
        found[name] = x
    return found


class Reference:
    """The published networks as functions of their checkpoint: nothing here knows a module."""

    def __init__(self, state: State) -> None:
        self.state = state

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.state

    def norm(self, x: Tensor, name: str) -> Tensor:
        value = (self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *value)

    def pair(self, x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{conv}.weight"]
        return self.norm(F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2), norm)

    def block(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """A basic block or a bottleneck; its second convolution of three has the stride, or the first of two."""
        last = 3 if self.has(f"{name}.conv3") else 2
        y = x
        for i in range(1, last + 1):
            y = self.pair(y, f"{name}.conv{i}", f"{name}.bn{i}", stride if i == last - 1 else 1)
            y = F.relu(y) if i < last else y
        if self.has(f"{name}.downsample.0"):
            x = self.pair(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return F.relu(x + y)

    def blocks(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        count = 0
        while self.has(f"{name}.{count}.conv1"):
            x = self.block(x, f"{name}.{count}", stride if count == 0 else 1)
            count += 1
        assert count
        return x

    def count(self, pattern: str) -> int:
        return 1 + max(int(found[1]) for name in self.state if (found := re.match(pattern, name)))

    def hrnet(self, x: Tensor) -> Tensor:
        for i in (1, 2):
            x = F.relu(self.pair(x, f"conv{i}", f"bn{i}", 2))
        maps = [self.blocks(x, "layer1")]
        for stage in (2, 3, 4):
            new = F.relu(self.pair(maps[-1], *(f"transition{stage - 1}.{stage - 1}.0.{i}" for i in (0, 1)), 2))
            if stage == 2:
                maps = [F.relu(self.pair(maps[0], "transition1.0.0", "transition1.0.1"))]
            maps.append(new)
            for module in range(self.count(rf"stage{stage}\.(\d+)\.")):
                top = f"stage{stage}.{module}"
                maps = [self.blocks(x, f"{top}.branches.{i}") for i, x in enumerate(maps)]
                size = maps[0].shape[-2:]
                fused = []
                for to in range(stage):
                    parts = []
                    for since, part in enumerate(maps):
                        place = f"{top}.fuse_layers.{to}.{since}"
                        x = part
                        if since > to:
                            side = [s >> to for s in size]
                            x = F.interpolate(self.pair(x, f"{place}.0", f"{place}.1"), side)
                        for step in range(to - since):
                            x = self.pair(x, f"{place}.{step}.0", f"{place}.{step}.1", 2)
                            x = F.relu(x) if step < to - since - 1 else x
                        parts.append(x)
                    fused.append(F.relu(sum(parts)))  # type: ignore[arg-type]
                    if stage == 4 and not self.has(f"{top}.fuse_layers.1.0.0.0"):
                        break  # the last module makes the finest map only
                maps = fused
        return F.conv2d(maps[0], self.state["final_layer.weight"], self.state["final_layer.bias"])

    def simple_baseline(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.pair(x, "conv1", "bn1", 2)), 3, 2, 1)
        for i in (1, 2, 3, 4):
            x = self.blocks(x, f"layer{i}", 1 if i == 1 else 2)
        for i in (0, 3, 6):
            x = F.conv_transpose2d(x, self.state[f"deconv_layers.{i}.weight"], stride=2, padding=1)
            x = F.relu(self.norm(x, f"deconv_layers.{i + 1}"))
        return F.conv2d(x, self.state["final_layer.weight"], self.state["final_layer.bias"])


def loaded(network: nn.Module, folder: Path) -> tuple[nn.Module, State]:
    """The network after reading a checkpoint as the authors' training left it."""
    state = stirred(network.state_dict())
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "best.pth.tar")
    note = load_checkpoint(network, folder / "best.pth.tar", what="mentor")["note"]
    assert "'state_dict'" in note
    assert "'module.'" in note
    return network.eval(), state


@torch.no_grad()
def test_hrnet_is_the_published_one(tmp_path: Path) -> None:
    network, state = loaded(resolve_pose("heatmap:timm:hrnet_w18_small", 4, (64, 32)), tmp_path)
    x = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(2))
    said, expected = network(x), Reference(state).hrnet(x)
    assert said.shape == (1, 4, 16, 8)
    assert (said - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert expected.std() > 0


@torch.no_grad()
def test_simple_baseline_is_the_published_one(tmp_path: Path) -> None:
    network, state = loaded(resolve_pose("simplebaseline_r50", 4, (64, 32)), tmp_path)
    x = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(2))
    said, expected = network(x), Reference(state).simple_baseline(x)
    assert said.shape == (1, 4, 16, 8)
    assert (said - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert expected.std() > 0
