"""Source ``coco-keypoints:DIR_OR_ZIP``: persons with joints in COCO's format, of any skeleton; also
``coco-keypoints:FILE.json@IMAGES``, one annotation file and the folder or zip archive of its images.

Which annotation files are taken: those that ``data.options.train``, ``val`` and ``test`` name, inside; else
``person_keypoints_train2017.json`` and ``…val2017.json``; else the only one with *train*, *val* or *test* in its name;
else the only one. With train and val alone, val is what the final score is measured on (as everybody does with COCO)
and a validation part is split off train. ``boxes`` names a detector's boxes for the test part.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from classroomkd.data.keypoints.annotation_file import PersonSource, read_json
from classroomkd.data.keypoints.coco import CocoFile, read_coco, read_detections
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.placing import placed
from classroomkd.data.sources.base import Request, first_of
from classroomkd.data.spec import PARTS
from classroomkd.errors import UserError

__all__ = ["open_coco", "part_files", "seen"]

SIZE = (256, 192)


def open_coco(argument: str, request: Request) -> PersonSource:
    """See the module's text."""
    notes: list[str] = []
    name, alone, images = argument.rpartition("@")
    category = request.options.get("category")
    inside = request.options.get("images")
    read: dict[str, CocoFile] = {}
    if alone and name.endswith(".json"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"data: coco-keypoints:{argument}: there is no file {path}")
        store = Files(Path(images).expanduser(), "" if inside is None else str(inside))
        place = partial(placed, store, path.name, images=None, where=path.name)
        read["all"] = read_coco(
            path.read_bytes(), store, path.name, notes, category=category, place=place, skeleton=request.skeleton
        )
        title = path.stem
    else:
        store = Files(Path(argument).expanduser())
        title = store.path.resolve().stem
        for part, file in part_files(
            store, f"coco-keypoints:{argument}", request, "person_keypoints", notes, _annotated
        ).items():
            where = PurePosixPath(file).name
            place = partial(placed, store, file, images=inside, where=where)
            read[part] = read_coco(
                store.read(file), store, where, notes, category=category, place=place, skeleton=request.skeleton
            )
    parts = {part: replace(file.listing, unlabelled=file.boxes_alone) for part, file in read.items()}
    first = next(iter(read.values()))
    for part, one in read.items():
        if one.skeleton.joints != first.skeleton.joints:
            raise UserError(
                f"data: {parts[part].where} has the joints {', '.join(one.skeleton.joints)}; {first.listing.where} has"
                f" {', '.join(first.skeleton.joints)}. Parts of one set have the same skeleton"
            )
    boxes = request.options.get("boxes")
    if boxes is not None:
        part = "test" if "test" in parts else "all"  # a file by itself may be there to be scored
        if part not in parts:
            raise UserError(
                "data.options.boxes: a detector's boxes are scored on a test part, and there is none; name its "
                "annotations with data.options.test: FILE"
            )
        data = store.read(boxes) if boxes in store else _outside(boxes)
        detected = read_detections(data, PurePosixPath(boxes).name, read[part].category, parts[part], notes)
        parts[part] = replace(parts[part], detected=detected)
    return PersonSource(
        title, first.skeleton, parts, SIZE, "person", notes=tuple(dict.fromkeys(notes)),
        category=read.get("test", first).category, title=first.title, paired=first.paired,
    )  # fmt: skip


def _annotated(read: Any) -> bool:
    return not isinstance(read, dict) or bool(read.get("annotations"))


def _outside(boxes: str) -> bytes:
    path = Path(boxes).expanduser()
    if not path.is_file():
        raise UserError(f"data.options.boxes: there is no file {boxes}, neither inside the data nor from {Path.cwd()}")
    return path.read_bytes()


def part_files(
    store: Files, text: str, request: Request, prefer: str, notes: list[str], annotated: Callable[[Any], bool]
) -> dict[str, str]:
    """The annotation file of every part: {"train": …, "test": …} or {"all": …}.

    A test file that was found, and not named, is left out where what it holds is not ``annotated``: many sets keep
    their test annotations for themselves.
    """
    files = _find_parts(store, text, request, prefer)
    if "test" in files and "test" not in request.options and len(files) > 1:
        where = PurePosixPath(files["test"]).name
        if not annotated(read_json(store.read(files["test"]), where)):
            notes.append(f"{where} has no annotations, so nothing can be scored on it: it is left out")
            del files["test"]
    if "test" not in files and "val" in files:
        files = {"train": files["train"], "test": files["val"]}
        notes.append(
            f"{PurePosixPath(files['test']).name} is used as the test part (there is no other); a validation part is"
            " split off the training part, by image"
        )
    return files


def _find_parts(store: Files, text: str, request: Request, prefer: str) -> dict[str, str]:
    """The annotation files by part, as they are called."""
    named = {part: str(request.options[part]) for part in PARTS if part in request.options}
    if named:
        missing = [f"data.options.{part}: {file}" for part, file in named.items() if file not in store]
        if missing or "train" not in named:
            wrong = (
                f"{missing[0]} is not in {store.path}" if missing else "data.options: 'train' is not among the files"
            )
            raise UserError(f"{wrong}; there are {first_of(_jsons(store), 6)}")
        return named
    every = _jsons(store)
    preferred = [file for file in every if PurePosixPath(file).name.startswith(prefer)] if prefer else []
    files = preferred or every
    by_part: dict[str, str] = {}
    for part in PARTS:
        exact = [file for file in files if PurePosixPath(file).name == f"{prefer}_{part}2017.json"]
        loose = exact or [file for file in files if re.search(_CALLED[part], PurePosixPath(file).stem)]
        # Beside its pictures, a file may be called the same in every part's folder.
        loose = loose or [file for file in files if re.search(_CALLED[part], PurePosixPath(file).parent.name)]
        if len(loose) > 1:
            raise UserError(
                f"data: {text}: {len(loose)} annotation files could be the {part} part ({first_of(loose, 6)}); say"
                f" which: data.options.{part}: {loose[0]}"
            )
        if loose:
            by_part[part] = loose[0]
    if "train" in by_part:
        return by_part
    if len(files) == 1:
        return {"all": files[0]}
    raise UserError(
        f"data: {text}: looked for annotation files (*train*.json, *val*.json); found {first_of(every, 6) or 'none'}."
        " Say which: data.options.train: FILE"
    )


_CALLED = {"train": r"train(?!val)", "val": r"(?<!train)val", "test": r"test"}


def _jsons(store: Files) -> list[str]:
    return seen(store, ".json")


def seen(store: Files, ending: str) -> list[str]:
    """The files of that ending, without those that are hidden, as what macOS puts into archives."""
    hidden = (".", "__MACOSX")
    return sorted(
        name
        for name in store.names()
        if name.endswith(ending) and not any(part.startswith(hidden) for part in name.split("/"))
    )
