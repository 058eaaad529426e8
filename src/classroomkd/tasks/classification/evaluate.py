"""``classroomkd evaluate`` of a student of classes."""

from __future__ import annotations

import torch
from rich.table import Table

from classroomkd import data as data_
from classroomkd._terminal import Console
from classroomkd.errors import UserError
from classroomkd.tasks.files import EvaluateRequest, Shown
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import answers, as_json, score

__all__ = ["score_classes"]


def score_classes(asked: EvaluateRequest) -> Shown:
    """The score as plain data, and what prints it.

    Raises:
        UserError: data of other classes or another shape, and what ``data.load`` raises.
    """
    taught = asked.student
    images = data_.load(asked.spec(size=taught.side), trust_code=asked.trust_code)
    asked.check(images)
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
    inputs = Inputs(taught.mean, taught.std, asked.device)
    module = taught.module.to(asked.device)
    parts = [images.train, images.val, images.test] if asked.part == "all" else [getattr(images, asked.part)]
    said = [answers(module, one, inputs) for one in parts]
    # The same classes in another order (a folder's are sorted by name) are matched by name.
    place = torch.tensor([taught.classes.index(name) for name in images.classes], device=asked.device)
    result = score(torch.cat([x for x, _ in said]), place[torch.cat([y for _, y in said])], len(taught.classes))

    def show() -> None:
        where = f"{images.name} {asked.part} ({result.samples:,} images)"
        print(f"{asked.path}: {result.accuracy:.2%} on {where}, loss {result.loss:.4f}")
        table = Table("class", "accuracy")
        for name, accuracy in zip(taught.classes, result.per_class, strict=True):
            table.add_row(name, "–" if accuracy is None else f"{accuracy:.1%}")
        Console().print(table)

    return {"student": str(asked.path), "data": images.name, "part": asked.part, **as_json(result)}, show
