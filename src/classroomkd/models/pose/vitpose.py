"""ViTPose through transformers, as a mentor: published or local weights, never trained here.

``vitpose:usyd-community/vitpose-base-simple`` is fetched from the hub once; ``vitpose:./folder`` is a saved model.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd._compat import import_torchvision, installed
from classroomkd.errors import UserError

__all__ = ["ViTPose", "check_vitpose", "vitpose"]


class ViTPose(nn.Module):
    """``(B, 3, H, W)`` to maps ``(B, K, H/4, W/4)``; frozen.

    Args:
        network: transformers' ``VitPoseForPoseEstimation``; its answer has ``heatmaps``.
        stride: pixels a cell.
        experts: experts of the "plus" models, which want to know whose data an image is like; 1 = none. The first
            expert is COCO's.
    """

    def __init__(self, network: nn.Module, stride: int, experts: int = 1) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.experts = experts
        self.pose_head: dict[str, Any] = {"kind": "heatmap", "stride": stride}
        self.preprocessing = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # ImageNet's, as published

    def forward(self, x: Tensor) -> Tensor:
        """Crops to one map a joint."""
        chosen = {"dataset_index": torch.zeros(len(x), dtype=torch.int64, device=x.device)} if self.experts > 1 else {}
        answer: Tensor = self.network(x, **chosen).heatmaps
        return answer


def check_vitpose(spec: str) -> None:
    """Raise the ``UserError`` of a name that cannot be one, or of a package that is missing."""
    name = spec.partition(":")[2]
    if "/" not in name.strip("/"):
        raise UserError(
            f"'{spec}' is not of the form vitpose:ORG/NAME, for example vitpose:usyd-community/vitpose-base-simple "
            "(or vitpose:./folder of a saved model)"
        )
    if name[0] in "./~" and not Path(name).expanduser().is_dir():
        raise UserError(f"'{spec}': there is no folder {name}")
    if not installed("transformers"):
        raise UserError(f"'{spec}' needs transformers, which is not installed: pip install transformers")


def vitpose(*, spec: str, joints: int, size: tuple[int, int], in_channels: int) -> ViTPose:
    """A published or saved ViTPose.

    Raises:
        UserError: transformers is missing or too old, the model is not there, or it has other joints or another size.
    """
    check_vitpose(spec)
    name = spec.partition(":")[2]
    if installed("torchvision"):
        import_torchvision(f"'{spec}'")  # transformers imports it, and fails where its wheel is for another torch
    try:
        kind = importlib.import_module("transformers").VitPoseForPoseEstimation
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"'{spec}': the installed transformers has no ViTPose ({error}): pip install -U \"transformers>=4.48\""
        ) from error
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's remarks about its own defaults
            network = kind.from_pretrained(
                str(Path(name).expanduser()) if name[0] in "./~" else name, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"'{spec}' cannot be loaded: {first}") from error
    config = network.config
    own, body = int(config.num_labels), config.backbone_config
    if own != joints:
        raise UserError(f"'{spec}' finds {own} joints, not {joints}: give the mentor the skeleton it was trained on")
    expected = tuple(int(side) for side in body.image_size)
    if in_channels != 3 or expected != size:
        raise UserError(
            f"'{spec}' takes crops of 3 x {expected[0]} x {expected[1]}, not {in_channels} x {size[0]} x {size[1]}; "
            f"set the mentor's size: [{expected[0]}, {expected[1]}]"
        )
    patch = body.patch_size[0] if isinstance(body.patch_size, list | tuple) else body.patch_size
    return ViTPose(network, int(patch) // int(config.scale_factor), int(getattr(body, "num_experts", 1)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars."""
    log = getattr(getattr(importlib.import_module("transformers"), "utils", None), "logging", None)
    if log is None or not log.is_progress_bar_enabled():
        yield
        return
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.enable_progress_bar()
