"""One watched forward pass: which modules ran inside which, and the shapes that went in and came out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.taps.taps import first_tensor, is_compiled, prediction_of, submodules, unwrapped

__all__ = ["Node", "at_rest", "dry_run", "watch"]


@dataclass(eq=False)
class Node:
    """One module in the tree of what ran: its children are the modules that were called while it ran.

    Attributes:
        name: the module's name without wrappers.
        layer: the module, without wrappers.
        children: in the order of their first call.
        calls: how often it ran.
        finished: the rank of its end among all ends.
        input, output: shapes with the batch; None where there was no tensor.
        passes: whether it returned its input untouched (dropout in evaluation, identity).
        single: whether one tensor came out and no second beside it.
    """

    name: str
    layer: nn.Module
    children: list[Node] = field(default_factory=list)
    calls: int = 0
    finished: int = -1
    input: tuple[int, ...] | None = None
    output: tuple[int, ...] | None = None
    passes: bool = False
    single: bool = False
    _small: Tensor | None = None  # an output that may be the prediction; larger ones are not held

    def shape(self, is_input: bool) -> tuple[int, ...] | None:
        """The shape that went in, or that came out."""
        return self.input if is_input else self.output

    def is_output(self, prediction: Tensor) -> bool:
        """Whether this node's output is the prediction, perhaps reshaped."""
        output = self._small
        if output is None or output.numel() != prediction.numel():
            return False
        return output.untyped_storage().data_ptr() == prediction.untyped_storage().data_ptr()

    def inside(self) -> Iterator[Node]:
        """All that ran inside, at any depth."""
        for child in self.children:
            yield child
            yield from child.inside()

    @property
    def has_parameters(self) -> bool:
        """Whether anything in it learns."""
        return any(True for _ in self.layer.parameters())

    @property
    def has_window(self) -> bool:
        """Whether a convolution in it sees more than one position."""
        convolutions = (m for m in self.layer.modules() if isinstance(m, nn.modules.conv._ConvNd))
        return any(max(convolution.kernel_size) > 1 for convolution in convolutions)

    @property
    def width(self) -> int | None:
        """Its outputs, where it is a linear layer or a convolution of one position; None where it is neither."""
        if isinstance(self.layer, nn.modules.conv._ConvNd):
            return None if self.has_window else self.layer.out_channels
        return self.layer.out_features if isinstance(self.layer, nn.Linear) else None

    @property
    def is_weighing(self) -> bool:
        """Whether it is a linear layer or any convolution."""
        return isinstance(self.layer, nn.Linear | nn.modules.conv._ConvNd)

    @property
    def is_pooling(self) -> bool:
        """Whether it calls itself a pooling: at 1x1 nothing else tells."""
        return "pool" in type(self.layer).__name__.lower()


def watch(module: nn.Module, example: Tensor, what: str) -> tuple[Node, dict[str, Node], Tensor]:
    """Run ``module`` on ``example`` without gradients and return the tree's root, all nodes by name, the prediction.

    Raises:
        UserError: the network cannot take the example.
    """
    network = unwrapped(module)
    nodes = {name: Node(name, unwrapped(layer)) for name, layer in submodules(module).items()}
    root = nodes[""] = Node("", network)
    stack: list[Node] = [root]
    ends = 0
    entered: dict[str, tuple[Tensor, int]] = {}
    handles = []

    def enter(node: Node, args: Any, kwargs: Any) -> None:
        node.calls += 1
        if node.calls == 1:
            stack[-1].children.append(node)
        value = first_tensor((*args, *kwargs.values()))
        node.input = None if value is None else tuple(value.shape)
        if value is not None:
            entered[node.name] = value, value._version
        stack.append(node)

    def leave(node: Node, output: Any) -> None:
        nonlocal ends
        while stack.pop() is not node:
            pass
        node.finished, ends = ends, ends + 1
        try:
            value = prediction_of(output)
        except UserError:
            node.output = node._small = None
            return
        node.output = tuple(value.shape)
        node.single = isinstance(output, Tensor) or sum(isinstance(part, Tensor) for part in output) == 1
        given, version = entered.pop(node.name, (None, 0))
        node.passes = value is given and value._version == version  # an activation in place counts its change
        node._small = value if value.dim() > 1 and value.numel() == value.shape[0] * value.shape[1] else None

    for node in nodes.values():
        if node is root:
            continue
        handles.append(
            node.layer.register_forward_pre_hook(lambda _, a, k, node=node: enter(node, a, k), with_kwargs=True)
        )
        handles.append(node.layer.register_forward_hook(lambda _, __, output, node=node: leave(node, output)))
    try:
        with dry_run(network, example.device):
            prediction = prediction_of(network(example))
    except Exception as error:
        size = "x".join(str(side) for side in example.shape[1:])
        raise UserError(f"{what} cannot take images of {size}: {type(error).__name__}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return root, nodes, prediction


@contextlib.contextmanager
def dry_run(module: nn.Module, device: torch.device) -> Iterator[None]:
    """:func:`at_rest`, without gradients; the random state is as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with at_rest(module), torch.no_grad(), torch.random.fork_rng(devices=devices):
        yield


@contextlib.contextmanager
def at_rest(module: nn.Module, freeze: bool = False) -> Iterator[None]:
    """Evaluation mode and no compilation inside the block, on demand frozen; everything is as before afterwards."""
    layers = list(module.modules())
    modes = [layer for layer in layers if layer.training]
    learning = [
        p for layer in layers for p in layer._parameters.values() if freeze and p is not None and p.requires_grad
    ]
    # Hooks of the moment would be ignored by compiled code, or compiled into it.
    stance = torch.compiler.set_stance("force_eager") if is_compiled(layers) else contextlib.nullcontext()
    try:
        for layer in modes:
            layer.training = False
        for parameter in learning:
            parameter.requires_grad = False
        with stance:
            yield
    finally:
        for layer in modes:
            layer.training = True
        for parameter in learning:
            parameter.requires_grad = True
