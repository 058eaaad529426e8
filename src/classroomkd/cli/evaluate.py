"""``classroomkd evaluate``: score a trained student on data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from classroomkd.errors import UserError

__all__ = ["StudentPath", "Which", "evaluate"]

# How every verb that takes a student spells it; classroomkd.export.student.find_student checks both.
StudentPath = Annotated[Path, typer.Argument(help="A run folder, a seed's folder, or a student.safetensors.")]
Which = Annotated[str, typer.Option(help="last, best or ema.")]

PARTS = ("test", "val", "train", "all")


def evaluate(
    student: StudentPath,
    data: Annotated[str | None, typer.Option(help="A data source; the run's own by default.")] = None,
    part: Annotated[
        str | None, typer.Option(help="test, val, train or all; test, or all for other data than the run's own.")
    ] = None,
    unreadable: Annotated[str, typer.Option(help="Images that cannot be decoded: refuse or skip.")] = "refuse",
    which: Which = "last",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models and data to run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Score a student: accuracy, loss, and accuracy by class."""
    part = part or ("test" if data is None else "all")
    if part not in PARTS:
        raise UserError(f"--part {part}: choose one of {', '.join(PARTS)}")
    import torch

    from classroomkd import data as data_
    from classroomkd.engine import Inputs
    from classroomkd.engine.runtime import pick_device
    from classroomkd.engine.scoring import answers, score
    from classroomkd.engine.scoring import as_json as plain
    from classroomkd.export.student import find_student, load_student

    path = find_student(student, which)
    taught = load_student(path, trust_code=trust_code)
    spec = {"source": data, "size": taught.side, "unreadable": unreadable} if data is not None else _own_data(path)
    images = data_.load(spec, trust_code=trust_code)
    if sorted(images.classes) != sorted(taught.classes):
        raise UserError(
            f"the student knows {len(taught.classes)} classes ({', '.join(taught.classes[:4])}, …), the data "
            f"'{images.name}' has {len(images.classes)} ({', '.join(images.classes[:4])}, …); they must be the same"
        )
    if images.shape != taught.shape:
        got, wanted = ("x".join(map(str, shape)) for shape in (images.shape, taught.shape))
        raise UserError(
            f"the data '{images.name}' has {got} pixels, the student takes {wanted}; convert the images first"
        )
    where = pick_device(device)
    inputs = Inputs(taught.mean, taught.std, where)
    module = taught.module.to(where)
    parts = [images.train, images.val, images.test] if part == "all" else [getattr(images, part)]
    said = [answers(module, one, inputs) for one in parts]
    # The same classes in another order (a folder's are sorted by name) are matched by name.
    place = torch.tensor([taught.classes.index(name) for name in images.classes], device=where)
    result = score(torch.cat([x for x, _ in said]), place[torch.cat([y for _, y in said])], len(taught.classes))
    if as_json:
        print(json.dumps({"student": str(path), "data": images.name, "part": part, **plain(result)}, indent=1))
        return
    print(f"{path}: {result.accuracy:.2%} on {images.name} {part} ({result.samples:,} images), loss {result.loss:.4f}")
    table = Table("class", "accuracy")
    for name, accuracy in zip(taught.classes, result.per_class, strict=True):
        table.add_row(name, "–" if accuracy is None else f"{accuracy:.1%}")
    Console().print(table)


def _own_data(student: Path) -> dict[str, object]:
    """The data section of the run a student came from."""
    import yaml

    for folder in student.resolve().parents:
        recipe = folder / "recipe.yaml"
        if recipe.exists():
            section = yaml.safe_load(recipe.read_text())["data"]
            return {k: v for k, v in section.items() if v is not None}
    raise UserError(f"{student} lies in no run folder; say which data to score it on: --data imagefolder:DIR")
