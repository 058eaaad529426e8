"""What keeps mentors as they were: evaluation mode, no gradients, and no tensor that the student trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from classroomkd.errors import UserError
from classroomkd.taps.taps import unwrapped

__all__ = ["freeze", "keep_frozen", "refuse_shapeless", "refuse_shared"]


def freeze(network: nn.Module) -> None:
    """Switch a network to evaluation mode and have its parameters require no gradients."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    try:
        for child in network.children():
            child.train(False)
    except NotImplementedError:  # exported graphs have one mode, that of their export
        pass
    for layer in network.modules():
        if layer.training:
            layer.training = False


def keep_frozen(network: nn.Module) -> None:
    """:func:`freeze` a network again where anything outside has changed a mode or a parameter of it.

    Called before every pass, so it reads what modules are made of: ``modules()`` takes ten times as long.
    """
    stack = [network]
    for layer in stack:  # which grows
        if layer.training:
            return freeze(network)
        held = layer.__dict__
        for parameter in held.get("_parameters", {}).values():  # a scripted module keeps them elsewhere, frozen once
            if parameter is not None and parameter.requires_grad:
                return freeze(network)
        stack += [child for child in layer._modules.values() if child is not None]
    return None


def refuse_shapeless(network: nn.Module, who: str) -> None:
    """Refuse a network whose parameters or buffers have no shape yet.

    Args:
        network: any.
        who: how messages call it.

    Raises:
        UserError: a lazy layer that has never run.
    """
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if is_lazy(tensor):
            place = name.rpartition(".")[0]
            kind = type(network.get_submodule(place)).__name__
            raise UserError(
                f"{who} has layers without a shape yet ('{place or name}', {kind}): run it once on a batch, before a "
                "classroom, a run or an optimiser gets it, and load its weights where it has some"
            )


def refuse_shared(student: nn.Module, mentors: Iterable[tuple[str, nn.Module]], trainees: str | None = None) -> None:
    """Refuse what student and mentor have in common: a mentor stays as it is, the student is trained.

    Args:
        student: the network that is taught.
        mentors: names and networks.
        trainees: how messages call the two where both are trained; None: they are a student and mentors.

    Raises:
        UserError: a layer, a tensor or part of its memory that both use; with both places.
    """
    layers = {id(layer): name for name, layer in _layers(student)}
    memory = list(_memory(student))
    for who, network in mentors:
        for name, layer in _layers(network):
            if id(layer) in layers:
                raise UserError(_refusal(who, name, layers[id(layer)], trainees))
        for name, device, start, end in _memory(network):
            for own, place, first, last in memory:
                if first < end and start < last and place == device:
                    raise UserError(_refusal(who, name, own, trainees))


def _refusal(who: str, name: str, own: str, trainees: str | None) -> str:
    if trainees is not None:
        return (
            f"{trainees} share '{name}' (there '{own}'): each is trained, or stays as it is, by itself. Give one of "
            "them a copy of its own: copy.deepcopy(network)"
        )
    return (
        f"mentor '{who}' and the student share '{name}' (the student's '{own}'): a mentor is frozen, a student is "
        "trained. Give one of them a copy of its own: copy.deepcopy(network)"
    )


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers by name that hold something or whose mode may matter: not torch's own activations and the like."""
    for name, layer in unwrapped(network).named_modules():
        holds = next(layer.parameters(), None) is not None or next(layer.buffers(), None) is not None
        kind = type(layer).__module__
        modeless = kind.startswith("torch.nn.modules.") and not (
            kind.endswith(".dropout") or isinstance(layer, nn.RReLU)
        )
        if name and (holds or not modeless):
            yield name, layer


def _memory(network: nn.Module) -> Iterator[tuple[str, str, int, int]]:
    """Where a network's tensors lie: names, devices, and the addresses at which each begins and ends."""
    inner = unwrapped(network)
    for name, tensor in [*inner.named_parameters(), *inner.named_buffers()]:
        if is_lazy(tensor) or tensor.is_meta or not tensor.numel() or tensor.layout != torch.strided:
            continue
        extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        yield name, str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + extent * tensor.element_size()
