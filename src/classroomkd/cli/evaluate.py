"""``classroomkd evaluate``: score a trained student on data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from classroomkd._stored import finite
from classroomkd.cli.options import Device, FlipTest, Network, PrintJson, TrustCode, Which, note_unlisted, tell
from classroomkd.errors import UserError

__all__ = ["evaluate"]

PARTS = ("test", "val", "train", "all")


def evaluate(
    student: Annotated[
        Path,
        typer.Argument(
            help="A run folder, a seed's folder, or a student.safetensors; pose: also COCO results, FILE.json."
        ),
    ],
    data: Annotated[str | None, typer.Option(help="A data source; the run's own by default.")] = None,
    part: Annotated[
        str | None, typer.Option(help="test, val, train or all; test, or all for other data than the run's own.")
    ] = None,
    unreadable: Annotated[str, typer.Option(help="Images that cannot be decoded: refuse or skip.")] = "refuse",
    which: Which = "last",
    network: Network = None,
    flip_test: FlipTest = None,
    official: Annotated[bool, typer.Option("--official", help="Pose: pycocotools' figures beside ours.")] = False,
    device: Device = "auto",
    trust_code: TrustCode = False,
    as_json: PrintJson = False,
) -> None:
    """Score a student: accuracy, loss, and accuracy by class; of pose the metrics by name, and by joint."""
    if part is not None and part not in PARTS:
        raise UserError(f"--part {part}: choose one of {', '.join(PARTS)}")
    from classroomkd import tasks
    from classroomkd.tasks.files import EvaluateRequest, files_of, refuse_options

    scored = next((row.name for row in tasks.rows() if student.suffix in row.description.answer_files), None)
    if scored is not None:
        _tell(*files_of(scored).evaluate_answers(student, data, part, official), as_json)
        return
    part = part or ("test" if data is None else "all")
    from classroomkd.export.student import find_student, load_student, own_recipe, own_run
    from classroomkd.train.runtime import pick_device

    path = find_student(student, which, partial(tell, "note"), network)
    note_unlisted(path)
    taught = load_student(path, trust_code=trust_code)
    recipe = own_recipe(path) if data is None else None
    where = pick_device(device)
    request = EvaluateRequest(
        taught, path, data, recipe, part, unreadable, where, trust_code, flip_test, official, own_run(path)
    )
    files = files_of(taught.task)
    refuse_options(taught, {"--flip-test": flip_test, "--official": official}, files.evaluate_options)
    _tell(*files.evaluate(request), as_json)


def _tell(result: Mapping[str, Any], show: Callable[[], None], as_json: bool) -> None:
    if as_json:
        print(json.dumps(finite(result), indent=1))
    else:
        show()
