"""Networks that are not ours: timm's, torchvision's and the user's own. The table ``SOURCES`` has one row a prefix."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from torch import nn

from classroomkd._compat import import_timm, import_torchvision
from classroomkd._foreign import call_factory, load_factory
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.catalogue import ZOO

__all__ = [
    "SOURCES",
    "ModelRequest",
    "ModelSource",
    "library_call",
    "library_names",
    "out_of_place",
    "python_network",
    "split_tag",
    "timm_preprocessing",
]

_IMPORTS: dict[str, Callable[[str], Any]] = {"timm": import_timm, "torchvision": import_torchvision}


@dataclass(frozen=True)
class ModelRequest:
    """A network as asked for: ``spec`` is ``prefix:name``, ``options`` are for the library's or the user's factory."""

    spec: str
    num_classes: int
    in_channels: int
    trust_code: bool
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """What follows the prefix."""
        return self.spec.partition(":")[2]


@dataclass(frozen=True)
class ModelSource:
    """How the networks of one prefix are checked, built and described.

    ``check(spec, trust_code)`` raises ``UserError`` without building anything; ``preprocessing(spec)`` is as in
    ``classroomkd.models.preprocessing``.
    """

    check: Callable[[str, bool], object]
    build: Callable[[ModelRequest], nn.Module]
    preprocessing: Callable[[str], dict[str, Any] | None]


@cache
def library_names(prefix: str) -> frozenset[str]:
    """Every classification network of the library ``prefix`` ("timm" or "torchvision").

    Raises:
        UserError: the library is not installed or cannot be imported.
    """
    library = _IMPORTS[prefix](f"{prefix}:")
    if prefix == "torchvision":
        return frozenset(library.models.list_models(module=library.models))
    return frozenset(library.list_models())


def timm_preprocessing(config: Any) -> dict[str, Any] | None:
    """``{"mean", "std", "size"}`` out of timm's description of pretrained weights (an object or a mapping)."""

    def get(key: str) -> Any:
        return config.get(key) if isinstance(config, dict) else getattr(config, key, None)

    if config is None or get("mean") is None or get("std") is None:
        return None
    size = get("input_size")
    return {"mean": tuple(get("mean")), "std": tuple(get("std")), "size": int(size[-1]) if size else None}


def split_tag(spec: str) -> tuple[str, str]:
    """A library's name (``timm:NAME.TAG``, also inside ``simcc:timm:NAME.TAG``) and the set of weights that it names.

    The tag is empty where there is none.
    """
    library, separator, name = spec.rpartition(":")
    if not separator or library.rpartition(":")[2] not in _IMPORTS:
        return spec, ""
    name, _, tag = name.partition(".")
    return f"{library}:{name}", tag


def _tags(prefix: str, name: str) -> list[str]:
    """The sets of weights that a library publishes of a network."""
    library = _IMPORTS[prefix](f"{prefix}:")
    if prefix == "torchvision":
        return [choice.name for choice in library.models.get_model_weights(name)]
    return [known.partition(".")[2] for known in library.list_models(f"{name}.*", pretrained=True)]


def _no_hub(repository: str) -> str:
    """What is said of a network that is named by its place on the Hugging Face hub."""
    owner, _, name = repository.partition("/")
    instead = f"write timm:{name} with weights: pretrained" if owner == "timm" else "write timm:NAME with weights: FILE"
    return f"a run downloads nothing, so names of the hub are not taken; fetch its weights and {instead}"


def _check_listed(spec: str, trust_code: bool) -> None:
    prefix, _, name = spec.partition(":")
    _IMPORTS[prefix](f"'{spec}'")
    if name.partition(":")[0].replace("-", "_") == "hf_hub":
        raise UserError(f"'{spec}': {_no_hub(name.partition(':')[2])}")
    known = library_names(prefix)
    bare, _, tag = name.partition(".")
    if bare in known:  # what follows the dot names a set of weights
        if tag and tag not in (tags := _tags(prefix, bare)):
            there = f"; there are {', '.join(tags)}" if tags else "; none of it are published"
            raise UserError(f"'{spec}': {prefix} has no weights '{tag}' of {bare}{did_you_mean(tag, tags) or there}")
        return
    near = did_you_mean(name, known)
    if name in ZOO:
        near = f" (did you mean '{name}', without the prefix?)"
    raise UserError(f"{prefix} {version(prefix)} has no model '{name}'{near}")


def _build_timm(request: ModelRequest) -> nn.Module:
    timm = import_timm(f"'{request.spec}'")
    options = {"num_classes": request.num_classes, "in_chans": request.in_channels, **request.options}
    return _call(request.spec, timm.create_model, request.name, options)


# So that they answer with plain logits in training too, and start without a warning.
_TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def _build_torchvision(request: ModelRequest) -> nn.Module:
    if request.in_channels != 3:
        raise UserError(
            f"'{request.spec}' takes images of 3 channels, not {request.in_channels}; timm's and the zoo's networks "
            "take any"
        )
    models = import_torchvision(f"'{request.spec}'").models
    name = request.name.partition(".")[0]
    fixed = _TORCHVISION_OPTIONS.get(name, {})
    options = {"num_classes": request.num_classes, **fixed, **request.options}
    return _call(request.spec, models.get_model, name, options)


def _call(spec: str, builder: Callable[..., Any], name: str, options: dict[str, Any]) -> nn.Module:
    """Build a library's network; what the library says about its arguments becomes one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's remarks about its own defaults
            module: nn.Module = builder(name, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError, OSError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise UserError(f"'{spec}' cannot be built with {given}: {type(error).__name__}: {error}") from error
    return module


def library_call(spec: str, num_classes: int, in_channels: int) -> tuple[str, str] | None:
    """The library to import and the Python that builds a network of it, as this package does; None for another's."""
    prefix, _, name = spec.partition(":")
    if prefix == "timm":
        return "timm", f"timm.create_model({name!r}, num_classes={num_classes}, in_chans={in_channels})"
    if prefix == "torchvision":
        options = {"num_classes": num_classes, **_TORCHVISION_OPTIONS.get(name, {})}
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        return "torchvision", f"torchvision.models.get_model({name!r}, {given})"
    return None


def _build_python(request: ModelRequest) -> nn.Module:
    offered = {"num_classes": request.num_classes, "in_channels": request.in_channels}
    return python_network(request.spec, request.trust_code, request.options, offered)


def python_network(spec: str, trust_code: bool, options: dict[str, Any], offered: dict[str, Any]) -> nn.Module:
    """What the factory ``py:package.module:factory`` makes of ``options`` and those of ``offered`` that it takes.

    Raises:
        UserError: code that is not trusted or fails, or no network.
    """
    module = call_factory(spec, load_factory(spec, trust_code=trust_code), options, offered)
    if not isinstance(module, nn.Module):
        raise UserError(f"'{spec}' made a {type(module).__name__}, not a torch.nn.Module")
    return module


def out_of_place(network: Any) -> Any:
    """The network with its in-place activations made to keep their input: same numbers, and taps keep their values."""
    for layer in network.modules():
        if getattr(layer, "inplace", False) is True:
            layer.inplace = False
    return network


def _describe_timm(spec: str) -> dict[str, Any] | None:
    _check_listed(spec, False)
    name = spec.partition(":")[2]
    return timm_preprocessing(import_timm(f"'{spec}'").get_pretrained_cfg(name, allow_unregistered=True))


def _describe_torchvision(spec: str) -> dict[str, Any] | None:
    _check_listed(spec, False)
    models = import_torchvision(f"'{spec}'").models
    name, _, tag = spec.partition(":")[2].partition(".")
    choices = models.get_model_weights(name)
    transforms = (choices[tag] if tag else choices.DEFAULT).transforms()
    return {"mean": tuple(transforms.mean), "std": tuple(transforms.std), "size": int(transforms.crop_size[0])}


SOURCES: dict[str, ModelSource] = {
    "timm": ModelSource(_check_listed, _build_timm, _describe_timm),
    "torchvision": ModelSource(_check_listed, _build_torchvision, _describe_torchvision),
    "py": ModelSource(
        lambda spec, trust_code: load_factory(spec, trust_code=trust_code), _build_python, lambda spec: None
    ),
}
