"""Published weights of the bodies that pose networks stand on; their heads start afresh."""

from __future__ import annotations

from typing import Any

from torch import nn

from classroomkd.errors import UserError
from classroomkd.models.checkpoints import read_checkpoint
from classroomkd.models.pose.backbones import features
from classroomkd.models.pose.catalogue import POSE
from classroomkd.models.published import published

__all__ = ["library_name", "start_body"]

_HEADS = ("final_layer.", "deconv_layers.")


def library_name(spec: str) -> str | None:
    """The network of timm that a pose network stands on, ``timm:NAME``; None where there is none."""
    kind, _, rest = spec.partition(":")
    if kind in ("simcc", "heatmap") and rest.startswith("timm:"):
        return rest
    return f"timm:{POSE[spec].library}" if spec in POSE and POSE[spec].library else None


def start_body(network: nn.Module, spec: str) -> dict[str, str]:
    """Load the published weights of a pose network's body out of the local cache.

    Returns:
        ``note`` with the file, and ``reset_head``.

    Raises:
        UserError: it stands on no network of a library, there are no such weights, or they are not on this machine.
    """
    library = library_name(spec)
    if library is None:
        raise UserError(f"'{spec}' has no published weights here; give weights: FILE")
    weights = published(library)
    file = weights.found()
    if file.suffix != ".npz":
        read_checkpoint(file, what=f"network '{library}'")
    body: Any = getattr(network, "body", None)
    holder: Any = network if body is None else body
    name, options = holder.library
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    state = features(spec, name, {**options, **overlay}).state_dict()
    target = network if body is None else body.features
    own = target.state_dict()
    fresh = [key for key in own if key not in state]
    assert all(key.startswith(_HEADS) for key in fresh), fresh
    target.load_state_dict({key: own[key] if key in fresh else state[key] for key in own})
    return {
        "note": f"published weights {file} of its body",
        "reset_head": "its body has published weights, its head none",
    }
