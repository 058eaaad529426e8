"""Frozen parts, rates by depth and parameters without weight decay: each changes what it must and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import classroomkd as ck
from classroomkd import data
from classroomkd.classroom import Classroom
from classroomkd.errors import UserError
from classroomkd.recipe import TrainSpec, make_recipe
from classroomkd.run.mentor_training import _of_weight
from classroomkd.taps.roles import survey
from classroomkd.train.inputs import Inputs
from classroomkd.train.loop import Training
from classroomkd.train.optim import build_optimizer, set_learning_rate, whole_rate
from classroomkd.train.parts import check_parts, freeze
from classroomkd.train.runtime import Runtime

DATA = {"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}}
example = partial(torch.zeros, 2, 3, 32, 32)


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load(DATA)


class Tokens(nn.Module):
    """A transformer in small: positions held by the whole, one resolution, attention that calls no submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, 8)
        self.places = nn.Parameter(torch.zeros(1, 16, 8))
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.places
        found: torch.Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return found


def depths(network: nn.Module) -> dict[str, int]:
    seen = survey(network, example())
    return {name: seen.depth - seen.stage_of(name.rpartition(".")[0]) for name, _ in network.named_parameters()}


def test_depth_counts_stages_from_the_head() -> None:
    found = depths(ck.models.create("resnet8", 10))
    assert (found["fc.weight"], found["conv1.weight"], found["bn1.weight"]) == (0, 3, 3)
    assert {found[f"layer{i}.0.conv1.weight"] for i in (1,)} == {3}
    assert (found["layer2.0.conv2.weight"], found["layer3.0.bn1.bias"]) == (2, 1)


def test_depth_of_tokens() -> None:
    found = depths(Tokens())
    assert found["places"] == found["embed.weight"] == max(found.values())
    assert found["head.weight"] == found["norm.bias"] == 0
    assert found["blocks.3.self_attn.out_proj.weight"] == found["blocks.3.linear2.weight"] == 1


def test_without_stages_every_layer_is_one() -> None:
    found = depths(nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 10)))
    assert [found[f"{i}.weight"] for i in (1, 3, 4)] == [2, 1, 0]


def room(method: Any = "none") -> Classroom:
    torch.manual_seed(0)
    mentors = [ck.models.create("resnet8", 10)] if method != "none" else []
    student = ck.models.create("resnet8", 10)
    return Classroom(student, mentors, method, image_shape=(3, 32, 32))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_groups_have_their_share_of_the_rate(optimizer: Any) -> None:
    made = room("fitnet")
    spec = TrainSpec(optimizer=optimizer, lr=0.1, layer_decay=0.5, no_decay="norm_bias", weight_decay=0.01)
    found = build_optimizer(made, spec, example)
    set_learning_rate(found, 0.2)
    assert whole_rate(found) == 0.2
    by_id = {id(p): group for group in found.param_groups for p in group["params"]}
    assert len(by_id) == sum(1 for p in made.parameters() if p.requires_grad)
    named = {name: by_id[id(p)] for name, p in made.named_parameters() if id(p) in by_id}
    student = {name: by_id[id(p)] for name, p in made.student.named_parameters()}
    assert student["fc.weight"]["lr"] == pytest.approx(0.2)
    assert student["layer3.0.conv1.weight"]["lr"] == pytest.approx(0.1)
    assert student["conv1.weight"]["lr"] == pytest.approx(0.2 * 0.5**3)
    assert all(group["lr"] == 0.2 for name, group in named.items() if name.startswith("method."))
    for name, group in student.items():
        plain = name.endswith("bias") or "bn" in name or "downsample.1" in name
        assert group["weight_decay"] == (0.0 if plain else 0.01), name


def test_defaults_make_one_group_as_before() -> None:
    for spec in (TrainSpec(), TrainSpec(layer_decay=1.0), TrainSpec(no_decay="norm_bias", weight_decay=0)):
        made = room()
        (group,) = build_optimizer(made, spec).param_groups
        assert "scale" not in group
        assert [id(p) for p in group["params"]] == [id(p) for p in made.parameters()]


def fit(images: Any, spec: TrainSpec, folder: Path | None = None, stop: int | None = None, resume: bool = False) -> Any:
    class KilledError(Exception):
        pass

    def notify(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == stop:
            raise KilledError

    made = room("kd")
    before = {name: value.clone() for name, value in made.student.state_dict().items()}
    job = Training(
        Runtime("cpu", "fp32", 1), made, images.train, images.val,
        data.make_views("crop", view_seed=0, image_size=(32, 32)),
        Inputs(images.mean, images.std, torch.device("cpu")), spec, images.classes, 0, folder, notify,
        measure=False,
    )  # fmt: skip
    try:
        job.run(resume=resume)
    except KilledError:
        return None
    return before, made.student.state_dict()


@pytest.mark.parametrize(
    ("places", "still"),
    [
        (("@stage:0",), lambda name: name.startswith(("conv1", "bn1", "layer1"))),
        (("layer2", "@stage:-1"), lambda name: name.startswith(("layer2", "layer3"))),
        (("@penultimate",), lambda name: not name.startswith("fc")),
        (("layer1.0.bn1",), lambda name: name.startswith("layer1.0.bn1")),
    ],
)
def test_frozen_parts_stay_to_the_bit(images: Any, places: tuple[str, ...], still: Any) -> None:
    before, after = fit(images, TrainSpec(epochs=1, batch_size=32, freeze=places, ema=0.5, weight_decay=0.1))
    for name, value in after.items():
        assert torch.equal(value, before[name]) == still(name), name


def test_groups_and_frozen_parts_are_resumed_to_the_bit(images: Any, tmp_path: Path) -> None:
    more: dict[str, Any] = {"layer_decay": 0.5, "no_decay": "norm_bias", "freeze": ("@stage:0",), "lr": 0.1}
    spec = TrainSpec(epochs=2, batch_size=64, weight_decay=0.01, **more)
    _, whole = fit(images, spec, tmp_path / "whole")
    assert fit(images, spec, tmp_path / "cut", stop=1) is None
    _, resumed = fit(images, spec, tmp_path / "cut", resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    for key, usual in {"layer_decay": None, "no_decay": "none", "freeze": ()}.items():
        _, other = fit(images, spec.model_copy(update={key: usual}))
        assert any(not torch.equal(value, other[name]) for name, value in whole.items()), key


@pytest.mark.parametrize(
    ("places", "says"),
    [
        (("@stage:7",), r"train\.freeze: CifarResNet has 3 stages"), (("nothing",), r"train\.freeze: .*nothing"),
        (("fc:input",), "a point, not a part"), (("@penultimate", "fc"), r"train\.freeze leaves nothing"),
        (("@stages",), "unknown place"),
    ],
)  # fmt: skip
def test_parts_that_are_not_there_are_refused(places: tuple[str, ...], says: str) -> None:
    network = ck.models.create("resnet8", 10)
    with pytest.raises(UserError, match=says):
        check_parts(network, TrainSpec(freeze=places), example, "train")
    assert all(p.requires_grad for p in network.parameters())


def test_normalisations_stay_in_evaluation_mode() -> None:
    network = ck.models.create("resnet8", 10)
    layers = freeze(network, TrainSpec(freeze=("layer1",)), example)
    assert layers == [layer for layer in network.layer1.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_mentors_inherit_no_parts_of_the_student() -> None:
    content = {
        "data": DATA, "student": "resnet8", "method": "kd",
        "mentors": ["resnet20", {"name": "own", "model": "resnet14"}],
        "train": {"freeze": ["layer1"], "layer_decay": 0.5, "no_decay": "norm_bias"},
    }  # fmt: skip
    recipe = make_recipe(content, name="x")
    for spec in (recipe.mentor_train, *(mentor.train for mentor in recipe.mentors)):
        assert spec is not None
        assert (spec.freeze, spec.layer_decay, spec.no_decay) == ((), None, "norm_bias")
    assert "train.freeze keeps random weights as they are" in " ".join(recipe.notes())
    own = make_recipe({**content, "mentor_train": {"freeze": ["fc"]}}, name="x").mentors[0].train
    assert own is not None
    assert own.freeze == ("fc",)


def test_at_their_defaults_they_enter_no_key() -> None:
    assert not {"freeze", "layer_decay", "no_decay"} & set(_of_weight(TrainSpec()))
    assert _of_weight(TrainSpec(layer_decay=0.5))["layer_decay"] == 0.5


@pytest.mark.parametrize("key", ["layer_decay", "no_decay"])
def test_one_rule_for_all_is_asked_for_where_it_is_needed(tmp_path: Path, key: str) -> None:
    more: Any = {key: {"layer_decay": 0.5, "no_decay": "norm_bias"}[key]}
    with pytest.raises(UserError, match=r"virtual steps follow one rule .*train\.layer_decay=null"):
        ck.distill(
            "resnet8", ["resnet8"], DATA, "mmkd", epochs=1, out=tmp_path / "run", device="cpu", threads=1, **more
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_mentors_training_has_them_too(tmp_path: Path) -> None:
    run = ck.distill(
        "convnet4", ["resnet8"], DATA, "kd", epochs=1, out=tmp_path / "run", device="cpu", threads=1, batch_size=32,
        mentor_train={"freeze": ["layer1"], "layer_decay": 0.5}, cache=str(tmp_path / "cache"), check_mentors="off",
    )  # fmt: skip
    from safetensors.torch import load_file

    weights = load_file(run.summary["mentors"][0]["weights"])
    assert torch.equal(weights["layer1.0.bn1.running_mean"], torch.zeros(16))
    assert not torch.equal(weights["layer2.0.bn1.running_mean"], torch.zeros(32))
    with pytest.raises(UserError, match=r"mentors\.0\.train\.freeze: CifarResNet has 3 stages"):
        ck.distill(
            "convnet4", ["resnet8"], DATA, "kd", epochs=1, out=tmp_path / "b", device="cpu", threads=1,
            mentor_train={"freeze": ["@stage:9"]},
        )  # fmt: skip
