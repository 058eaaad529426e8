"""Parts of a network that are trained in another way: frozen ones, rates by depth, parameters without weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from classroomkd.errors import UserError
from classroomkd.taps.roles import Survey, survey
from classroomkd.taps.taps import locate, submodules, unwrapped

if TYPE_CHECKING:
    from classroomkd.recipe import TrainSpec

__all__ = ["check_parts", "freeze", "groups", "one_rule"]

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
Example = Callable[[], Tensor]


def one_rule(spec: TrainSpec) -> bool:
    """Whether the optimiser follows one rule for all parameters."""
    return spec.layer_decay in (None, 1.0) and (spec.no_decay == "none" or spec.weight_decay == 0)


def check_parts(network: nn.Module, spec: TrainSpec, example: Example, section: str) -> None:
    """Refuse what this network does not have; it stays as it was.

    Args:
        network: to be trained.
        spec: its training.
        example: gives a blank batch in its input space.
        section: of the recipe, for messages.

    Raises:
        UserError: ``freeze`` names another part, or leaves nothing to train.
    """
    if not spec.freeze and spec.layer_decay in (None, 1.0):
        return
    seen = survey(network, example())
    frozen = {id(p) for place in spec.freeze for layer in _part(seen, place, section) for p in _own(layer)}
    if spec.freeze and all(id(p) in frozen or not p.requires_grad for p in network.parameters()):
        raise UserError(f"{section}.freeze leaves nothing of {seen.what} to train; freeze fewer of its parts")


def freeze(network: nn.Module, spec: TrainSpec, example: Example) -> list[nn.Module]:
    """Take the gradients off the parts that ``freeze`` names.

    Returns:
        Their normalisations with running statistics, which stay in evaluation mode while the rest is trained.

    Raises:
        UserError: see :func:`check_parts`.
    """
    if not spec.freeze:
        return []
    seen = survey(network, example())
    layers = [layer for place in spec.freeze for layer in _part(seen, place, "train")]
    for layer in layers:
        for parameter in _own(layer):
            parameter.requires_grad_(False)
    return [layer for layer in dict.fromkeys(layers) if isinstance(layer, _NormBase)]


def groups(
    trainable: list[nn.Parameter], classroom: nn.Module, student: nn.Module, spec: TrainSpec, example: Example
) -> list[dict[str, Any]]:
    """Parameter groups of the optimiser, those near the prediction first; ``scale`` is a group's share of the rate.

    A student's parameter has the scale ``layer_decay`` to the power of its depth: 0 behind the last stage, 1 in the
    last, and so on to the first, which the stem belongs to (:meth:`.roles.Survey.stage_of`). What is trained beside
    the student has the whole rate. With ``no_decay: norm_bias`` parameters of one dimension (biases, scales) and those
    of normalisations have no weight decay.
    """
    depth: dict[int, int] = {}
    if spec.layer_decay not in (None, 1.0):
        seen = survey(student, example())
        depth = {id(p): seen.depth - seen.stage_of(name) for name, p in _by_module(student)}
    norms = {id(p) for layer in classroom.modules() if isinstance(layer, _NORMS) for p in _own(layer)}
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for p in trainable:
        plain = spec.no_decay == "norm_bias" and (p.dim() <= 1 or id(p) in norms)
        found.setdefault((depth.get(id(p), 0), plain), []).append(p)
    return [
        {
            "params": found[key],
            "scale": (spec.layer_decay or 1.0) ** key[0],
            "weight_decay": 0.0 if key[1] else spec.weight_decay,
        }
        for key in sorted(found)
    ]


def _part(seen: Survey, place: str, section: str) -> list[nn.Module]:
    """The modules of a part: a stage, all before the classifier, or a submodule with what is in it.

    Raises:
        UserError: this network has none such.
    """
    layers = submodules(seen.module)
    try:
        if place == "@penultimate":
            return [layer for name, layer in layers.items() if not seen.in_head(name)]
        if not place.startswith("@"):
            layer, is_input = locate(seen.module, place)
            if is_input:
                raise UserError(f"'{place}' is a point, not a part; name the layers before it, or @penultimate")
            return list(layer.modules())
        name = seen.find(place)
    except UserError as error:
        raise UserError(f"{section}.freeze: {error}") from error
    number = [stage.name for stage in seen.stages].index(name)
    return [layer for other, layer in layers.items() if seen.stage_of(other) == number]


def _own(layer: nn.Module) -> list[nn.Parameter]:
    """A module's parameters that none of its submodules hold."""
    return [p for p in unwrapped(layer)._parameters.values() if p is not None]


def _by_module(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter with the name of the module that holds it."""
    for name, layer in submodules(network).items():
        yield from ((name, p) for p in _own(layer))
