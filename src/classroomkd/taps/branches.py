"""Branches: copies of what lies behind a place of a network, on the one trunk before it.

A network is cut at a place: what has run by then is the trunk, all that runs later the branch. A branch is a whole
network of the same form whose trunk *is* the first network's, module by module, and whose rest is its own: it scores,
saves and loads like any other. In training the trunk runs once: a branch goes on from its activation
(:meth:`Branch.onward`). Nothing of the network need be known, as for :mod:`.segments`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.taps.roles import find_place
from classroomkd.taps.segments import check_forward_from_tap
from classroomkd.taps.taps import TapReader, locate, prediction_of, remove_readers, submodules, unwrapped
from classroomkd.taps.trace import at_rest

__all__ = ["CUT", "Branch", "Cut", "cut"]

CUT = "@cut"  # what a reader calls the trunk's activation


@dataclass(frozen=True)
class Cut:
    """Where a network is cut.

    Attributes:
        place: the submodule whose output (or ``NAME:input``, its input) the branches begin with.
        trunk, behind: names of the submodules, each with all that is in it, that run before it, and after.
        spanning: names of those that are under way when it is reached; the network itself is ``""``.
        before, after: parameters that such a one holds itself, by where they act.
        example: a blank input of one sample.
        thin: whether one sample suffices before the place when going on from it.
    """

    place: str
    trunk: tuple[str, ...]
    behind: tuple[str, ...]
    spanning: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    example: Tensor
    thin: bool

    def is_behind(self, name: str) -> bool:
        """Whether a submodule, or a tensor of the network by its name, is the branches' own."""
        return name in self.after or any(name == own or name.startswith(f"{own}.") for own in self.behind)


def cut(module: nn.Module, place: str, example: Tensor, what: str) -> Cut:
    """Cut a network behind a place.

    Args:
        module: any network, bare or wrapped.
        place: a submodule's name, ``NAME:input``, or a role (``@stage:-2``).
        example: a blank batch ``(B, channels, H, W)`` in its input space.
        what: how messages call it.

    Raises:
        UserError: there is no such place; the prediction follows from more than it; nothing that learns lies behind it;
            a layer or a parameter that acts on both sides.
    """
    network, blank = unwrapped(module), example[:1]
    found = find_place(network, place, example) if place.startswith("@") else place
    layer, is_input = locate(network, found)
    thin = check_forward_from_tap(network, found, blank, what)
    names = {"": network, **submodules(network, aliases=True)}
    calls = _watched(network, layer, is_input, names, blank)
    sides: dict[str, list[str]] = {"trunk": [], "behind": [], "spanning": []}
    for name, side in _walk(network, "", calls):
        if side is None:
            raise UserError(
                f"{what}: its layer '{name}' runs before and behind '{found}', so it cannot be cut there; choose "
                "another place"
            )
        sides[side].append(name)
    loose = [
        (f"{name}.{own}".lstrip("."), p)
        for name in sides["spanning"]
        for own, p in names[name]._parameters.items()
        if p is not None
    ]
    before, after = _act(network, layer, is_input, [p for _, p in loose], blank)
    for (name, _), one, two in zip(loose, before, after, strict=True):
        if one and two:
            raise UserError(
                f"{what}: its parameter '{name}' acts before and behind '{found}', so it cannot be cut there; choose "
                "another place"
            )
    own = tuple(name for (name, _), acts in zip(loose, after, strict=True) if acts)
    if not own and not any(True for name in sides["behind"] for _ in names[name].parameters()):
        raise UserError(f"{what}: nothing that learns lies behind '{found}'; choose an earlier place")
    others = tuple(name for name, _ in loose if name not in own)
    trunk, behind, spanning = (tuple(sides[side]) for side in ("trunk", "behind", "spanning"))
    return Cut(found, trunk, behind, spanning, others, own, blank, thin)


class Branch(nn.Module):
    """A network of the same form as another, on that one's trunk.

    Args:
        module: the network that is cut.
        where: it is.
        start: a network of the same form whose tensors behind the cut it begins with; None: its layers there draw new
            ones (``reset_parameters``) from the current generator.

    Attributes:
        network: the whole network. Its trunk's modules are those of ``module``: what trains one trains both.
    """

    _tail: TapReader

    def __init__(self, module: nn.Module, where: Cut, start: nn.Module | None = None) -> None:
        super().__init__()
        self.cut, trunk = where, unwrapped(module)
        shared: list[Any] = [trunk.get_submodule(name) for name in where.trunk]
        shared += [trunk.get_parameter(name) for name in where.before]
        self.network = copy.deepcopy(trunk, {id(one): one for one in shared})
        remove_readers(self.network, layers=self._own_layers(self.network))
        if start is None:
            for layer in self._own_layers(self.network, spanning=False):
                if callable(reset := getattr(layer, "reset_parameters", None)):
                    reset()
        else:
            self.network.load_state_dict(
                {key: value for key, value in unwrapped(start).state_dict().items() if where.is_behind(key)},
                strict=False,
            )
        # The same branch behind a trunk of its own, which never learns: it runs on one blank sample up to the place.
        kept: list[Any] = [self.network.get_submodule(name) for name in where.behind]
        kept += [self.network.get_parameter(name) for name in where.after]
        tail = copy.deepcopy(self.network, {id(one): one for one in kept})
        for name, parameter in tail.named_parameters():
            if not where.is_behind(name):
                parameter.requires_grad_(False)
        for name in where.trunk:
            tail.get_submodule(name).eval()
        self._value: Tensor | None = None
        self._example = where.example
        layer, is_input = locate(tail, where.place)
        if is_input:
            layer.register_forward_pre_hook(partial(self._enter), with_kwargs=True)
        else:
            layer.register_forward_hook(partial(self._leave))
        # Not as submodules: what is trained and saved is the network.
        object.__setattr__(self, "_tail", TapReader(tail))

    def _own_layers(self, network: nn.Module, spanning: bool = True) -> list[nn.Module]:
        layers = [layer for name in self.cut.behind for layer in network.get_submodule(name).modules()]
        return [*layers, *(network.get_submodule(name) for name in self.cut.spanning)] if spanning else layers

    def own_parameters(self) -> list[nn.Parameter]:
        """What the branch has beside the trunk."""
        return [p for name, p in self.network.named_parameters() if self.cut.is_behind(name)]

    def read(self, places: Mapping[str, str]) -> tuple[str, ...]:
        """Read these places (by tap) from now on; returns the taps that lie in the trunk, which it does not read."""
        own = {tap: place for tap, place in places.items() if self.cut.is_behind(place.partition(":")[0])}
        object.__setattr__(self, "_tail", TapReader(self._tail.module, own))
        return tuple(tap for tap in places if tap not in own)

    def forward(self, inputs: Tensor) -> Any:
        """The whole network's answer, trunk included."""
        return self.network(inputs)

    def onward(self, value: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The prediction, and the taps behind the cut, from the trunk's activation ``(B, …)`` as the trunk gives it."""
        tail = self._tail
        if self._example.device != value.device:
            tail.to(value.device)
            self._example = self._example.to(value.device)
        for name in self.cut.spanning:
            tail.module.get_submodule(name).training = self.network.training
        blank = self._example if self.cut.thin else self._example.expand(len(value), *self._example.shape[1:])
        self._value = value
        try:
            answer: tuple[Tensor, dict[str, Tensor]] = tail(blank)
        finally:
            self._value = None
        return answer

    def _leave(self, layer: nn.Module, args: Any, output: Any) -> Any:
        if self._value is None:
            return None
        return self._value if isinstance(output, Tensor) else type(output)((self._value, *output[1:]))

    def _enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._value is None or not args:
            return None
        return (self._value, *args[1:]), kwargs

    def __getstate__(self) -> dict[str, Any]:
        """Without an activation that an interrupted pass left behind."""
        return {**self.__dict__, "_value": None}


def _watched(
    network: nn.Module, layer: nn.Module, is_input: bool, names: Mapping[str, nn.Module], blank: Tensor
) -> dict[nn.Module, set[tuple[bool, bool]]]:
    """Of every module, for each time it ran, whether the place had been reached when it began, and when it ended."""
    calls: dict[nn.Module, set[tuple[bool, bool]]] = {}
    reached, began = False, dict[nn.Module, list[bool]]()

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal reached
        reached |= is_input and module is layer
        began.setdefault(module, []).append(reached)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal reached
        calls.setdefault(module, set()).add((began[module].pop(), reached))
        reached |= not is_input and module is layer

    modules = set(names.values())
    handles = [module.register_forward_pre_hook(enter) for module in modules]
    handles += [module.register_forward_hook(leave) for module in modules]
    try:
        with at_rest(network), torch.no_grad():
            network(blank)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _walk(
    module: nn.Module, name: str, calls: Mapping[nn.Module, set[tuple[bool, bool]]]
) -> Iterator[tuple[str, str | None]]:
    """The side of every submodule, from the outside in, as far as one is not wholly on one side; None: on both."""
    whole = {(False, False): "trunk", (True, True): "behind"}
    how = calls.get(module, set())
    if name and len(how) == 1 and (side := whole.get(next(iter(how)))) is not None:
        yield name, side
        return
    if len(how) > 1:
        yield name, None
        return
    yield name, "spanning"
    for own, child in module.named_children():
        yield from _walk(child, f"{name}.{own}".lstrip("."), calls)


def _act(
    network: nn.Module, layer: nn.Module, is_input: bool, parameters: Sequence[nn.Parameter], blank: Tensor
) -> tuple[list[bool], list[bool]]:
    """Of parameters whether the activation at the place depends on them, and whether the prediction from it does."""
    if not parameters:
        return [], []
    caught: list[Tensor] = []

    def swap(value: Tensor) -> Tensor:
        caught.append(value)
        return value.detach().clone()

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        return swap(output) if isinstance(output, Tensor) else type(output)((swap(output[0]), *output[1:]))

    def enter(module: nn.Module, args: tuple[Any, ...]) -> Any:
        return (swap(args[0]), *args[1:])

    held = [p.requires_grad for p in parameters]
    handle = layer.register_forward_pre_hook(enter) if is_input else layer.register_forward_hook(leave)
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with at_rest(network), torch.enable_grad():
            prediction = prediction_of(network(blank))
            acts = [_depends(value, parameters) for value in (caught[-1], prediction)]
    finally:
        handle.remove()
        for parameter, learns in zip(parameters, held, strict=True):
            parameter.requires_grad_(learns)
    return acts[0], acts[1]


def _depends(value: Tensor, parameters: Sequence[nn.Parameter]) -> list[bool]:
    if value.grad_fn is None:
        return [False] * len(parameters)
    gradients = torch.autograd.grad(value.float().sum(), list(parameters), allow_unused=True, retain_graph=True)
    return [gradient is not None for gradient in gradients]
