"""Published weights of timm's and torchvision's networks, out of the local caches alone: nothing is downloaded here.

timm keeps them in the Hugging Face cache (``HF_HOME``) or torch's hub folder, torchvision in torch's hub folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from torch import Tensor, nn

from classroomkd._compat import import_timm, import_torchvision
from classroomkd.errors import UserError
from classroomkd.models.checkpoints import read_checkpoint
from classroomkd.models.libraries import SOURCES, split_tag

__all__ = ["Published", "published", "published_state", "tag_problem", "weights_problem"]


@dataclass(frozen=True)
class Published:
    """One set of published weights.

    Attributes:
        spec: ``timm:NAME`` or ``torchvision:NAME``, as asked for.
        classes: how many classes they answer; 0: they have no head.
        file: in a local cache; None where it is not there.
        places: where it was looked for.
        fetch: the command that puts it there, where there is a network.
    """

    spec: str
    classes: int
    file: Path | None
    places: tuple[Path, ...]
    fetch: str

    def found(self) -> Path:
        """The file.

        Raises:
            UserError: it is not on this machine; with the command that fetches it.
        """
        if self.file is None:
            raise UserError(f"'{self.spec}': {self.missing()}")
        return self.file

    def missing(self) -> str:
        """What is said where the file is not there."""
        where = " or ".join(map(str, self.places))
        return (
            f"its published weights are not on this machine, and a run downloads nothing. Fetch them where there is a "
            f"network: {self.fetch} (from another machine, copy {where})"
        )


def published(spec: str) -> Published:
    """The published weights that a library's name means: those of its tag, or the library's own choice.

    Raises:
        UserError: no such network or tag, or the library publishes none of it.
    """
    prefix = spec.partition(":")[0]
    if prefix not in _PUBLISHED:
        raise UserError(f"'{spec}' has no published weights: only networks of timm: and torchvision: do")
    SOURCES[prefix].check(spec, True)
    return _PUBLISHED[prefix].find(spec)


def published_state(spec: str, in_channels: int = 3) -> tuple[dict[str, Tensor], Published]:
    """The published weights under the names of the library's network, with the head that they came with.

    timm fits the first layer to other than 3 channels as it does itself.

    Raises:
        UserError: as :func:`published`; the file is not there, or damaged.
    """
    weights = published(spec)
    weights.found()
    return _PUBLISHED[spec.partition(":")[0]].read(weights, in_channels), weights


def weights_problem(model: str, weights: str | None, library: str | None) -> str | None:
    """Why a network cannot start from ``weights`` (``pretrained``, ``trained``, a file or None): the end of a sentence.

    ``library``: the name of the network of timm or torchvision whose published weights it can have. A name that does
    not exist is said by whoever checks names.
    """
    prefix = model.partition(":")[0]
    if weights == "trained" and prefix != "py":
        instead = "weights: pretrained are those of its library" if library else "give weights: FILE"
        return f"is for a py: factory that gives a trained network; '{model}' is built with fresh weights ({instead})"
    if weights == "pretrained" and prefix == "py":
        return "is for networks of timm: and torchvision:; a py: factory that loads its weights is weights: trained"
    if weights == "pretrained" and library is None:
        return f"'{model}' has no published weights here; give weights: FILE (docs/models.md says which files fit it)"
    if library is None or (weights is None and not split_tag(model)[1]):
        return None
    try:
        SOURCES[library.partition(":")[0]].check(library, True)
    except UserError:
        return None
    if weights is None:
        return tag_problem(model)
    try:
        found = published(library) if weights == "pretrained" else None
        return None if found is None or found.file is not None else found.missing()
    except UserError as error:
        return str(error).removeprefix(f"'{library}': ")


def tag_problem(model: str) -> str | None:
    """What is said of a name that asks for a set of weights which nobody loads; None for other names."""
    name, tag = split_tag(model)
    if not tag:
        return None
    return (
        f"'{model}' names the weights '{tag}', but none are loaded: add weights: pretrained (or weights: FILE), or "
        f"leave the tag out: {name}"
    )


@dataclass(frozen=True)
class _Library:
    find: Callable[[str], Published]
    read: Callable[[Published, int], dict[str, Tensor]]


def _hub_files(repository: str, name: str | None) -> tuple[Path | None, Path]:
    """A repository's weights in the Hugging Face cache, and the folder that they would be in."""
    from huggingface_hub import constants, try_to_load_from_cache

    cache = Path(constants.HF_HUB_CACHE)
    repository, _, revision = repository.partition("@")
    for file in [name] if name else ["model.safetensors", "pytorch_model.bin"]:
        found = try_to_load_from_cache(repository, file, cache_dir=cache, revision=revision or None)
        if isinstance(found, str):
            return Path(found), cache
    return None, cache / f"models--{repository.replace('/', '--')}"


def _torch_file(url: str) -> Path:
    """Where torch's hub keeps the file of an address."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(url).path)


def _find_timm(spec: str) -> Published:
    name = spec.partition(":")[2]
    config = import_timm(f"'{spec}'").get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not (config.url or config.hf_hub_id or config.file):
        raise UserError(f"'{spec}': timm publishes no weights of it; give weights: FILE, or leave weights out")
    file, places = Path(config.file) if config.file else None, list[Path]()
    if file is None and config.hf_hub_id:
        file, place = _hub_files(config.hf_hub_id, config.hf_hub_filename)
        places.append(place)
    if file is None and config.url:
        places.append(_torch_file(config.url))
        file = places[-1] if places[-1].is_file() else None
    fetch = f"""python -c "import timm; timm.create_model('{name}', pretrained=True)\""""
    return Published(spec, int(config.num_classes or 0), file, tuple(places), fetch)


def _read_timm(weights: Published, in_channels: int) -> dict[str, Tensor]:
    """timm builds and fills the network, since only it knows the names in its older files; without unpickling."""
    timm, name = import_timm(f"'{weights.spec}'"), weights.spec.partition(":")[2]
    file = weights.found()
    if not str(file).endswith(".npz"):
        read_checkpoint(file, what=f"network '{weights.spec}'")  # what is wrong with it is said as of any file
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=True, in_chans=in_channels, pretrained_cfg_overlay={"file": str(file)}
        )
    except Exception as error:  # a file of another network fails in any way there is
        text = str(error).strip().splitlines()
        raise UserError(
            f"'{weights.spec}': {file} does not fit it ({text[0] if text else type(error).__name__}); fetch it again: "
            f"{weights.fetch}"
        ) from error
    return dict(network.state_dict())


def _find_torchvision(spec: str) -> Published:
    name, tag = spec.partition(":")[2].partition(".")[::2]
    models = import_torchvision(f"'{spec}'").models
    choices = models.get_model_weights(name)
    chosen = choices[tag] if tag else choices.DEFAULT
    file = _torch_file(chosen.url)
    command = f"""python -c "import torchvision; torchvision.models.get_model('{name}', weights='{chosen.name}')\""""
    classes = len(chosen.meta["categories"])
    return Published(spec, classes, file if file.is_file() else None, (file,), command)


# Densenets of torchvision were published under the layers' names of 2017.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # heads that are used in training alone


def _read_torchvision(weights: Published, in_channels: int) -> dict[str, Tensor]:
    content: Mapping[str, Any] = read_checkpoint(weights.found(), what=f"network '{weights.spec}'")[0]
    return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in content.items() if not key.startswith(_AUXILIARY)}


_PUBLISHED = {"timm": _Library(_find_timm, _read_timm), "torchvision": _Library(_find_torchvision, _read_torchvision)}
