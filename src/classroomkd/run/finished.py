"""Students that an earlier attempt has finished: read back only where every file is what was written."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd import models
from classroomkd._sums import SUMS, damage, is_listed
from classroomkd.classroom.trainees import STUDENT
from classroomkd.errors import UserError
from classroomkd.recipe.peer_section import TRAINED
from classroomkd.train.checkpoint import can_go_on

if TYPE_CHECKING:
    from classroomkd.recipe import Arm
    from classroomkd.run.networks import Networks
    from classroomkd.train.loop import Notify

__all__ = ["BEST", "EMA", "ENTRY", "LAST", "PEERS", "TEACHING", "file_of", "made_again", "read_back", "seed_folder"]

ENTRY = "entry.json"  # written last of all: with it the student is finished
LAST, BEST, EMA, TEACHING = (
    "student.safetensors",
    "student-best.safetensors",
    "student-ema.safetensors",
    "teaching.json",
)
PEERS = "peers"  # the folder of what was trained beside it
NUMBERS = ("test_last", "test_best", "steps", "seconds", "best_epoch")  # what every entry has
_PEERS_FILE = re.compile(rf"{PEERS}/[A-Za-z0-9_-]+\.safetensors")


def seed_folder(out: Path, arm: Arm, seed: int) -> Path:
    """Where the files of one seed of an arm, or of one of its stages, go."""
    folder = out / arm.slug / f"seed{seed}"
    return folder if arm.stage is None else folder / arm.stage.folder


def file_of(trainee: str, like: str) -> str:
    """A trainee's file called after the student's one of this kind; its place in the folder."""
    return like if trainee == STUDENT else f"{PEERS}/{like.replace(STUDENT, trainee, 1)}"


def read_back(networks: Networks, arm: Arm, seed: int, folder: Path, notify: Notify) -> dict[str, Any] | None:
    """A finished student's entry, or None where it is to be trained: not finished yet, or a file is damaged.

    What is damaged is said, and where the student is taken up again. All ranks find the same.
    """
    runtime = networks.context.runtime
    if not runtime.any((folder / ENTRY).exists() or is_listed(folder / ENTRY)):
        return None
    entry, wrong = _entry(folder, arm, seed)
    if entry is not None:
        wrong = next(filter(None, (_wrong(networks, folder / name) for name in _files(entry, arm.lead))), None)
    runtime.barrier()  # nobody writes while another one looks
    if not runtime.any(wrong is not None):
        if runtime.is_zero and not (folder / SUMS).exists():
            text = f"{folder} has no {SUMS}, as those of earlier versions: its files were read through instead"
            notify({"event": "note", "text": text})
        return entry
    how = made_again(folder, runtime.is_zero)
    runtime.barrier()
    if runtime.is_zero:
        notify({"event": "note", "text": f"{wrong or f'{folder} is damaged'}; {how}"})
    return None


def made_again(folder: Path, first: bool = True) -> str:
    """How what is damaged in a training's folder comes back, as a phrase; ``first``: of ``can_go_on``."""
    if can_go_on(folder / "checkpoints" / "last.pt", first):
        return "it is made again from its last checkpoint"
    return "there is no checkpoint: it is trained again"


def _files(entry: dict[str, Any], lead: str = STUDENT) -> list[str]:
    """What belongs to a student, as its entry says; ``lead`` stands in the student's place."""
    there = {LAST: True, BEST: entry.get("val_best") is not None, EMA: "test_ema" in entry}
    files = [file_of(lead, name) for name, is_there in there.items() if is_there] + [TEACHING]
    variants = entry.get("variants")
    peers = [v for v in variants if isinstance(v, dict)] if isinstance(variants, list) else []
    for peer in peers:
        file = peer.get("file")
        if not isinstance(file, str) or not _PEERS_FILE.fullmatch(file):
            continue  # the student's own, or nobody's
        files.append(file)
        if peer.get("kind") in TRAINED and peer.get("val_best") is not None:
            files.append(file.replace(".safetensors", "-best.safetensors"))
    return files


def _entry(folder: Path, arm: Arm, seed: int) -> tuple[dict[str, Any] | None, str | None]:
    """The entry, or what is wrong with it."""
    path = folder / ENTRY
    if (what := damage(path)) is not None:
        return None, f"{path} {what}"
    if (folder / SUMS).exists() and not is_listed(path):
        return None, f"{path} is not listed in {SUMS}"
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None, f"{path} is damaged"
    whose = (entry.get("method"), entry.get("seed")) if isinstance(entry, dict) else None
    if whose != (arm.label, seed):
        return None, f"{path} is not of '{arm.label}', seed {seed}"
    # Of these types exactly: JSON's true and false are no numbers.
    if missing := [key for key in NUMBERS if type(entry.get(key)) not in (int, float) and not _unscored(entry, key)]:
        return None, f"{path} lacks {', '.join(missing)}"
    return entry, None


def _unscored(entry: dict[str, Any], key: str) -> bool:
    """Whether the entry says that there was nobody in the test part to judge."""
    return key in ("test_last", "test_best") and key in entry and entry[key] is None


def _wrong(networks: Networks, path: Path) -> str | None:
    """What is wrong with one file. One that an earlier version wrote without a checksum is read through."""
    if (what := damage(path)) is not None:
        return f"{path} {what}"
    if is_listed(path):
        return None
    if (path.parent / SUMS).exists():
        return f"{path} is not listed in {SUMS}"
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            network = copy.deepcopy(networks.blank_student())
            models.load_checkpoint(network, path, what="student")
    except UserError as error:
        return str(error).partition("\n")[0]
    except ValueError:
        return f"{path} is damaged"
    return None
