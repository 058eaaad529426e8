"""Students of segmentation in their files, and what the verbs do with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import nn

from classroomkd._files import refuse_links
from classroomkd.classroom import prediction_of
from classroomkd.errors import UserError
from classroomkd.export.card import made_by, numbers, sizes
from classroomkd.export.graph import Graph, PredictionOnly
from classroomkd.tasks.files import EvaluateRequest, PredictRequest, Shown, TaskFiles, placed
from classroomkd.train.scoring import as_json
from figure_parts import networks
from figure_parts.runner import score_cells

if TYPE_CHECKING:
    from classroomkd.export import Student

__all__ = ["SegmentationFiles"]

COLOURS = np.array([[40, 40, 40], [60, 120, 220], [230, 90, 70], [240, 190, 60], [120, 200, 120]], np.uint8)


class SegmentationFiles(TaskFiles):
    """Of students of segmentation."""

    predict_options = ("draw",)

    def network(self, model: str, count: int, shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """See the base."""
        return networks.build(model, count, shape[0])

    def card(self, student: Student, target: Path) -> str:
        """See the base."""
        return f"""# {student.model}, {len(student.classes)} classes a cell

{made_by(student)}

- input: {" x ".join(map(str, student.shape))}, pixels in 0..1, mean {numbers(student.mean)}, std {numbers(student.std)}
- output: logits of {", ".join(student.classes)} for each cell of {networks.STRIDE} x {networks.STRIDE} pixels
- {sizes(student)}
"""

    def graph(self, student: Student, decode: str | None) -> Graph:
        """See the base: logits of every cell."""
        if decode is not None:
            raise UserError("--decode is for pose; this student's answer is logits of cells")
        return Graph(PredictionOnly(student.module.to("cpu").eval()), "logits")

    def evaluate(self, request: EvaluateRequest) -> Shown:
        """See the base."""
        student = request.student
        images = request.load(size=student.side)
        if images.classes != student.classes or images.shape != student.shape:
            raise UserError(f"the data '{images.name}' has other classes or another size than the student")
        score = score_cells(*request.answers(images), len(student.classes))

        def show() -> None:
            where = f"{images.name} {request.part} ({score.samples:,} pictures)"
            print(f"{request.path}: mean IoU {score.value:.2%} on {where}, loss {score.loss:.4f}")
            for name, share in zip(student.classes, score.per_class, strict=True):
                print(f"  {name:10} {'–' if share is None else f'{share:.1%}'}")

        return {**request.described(images), "metric": "mean IoU", **as_json(score)}, show

    @torch.no_grad()
    def predict(self, request: PredictRequest) -> list[str]:
        """See the base: the share of cells of every class, and with ``--draw FOLDER`` a picture of the cells."""
        if request.out is not None and request.out.suffix == ".json":
            raise UserError(f"--out {request.out}: shares are written as .csv or .jsonl")
        classes, skipped = request.student.classes, []
        module, inputs = placed(request.student, request.device)
        batches = request.read(skipped)
        with request.open_out() as out:
            if not request.lines:
                out.write(",".join(["file", *classes]) + "\n")
            for files, pixels in batches:
                for file, cells in zip(files, prediction_of(module(inputs(pixels))).argmax(1).cpu(), strict=True):
                    counts = torch.bincount(cells.flatten(), minlength=len(classes)).double() / cells.numel()
                    shares = [round(share, 4) for share in counts.tolist()]
                    line = json.dumps({"file": str(file), "shares": dict(zip(classes, shares, strict=True))})
                    out.write((line if request.lines else ",".join([str(file), *map(str, shares)])) + "\n")
                    if request.draw is not None:
                        target = refuse_links(request.draw, f"{file.name}.png")
                        target.parent.mkdir(parents=True, exist_ok=True)
                        Image.fromarray(COLOURS[cells.numpy() % len(COLOURS)]).resize((192, 192), 0).save(target)
        return skipped
