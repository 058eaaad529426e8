"""HRNet for pose (Sun et al., 2019): four branches of resolution, of which the finest makes the maps.

The branches are timm's. Modules have the names of the authors' code and what feeds only the coarse branches of the
last stage is left out, as there, so that an official ``pose_hrnet`` checkpoint loads strictly and answers the same.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from classroomkd.models.pose.backbones import features, multiples_of_32
from classroomkd.models.pose.heads import quiet

__all__ = ["HRNet", "hrnet"]

_TRUNK = (
    *("conv1", "bn1", "act1", "conv2", "bn2", "act2", "layer1"),
    *("transition1", "stage2", "transition2", "stage3", "transition3", "stage4"),
)


class HRNet(nn.Module):
    """``(B, channels, H, W)`` to one map a joint ``(B, K, H/4, W/4)``."""

    conv1: nn.Module
    bn1: nn.Module
    act1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    act2: nn.Module
    layer1: nn.Module
    stage2: nn.Module
    stage3: nn.Module
    stage4: nn.Module
    library: tuple[str, dict[str, Any]]

    def __init__(self, trunk: Any, joints: int) -> None:
        super().__init__()
        for name in _TRUNK:
            self.add_module(name, trunk.get_submodule(name))
        last: Any = trunk.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]  # the finest branch's only
        self.final_layer = quiet(nn.Conv2d(last.branches[0][-1].conv2.out_channels, joints, 1))
        self.pose_head: dict[str, Any] = {"kind": "heatmap", "stride": 4}

    def forward(self, x: Tensor) -> Tensor:
        """Crops to one map a joint."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.layer1(self.act2(self.bn2(self.conv2(x))))
        branches = self.stage2(_widened(self.transition1, [x]))
        branches = self.stage3(_widened(self.transition2, branches))
        branches = self.stage4(_widened(self.transition3, branches))
        answer: Tensor = self.final_layer(branches[0])
        return answer


def _widened(transition: Any, branches: list[Tensor]) -> list[Tensor]:
    """The branches and a coarser one; new ones, and those that change their width, are made of the coarsest so far.

    The first transition makes both of its branches of the stem's one map.
    """
    return [
        branches[place] if isinstance(layer, nn.Identity) else layer(branches[-1])
        for place, layer in enumerate(transition)
    ]


def hrnet(*, name: str, joints: int, size: tuple[int, int], in_channels: int) -> HRNet:
    """HRNet on one of timm's (``hrnet_w32``); with ``feature_location=""`` it lacks the classifier's part."""
    multiples_of_32(name, size)
    options = {"feature_location": "", "in_chans": in_channels}
    network = HRNet(features(name, name, options), joints)
    network.library = (name, options)
    return network
