"""``weights``, its other name, and what cannot be meant: said before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from classroomkd._compat import installed
from classroomkd.errors import UserError
from classroomkd.recipe import Recipe, make_recipe, recipe_yaml
from classroomkd.recipe.dump import json_schema

BASE: dict[str, Any] = {"data": "puppets", "student": "resnet8", "mentors": ["vgg8"], "method": "kd"}
libraries = pytest.mark.skipif(not installed("timm"), reason="timm is not installed")


def made(folder: Path, student: dict[str, Any] | None = None, mentor: dict[str, Any] | None = None) -> Recipe:
    mapping = {
        **BASE,
        "student": {"model": "resnet8", **(student or {})},
        "mentors": [{"model": "vgg8", **(mentor or {})}],
    }
    return make_recipe(mapping, folder=folder, trust_code=True)


def test_checkpoint_is_another_name_of_weights(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    for key in ("weights", "checkpoint"):
        recipe = made(tmp_path, {key: "x.pth"}, {key: "x.pth"})
        for spec in (recipe.student, recipe.mentors[0]):
            assert spec.weights == spec.checkpoint == str(tmp_path / "x.pth")
        written = yaml.safe_load(recipe_yaml(recipe))
        assert written["student"]["weights"] == str(tmp_path / "x.pth")
        assert "checkpoint" not in written["student"]
        jsonschema.validate({**BASE, "student": {"model": "resnet8", key: "x.pth"}}, json_schema())
    earlier = {**written, "student": {"model": "resnet8", "checkpoint": None}}
    assert Recipe.model_validate(earlier).student.weights is None


def test_a_mentor_whose_head_is_reset_is_trained(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    mentor = {"weights": "x.pth", "reset_head": True, "train": {"epochs": 3}}
    recipe = made(tmp_path, None, mentor)
    assert recipe.mentors[0].train is not None
    assert recipe.mentors[0].train.epochs == 3
    again = make_recipe(yaml.safe_load(recipe_yaml(recipe)))
    assert again == recipe


@pytest.mark.parametrize(
    ("student", "mentor", "said"),
    [
        ({"weights": "x.pth", "checkpoint": "x.pth"}, {}, "student: has both 'weights' and 'checkpoint'"),
        ({}, {"weights": "x.pth", "train": {"epochs": 1}}, "mentors.0: has both 'weights' and 'train'"),
        ({}, {"model": "py:a:b", "weights": "trained", "train": {"epochs": 1}}, "has both 'weights' and 'train'"),
        ({"weights": "pretrained"}, {}, "student.weights = 'pretrained': 'resnet8' has no published weights here"),
        ({"model": "py:a:b", "weights": "pretrained"}, {}, "a py: factory that loads its weights is weights: trained"),
        ({"weights": "trained"}, {}, "is for a py: factory that gives a trained network"),
        ({"weights": "pretrainde"}, {}, "there is no such file (did you mean 'pretrained'?)"),
        ({"pretrained": True}, {}, "student.pretrained: unknown key; write weights: pretrained"),
        ({}, {"pretrained": True}, "mentors.0.pretrained: unknown key; write weights: pretrained"),
        ({}, {"trained": True}, "mentors.0.trained: unknown key; write weights: trained"),
        ({"reset_head": True}, {}, "student.reset_head = true: needs weights beside it"),
        ({}, {"model": "py:a:b", "weights": "trained", "reset_head": True}, "needs weights beside it"),
    ],
)
def test_mistakes(tmp_path: Path, student: dict[str, Any], mentor: dict[str, Any], said: str) -> None:
    (tmp_path / "x.pth").touch()
    with pytest.raises(UserError) as caught:
        made(tmp_path, student, mentor)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@libraries
@pytest.mark.parametrize(
    ("model", "weights", "said"),
    [
        ("timm:resnet18.a1_in1k", None, "names the weights 'a1_in1k', but none are loaded: add weights: pretrained"),
        ("timm:resnet18.a1_in1", None, "did you mean 'a1_in1k'?"),
        ("timm:resnet18", "pretrained", "Fetch them where there is a network: python -c"),
        ("torchvision:resnet18", "pretrained", "Fetch them where there is a network: python -c"),
        ("timm:hf_hub:timm/resnet18.a1_in1k", "pretrained", "write timm:resnet18.a1_in1k with weights: pretrained"),
        ("timm:resnet18", "trained", "weights: pretrained are those of its library"),
    ],
)
def test_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, weights: str | None, said: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(UserError) as caught:
        made(tmp_path, {"model": model, "weights": weights}, {"model": model, "weights": weights})
    assert said in str(caught.value)
    assert str(caught.value).count(said) == 2  # once each


@libraries
def test_a_tag_beside_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    assert made(tmp_path, {"model": "timm:resnet18.a1_in1k", "weights": "x.pth"}).student.checkpoint
