"""Where a student's file lies: named itself, or the best on validation of those below a folder."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from classroomkd._printable import printable
from classroomkd._stored import MAPPING, read_json, read_yaml, trusted
from classroomkd.errors import UserError
from classroomkd.recipe.peer_section import TRAINED
from classroomkd.tasks.metric import FRACTION, Metric

__all__ = ["FILES", "find_student", "own_run", "place_of"]

FILES = {"last": "student.safetensors", "best": "student-best.safetensors", "ema": "student-ema.safetensors"}
_SCORES = {"last": "val_last", "best": "val_best", "ema": "val_last"}  # averaged weights have no score of their own
STUDENT, PEERS = "student", "peers"  # the folder of what was trained beside it
_SUMMARY = "summary.json"
_BESIDE = ("SHA256SUMS", "data.json", _SUMMARY, ".lock")  # what a run writes beside its recipe, early and late
_REMEDY = "name one of the students in it, or make the run again"


def find_student(
    path: Path, which: str = "last", say: Callable[[str], None] | None = None, network: str | None = None
) -> Path:
    """The student's file: ``path`` itself, or the one in a run folder, an arm's or a seed's.

    Of several students the best on *validation* is taken, and ``say`` is told which one and why. ``which`` is ``last``,
    ``best`` or ``ema``; it does not matter where ``path`` is a file.

    Args:
        path: a file or a folder.
        which: of a student's files.
        say: takes one sentence; None: it is logged.
        network: ``student``, or the name of a peer that was trained beside it, whose file is taken; None: what the
            run's recipe exports, of an arm that does not train it the student.

    Raises:
        UserError: another ``which``, nothing there, or several students without a score on validation to choose by; no
            peer of that name.
    """
    if which not in FILES:
        raise UserError(f"--which {which}: choose one of {', '.join(FILES)}")
    if path.is_file():
        if network not in (None, STUDENT, path.stem.partition("-")[0], path.stem):
            raise UserError(f"--network {network}: {path} is a file; give the run's or the seed's folder")
        return path
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run folder, a seed's folder or a student.safetensors")
    files = _files(path, which, network)
    if not files and network not in (None, STUDENT):
        raise UserError(f"--network {network}: {path} holds no {place_of(which, network)}{_which_peers(path)}")
    if not files:
        raise UserError(f"{path} holds no {FILES[which]}{_why_none(path)}")
    if len(files) == 1:
        return next(iter(files.values()))
    best, why = _best([folder / FILES["last"] for folder in files], _SCORES[which], network)
    if best is None:
        some = ", ".join(str(folder.relative_to(path)) for folder in list(files)[:6])
        raise UserError(
            f"{path} holds {len(files)} students ({some}{', …' if len(files) > 6 else ''}); name one of them"
        )
    (say or _log)(
        f"{path} holds {len(files)} students; this is {best.parent}, the best on validation ({why}). Name another's "
        "folder to take that one"
    )
    return files[best.parent]


def place_of(which: str, network: str | None) -> str:
    """Where in a seed's folder a network's file lies: the student's (None, too), or a peer's."""
    student = network in (None, STUDENT)
    return FILES[which] if student else f"{PEERS}/{FILES[which].replace(STUDENT, str(network), 1)}"


def _files(path: Path, which: str, network: str | None) -> dict[Path, Path]:
    """By folder of a seed the network's file, in a seed's folder, an arm's or a run's; see :func:`find_student`."""
    chosen = _exported(path) if network is None else network
    for depth in ("", "*/", "*/*/"):
        files = {file.parent: file for file in sorted(path.glob(f"{depth}{FILES[which]}"))}
        if chosen != STUDENT:
            others = {file.parent.parent: file for file in sorted(path.glob(f"{depth}{place_of(which, chosen)}"))}
            files = {folder: others.get(folder, file) for folder, file in files.items()} if network is None else others
        files = {folder: file for folder, file in files.items() if not depth or not _of_stage(folder)}
        if files:
            return files
    return {}


def _of_stage(folder: Path) -> bool:
    """Whether a folder is of an earlier stage of a seed, which is no student of the run unless it is named."""
    parts = folder.resolve().parts
    return len(parts) > 2 and parts[-2] == "stages" and re.fullmatch(r"seed[0-9]+", parts[-3]) is not None


def _exported(path: Path) -> str:
    """Which network the recipe of the run that a folder is, or lies in, exports."""
    run = own_run(path / FILES["last"])
    found = None if run is None else read_yaml(run / "recipe.yaml", remedy="put it back, or name a file").get("export")
    return found if isinstance(found, str) else STUDENT


def _why_none(path: Path) -> str:
    """Why a folder holds no student: its run is not that far, or it is no run's folder at all."""
    if own_run(path / "seed0" / FILES["last"]) is not None:  # itself, or a folder above it
        return "; a student appears there when its training is finished"
    return ", and is no folder of a run; give a run folder, a seed's folder or a student.safetensors"


def _which_peers(path: Path) -> str:
    """The peers that there are in a folder, as the rest of a sentence."""
    files = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}{PEERS}/*.safetensors")]
    names = sorted(
        {file.stem for file in files} - {f"{file.stem}-{kind}" for file in files for kind in ("best", "ema")}
    )
    return f"; there are {', '.join([STUDENT, *names])}" if names else "; nothing was trained beside the student there"


def _best(files: Sequence[Path], key: str, network: str | None = None) -> tuple[Path | None, str]:
    """Of these students of one run the one with the best score ``key``, the first of equals, and that score as text.

    ``network``: see :func:`find_student`.
    """
    run = own_run(files[0])
    if run is None or not (run / _SUMMARY).exists():
        return None, ""
    summary = read_json(run / _SUMMARY, MAPPING, remedy=_REMEDY)
    metric = _metric(summary)
    there = {file.parent.resolve() for file in files}
    scores = {folder: value for folder, value in _scores(summary, run, key, network) if folder in there}
    if not scores:
        return None, ""
    top = max(scores.values(), key=metric.rank)
    best = next(file for file in files if scores.get(file.parent.resolve()) == top)
    return best, f"{metric.name} {metric.text(top)}"


def _metric(summary: Mapping[str, Any]) -> Metric:
    """What the scores of the validation part are."""
    name = summary.get("val_metric") or summary.get("metric") or "accuracy"
    unit = summary.get("metric_unit") or FRACTION
    return Metric(str(name), str(unit), summary.get("higher_is_better") is not False)


def _scores(summary: Mapping[str, Any], run: Path, key: str, network: str | None) -> Iterator[tuple[Path, float]]:
    """The folder of every finished student, and its score ``key``; of a network that is named its own, or its best."""
    with trusted(run / _SUMMARY, _REMEDY):
        places = {arm["label"]: arm["folder"] for arm in summary["arms"]}
        for entry in summary["entries"]:
            variants = entry.get("variants") or []
            own = (v for v in variants if v["name"] == network and v["kind"] in TRAINED)
            its: Mapping[str, Any] = next(own, {})
            is_its = network is None or (network == STUDENT and "exported" not in entry)
            value = entry.get(key) if is_its else its.get(key, its.get("val_best"))
            if isinstance(value, int | float) and math.isfinite(value):
                yield (run / places[entry["method"]] / f"seed{entry['seed']}").resolve(), float(value)


def own_run(path: Path) -> Path | None:
    """The folder of the run that a student lies in; None where it lies in none."""
    return next((folder for folder in path.resolve().parents if _is_run(folder, path.resolve())), None)


def _is_run(folder: Path, student: Path | None = None) -> bool:
    """A recipe alone is no run, for it may be the user's own, beside which a student was exported; unless the student
    lies where a run puts it, ARM/seedN."""
    if not (folder / "recipe.yaml").exists():
        return False
    if any((folder / name).exists() for name in _BESIDE):
        return True
    placed = student is not None and student.name in FILES.values() and student.parent.parent.parent == folder
    return placed and student is not None and student.parent.name.startswith("seed")


def _log(text: str) -> None:
    logging.getLogger("classroomkd").warning(printable(text))
