"""The zoo as a table: name -> who builds it, its family and its size. Readable without torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RELEASED_PLACES", "ZOO", "ZooEntry", "build", "names", "released_places", "table"]


@dataclass(frozen=True)
class ZooEntry:
    """One network of the zoo.

    ``target`` is ``module:class`` (or function) inside ``classroomkd.models.zoo``; it is called with ``arguments`` plus
    ``num_classes`` and ``in_channels``. ``parameters`` is the exact count at 100 classes and 3 input channels.
    """

    target: str
    family: str
    parameters: int
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _resnet(depth: int, parameters: int, widths: tuple[int, int, int, int] = (16, 16, 32, 64)) -> ZooEntry:
    return ZooEntry("resnet:CifarResNet", "CIFAR ResNet", parameters, {"depth": depth, "widths": widths})


def _wide(depth: int, width: int, parameters: int) -> ZooEntry:
    return ZooEntry("wide_resnet:WideResNet", "Wide ResNet", parameters, {"depth": depth, "width": width})


def _vgg(convolutions: tuple[int, ...], parameters: int) -> ZooEntry:
    widths = (64, 128, 256, 512, 512)
    stages = tuple((width,) * count for width, count in zip(widths, convolutions, strict=True))
    return ZooEntry("vgg:VGG", "VGG", parameters, {"stages": stages})


def _resnet_c(block: str, blocks: tuple[int, int, int, int], parameters: int) -> ZooEntry:
    return ZooEntry("imagenet_resnet:ImageNetResNet", "ResNet", parameters, {"block": block, "blocks": blocks})


def _tiny(function: str, family: str, width: int, parameters: int) -> ZooEntry:
    return ZooEntry(f"tiny:{function}", family, parameters, {"width": width})


ZOO: dict[str, ZooEntry] = {
    "resnet8": _resnet(8, 83_892),
    "resnet14": _resnet(14, 181_108),
    "resnet20": _resnet(20, 278_324),
    "resnet32": _resnet(32, 472_756),
    "resnet44": _resnet(44, 667_188),
    "resnet56": _resnet(56, 861_620),
    "resnet110": _resnet(110, 1_736_564),
    "resnet8x4": _resnet(8, 1_233_540, (32, 64, 128, 256)),
    "resnet32x4": _resnet(32, 7_433_860, (32, 64, 128, 256)),
    "wrn_16_1": _wide(16, 1, 180_916),
    "wrn_16_2": _wide(16, 2, 703_284),
    "wrn_40_1": _wide(40, 1, 569_780),
    "wrn_40_2": _wide(40, 2, 2_255_156),
    "wrn_16_8": _wide(16, 8, 11_007_540),
    "wrn_28_10": _wide(28, 10, 36_536_884),
    "vgg8": _vgg((1, 1, 1, 1, 1), 3_965_028),
    "vgg11": _vgg((1, 1, 2, 2, 2), 9_277_284),
    "vgg13": _vgg((2, 2, 2, 2, 2), 9_462_180),
    "vgg16": _vgg((2, 2, 3, 3, 3), 14_774_436),
    "vgg19": _vgg((2, 2, 4, 4, 4), 20_086_692),
    "mobilenetv2": ZooEntry("mobilenetv2:MobileNetV2", "MobileNetV2", 812_836, {"width": 0.5, "expansion": 6}),
    "shufflenetv1": ZooEntry(
        "shufflenetv1:ShuffleNetV1", "ShuffleNet V1", 949_258, {"widths": (240, 480, 960), "groups": 3}
    ),
    "shufflenetv2": ZooEntry(
        "shufflenetv2:ShuffleNetV2", "ShuffleNet V2", 1_355_528, {"widths": (116, 232, 464, 1024)}
    ),
    "resnet18c": _resnet_c("plain", (2, 2, 2, 2), 11_220_132),
    "resnet34c": _resnet_c("plain", (3, 4, 6, 3), 21_328_292),
    "resnet50c": _resnet_c("bottleneck", (3, 4, 6, 3), 23_705_252),
    "convnet4": _tiny("convnet", "tiny ConvNet", 4, 3_896),
    "convnet8": _tiny("convnet", "tiny ConvNet", 8, 11_724),
    "convnet12": _tiny("convnet", "tiny ConvNet", 12, 23_584),
    "convnet16": _tiny("convnet", "tiny ConvNet", 16, 39_476),
    "convnet32": _tiny("convnet", "tiny ConvNet", 32, 143_364),
    "dwnet8": _tiny("dwnet", "tiny DepthwiseNet", 8, 6_436),
    "dwnet16": _tiny("dwnet", "tiny DepthwiseNet", 16, 16_612),
    "dwnet32": _tiny("dwnet", "tiny DepthwiseNet", 32, 48_484),
}


# By family, the maps that RepDistiller's networks hand out, as those of the code built on it do: its ``feat[1:-1]``.
# Hints (FitNet, AEKD, FitNet-MKD) read the second, SP, CA-MKD and MMKD the last, AT all of them.
RELEASED_PLACES: dict[str, tuple[str, ...]] = {
    "CIFAR ResNet": ("layer1", "layer2", "layer3"),
    "Wide ResNet": ("block1", "block2", "block3"),
    "VGG": ("relu1", "relu2", "relu3", "relu4"),
    "MobileNetV2": ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    "ShuffleNet V1": ("layer1", "layer2", "layer3"),
    "ShuffleNet V2": ("layer1", "layer2", "layer3"),
    "ResNet": ("layer1", "layer2", "layer3", "layer4"),
}


def released_places(name: str) -> tuple[str, ...]:
    """The places of a network's maps in released code, from image to prediction; empty where there is none."""
    return RELEASED_PLACES.get(ZOO[name].family, ()) if name in ZOO else ()


def build(package: str, target: str, **arguments: Any) -> Any:
    """The network that ``target``, ``module:class`` inside ``classroomkd.models.<package>``, makes of ``arguments``."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(f"classroomkd.models.{package}.{module}"), name)(**arguments)


def names() -> list[str]:
    """The names of the zoo, grouped by family, smallest first."""
    return list(ZOO)


def table() -> list[dict[str, Any]]:
    """One row a network: ``name``, ``family`` and ``parameters`` (exact, at 100 classes and 3 channels)."""
    return [{"name": name, "family": entry.family, "parameters": entry.parameters} for name, entry in ZOO.items()]
