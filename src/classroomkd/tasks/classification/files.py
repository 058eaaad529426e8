"""Students of classes in their files, and what the verbs do with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from classroomkd import models
from classroomkd.errors import UserError
from classroomkd.tasks.files import EvaluateRequest, PredictRequest, Shown, TaskFiles

if TYPE_CHECKING:
    from torch import nn

    from classroomkd.export import Student
    from classroomkd.export.graph import Graph

__all__ = ["ClassificationFiles"]


class ClassificationFiles(TaskFiles):
    """Of students of classes."""

    predict_options = ("top",)

    def build(self, model: str, classes: tuple[str, ...], shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """See the base."""
        return self.network(model, len(classes), shape, trust_code)

    def network(self, model: str, count: int, shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """See the base."""
        return models.resolve(model, count, trust_code=trust_code, in_channels=shape[0])

    def card(self, student: Student, target: Path) -> str:
        """See the base."""
        return _card(student, target)

    def graph(self, student: Student, decode: str | None) -> Graph:
        """See the base: one logit a class."""
        from classroomkd.export.graph import Graph, Prediction

        if decode is not None:
            raise UserError("--decode is for pose; this student's answer is one logit a class")
        return Graph(Prediction(student.module.to("cpu").eval()), "logits")

    def evaluate(self, asked: EvaluateRequest) -> Shown:
        """See the base."""
        from classroomkd.tasks.classification.evaluate import score_classes

        return score_classes(asked)

    def predict(self, asked: PredictRequest) -> list[str]:
        """See the base."""
        from classroomkd.tasks.classification.predict import predict_classes

        return predict_classes(asked)


def _card(student: Student, target: Path) -> str:
    from classroomkd.export.card import made_by, numbers, sizes

    channels, height, width = student.shape
    names = ", ".join(student.classes[:20]) + (", …" if len(student.classes) > 20 else "")
    return f"""# {student.model}, {len(student.classes)} classes

{made_by(student)}

- input: {channels} x {height} x {width}, pixels in 0..1, mean {numbers(student.mean)}, std {numbers(student.std)}
- output: {len(student.classes)} logits: {names}
- {sizes(student)}

```python
import torch
from safetensors.torch import load_file
import classroomkd as ck

net = ck.models.create("{student.model}", num_classes={len(student.classes)}).eval()
net.load_state_dict(load_file("{target.name}"))
```
"""
