"""docs/errata.md: every guard that it names exists, and the guards that belong to no other file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import data, methods, models, tasks
from classroomkd.classroom import ClassInfo, Classroom, Shapes
from classroomkd.taps.adapters import adapter
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import evaluate

ROOT = Path(__file__).resolve().parents[2]
ERRATA = (ROOT / "docs" / "errata.md").read_text()
ON = {"average": {"feature_weight": 1.0}, "aekd": {"features": True}}  # what brings features in
WITH_PROJECTOR = [name for name in methods.METHODS if "projector" in methods.options_model(name).model_fields]


def test_every_guard_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", ERRATA)
    assert len(named) > 100
    assert len(named) == ERRATA.count("`tests/")  # none that is written in another way
    for file, name in set(named):
        text = (ROOT / file).read_text()
        assert re.search(rf"^ *def {name}\(", text, re.MULTILINE), f"{file}::{name}"


def test_every_row_is_whole() -> None:
    """Three cells a row, none empty."""
    rows = [line for line in ERRATA.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert len(rows) > 80
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert all(cells), row


def hints_of(name: str, **given: Any) -> nn.ModuleList:
    """The projectors of a method whose student has maps of 6 x 4 x 4 everywhere and its mentors of 10 x 4 x 4."""
    method = methods.create(name, **ON.get(name, {}), **given)
    shapes = Shapes(
        5, dict.fromkeys(method.needs.features, (6, 4, 4)), dict.fromkeys(method.needs.features, ((10, 4, 4),) * 2)
    )
    method.setup(ClassInfo(tasks.create("classification"), ["a", "b"], shapes=shapes))
    found = method.hints.projectors
    assert isinstance(found, nn.ModuleList)
    return found


@pytest.mark.parametrize("name", WITH_PROJECTOR)
def test_projector_changes_the_module_it_names(name: str) -> None:
    """MMKD's ``--convs`` is passed in another argument's place and changes nothing."""
    for kind in ("conv", "bottleneck", "linear"):
        for projector in hints_of(name, projector=kind):
            assert str(projector) == str(adapter((6, 4, 4), (10, 4, 4), kind))  # type: ignore[arg-type]
    assert {"mmkd", "camkd", "average", "aekd", "fitnet"} <= set(WITH_PROJECTOR)


@pytest.mark.parametrize("name", WITH_PROJECTOR)
def test_every_mentors_projector_sees_the_students_own_map(name: str) -> None:
    """CA-MKD hands teacher k the map that was resampled for teacher k - 1."""
    torch.manual_seed(0)
    student, *mentors = (models.create(n, num_classes=5) for n in ("convnet4", "resnet8", "vgg8", "convnet8"))
    method = methods.create(name, **ON.get(name, {}), tap="@stage:-1")
    room = Classroom(student, mentors, method, image_shape=(3, 32, 32))
    room.epoch = 1.0
    assert room.shapes is not None
    assert len({shape[1:] for shape in room.shapes.mentors["@stage:-1"]}) > 1
    seen: list[Tensor] = []
    for projector in method.hints.projectors:
        projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    lesson = room(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert len(seen) >= len(mentors)
    assert all(torch.equal(x, lesson.student.features["@stage:-1"]) for x in seen)


def test_scores_are_of_the_images_as_they_are() -> None:
    """MMKD scores Tiny-ImageNet on random crops."""
    images = data.load(
        {"source": "puppets", "options": {"train": 20, "test": 20, "image_size": 32}, "views": "crop_flip"}
    )
    inputs = Inputs(images.mean, images.std, torch.device("cpu"))
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 10)

    pixels, _, _ = images.test.batch(torch.arange(len(images.test)))
    for _ in range(2):
        evaluate(Watching(), images.test, inputs, 10, 5)
    assert torch.equal(torch.cat(seen), inputs(pixels).repeat(2, 1, 1, 1))
