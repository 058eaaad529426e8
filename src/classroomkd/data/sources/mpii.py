"""Source ``mpii:DIR_OR_ZIP``: MPII Human Pose as ``annot/train.json`` and ``annot/valid.json`` with ``images``, as
SimpleBaseline and HRNet use it (Andriluka et al. 2014; for research only).

``gt_valid.mat`` beside them gives the heads' boxes and the joints that the official scorer counts. ``data.options``:
train, val, test (files inside), images (their folder), base (the number of the first pixel, 1). The official test part
has no joints: valid is what is scored.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from classroomkd.data.keypoints.annotation_file import AnnotationFile, PersonSource
from classroomkd.data.keypoints.files import Files
from classroomkd.data.keypoints.mpii import read_mpii, read_official
from classroomkd.data.skeleton import MPII
from classroomkd.data.sources.base import Request
from classroomkd.data.sources.coco_keypoints import part_files
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
        files = part_files(store, f"mpii:{argument}", request, "", notes)
    inside = str(request.options.get("images", "images"))
    parts: dict[str, AnnotationFile] = {}
    for part, file in files.items():
        mat = str(PurePosixPath(file).with_name("gt_valid.mat"))
        beside = PurePosixPath(file).stem == "valid" and mat in store
        counted = read_official(store.read(mat), mat) if beside else None
        parts[part] = read_mpii(
            store.read(file), store.below(inside), PurePosixPath(file).name, base=base, official=counted, notes=notes,
            refuse=request.unreadable == "refuse",
        )  # fmt: skip
    return PersonSource(store.path.resolve().stem, MPII, parts, SIZE, "person_mpii", notes=tuple(dict.fromkeys(notes)))
