"""From names to networks: the zoo's, and through ``libraries`` those of ``timm:``, ``torchvision:`` and ``py:``."""

from __future__ import annotations

from typing import Any

from torch import nn

from classroomkd._compat import installed
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.catalogue import ZOO, build
from classroomkd.models.libraries import SOURCES, ModelRequest, library_names, out_of_place, timm_preprocessing

__all__ = ["check", "check_counts", "create", "preprocessing", "resolve"]


def create(
    name: str, num_classes: int = 100, *, in_channels: int = 3, trust_code: bool = False, **options: Any
) -> nn.Module:
    """The network called ``name`` with fresh weights, from images ``(B, in_channels, H, W)`` to ``(B, num_classes)``.

    ``name`` is one of the zoo (``resnet20``), ``timm:resnet50``, ``torchvision:resnet50`` or
    ``py:package.module:factory`` (needs ``trust_code``; gets ``num_classes`` and ``in_channels`` if it takes them).
    ``options`` go to the library's or the user's factory; the zoo takes none. In-place activations are
    made to keep their input, so that a tap before one keeps its value; ``summary`` marks what a network still
    overwrites.

    Raises:
        UserError: an unknown name (with the nearest right one), a package that is not installed, code that is not
            trusted, or options that the network does not take.
    """
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


def resolve(spec: str, num_classes: int, *, trust_code: bool = False, in_channels: int = 3) -> nn.Module:
    """What a recipe's ``model:`` means: ``create`` without further options."""
    return create(spec, num_classes, in_channels=in_channels, trust_code=trust_code)


def check(spec: str, *, trust_code: bool = False) -> None:
    """Raise the ``UserError`` that ``create`` would for the name alone, without building anything."""
    prefix, separator, _ = spec.partition(":")
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
