"""Pose networks on any network of timm: the last map of its body under a SimCC head or SimpleBaseline's.

SimpleBaseline is the network of Xiao et al. (2018): a ResNet's last map, three transposed convolutions, a 1x1
convolution. ``simplebaseline_r50`` has the names of the authors' code, so their checkpoints load.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from classroomkd._compat import import_timm
from classroomkd.errors import UserError
from classroomkd.models.libraries import out_of_place
from classroomkd.models.measuring import example
from classroomkd.models.pose.heads import SPLIT, DeconvHead, PoseNet, SimCCHead, deconvolutions, quiet
from classroomkd.models.zoo._blocks import conv_1x1
from classroomkd.taps.trace import dry_run

__all__ = ["FEWEST_CELLS", "JOINED", "SimpleBaseline", "TimmBody", "features", "on_timm", "simple_baseline"]

FEWEST_CELLS = 48  # 8 x 6: the last map of a 256 x 192 crop at stride 32
JOINED = 128  # channels


class TimmBody(nn.Module):
    """A map of a network of timm: ``(B, in_channels, H, W)`` to ``(B, channels, h, w)``.

    It is the network's last map, unless that has fewer than ``fewest`` cells: then all maps from the last that has
    enough are brought to that one's cells and ``JOINED`` channels, and added.

    Args:
        spec: how messages call it.
        name: timm's name.
        size: (H, W) of the crops.
        in_channels: channels of the crops.
        fewest: cells that the map has to have.

    Attributes:
        channels: of the map.
        cells: (h, w) of the map.
        stride: pixels of the crop a cell.
        library: timm's name and the options it was built with, for its published weights.
    """

    def __init__(self, spec: str, name: str, size: tuple[int, int], in_channels: int, fewest: int = 0) -> None:
        super().__init__()
        options: dict[str, Any] = {"in_chans": in_channels}
        config = import_timm(f"'{spec}'").models.get_pretrained_cfg(name)
        if config is not None and config.fixed_input_size:
            options["img_size"] = size
        self.library = (name, options)
        self.features = features(spec, name, options)
        channels, strides = self.features.feature_info.channels(), self.features.feature_info.reduction()
        self._axes: tuple[int, ...] = (0, 1, 2, 3)
        shapes = self._shapes(spec, size, in_channels)
        if shapes[-1][1] != channels[-1] == shapes[-1][3]:
            self._axes = (0, 3, 1, 2)
            shapes = [tuple(shape[axis] for axis in self._axes) for shape in shapes]
        counts = [shape[2] * shape[3] for shape in shapes]
        self.first = max(place for place, count in enumerate(counts) if count >= min(fewest, max(counts)))
        joined = channels[self.first :] if self.first < len(channels) - 1 else []
        self.channels = JOINED if joined else int(channels[-1])
        self.cells = (shapes[self.first][2], shapes[self.first][3])
        self.joins = nn.ModuleList(
            nn.Sequential(conv_1x1(count, JOINED), nn.BatchNorm2d(JOINED), nn.Upsample(self.cells)) for count in joined
        )
        self.stride = int(strides[self.first])

    def forward(self, x: Tensor) -> Tensor:
        """Crops to the map of the head."""
        maps: list[Tensor] = [value.permute(self._axes) for value in self.features(x)[self.first :]]
        if not self.joins:
            return maps[-1]
        return F.relu(sum(join(value) for join, value in zip(self.joins, maps, strict=True)))

    def _shapes(self, spec: str, size: tuple[int, int], in_channels: int) -> list[tuple[int, ...]]:
        """The shapes of the network's maps."""
        pixels = example(self, (in_channels, *size))
        with dry_run(self, pixels.device):
            try:
                return [tuple(value.shape) for value in self.features(pixels)]
            except (RuntimeError, ValueError, AssertionError) as error:
                raise UserError(
                    f"'{spec}' cannot take crops of {size[0]}x{size[1]}: {type(error).__name__}: {error}"
                ) from error


def features(spec: str, name: str, options: dict[str, Any]) -> Any:
    """A network of timm that answers with its maps; nothing in it works in place."""
    timm = import_timm(f"'{spec}'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's remarks about its own defaults
            return out_of_place(timm.create_model(name, features_only=True, **options))
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError, AttributeError) as error:
        raise UserError(
            f"'{spec}': timm's {name} cannot give its maps ({type(error).__name__}: {error}); choose another"
        ) from error


def on_timm(*, spec: str, kind: str, name: str, joints: int, size: tuple[int, int], in_channels: int) -> PoseNet:
    """``simcc:timm:NAME`` or ``heatmap:timm:NAME``.

    SimCC reads a map of at least 48 cells (stride 32 for 256x192, 8 for 64x64), heatmaps grow from the last map to
    stride 4 by as many transposed convolutions as that takes.
    """
    if kind == "simcc":
        body = TimmBody(spec, name, size, in_channels, FEWEST_CELLS)
        return PoseNet(body, SimCCHead(body.channels, body.cells, joints, size), {"kind": "simcc", "split": SPLIT})
    body = TimmBody(spec, name, size, in_channels)
    if body.stride < 4 or body.stride & (body.stride - 1):
        raise UserError(f"'{spec}': its last map has stride {body.stride}, from which no doubling leads to 4")
    if any(side % body.stride for side in size):
        raise UserError(f"'{spec}' needs crops whose sides are multiples of {body.stride}, not {size[0]}x{size[1]}")
    if tuple(side * body.stride for side in body.cells) != tuple(size):
        raise UserError(
            f"'{spec}': its last map of a crop of {size[0]}x{size[1]} has {body.cells[0]}x{body.cells[1]} "
            f"cells, not one for each {body.stride} pixels; choose another"
        )
    head = DeconvHead(body.channels, joints, count=body.stride.bit_length() - 3)
    return PoseNet(body, head, {"kind": "heatmap", "stride": 4})


class SimpleBaseline(nn.Module):
    """A ResNet of timm with SimpleBaseline's head: ``(B, channels, H, W)`` to ``(B, K, H/4, W/4)``."""

    library: tuple[str, dict[str, Any]]

    def __init__(self, trunk: nn.Module, channels: int, joints: int) -> None:
        super().__init__()
        self.trunk = tuple(name for name, _ in trunk.named_children())
        for name, layer in trunk.named_children():
            self.add_module(name, layer)
        self.deconv_layers = deconvolutions(channels)
        self.final_layer = quiet(nn.Conv2d(256, joints, 1))
        self.pose_head: dict[str, Any] = {"kind": "heatmap", "stride": 4}

    def forward(self, x: Tensor) -> Tensor:
        """Crops to one map a joint."""
        for name in self.trunk:
            x = self.get_submodule(name)(x)
        answer: Tensor = self.final_layer(self.deconv_layers(x))
        return answer


def simple_baseline(*, name: str, joints: int, size: tuple[int, int], in_channels: int) -> SimpleBaseline:
    """SimpleBaseline on one of timm's ResNets."""
    multiples_of_32("simplebaseline_r50", size)
    options = {"in_chans": in_channels}
    trunk = features("simplebaseline_r50", name, options)
    network = SimpleBaseline(trunk, int(trunk.feature_info.channels()[-1]), joints)
    network.library = (name, options)
    return network


def multiples_of_32(spec: str, size: tuple[int, int]) -> None:
    """Refuse crops that do not halve five times."""
    if any(side % 32 for side in size):
        raise UserError(f"'{spec}' needs crops whose sides are multiples of 32, not {size[0]}x{size[1]}")
