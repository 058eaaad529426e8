"""What a network is, for the keys of everything that is kept of it."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classroomkd.classroom import prediction_of
from classroomkd.classroom.batches import precision_of
from classroomkd.taps.trace import at_rest

if TYPE_CHECKING:
    from classroomkd.run.context import RunContext

__all__ = ["content_key", "network_fingerprint"]


def content_key(**content: Any) -> str:
    """A hash of plain data: equal content, equal key."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


@torch.no_grad()
def network_fingerprint(context: RunContext, module: nn.Module, own: bool) -> str:
    """SHA-256 of its tensors by name, type and shape, and of its code.

    A network of a library is its layers in the package's version; so it has one key on every machine. The user's own
    code (``own``: ``py:`` models, networks handed over in Python) may change without a name for it, so
    there what the network says about a fixed image counts, to the bit; it differs between kinds of processors.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    if not own:
        digest.update(f"{module} {_packages(module)}".encode())
        return digest.hexdigest()
    probe = torch.linspace(-2, 2, 2 * math.prod(context.data.shape)).view(2, *context.data.shape)
    with at_rest(module):
        try:
            output = prediction_of(module(probe.to(context.runtime.device, precision_of(module)))).float()
            digest.update(output.to("cpu").contiguous().numpy().tobytes())
        except (RuntimeError, ValueError, AssertionError):
            digest.update(b"another input size")  # then its tensors must tell
    return digest.hexdigest()


def _packages(module: nn.Module) -> str:
    """Where its layers come from, with versions; torch's is no part of a key, this package's stands in it already."""
    names = {type(layer).__module__.partition(".")[0] for layer in module.modules()} - {"torch", "classroomkd"}
    versions = []
    for name in sorted(names):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # a package of another name, or code that is not installed
            versions.append(name)
    return ", ".join(versions)
