"""Which BatchNorm of a network runs on the output of which layer, found by one watched dry run.

Tensors are told apart by identity: the BatchNorm must be handed the very object that the layer has just returned, and
no operation, place that is kept, or answer of the network may have that object in hand as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

__all__ = ["TOLERANCE", "Pair", "find_pairs", "relative_error", "tensors_in"]

TOLERANCE = 1e-5  # of the largest value, in float32
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_ABOUT = (torch.Size, int, torch.dtype, torch.device, torch.layout, tuple)  # what a tensor is asked besides its values


Place = tuple[int, bool]  # a module's identity, and whether its input is meant


@dataclass(eq=False)
class _LayerOutput:
    """The output of a layer: held, so that no other tensor gets its identity while the dry run lasts."""

    layer: nn.Module
    value: Tensor
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    readers: int = 0  # BatchNorms it is handed to
    seen: bool = False  # by anyone else
    places: set[Place] = field(default_factory=set)  # modules that it goes into (True) or comes out of


@dataclass(eq=False)
class Pair:
    """A BatchNorm and the layer whose output it is handed."""

    layer: nn.Module
    norm: _BatchNorm
    stand_in: nn.Module
    places: set[Place] = field(default_factory=set)  # where the value between the two can be read
    weight: nn.Parameter | None = None
    bias: nn.Parameter | None = None
    parents: list[tuple[nn.Module, str]] = field(default_factory=list)  # of the BatchNorm, and its name there

    def fold(self, network: nn.Module) -> None:
        """Give the layer the weights of both, and put the stand-in where the BatchNorm was."""
        self.weight, self.bias = _set(self.layer, *_fused(self.layer, self.norm))
        self.parents = [(m, name) for m in network.modules() for name, x in m._modules.items() if x is self.norm]
        for parent, name in self.parents:
            parent._modules[name] = self.stand_in

    def undo(self) -> None:
        """Put everything back."""
        _set(self.layer, self.weight, self.bias)
        for parent, name in self.parents:
            parent._modules[name] = self.norm


@dataclass
class _Uses(TorchFunctionMode):
    """Marks every layer's output that an operation takes, outside the BatchNorm that is running.

    A function mode and not a dispatch mode, which would import torch's compiler: seconds in every process.
    """

    outputs: dict[int, _LayerOutput] = field(default_factory=dict)
    inside: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = [] if self.inside else [(x, x._version) for x in tensors_in((args, kwargs)) if id(x) in self.outputs]
        result = func(*args, **kwargs)
        if tensors_in(result) or not isinstance(result, _ABOUT):
            # What comes back untouched (dropout in evaluation) is still the layer's output.
            self.mark(x for x, version in taken if result is not x or x._version != version)
        return result

    def mark(self, values: Iterable[Tensor]) -> None:
        """Something besides a BatchNorm reads these."""
        for value in values:
            if (output := self.outputs.get(id(value))) is not None:
                output.seen = True


@torch.no_grad()
def find_pairs(network: nn.Module, pixels: Tensor, keep: Iterable[str] = ()) -> tuple[list[Tensor], list[Pair]]:
    """The network's answer, and the pairs that can be folded.

    Both of a pair run once, nothing but the BatchNorm reads what is between them, neither has hooks of its own, and
    the folded layer gives on what went in what the two gave.

    Args:
        network: in evaluation mode; the same afterwards.
        pixels: a batch it takes.
        keep: places whose activation must stay what it is.
    """
    uses = _Uses()
    calls: dict[int, int] = {}
    candidates: list[tuple[_LayerOutput, Pair, bool]] = []
    handles = []

    def on_layer(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls[id(layer)] = calls.get(id(layer), 0) + 1
        if isinstance(output, Tensor):
            uses.outputs[id(output)] = _LayerOutput(layer, output, args, kwargs)

    def before_norm(norm: nn.Module, args: tuple[Any, ...]) -> None:
        uses.inside += 1

    def on_norm(norm: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[id(norm)] = calls.get(id(norm), 0) + 1
        read = uses.outputs.get(id(args[0])) if args else None
        if read is not None and isinstance(norm, _BatchNorm):
            read.readers += 1
            pair = Pair(read.layer, norm, _stand_in(norm))
            candidates.append((read, pair, _pair_agrees(read, pair, output)))
            read.args, read.kwargs = (), {}
        uses.inside -= 1

    def pass_by(values: Any, place: Place) -> None:
        for value in tensors_in(values):
            if (passed := uses.outputs.get(id(value))) is not None:
                passed.places.add(place)

    needed = set()  # by somebody else
    for place in keep:
        name, _, end = place.partition(":")
        needed.add((id(network.get_submodule(name)), bool(end)))
    for layer in network.modules():
        key = id(layer)
        if _is_hooked(layer):
            needed |= {(key, True), (key, False)}
        elif _is_layer(layer):
            handles.append(layer.register_forward_hook(on_layer, with_kwargs=True))
        elif isinstance(layer, _BatchNorm):
            handles.append(layer.register_forward_pre_hook(before_norm))
            handles.append(layer.register_forward_hook(on_norm))
        handles.append(
            layer.register_forward_pre_hook(lambda _, a, k, key=key: pass_by((a, k), (key, True)), with_kwargs=True)
        )
        handles.append(layer.register_forward_hook(lambda _, __, output, key=key: pass_by(output, (key, False))))
    try:
        with uses:
            answer = tensors_in(network(pixels))
    finally:
        for handle in handles:
            handle.remove()
    uses.mark(answer)
    pairs = []
    for read, pair, agrees in candidates:
        once = calls[id(pair.layer)] == calls[id(pair.norm)] == read.readers == 1
        if agrees and once and not read.seen and not read.places & needed:
            pair.places = read.places
            pairs.append(pair)
    return answer, pairs


def _is_layer(layer: nn.Module) -> bool:
    if isinstance(layer, _ConvTransposeNd):
        return layer.groups == 1
    return isinstance(layer, nn.Linear | _ConvNd)


def _is_hooked(layer: nn.Module) -> bool:
    """Whether somebody watches this layer, or makes its weights anew at each call."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or "parametrizations" in layer._modules)


def _stand_in(norm: _BatchNorm) -> nn.Module:
    """What stays of a BatchNorm when its own arithmetic is gone; whether that is right is checked."""
    inside = OrderedDict(norm.named_children())
    return (nn.Identity() if type(norm) in _PLAIN or not inside else nn.Sequential(inside)).eval()


def _fused(layer: nn.Module, norm: _BatchNorm) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of both together, computed in float64 where the device has it."""
    own: Any = layer
    kind = torch.float32 if own.weight.device.type == "mps" else torch.float64

    def wide(x: Tensor | None) -> Any:
        return None if x is None else x.detach().to(kind)

    weight, bias = fuse_conv_bn_weights(
        wide(own.weight),
        wide(own.bias),
        wide(norm.running_mean),
        wide(norm.running_var),
        norm.eps,
        wide(norm.weight),
        wide(norm.bias),
        transpose=isinstance(layer, _ConvTransposeNd),
    )
    learns = own.weight.requires_grad
    return tuple(nn.Parameter(x.detach().to(own.weight.dtype), learns) for x in (weight, bias))  # type: ignore[return-value]


def _set(
    layer: nn.Module, weight: nn.Parameter | None, bias: nn.Parameter | None
) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    """Give a layer other weights; returns those it had."""
    own: Any = layer
    had = own.weight, own.bias
    own.weight, own.bias = weight, bias
    return had


def _pair_agrees(read: _LayerOutput, pair: Pair, expected: Any) -> bool:
    """Whether the folded layer gives what the two gave, on what went in: a layer may compute with its weights anything.

    It is called past its hooks, and put back.
    """
    norm = pair.norm
    if norm.running_mean is None or norm.running_var is None or not isinstance(expected, Tensor):
        return False
    if read.value.shape[1] != norm.num_features:
        return False
    had = None
    try:
        had = _set(read.layer, *_fused(read.layer, norm))
        result = pair.stand_in(read.layer.forward(*read.args, **read.kwargs))
    except Exception:  # whatever a layer of the user's raises about weights that are not its own
        return False
    finally:
        if had is not None:
            _set(read.layer, *had)
    return relative_error([result], [expected]) <= TOLERANCE


def relative_error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference over the largest expected value, over all tensors; infinite where they cannot match."""
    if len(actual) != len(expected) or not expected:
        return float("inf")
    worst = 0.0
    for a, b in zip(actual, expected, strict=True):
        if a.shape != b.shape or not bool(a.isfinite().all() & b.isfinite().all()):
            return float("inf")
        if b.numel():
            far, scale = (a.double() - b.double()).abs().max(), b.double().abs().max()
            worst = max(worst, float(far / scale.clamp_min(torch.finfo(torch.float32).tiny)))
    return worst


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor in what a network returned: nested tuples, lists, mappings, and objects with ``.logits``."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [x for value in output.values() for x in tensors_in(value)]
    if isinstance(output, tuple | list):
        return [x for value in output for x in tensors_in(value)]
    logits = getattr(output, "logits", None)
    return [logits] if isinstance(logits, Tensor) else []
