"""``classroomkd inspect``: what is inside a model, and where it can be tapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from classroomkd._terminal import Console
from classroomkd.cli.options import PrintJson, TrustModels

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
    trust_code: TrustModels = False,
    as_json: PrintJson = False,
) -> None:
    """List a model's parameters, multiply-adds, stages, and the names and shapes of its taps.

    NAME:input is the place before a tap's module."""
    from classroomkd.tasks.inspection import inspect_network

    network = inspect_network(model, task, {"classes": classes, "joints": joints}, shape, trust_code)
    if as_json:
        print(json.dumps(network, indent=1, default=str))
        return
    costs = f"{network['parameters']:,} parameters, {network['multiply_adds']:,} multiply-adds"
    print(f"{model}: {costs} at {_sides(network['shape'])}")
    if "head" in network:
        print(f"answer: {network['head']}")
    for number, stage in enumerate(network["stages"]):
        from_end = number - len(network["stages"])
        print(f"@stage:{number} or @stage:{from_end}: {stage['name']}, {_sides(stage['shape'])}")
    print(f"@penultimate: {network['penultimate'] or '– (no single layer makes the prediction)'}")
    if network["released"]:
        places = ", ".join(f"{place['name']} ({_sides(place['shape'])})" for place in network["released"])
        print(f"read by released code: {places}")
    table = Table("tap", "type", "output", "parameters")
    table.columns[3].justify = "right"
    shown = [tap for tap in network["taps"] if not depth or tap["name"].count(".") < depth]
    for tap in shown:
        table.add_row(tap["name"], tap["type"], _sides(tap["output_shape"]) or "–", f"{tap['parameters']:,}")
    Console().print(table)
    if hidden := len(network["taps"]) - len(shown):
        print(f"{hidden} deeper taps not shown; --depth 0 shows all")


def _sides(shape: Sequence[int] | None) -> str:
    """``3x32x32``; empty where there is no shape."""
    return "x".join(map(str, shape or ()))
