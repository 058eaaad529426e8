"""Folding: batch normalisations of a frozen network into the convolutions before them, in any network.

It needs no knowledge of the network: a dry run finds the pairs (``models.pairs``), every pair is checked on the spot,
and the whole network once more afterwards.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classroomkd.models.pairs import TOLERANCE, find_pairs, relative_error, tensors_in

__all__ = ["Folded", "fold", "probe"]


@dataclass(frozen=True)
class Folded:
    """A folded copy of a network.

    Attributes:
        module: the copy, in evaluation mode.
        count: BatchNorms that were folded.
        changed: places (``NAME``, ``NAME:input``) whose activation is another than in the original.
    """

    module: nn.Module
    count: int
    changed: frozenset[str]


def fold(module: nn.Module, example: Tensor, keep: Iterable[str] = ()) -> Folded:
    """A copy of ``module`` in evaluation mode, with every BatchNorm folded that can be.

    A BatchNorm is folded when it runs once, on the untouched output of a convolution or linear layer that runs once,
    and nothing else reads that output. It becomes an ``nn.Identity`` of its name; one with an activation inside (a
    subclass with children, as timm's) becomes an ``nn.Sequential`` of its children under their names. Layers with
    hooks of their own are left alone. Where the folded network's answer to a random batch differs from the
    original's by more than 1e-5 of its largest value in float32, or is not finite, nothing is folded at all.

    Args:
        module: any network, without wrappers; it is not changed.
        example: a batch ``(B, ...)`` of the inputs it takes; shape, precision and device are used, not the values.
        keep: places whose activation must stay what it is.

    Returns:
        The copy, in the module's own precision; a plain copy where nothing could be folded.
    """
    network = copy.deepcopy(module).eval()
    kinds = {x.dtype for x in (*network.parameters(), *network.buffers()) if x.is_floating_point()}
    if len(kinds) != 1 or not any(isinstance(layer, _BatchNorm) for layer in network.modules()):
        return Folded(network, 0, frozenset())  # nothing to fold, or precisions that a cast would lose
    own = kinds.pop()
    half = own in (torch.float16, torch.bfloat16)
    network = network.float() if half else network
    pixels = probe(example, torch.float32 if half else own)
    names = {(id(layer), False): name for name, layer in network.named_modules()}
    names |= {(key, True): f"{name}:input" for (key, _), name in names.items()}
    devices = [pixels.device] if pixels.device.type == "cuda" else []
    with torch.no_grad(), _plain_arithmetic(pixels.device), torch.random.fork_rng(devices=devices):
        try:
            before, pairs = find_pairs(network, pixels, keep)
        except Exception:  # a network that does not take such inputs, or no hooks, says so itself when it is used
            before, pairs = [], []
        for pair in pairs:
            pair.fold(network)
        if pairs and not _agrees(network, pixels, before):
            for pair in pairs:
                pair.undo()
            pairs = []
    changed = frozenset(names[place] for pair in pairs for place in pair.places)
    return Folded(network.to(own) if half else network, len(pairs), changed)


def _agrees(network: nn.Module, pixels: Tensor, before: list[Tensor]) -> bool:
    try:
        after = tensors_in(network(pixels))
    except Exception:  # code of the user's that asked the BatchNorm for something
        return False
    return relative_error(after, before) <= TOLERANCE


def probe(example: Tensor, dtype: torch.dtype) -> Tensor:
    """A batch of at most two such inputs, from the normal distribution, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((min(2, len(example)), *example.shape[1:]), generator=generator).to(example.device, dtype)


@contextlib.contextmanager
def _plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Float32 is float32 inside: no autocast, and no TF32, which would hide or feign a difference."""
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
