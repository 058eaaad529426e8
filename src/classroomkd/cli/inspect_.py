"""``classroomkd inspect``: what is inside a model, and where it can be tapped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from classroomkd import tasks
from classroomkd._terminal import Console
from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.tasks.spec import TaskDescription

__all__ = ["inspect"]


def inspect(
    model: Annotated[
        str, typer.Argument(help="A model name: resnet8x4, simcc_tiny, timm:…, torchvision:…, py:module:factory.")
    ],
    task: Annotated[
        str | None,
        typer.Option(help="Its task, see classroomkd list tasks; by the model's name by default.", show_default=False),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes; 100 by default.", min=1, show_default=False)
    ] = None,
    joints: Annotated[
        int | None, typer.Option(help="Number of joints; 17 by default.", min=1, show_default=False)
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Input as CxHxW; 3x32x32, or what is usual for pose.", show_default=False)
    ] = None,
    depth: Annotated[int, typer.Option(help="How deep taps are listed; 0 = all.", min=0)] = 2,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models to run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List a model's parameters, multiply-adds, stages, and the names and shapes of its taps.

    NAME:input is the place before a tap's module."""
    description = _described(model, task)
    size = _shape(shape, model, description)
    given = {"classes": classes, "joints": joints}
    for name, value in given.items():
        if value is not None and name != description.counted:
            raise UserError(f"--{name} has no meaning for {model}, a network for {description.name}; leave it out")
    count = given.get(description.counted) or description.usual_count
    from classroomkd import models
    from classroomkd.models.measuring import example
    from classroomkd.taps.roles import survey
    from classroomkd.tasks.files import files_of

    files = files_of(description.name)
    module = files.network(model, count, size, trust_code)
    head = files.head(module, model, size)
    taps = models.summary(module, size)
    total = {
        "model": model,
        "task": description.name,
        description.counted: count,
        "shape": list(size),
        "parameters": models.parameters(module),
        "multiply_adds": models.multiply_adds(module, size),
        **({"head": head} if head else {}),
    }
    seen = survey(module, example(module, size), model)
    stages = [{"name": s.name, "shape": list(s.shape)} for s in seen.stages]
    shapes = {tap["name"]: tap["output_shape"] for tap in taps}
    released = [{"name": place, "shape": shapes[place]} for place in models.released_places(model)]
    if as_json:
        found = {**total, "stages": stages, "penultimate": seen.penultimate, "released": released, "taps": taps}
        print(json.dumps(found, indent=1, default=str))
        return
    written = "x".join(map(str, size))
    print(f"{model}: {total['parameters']:,} parameters, {total['multiply_adds']:,} multiply-adds at {written}")
    if head:
        print(f"answer: {head}")
    for number, stage in enumerate(seen.stages):
        back = number - len(seen.stages)
        print(f"@stage:{number} or @stage:{back}: {stage.name}, {'x'.join(str(n) for n in stage.shape)}")
    print(f"@penultimate: {seen.penultimate or '– (no single layer makes the prediction)'}")
    if released:
        read = ", ".join(f"{place['name']} ({'x'.join(map(str, place['shape']))})" for place in released)
        print(f"read by released code: {read}")
    table = Table("tap", "type", "output", "parameters")
    table.columns[3].justify = "right"
    hidden = 0
    for tap in taps:
        if depth and tap["name"].count(".") >= depth:
            hidden += 1
            continue
        output = "x".join(str(n) for n in tap["output_shape"]) if tap["output_shape"] else "–"
        table.add_row(tap["name"], tap["type"], output, f"{tap['parameters']:,}")
    Console().print(table)
    if hidden:
        print(f"{hidden} deeper taps not shown; --depth 0 shows all")


def _described(model: str, wanted: str | None) -> TaskDescription:
    """The task that a network is for: as said, else the one that alone knows such a name, else the usual one."""
    if wanted is not None:
        known = tasks.names()
        if wanted not in known:
            raise UserError(f"--task {wanted}: choose one of {', '.join(known)}{did_you_mean(wanted, known)}")
        return tasks.describe(wanted)
    alone = (row.description for row in tasks.rows() if row.description.knows(model))
    return next(alone, tasks.describe(tasks.DEFAULT))


def _shape(written: str | None, model: str, description: TaskDescription) -> tuple[int, int, int]:
    """(C, H, W) of the input."""
    if written is None:
        return (3, *description.usual_size(model))
    try:
        size = tuple(int(n) for n in written.lower().split("x"))
        if len(size) != 3 or min(size) < 1:
            raise ValueError
    except ValueError as error:
        raise UserError(f"--shape {written}: write it as CxHxW, for example 3x32x32") from error
    return size
