"""``classroomkd inspect``: what is inside a model, and where it can be tapped; what a file or a run folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from classroomkd._files import amount
from classroomkd._terminal import Console
from classroomkd.cli.options import PrintJson, TrustModels, tell
from classroomkd.errors import UserError

__all__ = ["inspect"]

_ENDINGS = (".safetensors", ".pth", ".pt", ".onnx")  # a file that is not there is no unknown model
_SOME = 8  # tensors at each end of a list


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|FILE|RUN",
            help="A model name (resnet8x4, simcc_tiny, timm:…, torchvision:…, py:module:factory), a file of weights, a "
            "student's file, an .onnx file, or a run folder.",
        ),
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

    NAME:input is the place before a tap's module. Of a file: what it says of itself and the network in it; of a run
    folder its students, and the one that is shipped."""
    is_path = model.endswith(_ENDINGS) or (any(c in model for c in "/\\") and ":" not in model)
    if is_path or Path(model).exists():
        given = {"--task": task, "--classes": classes, "--joints": joints, "--shape": shape}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise UserError(f"{' and '.join(wrong)}: a file says that itself; leave it out")
        _inspect_path(Path(model), depth, trust_code, as_json)
        return
    from classroomkd.tasks.inspection import inspect_network

    network = inspect_network(model, task, {"classes": classes, "joints": joints}, shape, trust_code)
    if as_json:
        print(json.dumps(network, indent=1, default=str))
        return
    _print_network(network, depth)


def _print_network(network: dict[str, Any], depth: int) -> None:
    costs = f"{network['parameters']:,} parameters, {network['multiply_adds']:,} multiply-adds"
    print(f"{network['model']}: {costs} at {_sides(network['shape'])}")
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


def _inspect_path(path: Path, depth: int, trust_code: bool, as_json: bool) -> None:
    from classroomkd.tasks.file_inspection import inspect_path

    found = inspect_path(path, trust_code, lambda text: tell("note", text))
    if as_json:
        print(json.dumps(found, indent=1, default=str))
        return
    for row in found.get("students", ()):
        print(f"{row['arm']} seed {row['seed']}: {row['metric']} {row['test']:.4g} on test")
    lists = ("students", "network", "tensors", "kind", "file", "bytes")
    print(f"{found['file']}: {found['kind']}, {amount(found['bytes'])}")
    for key, value in found.items():
        if key not in lists and value is not None:
            print(f"{key}: {_short(value)}")
    if "tensors" in found:
        _print_tensors(found["tensors"], depth)
    if "network" in found:
        _print_network(found["network"], depth)


def _print_tensors(tensors: Sequence[dict[str, Any]], depth: int) -> None:
    """Names and shapes; the first and last of many, where a network's first layer and its head are."""
    shown = tensors if not depth or len(tensors) <= 2 * _SOME else [*tensors[:_SOME], *tensors[-_SOME:]]
    table = Table("tensor", "shape")
    for tensor in shown:
        table.add_row(tensor["name"], _sides(tensor["shape"]) or "one number")
    Console().print(table)
    if hidden := len(tensors) - len(shown):
        print(f"{hidden} tensors between them not shown; --depth 0 shows all")


def _short(value: Any) -> str:
    """A value in one line, long lists cut."""
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return f"{', '.join(map(str, value[:12]))}{f' and {len(value) - 12} more' if len(value) > 12 else ''}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 400 else f"{text[:400]} …"


def _sides(shape: Sequence[int] | None) -> str:
    """``3x32x32``; empty where there is no shape."""
    return "x".join(map(str, shape or ()))
