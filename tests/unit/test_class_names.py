"""Class names of data that have none: from the mentors, by name, or as many as they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from classroomkd import models
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe
from classroomkd.run.opening import open_context


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.full((32, 32, 3), 20 + 20 * i, np.uint8)).save(folder / f"{i:02}.png")
    return f"images:{folder}"


def saved(path: Path, names: list[str] | None, count: int = 3) -> str:
    """A network's file that names its classes, or does not."""
    network = models.create("convnet8", count)
    if names is None:
        torch.save(network.state_dict(), path.with_suffix(".pth"))
        return str(path.with_suffix(".pth"))
    models.save_checkpoint(network, path, {"classes": json.dumps(names)})
    return str(path)


def named(
    data: Any, mentors: list[dict[str, Any]], out: Path, given: dict[str, nn.Module] | None = None
) -> tuple[tuple[str, ...], str]:
    """The classes of a run, and what is said of its data."""
    method = "average" if mentors else "none"
    recipe = {"data": data, "student": "convnet8", "mentors": mentors, "method": method, "device": "cpu"}
    made = make_recipe(recipe, known_models=[m["model"] for m in mentors if m["model"].startswith("given:")])
    images = open_context(made, out, given=given).data
    return images.classes, " ".join(images.notes)


def test_names_are_those_of_the_first_mentor_that_has_some(pictures: str, tmp_path: Path) -> None:
    one = saved(tmp_path / "a.safetensors", ["cat", "dog", "ant"])
    two = saved(tmp_path / "b.safetensors", ["ant", "cat", "dog"])
    plain = saved(tmp_path / "c", None)
    mentors = [{"name": n, "model": "convnet8", "weights": w} for n, w in (("a", one), ("b", two))]
    classes, notes = named(pictures, mentors, tmp_path)
    assert classes == ("cat", "dog", "ant")
    assert "does not name" not in notes
    third = {"name": "c", "model": "convnet8", "weights": plain}
    classes, notes = named(pictures, [third, *mentors], tmp_path)
    assert classes == ("cat", "dog", "ant")
    assert "mentor 'c' does not name its classes: taken to be those of mentor 'a'" in notes
    said = {**third, "classes": ["dog", "ant", "cat"]}
    assert named(pictures, [said], tmp_path)[0] == ("dog", "ant", "cat")


def test_mentors_of_other_classes_are_refused_by_name(pictures: str, tmp_path: Path) -> None:
    one = saved(tmp_path / "a.safetensors", ["cat", "dog", "ant"])
    two = saved(tmp_path / "b.safetensors", ["cat", "dog", "bee"])
    mentors = [{"name": n, "model": "convnet8", "weights": w} for n, w in (("a", one), ("b", two))]
    with pytest.raises(
        UserError, match=r"mentors 'a' and 'b' do not know the same classes: 'ant' of 'a'.*data\.classes"
    ):
        named(pictures, mentors, tmp_path)
    data = {"source": pictures, "classes": ["cat", "dog", "ant", "bee"]}
    assert named(data, mentors, tmp_path)[0] == ("cat", "dog", "ant", "bee")


def test_classes_without_names_are_as_many_as_are_answered(pictures: str, tmp_path: Path) -> None:
    plain = {"name": "a", "model": "convnet8", "weights": saved(tmp_path / "a", None, 4)}
    classes, notes = named(pictures, [plain], tmp_path)
    assert classes == ("0", "1", "2", "3")
    assert "called 0 to 3" in notes
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    handed = {"name": "b", "model": "given:Sequential"}
    assert named(pictures, [handed], tmp_path, {"b": network})[0] == ("0", "1", "2", "3", "4")
    assert network.training
    with pytest.raises(UserError, match=r"mentor 'a' answers 4 classes, mentor 'b' 5; .*data\.classes"):
        named(pictures, [plain, handed], tmp_path, {"b": network})
    with pytest.raises(UserError, match="mentor 'b': the network does not take images"):
        named(pictures, [handed], tmp_path, {"b": nn.Linear(7, 2)})


def test_mentors_who_say_nothing_are_refused(pictures: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mentors\.0 \(a\): no training image has a label to train it on"):
        named(pictures, [{"name": "a", "model": "convnet8"}], tmp_path)
    with pytest.raises(UserError, match="nobody says which classes there are"):
        named(pictures, [], tmp_path)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    placed = {"name": "b", "model": "given:Sequential", "classes": ["@1", "@0"]}
    with pytest.raises(UserError, match="classes names @1, a place among"):
        named(pictures, [placed], tmp_path, {"b": network})
