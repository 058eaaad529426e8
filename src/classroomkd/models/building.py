"""From names to networks: the zoo's, and through ``libraries`` those of ``timm:``, ``torchvision:`` and ``py:``."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from classroomkd._compat import installed
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.catalogue import ZOO, build
from classroomkd.models.checkpoints import load_checkpoint, load_state
from classroomkd.models.libraries import SOURCES, ModelRequest, library_names, out_of_place, timm_preprocessing
from classroomkd.models.published import published_state, tag_problem

HANDED = "given"  # before a colon: what stands for a network that was handed over in Python

__all__ = ["check", "check_counts", "create", "preprocessing", "resolve", "start_pretrained"]


def create(
    name: str,
    num_classes: int = 100,
    *,
    in_channels: int = 3,
    trust_code: bool = False,
    weights: str | os.PathLike[str] | None = None,
    reset_head: bool = False,
    **options: Any,
) -> nn.Module:
    """The network called ``name``, from images ``(B, in_channels, H, W)`` to ``(B, num_classes)``.

    ``name`` is one of the zoo (``resnet20``), ``timm:resnet50``, ``torchvision:resnet50`` or
    ``py:package.module:factory`` (needs ``trust_code``; gets ``num_classes`` and ``in_channels`` if it takes them).
    ``weights`` is None for fresh ones, a file (:func:`~classroomkd.models.load_checkpoint`, with its ``reset_head``) or
    ``pretrained`` (:func:`start_pretrained`). ``options`` go to the library's or the user's factory; the zoo takes
    none. In-place activations are made to keep their input, so that a tap before one keeps its value; ``summary``
    marks what a network still overwrites.

    Raises:
        UserError: an unknown name (with the nearest right one), a package that is not installed, code that is not
            trusted, options that the network does not take, weights that cannot be had, or a name that asks for
            weights where ``weights`` is None.
    """
    if weights is None and not options.get("pretrained") and (said := tag_problem(name)) is not None:
        check(name, trust_code=trust_code)
        raise UserError(said)
    module = _built(name, num_classes, in_channels, trust_code, options)
    if weights == "pretrained":
        start_pretrained(module, name, in_channels=in_channels, reset_head=reset_head)
    elif weights is not None:
        load_checkpoint(module, weights, what=f"network '{name}'", reset_head=reset_head)
    return module


def resolve(spec: str, num_classes: int, *, trust_code: bool = False, in_channels: int = 3) -> nn.Module:
    """The network that a recipe's ``model:`` means, with fresh weights, whatever weights its name asks for."""
    return _built(spec, num_classes, in_channels, trust_code, {})


def start_pretrained(module: nn.Module, name: str, *, in_channels: int = 3, reset_head: bool = False) -> dict[str, str]:
    """Load the published weights of a library's network into it, out of the local cache.

    Where the module answers other classes than they do, its head stays as it is.

    Returns:
        ``note``, and ``reset_head``, what was dropped, where the head was left out.

    Raises:
        UserError: they are not on this machine (with the command that fetches them), or there are none.
    """
    state, weights = published_state(name, in_channels)
    place = f"the published weights of '{name}'"
    kept = not reset_head and all(key in state and state[key].shape == value.shape for key, value in
                                  module.state_dict().items())  # fmt: skip
    about = load_state(module, state, place, reset_head=not kept)
    if getattr(module, "transform_input", None) is False:  # torchvision's networks from before its normalisation
        module.transform_input = True  # type: ignore[assignment]
    return {**about, "note": "; ".join(filter(None, [f"published weights {weights.file}", about.get("note", "")]))}


def _built(name: str, num_classes: int, in_channels: int, trust_code: bool, options: dict[str, Any]) -> nn.Module:
    check_counts(name, num_classes=num_classes, in_channels=in_channels)
    check(name, trust_code=trust_code)
    prefix, separator, _ = name.partition(":")
    module: nn.Module
    if separator:
        module = out_of_place(SOURCES[prefix].build(ModelRequest(name, num_classes, in_channels, trust_code, options)))
        return module
    if options:
        raise UserError(f"model '{name}' takes no options, but got {', '.join(sorted(options))}")
    entry = ZOO[name]
    module = build("zoo", entry.target, num_classes=num_classes, in_channels=in_channels, **entry.arguments)
    return module


def check(spec: str, *, trust_code: bool = False) -> None:
    """Raise the ``UserError`` that ``create`` would for the name alone, without building anything."""
    prefix, separator, rest = spec.partition(":")
    if prefix == HANDED:
        raise UserError(
            f"{rest or 'it'} is a network that was handed over in Python, which a recipe cannot build; go on with"
            " ck.distill(…, resume=True), or name a model"
        )
    if separator and prefix not in SOURCES:
        near = did_you_mean(prefix, SOURCES) or f" (known: {', '.join(f'{known}:' for known in SOURCES)})"
        raise UserError(f"unknown kind of model '{prefix}:' in '{spec}'{near}")
    if separator:
        SOURCES[prefix].check(spec, trust_code)
    elif spec not in ZOO:
        raise UserError(
            f"unknown model '{spec}'{_nearest(spec)}; see `classroomkd list models`. Other networks take a prefix: "
            "timm:NAME, torchvision:NAME, py:package.module:factory"
        )


def preprocessing(module_or_spec: nn.Module | str) -> dict[str, Any] | None:
    """How images looked to a library's network when its published weights were trained.

    ``{"mean": (R, G, B), "std": (R, G, B), "size": pixels}`` with mean and std for pixels scaled to 0..1 and ``size``
    the side of the square input, or ``None`` where nothing is known: the zoo, the user's own code, and torchvision
    modules (only the spec ``torchvision:name`` says which weights are meant). It holds for published weights only; a
    network trained afresh is used to whatever it was trained on.
    """
    if isinstance(module_or_spec, nn.Module):
        return timm_preprocessing(getattr(module_or_spec, "pretrained_cfg", None))
    prefix, separator, _ = module_or_spec.partition(":")
    return SOURCES[prefix].preprocessing(module_or_spec) if separator and prefix in SOURCES else None


def check_counts(name: str, **counts: Any) -> None:
    """Raise ``UserError`` where one of ``counts`` is no whole number of at least 1."""
    for key, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"model '{name}': {key} must be a whole number of at least 1, not {value!r}")


def _nearest(name: str) -> str:
    """The same name with a library's prefix, or the closest of the zoo."""
    for prefix in ("timm", "torchvision"):
        try:
            if installed(prefix) and name in library_names(prefix):
                return f" (did you mean '{prefix}:{name}'?)"
        except UserError:  # installed but broken: a suggestion is not worth an error of its own
            continue
    return did_you_mean(name, ZOO)
