"""Students of classes in their files, and what the verbs do with them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import Tensor, nn

from classroomkd import models
from classroomkd._terminal import Console
from classroomkd.classroom import prediction_of
from classroomkd.data.sources.base import first_of
from classroomkd.data.sources.walking import shown
from classroomkd.errors import UserError, did_you_mean
from classroomkd.export.card import made_by, numbers, sizes
from classroomkd.export.graph import Graph, PredictionOnly
from classroomkd.export.pictures import batches
from classroomkd.export.student import Prediction
from classroomkd.tasks.classification.card import compare, lines
from classroomkd.tasks.files import EvaluateRequest, PredictRequest, Shown, TaskFiles, placed
from classroomkd.train.scoring import as_json, score

if TYPE_CHECKING:
    from classroomkd.export import Student
    from classroomkd.export.lines import Form
    from classroomkd.export.sample import Sample

__all__ = ["ClassificationFiles"]


class ClassificationFiles(TaskFiles):
    """Of students of classes."""

    pipeline_tag = "image-classification"
    predict_options = ("top",)

    def network(self, model: str, count: int, shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """See the base."""
        return models.resolve(model, count, trust_code=trust_code, in_channels=shape[0])

    def card(self, student: Student, target: Path) -> str:
        """See the base."""
        channels, height, width = student.shape
        names = ", ".join(student.classes[:20]) + (", …" if len(student.classes) > 20 else "")
        return f"""# {student.model}, {len(student.classes)} classes

{made_by(student)}

- input: {channels} x {height} x {width} (channels, height, width)
- pictures of other sizes: `resize: {student.resize}`, as the lines below do it
- normalised (a graph of uint8 does it): pixels in 0..1, mean {numbers(student.mean)}, std {numbers(student.std)}
- output: {len(student.classes)} logits: {names}
- {sizes(student)}
"""

    def graph(self, student: Student, decode: str | None) -> Graph:
        """See the base: one logit a class."""
        if decode is not None:
            raise UserError("--decode is for pose; this student's answer is one logit a class")
        return Graph(PredictionOnly(student.module.to("cpu").eval()), "logits", probabilities=True)

    def lines(self, student: Student, form: Form) -> str:
        """See the base: they make ``names`` and ``probabilities``."""
        return lines(student, form)

    def compare(self, student: Student, form: Form, card: str, file: Path, sample: Sample) -> tuple[float, str]:
        """See the base: the same classes, and probabilities within 1e-4."""
        return compare(student, form, card, file, sample)

    def evaluate(self, request: EvaluateRequest) -> Shown:
        """See the base: accuracy, and accuracy by class."""
        student = request.student
        images = request.load(size=student.side)
        if unknown := [name for name in images.classes if name not in student.classes]:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            known = f"{len(student.classes)} ({first_of(student.classes)})"
            raise UserError(
                f"class '{unknown[0]}'{more} of the data '{images.name}' is not among the student's {known}"
                f"{did_you_mean(unknown[0], student.classes)}; classes meet by their names: rename it, or leave it out"
            )
        if images.shape != student.shape:
            got, wanted = ("x".join(map(str, shape)) for shape in (images.shape, student.shape))
            raise UserError(
                f"the data '{images.name}' has {got} pixels, the student takes {wanted}; convert the images first"
            )
        logits, target = request.answers(images)
        # In whatever order (a folder's are sorted by name), and some only: the others have no images.
        place = torch.tensor([student.classes.index(name) for name in images.classes], device=target.device)
        result = score(logits, place[target], len(student.classes))

        def show() -> None:
            where = f"{images.name} {request.part} ({result.samples:,} images)"
            print(f"{request.path}: {result.accuracy:.2%} on {where}, loss {result.loss:.4f}")
            table = Table("class", "accuracy")
            for name, accuracy in zip(student.classes, result.per_class, strict=True):
                table.add_row(name, "–" if accuracy is None else f"{accuracy:.1%}")
            Console().print(table)

        return {**request.described(images), **as_json(result)}, show

    def ask(self, student: Student, images: Any, *more: Any, **options: Any) -> Prediction:
        """See the base: the probabilities of all classes."""
        if more or options:
            raise UserError("student(images): a student of classes takes images alone; boxes are for persons")
        rows = torch.cat([_probabilities(student, pixels, student.device) for pixels in batches(student, images)])
        return Prediction(tuple(student.classes[place] for place in rows.argmax(-1).tolist()), rows)

    def predict(self, request: PredictRequest) -> list[str]:
        """See the base: the ``top`` classes of every image."""
        if request.out is not None and request.out.suffix == ".json":
            raise UserError(f"--out {request.out}: classes are written as .csv or .jsonl")
        top = min(request.top or 1, len(request.student.classes))
        skipped: list[str] = []
        rows = _rows(request, request.read(skipped), top)
        with request.open_out() as file:
            _write(file, rows, request.lines, top)
        if request.out is not None:
            print(f"{len(request.files) - len(skipped)} images -> {request.out}", file=sys.stderr)
        return skipped


@torch.no_grad()
def _probabilities(student: Student, pixels: Tensor, device: torch.device) -> Tensor:
    """Of pixels (B, C, H, W) uint8 the probabilities (B, classes) float32, on the CPU."""
    module, inputs = placed(student, device)
    return prediction_of(module(inputs(pixels))).float().softmax(-1).cpu()


def _rows(request: PredictRequest, batches: Iterable[tuple[list[Path], Tensor]], top: int) -> Iterator[dict[str, Any]]:
    """What is written of every image."""
    for files, pixels in batches:
        probabilities, classes = _probabilities(request.student, pixels, request.device).topk(top)
        for file, p, k in zip(files, probabilities.tolist(), classes.tolist(), strict=True):
            yield {
                "file": shown(file),
                "classes": [request.student.classes[i] for i in k],
                "probabilities": [round(x, 6) for x in p],
            }


def _write(file: IO[str], rows: Iterator[dict[str, Any]], lines: bool, top: int) -> None:
    if lines:
        for row in rows:
            file.write(json.dumps(row) + "\n")
        return
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{kind}_{i + 1}" if top > 1 else kind for i in range(top) for kind in ("class", "probability")]
    writer.writerow(["file", *names])
    for row in rows:
        pairs = zip(row["classes"], row["probabilities"], strict=True)
        writer.writerow([row["file"], *(x for pair in pairs for x in pair)])
