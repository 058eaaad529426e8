"""``classroomkd inspect``: what is inside a model, and where it can be tapped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from classroomkd.errors import UserError, did_you_mean
from classroomkd.tasks import TASKS

if TYPE_CHECKING:
    from torch import nn

__all__ = ["inspect"]

SIZES = {"classification": (32, 32), "pose": (256, 192)}  # (H, W) where nothing else is said


def inspect(
    model: Annotated[
        str, typer.Argument(help="A model name: resnet8x4, simcc_tiny, timm:…, torchvision:…, py:module:factory.")
    ],
    task: Annotated[
        str | None, typer.Option(help="classification or pose; by the model's name by default.", show_default=False)
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
    task = _task(model, task)
    size = _shape(shape, model, task)
    other, given = ("--joints", joints) if task == "classification" else ("--classes", classes)
    if given is not None:
        raise UserError(f"{other} has no meaning for {model}, a network for {task}; leave it out")
    count = (classes or 100) if task == "classification" else (joints or 17)
    from classroomkd import models
    from classroomkd.models.measuring import example
    from classroomkd.taps.roles import survey

    module, head = _built(model, task, count, size, trust_code)
    taps = models.summary(module, size)
    total = {
        "model": model,
        "task": task,
        "joints" if task == "pose" else "classes": count,
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


def _task(model: str, wanted: str | None) -> str:
    """What a network is for: as said, else pose where its name is one of a pose network."""
    if wanted is not None:
        if wanted not in TASKS:
            raise UserError(f"--task {wanted}: choose one of {', '.join(TASKS)}{did_you_mean(wanted, TASKS)}")
        return wanted
    from classroomkd.models.pose import pose_names

    kind, colon, _ = model.partition(":")
    return "pose" if (kind in ("simcc", "heatmap", "vitpose") if colon else model in pose_names()) else "classification"


def _shape(written: str | None, model: str, task: str) -> tuple[int, int, int]:
    """(C, H, W) of the input."""
    if written is None:
        from classroomkd.models.pose import pose_table

        usual = {row["name"]: row["size"] for row in pose_table()} if task == "pose" else {}
        return (3, *usual.get(model, SIZES[task]))
    try:
        size = tuple(int(n) for n in written.lower().split("x"))
        if len(size) != 3 or min(size) < 1:
            raise ValueError
    except ValueError as error:
        raise UserError(f"--shape {written}: write it as CxHxW, for example 3x32x32") from error
    return size


def _built(
    model: str, task: str, count: int, size: tuple[int, int, int], trust_code: bool
) -> tuple[nn.Module, str | None]:
    """The network, and what a pose network answers."""
    if task == "classification":
        from classroomkd import models

        return models.resolve(model, count, trust_code=trust_code, in_channels=size[0]), None
    import torch

    from classroomkd.classroom import prediction_of
    from classroomkd.models.measuring import as_for_evaluation, example
    from classroomkd.models.pose import resolve_pose
    from classroomkd.tasks.pose.coding import coding_of

    module = resolve_pose(model, count, size[1:], trust_code=trust_code, in_channels=size[0])
    with as_for_evaluation(module), torch.no_grad():
        coding = coding_of(module, prediction_of(module(example(module, size))), size[1:], model)
    return module, f"{coding.kind}, {' x '.join(map(str, coding.answer_shape))}"
