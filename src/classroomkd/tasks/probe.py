"""A probe of students in their files, with the mentors of their run; of a whole run it is kept in ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd import data, tasks
from classroomkd._files import open_lock
from classroomkd._locks import Held, hold
from classroomkd._stored import MAPPING, finite, read_json, trusted
from classroomkd._sums import unlisted, write_listed
from classroomkd.errors import UserError
from classroomkd.export.find import FILES, PEERS, place_of
from classroomkd.export.student import find_student, load_student, own_recipe, own_run
from classroomkd.run import probing
from classroomkd.run.mentor_record import MentorRecord, load_mentor
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.tasks.requests import EvaluateRequest, placed
from classroomkd.train.runtime import pick_device

if TYPE_CHECKING:
    import torch
    from torch import nn

    from classroomkd.classroom import Mentor
    from classroomkd.data import ImageSet
    from classroomkd.export import Student
    from classroomkd.run.context import RunContext

__all__ = ["probe_files"]

_REMEDY = "put it back, or make the run again"


def probe_files(
    place: Path,
    source: Any = None,
    neighbours: int = probing.NEIGHBOURS,
    *,
    which: str = "last",
    unreadable: str = "refuse",
    device: str = "auto",
    trust_code: bool = False,
    module: nn.Module | None = None,
    opened: Callable[[], RunContext] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Judge every student of a run folder, or one student, on data.

    Args:
        place: a run folder, whose summary gets what is found; a seed's folder or a student's file.
        source: what :func:`classroomkd.data.load` takes as a source; None: the run's own data.
        neighbours: k.
        which: of the students' files last, best or ema.
        unreadable: what happens to images that cannot be decoded: refuse or skip.
        device: where networks run.
        trust_code: whether ``py:`` names may run.
        module: the student's network, where it was handed over in Python.
        opened: opens the run again, where its networks or data were.
        say: takes sentences that the user should read.

    Returns:
        ``data``, ``fingerprint``, ``which``, ``neighbours``, ``fitted`` and ``scored`` (images), ``students``:
        ``method``, ``seed`` and ``figures`` of each, ``mentors``: ``name`` and ``figures``.

    Raises:
        UserError: files, data or a task that cannot be judged; a run that somebody works on.
    """
    whole = (place / "recipe.yaml").is_file() and (place / "summary.json").is_file()
    files: dict[tuple[str, int | None], Path] = {}
    if whole:
        files.update(_students_of(place, which))
    else:
        path = find_student(place, which, say)
        files[path.name, None] = path
    with _alone_in(place) if whole else nullcontext():
        for file in files.values():
            if own_run(file) is not None and (sentence := unlisted(file)) is not None:
                say(sentence)
        given = [None if file.parent.name == PEERS else module for file in files.values()]
        students = [
            load_student(file, its, which=which, trust_code=trust_code)
            for file, its in zip(files.values(), given, strict=True)
        ]
        first, path, where = students[0], next(iter(files.values())), pick_device(device)
        if tasks.describe(first.task).reads != "classes":
            raise UserError(f"{path} is a student of {first.task}; a probe judges students of classes")
        images = _images(first, path, source, unreadable, where, trust_code)
        samples, run = probing.samples_of(images), own_run(path)
        mentors = {} if run is None else _mentors_of(run, opened or partial(_opened, run, trust_code), say)
        modules, inputs = zip(*(placed(student, where) for student in students), strict=True)
        found = probing.probe(modules, mentors, samples, inputs, neighbours)
        for name, why in found.left_out.items():
            say(f"mentor '{name}' is left out: {why}")
        result: dict[str, Any] = {
            "data": images.name,
            "fingerprint": images.fingerprint,
            "which": which,
            "neighbours": neighbours,
            "fitted": found.fitted,
            "scored": found.scored,
            "students": [
                {"method": method, "seed": seed, "figures": figures}
                for (method, seed), figures in zip(files, found.students, strict=True)
            ],
            "mentors": [{"name": name, "figures": figures} for name, figures in found.mentors.items()],
        }
        if whole:
            _keep(place, result)
    return result


def _images(
    student: Student, path: Path, source: Any, unreadable: str, where: torch.device, trust_code: bool
) -> ImageSet:
    """What is judged on, at the student's size."""
    if source is None or isinstance(source, str):
        recipe, run = own_recipe(path) if source is None else None, own_run(path)
        request = EvaluateRequest(student, path, source, recipe, "all", unreadable, where, trust_code, run=run)
        images = request.load_all()
    else:
        whole = isinstance(source, Mapping | tuple)  # it says itself how it is split, and of what size
        section = source if whole else {"source": source, "resize": student.resize, "size": student.side}
        images = data.load(section, task=student.task, trust_code=trust_code)
    if images.shape != student.shape:
        got, wanted = ("x".join(map(str, shape)) for shape in (images.shape, student.shape))
        raise UserError(f"the data '{images.name}' has {got} pixels, the student takes {wanted}; convert them first")
    return images


def _students_of(run: Path, which: str) -> dict[tuple[str, int | None], Path]:
    """The files of a run's finished students, by arm and seed.

    Raises:
        UserError: no summary, or no such file.
    """
    summary = read_json(run / "summary.json", MAPPING, remedy=_REMEDY)
    found: dict[tuple[str, int | None], Path] = {}
    with trusted(run / "summary.json", _REMEDY):
        places = {arm["label"]: arm["folder"] for arm in summary["arms"]}
        for entry in summary["entries"]:
            file = run / places[entry["method"]] / f"seed{entry['seed']}" / place_of(which, entry.get("exported"))
            if file.is_file():
                found[entry["method"], int(entry["seed"])] = file
    if not found:
        raise UserError(f"{run} holds no {FILES[which]} of a finished student")
    return found


def _mentors_of(run: Path, opened: Callable[[], RunContext], say: Callable[[str], None]) -> dict[str, Mentor]:
    """The mentors of a run, with the weights that they taught with; ``say`` is told who is left out, and why."""
    summary = read_json(run / "summary.json", MAPPING, remedy=_REMEDY)
    records = summary.get("mentors") or []
    if not records:
        return {}
    try:
        networks = Networks(opened())
    except UserError as error:
        say(f"the run's mentors are left out: {error}")
        return {}
    found = {}
    for record in records:
        try:
            found[record["name"]] = load_mentor(networks, _record(record))
        except (UserError, KeyError, TypeError) as error:
            say(f"mentor '{record.get('name')}' is left out: {error}")
    return found


def _opened(run: Path, trust_code: bool) -> RunContext:
    from classroomkd.recipe import load_recipe

    return open_context(load_recipe(str(run / "recipe.yaml"), trust_code=trust_code), run, trust_code=trust_code)


def _record(stored: Mapping[str, Any]) -> MentorRecord:
    known = {entry.name: stored[entry.name] for entry in fields(MentorRecord) if entry.name in stored}
    return MentorRecord(**{"val_logits": "", "answers": {}, **known})


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """Nobody else works in the run's folder meanwhile.

    Raises:
        UserError: somebody does.
    """
    with open_lock(run / ".lock") as lock:
        try:
            with hold(lock, None):
                yield
        except Held as held:
            raise UserError(f"another process is working in {run} ({held}); probe it when that is over") from held


def _keep(run: Path, found: Mapping[str, Any]) -> None:
    """Write what a probe has found into a run's summary, in place of what an earlier one has."""
    file = run / "summary.json"
    summary = read_json(file, MAPPING, remedy=_REMEDY)
    write_listed(file, json.dumps(finite({**summary, probing.KEY: dict(found)}), indent=1))
