"""The run folder: opening it, whether it may be gone on with, and whether torchrun starts it again."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from classroomkd import methods
from classroomkd._files import open_lock, refuse_links_below, writing
from classroomkd._locks import Held, hold
from classroomkd._stored import read_json, read_yaml
from classroomkd._sums import SUMS, write_listed
from classroomkd.errors import UserError
from classroomkd.run.recipe_changes import differences, moved

if TYPE_CHECKING:
    from classroomkd.recipe import Arm, Recipe
    from classroomkd.run.context import RunContext

__all__ = [
    "attempt",
    "check_data",
    "check_run",
    "data_identity",
    "first_rank",
    "open_run",
    "restarted",
    "stored_data",
]


def check_run(out: Path, recipe: Recipe, resume: bool) -> None:
    """Whether a run folder can be made or gone on with; nothing is written.

    Raises:
        UserError: it exists and ``resume`` was not asked for; or it was made by another recipe (names what differs),
            or with another version of a method; or it is another folder, which has no recipe.yaml; or something in it
            is a link.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder to --out")
    if not first_rank() or not _begun(out):
        return
    if not resume:
        raise UserError(
            f"{out} exists already; add --resume (resume=True in Python) to go on with it, or choose another --out"
        )
    refuse_links_below(out)
    stored = out / "recipe.yaml"
    if not stored.exists():
        raise UserError(
            f"{out} is no run folder: there are files in it, and no recipe.yaml. Nothing in it is replaced: choose "
            "another --out, or put its recipe.yaml back"
        )
    changed = differences(stored, recipe)
    old, task = list[str](), recipe.task.name
    for arm in recipe.arms():
        arm_file = out / arm.slug / "arm.json"
        if not os.path.lexists(arm_file):
            continue
        before = read_json(arm_file, _ARM, remedy=f"put it back, or remove {arm_file.parent} to teach this arm anew")
        if _today(before, task) != _today(_identity(arm, recipe), task):
            changed.append(f"the arm '{arm.label}'")
        elif versions := _other_versions(before, arm):
            old.append(f"the arm '{arm.label}' was made with {versions}")
    if changed:
        raise UserError(
            f"{out} was made by another recipe: {', '.join(changed)} differ(s). Resume with the recipe it was "
            f"made with ({stored}), or choose another --out"
        )
    if old:
        raise UserError(
            f"{out}: {'; '.join(old)}. The rules differ (CHANGELOG.md), so their students must not be mixed: choose "
            "another --out, or go on with the version of classroomkd that made it (environment.json)"
        )


def _begun(out: Path) -> bool:
    """Whether there is more in a folder than what a start leaves that was stopped before it had written anything."""
    return out.exists() and not all(_STARTED.fullmatch(path.name) for path in out.iterdir())


_STARTED = re.compile(rf"\.lock|{SUMS}|\.(recipe\.yaml|{SUMS})\.[0-9a-f]+\.tmp")


def check_data(out: Path, context: RunContext) -> None:
    """Whether a run folder was made with these very images and parts; ids would shift otherwise.

    Raises:
        UserError: it was not; or it does not say, and the recipe reads from another place.
    """
    if not first_rank():
        return
    stored, other = stored_data(out), moved(out / "recipe.yaml", context.recipe)
    if stored is None and other:
        raise UserError(f"{out} was made by another recipe: {', '.join(other)} differ(s), and it has no data.json")
    if stored is not None and stored.model_dump() != data_identity(context):
        elsewhere = f", which are read from another place now ({', '.join(other)})" if other else ""
        raise UserError(
            f"{out} was made with other images or another split of '{context.data.name}' than there are "
            f"now{elsewhere}; put them back, or choose another --out{_padded(out, context.data.resize)}"
        )


def _padded(out: Path, resize: str | None) -> str:
    """What else may have happened to the images of a run folder whose version knew one rule only."""
    before = read_yaml(out / "recipe.yaml", remedy="put it back, or choose another --out")
    if before.get("schema") != 1 or resize in (None, "pad"):
        return ""
    return f" (it is of a version that padded pictures, now data.resize is {resize}: data.resize=pad goes on with it)"


@contextmanager
def open_run(out: Path, recipe: Recipe, context: RunContext, resume: bool) -> Iterator[None]:
    """Make the run folder, say in it what it is made with, and keep it locked while it is worked in.

    What :func:`check_run` and :func:`check_data` found is looked at again under the lock: since then another process
    may have begun the same run, and finished it.

    Raises:
        UserError: another process is working in it, and what the two checks raise.
    """
    from classroomkd.recipe import recipe_yaml

    if not first_rank():
        yield
        return
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with open_lock(out / ".lock") as lock, ExitStack() as stack:
        try:
            stack.enter_context(hold(lock, None))
        except Held as held:
            who = f" ({held})" if str(held) else ""
            raise UserError(f"another process is working in {out}{who}; wait for it, or choose another --out") from held
        check_run(out, recipe, resume)
        if resume:
            check_data(out, context)
        write_listed(out / "recipe.yaml", recipe_yaml(recipe))
        write_listed(out / "data.json", json.dumps(data_identity(context), indent=1))
        for arm in recipe.arms():
            write_listed(out / arm.slug / "arm.json", json.dumps(_identity(arm, recipe), indent=1))
        yield


class StoredData(BaseModel):
    """What ``data.json`` says: the source's fingerprint, and the digest of each part."""

    fingerprint: str
    parts: dict[str, str]


_DATA = TypeAdapter(StoredData)
_ARM: TypeAdapter[list[Any]] = TypeAdapter(
    list[Annotated[list[str | dict[str, Any] | int], Field(min_length=2, max_length=3)]]
)


def stored_data(out: Path) -> StoredData | None:
    """What images a run folder was made with; None where it does not say.

    Raises:
        UserError: the file is damaged.
    """
    file = out / "data.json"
    if not os.path.lexists(file):
        return None
    return read_json(file, _DATA, remedy="put it back, or choose another --out")


def data_identity(context: RunContext) -> dict[str, Any]:
    """What images a run saw: the source's fingerprint and which samples each part holds."""
    images = context.data
    parts = {"train": images.train, "student": context.student_part, "val": images.val, "test": images.test}
    return {"fingerprint": images.fingerprint, "parts": {name: part.digest() for name, part in parts.items()}}


def _identity(arm: Arm, recipe: Recipe) -> list[Any]:
    """``[method, options]`` of every part, and the method's version as a third where it is above 1.

    Of a part that trains peers the options hold them, by their places in the recipe, and of one in a stage what is said
    of the stage and of the frozen selves that teach in it.
    """
    parts = list[list[Any]]()
    for training in arm.trainings:
        raised = methods.raised(training.parts)
        for entry in training.entries:
            more = _beside(training, entry.peers, recipe)
            parts.append(
                [entry.name, {**entry.options, **more}, *([raised[entry.name]] if entry.name in raised else [])]
            )
    return json.loads(json.dumps(parts))  # type: ignore[no-any-return]


_BESIDE = ("peers", "stage", "selves")  # among a stored part's options, what is none


def _beside(training: Arm, peers: Sequence[str] | None, recipe: Recipe) -> dict[str, Any]:
    stage = training.stage
    names = (peers or ()) if stage is None else stage.trainees
    own = {place: spec for place, spec in enumerate(recipe.peers) if spec.name in names}
    found: dict[str, Any] = {}
    if own:
        found["peers"] = {str(place): spec.model_dump(mode="json") for place, spec in own.items()}
    if stage is not None:
        found["stage"] = {key: getattr(stage, key) for key in ("name", "trainees", "epochs", "start")}
        if selves := stage.selves_of(recipe.selves):
            found["selves"] = {spec.name: spec.made_from for spec in selves}
    return found


def _today(identity: Any, task: str) -> Any:
    """A stored arm with the options that have come since, at their defaults, whatever its methods' versions."""

    def today(name: str, options: dict[str, Any]) -> dict[str, Any]:
        own = {key: value for key, value in options.items() if key not in _BESIDE}
        return {**methods.filled(name, own, task), **{key: options[key] for key in options if key not in own}}

    try:
        return json.loads(json.dumps([[name, today(name, options)] for name, options, *_ in identity]))
    except (AttributeError, UserError, ValueError, TypeError):
        return identity  # not what this version would write: it differs


def _other_versions(identity: Any, arm: Arm) -> str:
    """``version 1 of kd, this is 2`` for the methods of a stored arm whose version was another; 1 where none stands."""
    raised = methods.raised(part for training in arm.trainings for part in training.parts)
    versions = [(name, version[0] if version else 1, raised.get(name, 1)) for name, _, *version in identity]
    return ", ".join(f"version {then} of {name}, this is {now}" for name, then, now in versions if then != now)


def first_rank() -> bool:
    """Whether this process writes files and talks; known before the ranks have met (torchrun sets RANK)."""
    return os.environ.get("RANK", "0") == "0"


def attempt() -> dict[str, str] | None:
    """What torchrun calls this run, and who keeps its processes: the same in every attempt. None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name is None else {"run_id": name, "agent": f"{platform.node()}:{os.getppid()}"}


def restarted(out: Path) -> bool:
    """Whether torchrun (``--max-restarts``) has begun the run of this folder before, which is then to be resumed.

    Only the first rank looks; the others are told. A run that was given no name (``none``) is known by its agent.
    """
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or os.environ.get("RANK", "0") != "0":
        return False
    try:
        stored, own = json.loads((out / "environment.json").read_text()).get("torchelastic"), attempt()
    except (OSError, ValueError):
        return False
    if own is None or not isinstance(stored, dict) or stored.get("run_id") != own["run_id"]:
        return False
    return own["run_id"] != "none" or stored.get("agent") == own["agent"]
