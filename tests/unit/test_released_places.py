"""The places that released code reads: what they are in the zoo, and that ``NAME:input`` is a place like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd import methods, models
from classroomkd.classroom import Mentor, TapReader
from classroomkd.cli.app import main
from classroomkd.recipe import load_recipe
from classroomkd.taps.roles import Survey, survey
from classroomkd.train.optimize import optimize_for_inference

SHAPE = (3, 32, 32)
SHAPES = {  # of the literature's networks at 32 x 32: the maps between stem and pooling
    "resnet8x4": [(64, 32, 32), (128, 16, 16), (256, 8, 8)],
    "wrn_40_2": [(32, 32, 32), (64, 16, 16), (128, 8, 8)],
    "vgg8": [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)],
    "mobilenetv2": [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)],
    "shufflenetv1": [(240, 16, 16), (480, 8, 8), (960, 4, 4)],
    "shufflenetv2": [(116, 16, 16), (232, 8, 8), (464, 4, 4)],
    "resnet50c": [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)],
}


def moved(module: nn.Module) -> nn.Module:
    """The network with normalisations that have seen something."""
    generator = torch.Generator().manual_seed(5)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.weight, layer.running_var):
                assert value is not None
                value.data.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            for value in (layer.bias, layer.running_mean):
                assert value is not None
                value.data.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return module


def images(count: int = 4, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def net(name: str, classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return models.create(name, classes)


@pytest.mark.parametrize("name", SHAPES)
def test_the_released_maps_are_those_of_the_literature(name: str) -> None:
    with torch.device("meta"):
        module = models.create(name, 100)
        places = models.released_places(name)
        seen = survey(module, torch.zeros(1, *SHAPE))
    assert [seen.layout(place).map_shape for place in places] == SHAPES[name]


def test_every_network_of_the_literature_has_them() -> None:
    for row in models.table():
        assert bool(models.released_places(row["name"])) == (not row["family"].startswith("tiny")), row
    assert models.released_places("timm:resnet18") == ()


@pytest.mark.parametrize("name", [*SHAPES, "convnet4", "dwnet8"])
def test_no_stage_ends_before_its_activation(name: str) -> None:
    module = moved(net(name)).eval()
    places = [stage.name for stage in survey(module, images(1)).stages]
    assert not [place for place in places if isinstance(module.get_submodule(place), nn.BatchNorm2d)]
    maps = TapReader(module, places)(images(2))[1]
    linear = {"block1", "block2", "blocks.1", "blocks.2", "blocks.4", "stem.0"}  # by the architecture, or pooled first
    for place in set(places) - linear:
        assert (maps[place] >= 0).all(), place


@pytest.mark.parametrize("side", [32, 64])
def test_vgg_is_read_behind_its_activations(side: int) -> None:
    module = moved(net("vgg8")).train()
    places = ["relu2", "pool2:input", "block2", "pool2", "block3:input"]
    maps = TapReader(module, places)(images(4, side))[1]
    assert (
        maps["block2"] < 0
    ).float().mean() > 0.2  # what was the stage's place: a projector with a ReLU cannot reach it
    assert torch.equal(maps["relu2"], maps["block2"].relu())
    assert torch.equal(maps["relu2"], maps["pool2:input"])
    assert torch.equal(maps["pool2"], maps["block3:input"])
    seen = survey(module, images(1, side))
    assert seen.find("@stage:-2") == ("relu2" if side == 32 else "relu3")
    assert not [key for key in module.state_dict() if "relu" in key or "pool" in key]


def test_fitnets_hint_of_a_vgg_can_be_reached() -> None:
    room = ck.Classroom(net("resnet8"), [moved(net("vgg8"))], "fitnet", image_shape=SHAPE)
    (theirs,) = room(images(), torch.arange(4)).mentors.features["@stage:-2"]  # type: ignore[union-attr]
    assert theirs.shape[1:] == (256, 8, 8)
    assert theirs.min() == 0


def test_similarities_at_the_released_place() -> None:
    def term(place: str | None) -> float:
        taps = {} if place is None else {"@stage:-1": place}
        mentor = Mentor(net("wrn_40_1", 20), taps=taps)
        torch.manual_seed(2)
        student = models.create("wrn_16_1", 20)
        room = ck.Classroom(student, [mentor], "sp", taps=taps, image_shape=SHAPE)
        return room(images(32), torch.arange(32) % 20).terms["similarity"].item()

    released = term("block3")
    assert term("bn1") > 5 * released
    assert term(None) == term("relu") < released


RECIPES = Path(__file__).parents[2] / "recipes"
SECOND, LAST, ALL = slice(1, 2), slice(-1, None), slice(None)
READ = [  # by recipe and method, which of the released maps it reads
    ("fitnet/cifar100", {"fitnet": SECOND}),
    ("at/cifar100", {"at": ALL}),
    ("sp/cifar100", {"sp": LAST}),
    ("camkd/cifar100", {"camkd": LAST, "average": LAST}),
    ("mmkd/cifar100", {"mmkd": LAST, "average": LAST}),
    ("aekd/cifar100", {"aekd": SECOND, "average": SECOND}),
    ("average/cifar100", {"average": SECOND}),
    ("fitnet/cifar100-families", {"fitnet": SECOND, "at": ALL, "sp": LAST, "camkd": LAST}),
]


@pytest.mark.parametrize(("name", "read"), READ, ids=[name for name, _ in READ])
def test_recipes_read_the_released_places(
    name: str, read: dict[str, slice], surveyed: dict[str, Survey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cifar100").mkdir()  # the folder that they name; its content is not looked at
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    networks = [(recipe.student.model, recipe.student.taps), *((m.model, m.taps) for m in recipe.mentors)]
    count = len(models.released_places(recipe.student.model))  # the release compares as many as both have
    seen = []
    for method, options in (part for arm in recipe.arms() for part in arm.parts):
        taps = [tap for tap, kind in methods.create(method, **options).needs.features.items() if kind == "map"]
        for model, places in networks if taps and method in read else ():
            if model not in surveyed:
                with torch.device("meta"):
                    surveyed[model] = survey(models.create(model, 100), torch.zeros(1, *SHAPE))
            expected = models.released_places(model)
            expected = expected[:count] if read[method] == ALL else expected[read[method]]
            assert [surveyed[model].find(places.get(tap, tap)) for tap in taps] == list(expected), (method, model)
            seen.append(method)
    assert set(seen) == set(read)


@pytest.fixture(scope="module")
def surveyed() -> dict[str, Survey]:
    """By name, what is known of a network."""
    return {}


def test_attention_at_four_maps_of_two_families() -> None:
    names = ("mobilenetv2", "vgg8")
    student, mentor = (dict(zip("abcd", models.released_places(name), strict=True)) for name in names)

    def term(taps: str) -> Tensor:
        method = methods.create("at", taps=list(taps))
        room = ck.Classroom(
            net(names[0]), [Mentor(net(names[1]), taps=mentor)], method, taps=student, image_shape=SHAPE
        )
        assert list(room.method.needs.features) == list(taps)
        return room(images(), torch.arange(4)).terms["attention"].detach()

    torch.testing.assert_close(term("abcd"), torch.stack([term(tap) for tap in "abcd"]).sum())


def test_an_input_is_a_place_like_any_other() -> None:
    mentor = Mentor(moved(net("wrn_16_1")), taps={"pool2:input": "bn1:input"})
    student = moved(net("vgg8")).eval()
    method = methods.create("camkd", tap="pool2:input")
    room = ck.Classroom(student, [mentor, net("vgg8")], method, image_shape=SHAPE)
    assert room.shapes is not None
    assert room.shapes.student["pool2:input"] == (256, 8, 8)
    assert room.shapes.mentors["pool2:input"] == ((64, 8, 8), (256, 8, 8))
    x = images()
    lesson = room(x, torch.arange(4))
    assert lesson.mentors is not None
    theirs = lesson.mentors.features["pool2:input"]
    assert torch.equal(theirs[0], TapReader(mentor.module, ["block3"])(x)[1]["block3"])
    for m in (0, 1):  # going on from there is the mentor's own answer
        torch.testing.assert_close(lesson.head(m, "pool2:input", theirs[m]), lesson.mentors.prediction[m])
    lesson.loss.backward()
    assert room.method.hints.projectors[0][0].weight.grad.abs().sum() > 0  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    "place", ["block3", "bn1:input", "bn1", "relu", "block3.layer.0.conv1", "block3.layer.0.bn2:input", "avgpool:input"]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_fast_mentor_reads_what_the_mentor_reads(place: str, wrapped: bool) -> None:
    network: nn.Module = moved(net("wrn_16_1"))
    if wrapped:
        network, place = nn.DataParallel(network), f"module.{place}"
    mentor = Mentor(network, taps={"there": place})
    mentor.read({"there": "map"}, images(2))
    fast = optimize_for_inference(mentor, images(2))
    assert fast.folded > 0  # type: ignore[attr-defined]
    expected, found = mentor(images()), fast(images())
    for ours, theirs in (
        (found.features["there"], expected.features["there"]),
        (found.prediction, expected.prediction),
    ):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_a_run_with_an_input_as_its_tap(tmp_path: Path) -> None:
    recipe = {
        "data": {"source": "puppets", "options": {"train": 48, "test": 20, "image_size": 32}},
        "train": {"epochs": 1, "batch_size": 16},
        "cache": str(tmp_path / "cache"),
        "bank": "views=1",
        "workers": 1,
        "method": {"name": "sp", "tap": "stage3:input"},
        "mentors": ["convnet8", {"name": "b", "model": "dwnet8", "taps": {"stage3:input": "stage2"}}],
        "student": "convnet4",
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    assert main(["run", str(file), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    stored = [json.loads(path.read_text()) for path in (tmp_path / "cache").rglob("manifest.json")]
    assert [manifest["kind"] for manifest in stored if manifest["kind"] != "logits"] == ["stage3:input"] * 2
    assert {manifest["key"].get("place") for manifest in stored} >= {"stage3:input", "stage2"}
    assert not [path for path in (tmp_path / "cache").rglob("*") if ":" in path.name]


def test_inspect_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "wrn_16_1"]) == 0
    assert "read by released code: block1 (16x32x32), block2 (32x16x16), block3 (64x8x8)\n" in capsys.readouterr().out
    assert main(["inspect", "vgg8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["released"][-1] == {"name": "relu4", "shape": [512, 4, 4]}
    assert main(["inspect", "convnet4"]) == 0
    assert "released" not in capsys.readouterr().out
