"""Weights in and out of files: safetensors, or torch's own format without unpickling. Strict, and atomic when writing.

Nothing is ever unpickled: torch's format is read with ``weights_only=True``, which admits tensors and plain containers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from classroomkd._files import atomic_write_bytes
from classroomkd._limits import TooLarge, check_zip
from classroomkd._sums import SUMS, damage, is_listed, write_listed
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.comparing import check_values, compare
from classroomkd.models.heads import dropped, head_keys
from classroomkd.models.unwrapping import class_names, is_counter, some, unwrap

__all__ = ["load_checkpoint", "load_state", "read_checkpoint", "read_metadata", "save_checkpoint"]

SCHEMA = "1"


def load_checkpoint(
    module: nn.Module, path: str | os.PathLike[str], *, what: str = "student", reset_head: bool = False
) -> dict[str, str]:
    """Load the weights in ``path`` into ``module``, all of them or none.

    Names and shapes must be the module's exactly. Common wrappers are looked through (an entry ``state_dict`` or
    ``model``, a prefix ``module.``, ``backbone.``) and noted; so is what stands beside the network in the file and was
    left out. ``what`` says in errors whose checkpoint it is. With ``reset_head`` the module keeps its own head, so the
    file may be of other classes.

    Gives the file's metadata (of safetensors; empty for ``.pth``) plus ``"note"`` when something was looked through,
    ``"left_out"``, the part of the note that says what stood beside the network, and with ``reset_head``
    ``"reset_head"``, what was dropped.

    Raises:
        UserError: a file that is missing, damaged, of a kind that would run code, of another network (with a short
            table of what differs) or of other classes, or that holds values that are not finite or quantised.
    """
    state, metadata = read_checkpoint(path, what=what)
    place = f"checkpoint {os.fspath(path)} of the {what}"
    return {**metadata, **load_state(module, state, place, reset_head=reset_head)}


def load_state(
    module: nn.Module, content: Mapping[str, Any], place: str, *, reset_head: bool = False
) -> dict[str, str]:
    """Load the named tensors inside ``content``; ``place`` says in errors where they are from.

    Gives ``"note"``, ``"left_out"`` and ``"reset_head"`` as :func:`load_checkpoint`.

    Raises:
        UserError: as :func:`load_checkpoint`.
    """
    own = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    state, notes, left = unwrap(content, set(own), place)
    if own and state and not any(is_counter(key) for key in state):
        # Checkpoints from before torch 0.4.1 lack these counts, which no network of a fixed momentum reads.
        counters = {key: value for key, value in own.items() if is_counter(key)}
        if counters and set(counters) <= set(own) - set(state):
            state = {**state, **counters}
            notes.append("it has no num_batches_tracked, the module's were kept")
    about = dict[str, str]()
    if left:
        about["left_out"] = f"left out {some(left)}"
        notes.append(about["left_out"])
    if reset_head:
        head = head_keys(module, own, state)
        about["reset_head"] = dropped(own, state, head)
        state = {key: value for key, value in state.items() if key in own} | {key: own[key] for key in head}
    compare(own, state, place, type(module).__name__)
    check_values(own, state, place)
    dtypes = {str(state[key].dtype).removeprefix("torch.") for key in own if state[key].dtype != own[key].dtype}
    if dtypes:
        notes.append(f"stored as {', '.join(sorted(dtypes))}, loaded in the module's precision")
    other = {key: value for key, value in module.state_dict().items() if key not in own}  # no tensors: they stay
    module.load_state_dict({**state, **other}, strict=True)
    if notes:
        about["note"] = "; ".join(notes)
    return about


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What a file written by :func:`save_checkpoint` says of itself; empty for damaged ones.

    Of torch's own format ``classes_beside``: names of classes that a training script left beside the weights, as JSON.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        if head[8:] != b"{":
            about = os.stat(path)
            return dict(_beside(str(path), about.st_mtime_ns, about.st_size))
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as content:
            metadata = dict(content.metadata() or {})
    except (OSError, ValueError, RuntimeError, UserError, safetensors.SafetensorError):
        return {}  # loading it says what is wrong
    return metadata if "classroomkd_schema" in metadata else {}


@lru_cache(maxsize=32)
def _beside(path: str, time: int, size: int) -> dict[str, str]:
    """See :func:`read_metadata`; read once as long as the file is the same."""
    return _read_torch(Path(path), path)[1]


def read_checkpoint(path: str | os.PathLike[str], *, what: str = "student") -> tuple[dict[str, Any], dict[str, str]]:
    """The raw content of ``path`` and its metadata, on the CPU: wrappers are still in place.

    Raises:
        UserError: as in ``load_checkpoint``.
    """
    path = Path(path)
    place = f"checkpoint {path} of the {what}"
    try:
        if path.is_dir():
            raise UserError(f"{place} is a folder: name the file in it")
        if path.exists() and not path.is_file():
            raise UserError(f"{place} is no plain file; name a file")
        with open(path, "rb") as file:
            head = file.read(9)
    except FileNotFoundError as error:
        near = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise UserError(f"{place} does not exist{near}") from error
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror or error}") from error
    if is_listed(path) and (wrong := damage(path)) is not None:
        raise UserError(
            f"{place} {wrong}: copy it again (a file that you have changed yourself: take its line out of "
            f"{path.parent / SUMS})"
        )
    # By content before suffix: people rename files, and hubs call both kinds .bin.
    zipped = head.startswith(b"PK")
    header = int.from_bytes(head[:8], "little")
    tensors = path.suffix == ".safetensors" or (head[8:] == b"{" and header < path.stat().st_size)
    return _read_safetensors(path, place) if tensors and not zipped else _read_torch(path, place)


def save_checkpoint(
    module_or_state: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    listed: bool = False,
) -> None:
    """Write the weights as safetensors, whole or not at all; ``metadata`` (strings) travels in the file.

    ``listed``: its checksum goes into ``SHA256SUMS`` beside it.

    Tensors that share memory (tied weights) are each stored in full, so the file loads strictly. Equal tensors and
    metadata give equal bytes.

    Raises:
        RunStopped: the disk is full.
        UserError: the place cannot be written.
    """
    state = module_or_state.state_dict() if isinstance(module_or_state, nn.Module) else module_or_state
    odd = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise UserError(f"cannot save {some(odd)}: a checkpoint holds tensors only")
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        tensors[key] = tensor
    strings = {key: str(value) for key, value in (metadata or {}).items()}
    strings |= {"format": "pt", "classroomkd_schema": SCHEMA}
    content = _in_order(safetensors.torch.save(tensors, strings))
    (write_listed if listed else atomic_write_bytes)(Path(path), content)


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted: its writer takes them in another order each time.

    So equal tensors with equal metadata are equal files. The header is padded with blanks to whole eight bytes.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(content)[8 + length :]])


def _read_safetensors(path: Path, place: str) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{place} is damaged or not a safetensors file ({error}): copy or download it again") from error
    schema = metadata.pop("classroomkd_schema", SCHEMA)
    if schema != SCHEMA:
        raise UserError(f"{place} was written by another version (schema {schema}, this one reads {SCHEMA})")
    return state, metadata


_REFUSED = """\
{place} was refused: it holds more than weights ({culprit}), and reading that could run code.
Where you trust the file, convert it once, in Python:
    import torch, classroomkd as ck
    ck.models.save_checkpoint(torch.load("{name}", weights_only=False)["state_dict"], "{stem}.safetensors")
(change ["state_dict"] to whatever leads to the weights; for a whole module leave it out)"""


_GRAPHS = (".onnx", ".pt2", ".tflite")  # a network with its weights in it


def _read_torch(path: Path, place: str) -> tuple[dict[str, Any], dict[str, str]]:
    head = b""
    try:
        with (
            open(path, "rb") as file,  # given the name, torch would go by the suffix
            torch.serialization.safe_globals(_harmless()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # remarks on the age of the format
            head = file.read(2)
            if head == b"PK":
                check_zip(path)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make the reader fail in any way there is
        text = str(error)
        if isinstance(error, TooLarge):
            raise UserError(f"{place} is no checkpoint: {error}") from error
        if "TorchScript" in text:
            raise UserError(f"{place} is a TorchScript program, not weights: save its state_dict instead") from error
        if "Unsupported" in text and (head == b"PK" or head[:1] == b"\x80"):  # a zip or a pickle, not just any bytes
            named = re.search(r"GLOBAL (\S+)", text)
            culprit = named[1] if named else "a form of pickle that is not torch's"
            raise UserError(_REFUSED.format(place=place, culprit=culprit, name=path, stem=path.stem)) from error
        if path.suffix.lower() in _GRAPHS:
            raise UserError(f"{place} is a graph, not weights: give the .safetensors or .pth of its network") from error
        raise UserError(f"{place} is damaged or not a checkpoint: copy or download it again") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{place} holds a {type(content).__name__}, not named weights (a state_dict)")
    names = class_names(content)
    return dict(content), {} if names is None else {"classes_beside": json.dumps(names)}


def _harmless() -> list[Any]:
    """Plain holders of numbers that training scripts put beside the weights: command-line arguments, numpy's scalars.

    Making one runs no code of the file's choice. Numpy moved its function between versions 1 and 2; files name either.
    """
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [argparse.Namespace, np.dtype, *dtypes, *((scalar, f"{module}.scalar") for module in modules)]
