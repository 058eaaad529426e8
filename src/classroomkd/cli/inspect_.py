"""``classroomkd inspect``: what is inside a model, and where it can be tapped."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from classroomkd.errors import UserError

__all__ = ["inspect"]


def inspect(
    model: Annotated[str, typer.Argument(help="A model name: resnet8x4, timm:…, torchvision:…, py:module:factory.")],
    classes: Annotated[int, typer.Option(help="Number of classes.", min=1)] = 100,
    shape: Annotated[str, typer.Option(help="Input as CxHxW.")] = "3x32x32",
    depth: Annotated[int, typer.Option(help="How deep taps are listed; 0 = all.", min=0)] = 2,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models to run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List a model's parameters, multiply-adds, stages, and the names and shapes of its taps."""
    try:
        size = tuple(int(n) for n in shape.lower().split("x"))
        if len(size) != 3 or min(size) < 1:
            raise ValueError
    except ValueError as error:
        raise UserError(f"--shape {shape}: write it as CxHxW, for example 3x32x32") from error
    from classroomkd import models
    from classroomkd.classroom.places import survey
    from classroomkd.models.measuring import example

    module = models.resolve(model, classes, trust_code=trust_code, in_channels=size[0])
    taps = models.summary(module, size)
    total = {
        "model": model,
        "classes": classes,
        "shape": list(size),
        "parameters": models.parameters(module),
        "multiply_adds": models.multiply_adds(module, size),
    }
    seen = survey(module, example(module, size), model)
    stages = [{"name": s.name, "shape": list(s.shape)} for s in seen.stages]
    if as_json:
        found = {**total, "stages": stages, "penultimate": seen.penultimate, "taps": taps}
        print(json.dumps(found, indent=1, default=str))
        return
    print(f"{model}: {total['parameters']:,} parameters, {total['multiply_adds']:,} multiply-adds at {shape}")
    for number, stage in enumerate(seen.stages):
        back = number - len(seen.stages)
        print(f"@stage:{number} or @stage:{back}: {stage.name}, {'x'.join(str(n) for n in stage.shape)}")
    print(f"@penultimate: {seen.penultimate or '– (no single layer makes the prediction)'}")
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
