"""Replay: what a network would predict if its activation at a tap were another one.

The network runs on one blank image with a hook that puts the given activations in the tap's place, so what lies before
the tap costs a single sample and what lies behind it runs on the whole batch. No part of the network need be known.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from classroomkd.errors import UserError
from classroomkd.taps.layout import Layout, image_size, layout_of
from classroomkd.taps.taps import first_tensor, locate, prediction_of, unwrapped
from classroomkd.taps.trace import at_rest

__all__ = ["check_forward_from_tap", "forward_from_tap"]

_running: ContextVar[object] = ContextVar("classroomkd_replay", default=None)
_TOLERANCE = 1e-3  # of the largest logit; batches of other sizes may run through other kernels


def forward_from_tap(
    module: nn.Module,
    place: str,
    value: Tensor,
    example: Tensor,
    *,
    prefix: Tensor | None = None,
    thin: bool = True,
    what: str | None = None,
) -> Tensor:
    """The network's prediction ``(B, classes)`` when its activation at ``place`` is ``value``.

    Gradients flow from the prediction to ``value`` and nowhere else: the network runs in evaluation mode with frozen
    parameters. Nothing stays in it afterwards. The given tensor is copied, so activations in place do not change it.

    Args:
        module: any network, bare or wrapped.
        place: a submodule's name, for its output, or ``NAME:input``.
        value: ``(B, channels, H, W)`` of the map's own size, or ``(B, channels)`` where the tap is a vector.
        example: a blank input ``(1, channels, H, W)`` of the usual size. Tokens in front of a grid (a class token) are
            the example's own, unless ``prefix`` brings them.
        prefix: ``(B or 1, tokens, channels)`` to put in front of a grid of tokens.
        thin: run on one sample up to the tap; False = on B of them, for networks that remember the batch's size.
        what: how messages call the network; None = its class.

    Raises:
        UserError: a value of another shape than the tap's, a tap that does not run or holds no tensor.
    """
    network = unwrapped(module)
    layer, is_input = locate(module, place)
    named = f"tap '{place}' of {what or type(network).__name__}"
    token = object()
    done = False

    def swap(own: Tensor | None) -> Tensor | None:
        nonlocal done
        if done or _running.get() is not token:  # another pass through the same network, inside this one
            return None
        done = True
        if own is None:
            raise UserError(f"{named} holds no tensor; choose another")
        return _fitted(value, own, layout_of(own, image=image_size(example), what=named), prefix, named)

    handle = _hook(layer, is_input, swap)
    blank = example[:1] if thin else example[:1].expand(value.shape[0], *example.shape[1:])
    before = _running.set(token)
    try:
        with at_rest(network, freeze=True):
            prediction = prediction_of(network(blank))
    finally:
        _running.reset(before)
        handle.remove()
    if not done:
        raise UserError(f"{named} exists but did not run in this forward pass; choose another")
    return prediction


def _hook(layer: nn.Module, is_input: bool, on_value: Callable[[Tensor | None], Tensor | None]) -> RemovableHandle:
    """Have ``on_value`` called with the activation, None where it is no tensor; what it gives takes its place."""

    def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        own = first_tensor((*args, *kwargs.values()))
        if (new := on_value(own)) is None:
            return None
        return (
            tuple(new if a is own else a for a in args),
            {key: new if a is own else a for key, a in kwargs.items()},
        )

    def on_output(_: nn.Module, args: Any, output: Any) -> Any:
        if type(output) in (tuple, list) and output and isinstance(output[0], Tensor):
            new = on_value(output[0])
            return None if new is None else type(output)((new, *output[1:]))
        return on_value(output if isinstance(output, Tensor) else None)

    if is_input:
        return layer.register_forward_pre_hook(on_input, with_kwargs=True)
    return layer.register_forward_hook(on_output)


def _fitted(value: Tensor, own: Tensor, layout: Layout, prefix: Tensor | None, named: str) -> Tensor:
    """The value as the network holds its activations here, copied, in the precision it has here."""
    wanted = layout.map_shape
    given = (*value.shape[1:], 1, 1) if layout.kind == "vector" and value.dim() == 2 else tuple(value.shape[1:])
    if given != wanted:
        raise UserError(f"{named} holds {_size(wanted)} a sample, the given activation {_size(given)}")
    front = layout.prefix_of(own) if prefix is None else prefix.to(own.dtype)
    return layout.restore(value.to(own.dtype).clone(), front)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


@torch.no_grad()
def check_forward_from_tap(module: nn.Module, place: str, example: Tensor, what: str | None = None) -> bool:
    """Check that the network's prediction follows from its activation at ``place``, and from nothing beside it.

    Two random images are run, and their activations replayed on a blank one. The prediction must come back, for it
    does not when something else of the image reaches it (a skip connection), and must change with the activation.

    Args:
        module, place, example, what: as for :func:`forward_from_tap`.

    Returns:
        Whether ``thin`` replays serve; if not, the network needs ``thin=False``.

    Raises:
        UserError: a tap that the prediction does not follow from.
    """
    network = unwrapped(module)
    name = what or type(network).__name__
    generator = torch.Generator(example.device).manual_seed(0)
    size = (2, *example.shape[1:])
    images = torch.randn(size, generator=generator, device=example.device, dtype=torch.float32).to(example.dtype)
    own, expected = _activation(network, place, images)
    layout = layout_of(own, image=image_size(example), what=f"tap '{place}' of {name}")
    value, prefix = layout.as_map(own), layout.prefix_of(own)
    thin = next((t for t in (True, False) if _same(network, place, value, example, prefix, t, expected)), None)
    if thin is None:
        raise UserError(
            f"{name}: its prediction does not depend on tap '{place}' alone (a skip connection passes it by); choose "
            "another tap"
        )
    # Another image's activation, turned about: whatever the head reads of it has changed.
    other = forward_from_tap(network, place, value.flip(0, 2, 3) * -1.5 + 0.5, example, prefix=prefix, thin=thin)
    if torch.equal(other, expected):
        reads = "only the tokens in front of its map" if layout.prefix else "nothing there"
        raise UserError(f"{name}: its prediction reads {reads} at tap '{place}'; choose an earlier tap")
    return thin


def _activation(network: nn.Module, place: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """The activation at a place, and the prediction, of a batch."""
    caught: list[Tensor | None] = []
    handle = _hook(*locate(network, place), lambda value: caught.append(None if value is None else value.clone()))
    try:
        with at_rest(network):
            prediction = prediction_of(network(images))
    finally:
        handle.remove()
    if len(caught) != 1 or caught[0] is None:
        times = f"runs {len(caught)} times in one pass" if len(caught) != 1 else "holds no tensor"
        raise UserError(f"tap '{place}' of {type(network).__name__} {times}; choose another")
    return caught[0], prediction


def _same(
    network: nn.Module,
    place: str,
    value: Tensor,
    example: Tensor,
    prefix: Tensor | None,
    thin: bool,
    expected: Tensor,
) -> bool:
    try:
        prediction = forward_from_tap(network, place, value, example, prefix=prefix, thin=thin)
    except UserError:
        raise
    except RuntimeError:  # shapes that do not fit: the network counted its batch before the tap
        return False
    if prediction.shape != expected.shape:
        return False
    if not bool(expected.isfinite().all()):
        return True  # a broken mentor says nothing whatever it is shown; methods leave it out
    eps = torch.finfo(expected.dtype).eps
    scale = max(_TOLERANCE, eps**0.5) * expected.abs().max()
    return bool(torch.all((prediction - expected).abs() <= scale))
