"""An image set on disk that many processes can share: safetensors, memory-mapped back, and a JSON file that describes
it.

The tensor file carries the content's digest in its name and is complete before the JSON file that names it appears,
so a reader never sees half of either.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from classroomkd._files import atomic_write_text, writing
from classroomkd._stored import MAPPING, read_json, trusted
from classroomkd.data.file_pixels import FilePixels
from classroomkd.data.images import ImageSet, MemoryPixels, Part, Pixels
from classroomkd.data.keypoints import packing as people_packing
from classroomkd.data.keypoints.files import CropPixels
from classroomkd.data.skeleton import Skeleton
from classroomkd.data.targets import TargetKind
from classroomkd.errors import UserError

__all__ = ["SCHEMA", "pack", "unpack"]

SCHEMA = 1
_MANIFEST = "data.json"
_TENSORS = re.compile(r"data-[0-9a-f]{16}\.safetensors")
_PARTS = ("train", "val", "test")
_TUPLES = ("classes", "mean", "std", "notes")
_PLAIN = ("name", "views", "fingerprint", *_TUPLES)


def pack(image_set: ImageSet, folder: str | Path) -> Path:
    """Write ``image_set`` into ``folder`` (made when missing) and return the folder; packing the same set again
    changes nothing, and needs a folder that can be read only. A file there with other content is written anew.

    Pixels in memory are written; files decoded on demand are written as their list of paths. Persons come with
    everything that is known about them.

    Raises:
        UserError: for pixels that live in a Python dataset, and for a folder that cannot be written.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    stores: list[dict[str, Any]] = []
    seen: dict[int, int] = {}
    parts: dict[str, int] = {}
    for name in _PARTS:
        part: Part = getattr(image_set, name)
        if id(part.pixels) not in seen:
            seen[id(part.pixels)] = len(stores)
            stores.append(_store(part.pixels, f"pixels.{len(stores)}", tensors))
        parts[name] = seen[id(part.pixels)]
        for key in ("target", "ids", "rows"):
            tensors[f"{name}.{key}"] = getattr(part, key).cpu().contiguous()
    digest = _digest(image_set)
    tensor_file = f"data-{digest[:16]}.safetensors"
    plain = {name: getattr(image_set, name) for name in _PLAIN}
    plain["metric"] = image_set.metric
    plain["target_kind"] = [image_set.target_kind.name, image_set.target_kind.fill]
    manifest = {"schema": SCHEMA, **plain, "parts": parts, "pixels": stores, "tensors": tensor_file}
    if image_set.people is not None and image_set.skeleton is not None:
        described, arrays = people_packing.pack_people(image_set.people)
        tensors |= {f"people.{key}": value for key, value in arrays.items()}
        manifest |= {"people": described, "skeleton": image_set.skeleton.plain()}
    if not _holds(folder / tensor_file, tensors):
        _save_tensors(tensors, folder / tensor_file)
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    if not _says(folder / _MANIFEST, text):
        atomic_write_text(folder / _MANIFEST, text)
    return folder


def _holds(path: Path, tensors: dict[str, Tensor]) -> bool:
    """Whether a file has exactly these tensors: one that was cut or changed is not used."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys()) == set(tensors) and all(_same(file.get_tensor(k), v) for k, v in tensors.items())
    except (OSError, SafetensorError):
        return False


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal bytes, shape and type."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return torch.equal(*(x.contiguous().view(-1).view(torch.uint8) for x in (a, b)))  # NaN is NaN


def _says(path: Path, text: str) -> bool:
    try:
        return path.is_file() and path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def unpack(folder: str | Path) -> ImageSet:
    """The image set that ``pack`` wrote; its pixels are memory-mapped, so processes share them.

    Raises:
        UserError: when the folder holds none, or one of another schema.
    """
    folder = Path(folder)
    remedy = f"remove {folder}, and it is packed again"
    if not (folder / _MANIFEST).exists():
        raise UserError(f"{folder} holds no packed data; pack it again")
    manifest = read_json(folder / _MANIFEST, MAPPING, remedy=remedy)
    if manifest.get("schema") != SCHEMA:
        raise UserError(
            f"{folder} was packed with schema {manifest.get('schema')}, this version reads {SCHEMA}; pack it again"
        )
    tensor_file = str(manifest.get("tensors"))
    if not _TENSORS.fullmatch(tensor_file):
        raise UserError(f"{folder / _MANIFEST} is damaged (its tensors are in '{tensor_file}'); {remedy}")
    try:
        with safe_open(folder / tensor_file, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / tensor_file} is missing or damaged ({error}); {remedy}") from error
    with trusted(folder / _MANIFEST, remedy):
        return _assembled(manifest, tensors)


def _assembled(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> ImageSet:
    pixels = [_KINDS[str(entry["kind"])](entry, tensors) for entry in manifest["pixels"]]
    kind = TargetKind(*manifest["target_kind"])
    parts: dict[str, Any] = {
        name: Part(pixels[place], tensors[f"{name}.target"], tensors[f"{name}.ids"], tensors[f"{name}.rows"], kind)
        for name, place in manifest["parts"].items()
    }
    plain: dict[str, Any] = {name: tuple(manifest[name]) if name in _TUPLES else manifest[name] for name in _PLAIN}
    plain["metric"] = manifest.get("metric", "accuracy")
    if "people" in manifest:
        plain["people"] = people_packing.unpack_people(manifest["people"], _below("people.", tensors))
        plain["skeleton"] = Skeleton.from_plain(manifest["skeleton"])
        plain["input"] = plain["people"].size
    return ImageSet(**plain, **parts)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _store(pixels: Pixels, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if isinstance(pixels, MemoryPixels):
        tensors[key] = pixels.images.cpu().contiguous()
        return {"kind": "memory", "key": key}
    if isinstance(pixels, FilePixels):
        return {
            "kind": "files", "root": str(pixels.root.resolve()), "paths": list(pixels.paths), "size": pixels.size,
            "shape": list(pixels.shape),
        }  # fmt: skip
    if isinstance(pixels, CropPixels):
        tensors[f"{key}.origin"], tensors[f"{key}.step"] = (
            torch.from_numpy(pixels.origin),
            torch.from_numpy(pixels.step),
        )
        return {"kind": "crops", "key": key, **pixels.plain()}
    raise UserError(
        "data: pixels that are read from a Python dataset on demand cannot be shared between processes; use one process"
    )


def _files(entry: dict[str, Any], tensors: dict[str, Tensor]) -> Pixels:
    channels, height, width = entry["shape"]
    return FilePixels(entry["root"], entry["paths"], size=entry["size"], shape=(channels, height, width))


def _crops(entry: dict[str, Any], tensors: dict[str, Tensor]) -> Pixels:
    key = entry["key"]
    return CropPixels.from_plain(entry, tensors[f"{key}.origin"].numpy(), tensors[f"{key}.step"].numpy())


_KINDS: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], Pixels]] = {
    "memory": lambda entry, tensors: MemoryPixels(tensors[entry["key"]]),
    "files": _files,
    "crops": _crops,
}


def _digest(image_set: ImageSet) -> str:
    """What the tensor file depends on: content, selection, and where each part's pixels are kept."""
    total = hashlib.sha256(image_set.fingerprint.encode())
    if image_set.people is not None:
        total.update(image_set.people.boxes.encode())
    for name in _PARTS:
        part: Part = getattr(image_set, name)
        rows = part.rows.cpu().contiguous().numpy().tobytes()
        total.update(f"|{name} {part.digest()} {len(part.pixels)} {part.pixels.shape}|".encode() + rows)
    return total.hexdigest()


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file beside ``path`` and move it into place (it is too large to hold its bytes twice)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            save_file(tensors, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except SafetensorError as error:
            # safetensors reports the operating system's errors in its own type.
            raise OSError(_errno(str(error)), str(error)) from error
        finally:
            temporary.unlink(missing_ok=True)


def _errno(text: str) -> int:
    found = re.search(r"os error (\d+)", text)
    return int(found[1]) if found else 0
