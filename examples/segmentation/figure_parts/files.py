"""Students of segmentation in their files, and what the verbs do with them."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import nn

from classroomkd import data as data_
from classroomkd._files import atomic_write, refuse_links
from classroomkd.classroom import prediction_of
from classroomkd.data.decode import DecodeError, decode
from classroomkd.errors import UserError
from classroomkd.export.card import made_by, numbers, sizes
from classroomkd.export.graph import Graph, Prediction
from classroomkd.tasks.files import EvaluateRequest, PredictRequest, Shown, TaskFiles
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import answers, as_json
from figure_parts import networks
from figure_parts.runner import score_cells
from figure_parts.spec import SegmentationSpec

if TYPE_CHECKING:
    from classroomkd.export import Student

__all__ = ["SegmentationFiles"]

COLOURS = np.array([[40, 40, 40], [60, 120, 220], [230, 90, 70], [240, 190, 60], [120, 200, 120]], np.uint8)


class SegmentationFiles(TaskFiles):
    """Of students of segmentation."""

    predict_options = ("draw",)

    def build(self, model: str, classes: tuple[str, ...], shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """See the base."""
        return self.network(model, len(classes), shape, trust_code)

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
        return Graph(Prediction(student.module.to("cpu").eval()), "logits")

    def evaluate(self, asked: EvaluateRequest) -> Shown:
        """See the base."""
        student = asked.student
        spec = asked.spec(size=student.side)
        images = data_.load(spec, task=SegmentationSpec.name, trust_code=asked.trust_code)
        asked.check(images)
        if images.classes != student.classes or images.shape != student.shape:
            raise UserError(f"the data '{images.name}' has other classes or another size than the student")
        parts = [images.train, images.val, images.test] if asked.part == "all" else [getattr(images, asked.part)]
        inputs, module = Inputs(student.mean, student.std, asked.device), student.module.to(asked.device)
        heard = [answers(module, part, inputs) for part in parts]
        score = score_cells(torch.cat([a for a, _ in heard]), torch.cat([t for _, t in heard]), len(student.classes))

        def show() -> None:
            where = f"{images.name} {asked.part} ({score.samples:,} pictures)"
            print(f"{asked.path}: mean IoU {score.value:.2%} on {where}, loss {score.loss:.4f}")
            for name, share in zip(student.classes, score.per_class, strict=True):
                print(f"  {name:10} {'–' if share is None else f'{share:.1%}'}")

        found = {"student": str(asked.path), "data": images.name, "part": asked.part, "metric": "mean IoU"}
        return {**found, **as_json(score)}, show

    @torch.no_grad()
    def predict(self, asked: PredictRequest) -> list[str]:
        """See the base: the share of cells of every class, and with ``--draw FOLDER`` a picture of the cells."""
        student, skipped, rows = asked.student, [], []
        if asked.out is not None and asked.out.suffix == ".json":
            raise UserError(f"--out {asked.out}: shares are written as .csv or .jsonl")
        inputs, module = Inputs(student.mean, student.std, asked.device), student.module.to(asked.device)
        for file in asked.files:
            try:
                pixels = torch.from_numpy(decode(file, student.side)).unsqueeze(0)
            except DecodeError as error:
                skipped.append(f"{file}: {error}")
                continue
            cells = prediction_of(module(inputs(pixels)))[0].argmax(0).cpu()
            shares = torch.bincount(cells.flatten(), minlength=len(student.classes)).double() / cells.numel()
            rows.append((str(file), [round(share, 4) for share in shares.tolist()]))
            if asked.draw is not None:
                target = refuse_links(asked.draw, f"{file.name}.png")
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(COLOURS[cells.numpy() % len(COLOURS)]).resize((192, 192), 0).save(target)
        if not rows:
            raise UserError(f"no image in {asked.images} could be read: {'; '.join(skipped[:3])}")
        with atomic_write(asked.out, "w") if asked.out is not None else nullcontext(sys.stdout) as out:
            if not asked.lines:
                out.write(",".join(["file", *student.classes]) + "\n")
            for name, values in rows:
                by_class = dict(zip(student.classes, values, strict=True))
                line = json.dumps({"file": name, "shares": by_class})
                out.write((line if asked.lines else ",".join([name, *map(str, values)])) + "\n")
        return skipped
