"""Source ``mpii:DIR_OR_ZIP``: MPII Human Pose as ``annot/train.json`` and ``annot/valid.json`` with ``images``, as
SimpleBaseline and HRNet use it (Andriluka et al. 2014; for research only).

Other names are taken as they are called (``train.json`` and ``val.json``; ``mpii_train.json`` and ``mpii_val.json``, as
mmpose has them). ``gt_valid.mat`` (``mpii_gt_val.mat``) beside the scored file gives the heads' boxes and the joints
that the official scorer counts. ``data.options``: train, val, test (files inside), images (their folder), base (the
number of the first pixel, 1). The official test part has no joints: valid is what is scored.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from classroomkd.data.keypoints.annotation_file import AnnotationFile, PersonSource, read_json
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.mpii import Official, read_mpii, read_official
from classroomkd.data.keypoints.placing import placed
from classroomkd.data.skeleton import MPII
from classroomkd.data.sources.base import Request
from classroomkd.data.sources.coco_keypoints import part_files, seen
from classroomkd.errors import UserError

__all__ = ["open_mpii"]

SIZE = (256, 256)


def open_mpii(argument: str, request: Request) -> PersonSource:
    """See the module's text."""
    store = Files(Path(argument).expanduser())
    base = int(request.options.get("base", 1))
    if base not in (0, 1):
        raise UserError(f"data.options.base: {base} does not fit; give 1 (MPII's) or 0")
    notes = ["MPII: for research only; its authors ask to be cited (Andriluka et al., 2014)"]
    official = {part: f"annot/{name}.json" for part, name in (("train", "train"), ("test", "valid"))}
    chosen = any(part in request.options for part in ("train", "val", "test"))
    if not chosen and all(file in store for file in official.values()):
        files = official
    else:
        files = part_files(store, f"mpii:{argument}", request, "", notes, _jointed)
    inside = request.options.get("images")
    parts: dict[str, AnnotationFile] = {}
    for part, file in files.items():
        where = PurePosixPath(file).name
        data = store.read(file)
        parts[part] = read_mpii(
            data, store, where, base=base, official=_counted(store, part, file, data, notes), notes=notes,
            refuse=request.unreadable == "refuse", place=partial(placed, store, file, images=inside, where=where),
        )  # fmt: skip
    return PersonSource(store.path.resolve().stem, MPII, parts, SIZE, "person_mpii", notes=tuple(dict.fromkeys(notes)))


def _jointed(read: Any) -> bool:
    """Whether a file is one of people with joints; MPII's test file has none."""
    return not isinstance(read, list) or any(isinstance(person, dict) and person.get("joints") for person in read)


def _counted(store: Files, part: str, file: str, data: bytes, notes: list[str]) -> Official | None:
    """What the official scorer's file beside the annotations of a scored part says, where it is about as many people.

    Raises:
        UserError: the validation file and the scorer's are of different people.
    """
    if part == "train":
        return None
    folder, where = PurePosixPath(file).parent, PurePosixPath(file).name
    near = [mat for mat in seen(store, ".mat") if PurePosixPath(mat).parent == folder and "gt_val" in mat]
    if not near:
        return None
    official, people = read_official(store.read(near[0]), near[0]), read_json(data, where)
    count = len(people) if isinstance(people, list) else 0
    if len(official.heads) == count or re.fullmatch(r"(mpii_)?val(id|idation)?", PurePosixPath(file).stem):
        return official  # another number is refused where the two are compared
    notes.append(f"{where}: {near[0]} is about {len(official.heads)} people, this file about {count}: it is not used")
    return None
