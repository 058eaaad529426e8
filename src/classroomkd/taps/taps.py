"""Taps: reading named places inside any network without editing it.

A place is a submodule's name, which stands for its output, or ``NAME:input``, its first tensor input. Wrappers
(``torch.compile``, DistributedDataParallel) do not count: a place is named as in the network inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError, did_you_mean

__all__ = [
    "TapReader",
    "canonical",
    "first_tensor",
    "is_compiled",
    "locate",
    "prediction_of",
    "remove_readers",
    "submodules",
    "tap_names",
    "unwrapped",
]

# What torch.compile, FSDP, activation checkpointing and Fabric call the network that they wrap.
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")


def prediction_of(output: Any) -> Tensor:
    """The prediction in whatever a network returned: a tensor, an object with ``.logits``, a dict, or a tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for key in ("logits", "prediction", "out"):
            if key in output:
                return prediction_of(output[key])
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, Sequence) and not isinstance(output, str) and output:
        return prediction_of(output[0])
    raise UserError(f"a network returned {type(output).__name__}; expected a tensor, a tuple or .logits")


def first_tensor(values: Iterable[Any]) -> Tensor | None:
    """The first tensor among the arguments of a call, looked for inside tuples and lists too."""
    for value in values:
        tensor = first_tensor(value) if isinstance(value, tuple | list) else value
        if isinstance(tensor, Tensor):
            return tensor
    return None


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside the wrappers of torch.compile, DistributedDataParallel and their kind."""
    while not isinstance(module, torch.jit.ScriptModule):  # it wraps nothing, and keeps its layers in another way
        inner = next((module._modules[name] for name in _WRAPPED if module._modules.get(name) is not None), None)
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = module.module
        if inner is None:
            return module
        module = inner
    return module


def is_compiled(layers: Iterable[nn.Module]) -> bool:
    """Whether torch.compile has been applied to one of these modules."""
    return any("_orig_mod" in m._modules or m.__dict__.get("_compiled_call_impl") for m in layers)


def submodules(module: nn.Module, aliases: bool = False) -> dict[str, nn.Module]:
    """Submodules by their names without wrappers; ``aliases``: a shared one under every name it has."""
    known: dict[str, nn.Module] = {}
    for name, layer in unwrapped(module).named_modules(remove_duplicate=not aliases):
        known.setdefault(".".join(part for part in name.split(".") if part not in _WRAPPED), layer)
    del known[""]
    return known


def tap_names(module: nn.Module) -> list[str]:
    """Names a tap can have: every named submodule; each may have ``:input`` behind it."""
    return list(submodules(module))


def locate(module: nn.Module, place: str) -> tuple[nn.Module, bool]:
    """The submodule that a place names, and whether its input is meant (True) or its output.

    Raises:
        UserError: no such place; with the nearest that exists.
    """
    name, colon, end = place.partition(":")
    if place.startswith("@"):
        raise UserError(f"tap '{place}' is not resolved yet: find_place(module, '{place}', example) says where it is")
    try:
        layer = unwrapped(module).get_submodule(name) if name else None
    except AttributeError:  # through a wrapper, by the name that the wrapper gives it, or not at all
        layer = submodules(module, aliases=True).get(name) or dict(module.named_modules()).get(name)
    network = type(unwrapped(module)).__name__
    if layer is None:
        near = did_you_mean(name, tap_names(module))
        raise UserError(f"no tap '{place}' in {network}{near}; `classroomkd inspect` lists every tap of a model")
    if colon and end != "input":
        raise UserError(f"tap '{place}' in {network}: after the colon only 'input' is known, as in '{name}:input'")
    return layer, bool(colon)


def canonical(module: nn.Module, place: str) -> str:
    """A place by the first name that its submodule has in the network inside the wrappers, so that copies know it too.

    Raises:
        UserError: as :func:`locate`.
    """
    layer, is_input = locate(module, place)
    own = (name for name, other in submodules(module).items() if unwrapped(other) is unwrapped(layer))
    return next(own, place.partition(":")[0]) + (":input" if is_input else "")


class TapReader(nn.Module):
    """Runs a network and returns its prediction together with the activations at its taps.

    Hooks are registered here, once, before any compilation (a hook registered after the first compiled call never
    fires). Values are copied as they pass, since a later in-place activation would overwrite them. Deep copies, of the
    reader or of its network alone, read their own taps.

    Args:
        module: any network, bare or wrapped; a compiled one must not have run yet.
        taps: places to read; or, by the name that the activation is to have, the place. Several names may read one
            place, which is then copied once.

    Attributes:
        places: by tap, the place by its :func:`canonical` name.

    Raises:
        UserError: a place that does not exist, with the nearest that does.
    """

    def __init__(self, module: nn.Module, taps: Sequence[str] | Mapping[str, str] = ()) -> None:
        super().__init__()
        if isinstance(taps, str):
            taps = (taps,)
        self.module = module
        named = taps if isinstance(taps, Mapping) else {tap: tap for tap in taps}
        self.places: dict[str, str] = {tap: canonical(module, place) for tap, place in named.items()}
        self.taps = tuple(self.places)
        self._caught: dict[str, Tensor] | None = None  # None unless a forward pass of this reader is under way
        for place in dict.fromkeys(self.places.values()):
            layer, is_input = locate(module, place)
            # A bound method and not a closure: a deep copy binds it to the copied reader.
            if is_input:
                layer.register_forward_pre_hook(partial(self._catch_input, place), with_kwargs=True)
            else:
                layer.register_forward_hook(partial(self._catch, place))

    def _catch(self, place: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._caught is not None:
            value = output if isinstance(output, Tensor) else self._tensor_in(place, output)
            self._caught[place] = value.clone()

    def _catch_input(self, place: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._caught is not None:
            value = first_tensor((*args, *kwargs.values()))
            if value is None:
                raise UserError(f"tap '{place}': {type(module).__name__} is called without a tensor; choose another")
            self._caught[place] = value.clone()

    def _tensor_in(self, place: str, output: Any) -> Tensor:
        try:
            return prediction_of(output)
        except UserError as error:
            raise UserError(f"tap '{place}' gives {type(output).__name__}, not a tensor; choose another") from error

    def __getstate__(self) -> dict[str, Any]:
        """Without what an interrupted pass left behind: tensors with a graph cannot be copied."""
        return {**self.__dict__, "_caught": None}

    def forward(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``(prediction, {tap: activation})`` for a batch of inputs; activations as the network holds them."""
        self._caught = {}
        prediction = prediction_of(self.module(inputs))
        caught, self._caught = self._caught, None
        if not torch.compiler.is_compiling():
            self._check(caught)
        return prediction, {tap: caught[place] for tap, place in self.places.items()}

    def _check(self, caught: Mapping[str, Tensor]) -> None:
        for tap, place in self.places.items():
            if place in caught:
                continue
            named = f"tap '{tap}'" if tap == place else f"tap '{tap}' ({place})"
            if is_compiled(self.module.modules()):
                raise UserError(
                    f"{named} was not read: torch.compile had already compiled {type(unwrapped(self.module)).__name__} "
                    "when the tap was set, and compiled code ignores later hooks, or the tap does not run; make the "
                    "classroom before the network's first compiled call, or call torch.compiler.reset() after making it"
                )
            raise UserError(f"{named} exists but did not run in this forward pass; choose another")


def remove_readers(network: nn.Module, layers: Iterable[nn.Module] | None = None) -> None:
    """Take off the hooks of every :class:`TapReader` of a network, which it then is free of; other hooks stay.

    Args:
        network: it.
        layers: those of its modules that are looked at; None: all.
    """
    for layer in network.modules() if layers is None else layers:
        for hooks in (layer._forward_hooks, layer._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                target: Any = hook.func if isinstance(hook, partial) else hook
                if isinstance(getattr(target, "__self__", None), TapReader):
                    del hooks[key]
