"""Stages, the penultimate place and layouts: what a dry run finds in any network."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import _compat, models
from classroomkd.cli.app import main
from classroomkd.errors import UserError
from classroomkd.taps.layout import Layout, layout_of
from classroomkd.taps.roles import find_place, stages, survey

vision = pytest.mark.skipif(
    not (_compat.installed("timm") and _compat.installed("torchvision")), reason="needs timm and torchvision"
)


class Functional(nn.Module):
    """Functions between modules, an activation shared by all, lists, a gate beside the trunk, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.bodies = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 4), (4, 8), (8, 8), (8, 6)))
        self.norms = nn.ModuleDict({f"n{i}": nn.BatchNorm2d(c) for i, c in enumerate((4, 8, 8, 6))})
        self.gate = nn.Conv2d(8, 8, 1)
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        x = self.mean(x) * (1 + 0 * torch.rand(1))  # some networks draw numbers in evaluation too
        for i, body in enumerate(self.bodies):
            x = self.relu(self.norms[f"n{i}"](body(x)))
            if i in (0, 2):
                x = F.max_pool2d(x, 2)
            if i == 1:
                x = x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        x = self.head(self.drop(x).mean((2, 3), keepdim=True))
        return x.flatten(1) * 2.0, "beside it"


class Wrapped(nn.Module):
    """A trunk inside a module of its own, pooled by a module, and two linear layers behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Trunk()
        self.top = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 5))

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.top(self.backbone(x)), dim=1)


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 8, 3, 2, 1) for i in (3, 8, 8))
        self.block = Hourglass()

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.block(self.b(F.relu(self.a(x)))))


class Hourglass(nn.Module):
    """Three resolutions that do not only shrink: a block, not a trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.same = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.same(F.interpolate(self.deep(self.down(x)), x.shape[-2:])) + x


def found(module: nn.Module, *size: int) -> tuple[list[tuple[str, tuple[int, ...]]], str | None]:
    seen = survey(module, torch.zeros(2, 3, *size))
    return [(stage.name, stage.shape) for stage in seen.stages], seen.penultimate


def test_every_network_of_the_zoo_has_stages() -> None:
    for name in models.names():
        with torch.device("meta"):
            module = models.create(name, 10)
        for side in (28, 32, 64) if "net8" in name or name == "vgg8" else (32,):
            seen = survey(module, torch.zeros(1, 3, side, side, device="meta"))
            sides = [stage.shape[1] for stage in seen.stages]
            assert len(sides) >= 3, name
            assert sides == sorted(set(sides), reverse=True), (name, seen.stages)
            assert seen.penultimate in ("fc:input", "classifier:input", "classifier.0:input", "linear:input")
            assert seen.layout(seen.penultimate).kind == "vector"


ZOO = {
    "resnet8": (["layer1", "layer2", "layer3"], (64, 8, 8)),
    "wrn_16_1": (["block1", "block2", "relu"], (64, 8, 8)),
    "vgg8": (["relu0", "relu1", "relu2", "relu4"], (512, 4, 4)),
    "mobilenetv2": (["blocks.1", "blocks.2", "blocks.4", "conv2"], (1280, 2, 2)),
    "shufflenetv1": (["relu1", "layer1", "layer2", "layer3"], (960, 4, 4)),
    "shufflenetv2": (["relu1", "layer1", "layer2", "relu2"], (1024, 4, 4)),
    "resnet18c": (["layer1", "layer2", "layer3", "layer4"], (512, 4, 4)),
    "convnet4": (["stem.0", "stem.3", "stage2", "stage3"], (16, 2, 2)),
    "dwnet8": (["stem.0", "stem.3", "stage2", "stage3"], (32, 2, 2)),
}


@pytest.mark.parametrize("name", ZOO)
def test_stages_of_the_zoo(name: str) -> None:
    places, last = ZOO[name]
    seen = stages(models.create(name, 10), torch.zeros(1, 3, 32, 32))
    assert [stage.name for stage in seen] == places
    assert seen[-1].shape == last


TIMM = {
    ("resnet18", 64): (["act1", "layer1", "layer2", "layer3", "layer4"], (512, 2, 2), "fc:input"),
    ("mobilenetv3_small_050", 64): (["bn1", "blocks.0", "blocks.1", "blocks.3", "blocks.5"], (288, 2, 2), None),
    ("convnext_atto", 64): ([f"stages.{i}" for i in range(4)], (320, 2, 2), "head.fc:input"),
    ("test_vit", 64): (["blocks.1", "blocks.2", "blocks.4", "blocks.5"], (64, 4, 4), "head:input"),
    ("swin_tiny_patch4_window7_224", 224): (["layers.0", "layers.1", "layers.2", "norm"], (768, 7, 7), None),
}
TORCHVISION = {
    ("resnet18", 64): (["relu", "layer1", "layer2", "layer3", "layer4"], (512, 2, 2), "fc:input"),
    ("mobilenet_v3_small", 64): ([f"features.{i}" for i in (0, 1, 3, 8, 12)], (576, 2, 2), "classifier.3:input"),
    ("squeezenet1_1", 64): ([f"features.{i}" for i in (1, 4, 7, 12)], (512, 3, 3), "classifier.1:input"),
    ("densenet121", 64): (
        ["features.relu0", *(f"features.transition{i}.conv" for i in (1, 2, 3)), "features.norm5"],
        (1024, 2, 2),
        "classifier:input",
    ),
}


@vision
@pytest.mark.parametrize("case", [*(("timm", *c) for c in TIMM), *(("torchvision", *c) for c in TORCHVISION)])
def test_stages_of_the_libraries(case: tuple[str, str, int]) -> None:
    library, name, side = case
    places, last, penultimate = (TIMM if library == "timm" else TORCHVISION)[name, side]
    if name == "test_vit":
        module = _compat.import_timm().create_model(
            "vit_tiny_patch16_224", embed_dim=64, num_heads=4, depth=6, img_size=64
        )
    else:
        with torch.device("meta"):
            module = models.create(f"{library}:{name}", 10)
    example = torch.zeros(1, 3, side, side, device=next(module.parameters()).device)
    seen = survey(module, example)
    assert [stage.name for stage in seen.stages] == places
    assert seen.stages[-1].shape == last
    assert penultimate in (None, seen.penultimate)


def test_stages_of_a_hand_written_network() -> None:
    module = Functional().train()
    module.drop.eval()
    before = copy.deepcopy(module.state_dict())
    state = torch.random.get_rng_state()
    places, penultimate = found(module, 12, 12)
    # The shared ReLU and the gate are no places, dropout is passed over, the head begins behind the functional mean.
    assert places == [("norms.n0", (4, 12, 12)), ("norms.n2", (8, 6, 6)), ("norms.n3", (6, 3, 3))]
    assert penultimate == "head:input"
    assert (module.training, module.norms.training, module.drop.training) == (True, True, False)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert found(Wrapped(), 16, 24) == (
        [("backbone.a", (8, 8, 12)), ("backbone.block", (8, 4, 6)), ("backbone.c", (8, 2, 3))],
        "top.4:input",
    )
    # Two modules around it: what holds the classifier is opened, however few resolutions it has.
    two = nn.Sequential(nn.Sequential(Wrapped()))
    two[0][0].backbone = nn.Conv2d(3, 8, 3, 2, 1)
    assert found(two, 16, 24) == ([("0.0.backbone", (8, 8, 12))], "0.0.top.4:input")


def test_what_is_before_and_behind_the_trunk() -> None:
    def conv(inputs: int, outputs: int, window: int = 3, stride: int = 2) -> nn.Module:
        return nn.Conv2d(inputs, outputs, window, stride, window // 2)

    # What only prepares the image is no stage; nor is a pooling at 1x1, nor what follows a pooling by a function.
    ready = nn.Sequential(nn.Upsample(scale_factor=2), conv(3, 4), conv(4, 6), conv(6, 8), nn.AdaptiveAvgPool2d(1))
    ready.append(nn.Flatten()).append(nn.Linear(8, 5))
    assert found(ready, 4, 4)[0] == [("1", (4, 4, 4)), ("2", (6, 2, 2)), ("3", (8, 1, 1))]

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mix, self.head = conv(3, 4), conv(4, 9, 1, 1), nn.Linear(9, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(self.body(x).mean((2, 3), keepdim=True)).flatten(1))

    assert found(Late(), 8, 8)[0] == [("body", (4, 4, 4))]


def test_layers_that_are_not_the_classifier() -> None:
    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 10))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.normalize(x), self.weight)

    body = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
    assert survey(nn.Sequential(*body, Cosine()), torch.zeros(1, 3, 8, 8)).penultimate == "3:input"
    body.append(nn.Linear(10, 5)).append(nn.BatchNorm1d(5))
    assert survey(body, torch.zeros(1, 3, 8, 8)).penultimate == "3:input"
    body.append(nn.Linear(5, 8)).append(nn.MaxPool1d(2))
    with pytest.raises(UserError, match="no single layer that makes its prediction"):
        find_place(body, "@penultimate", torch.zeros(1, 3, 8, 8))


def test_what_cannot_be_found_is_named_with_what_can() -> None:
    module, blank = models.create("vgg8", 10), torch.zeros(1, 3, 32, 32)
    seen = survey(module, blank, "mentor 'vgg8'")
    with pytest.raises(UserError, match=r"mentor 'vgg8' has 4 stages: relu0 \(64x32x32\), .*@stage:-7 does not exist"):
        seen.find("@stage:-7")
    assert seen.find("@stage:1") == seen.find("@stage:-3") == "relu1"
    assert seen.classes == 10
    for place, message in {
        "@stage:x": "whole number",
        "@penultimte": "did you mean '@penultimate'",
        "blok1": "did you mean 'block1'",
        "classifier:imput": "only 'input'",
    }.items():
        with pytest.raises(UserError, match=message):
            seen.find(place)
    with pytest.raises(UserError, match="VGG cannot take images of 3x2x2"):
        stages(module, blank[..., :2, :2])
    with pytest.raises(UserError, match="has no stages"):
        find_place(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), "@stage:0", torch.zeros(1, 3, 2, 2))
    mixed = Functional()
    for place, message in {"relu": "runs 4 times", "unused": "does not run"}.items():
        with pytest.raises(UserError, match=message):
            find_place(mixed, place, torch.zeros(1, 3, 8, 8))


def test_inspect_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "resnet8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stages"][-1] == {"name": "layer3", "shape": [64, 8, 8]}
    assert told["penultimate"] == "fc:input"
    assert main(["inspect", "resnet8"]) == 0
    assert "@stage:2 or @stage:-1: layer3, 64x8x8\n@penultimate: fc:input" in capsys.readouterr().out


def test_layouts() -> None:
    def check(shape: tuple[int, ...], expected: Layout, image: tuple[int, int] | None = None) -> None:
        assert layout_of(torch.zeros(shape), image=image) == expected

    check((2, 8, 4, 4), Layout("nchw", 8, 4, 4))
    check((2, 4, 4, 8), Layout("nhwc", 8, 4, 4))
    check((2, 4, 4, 4), Layout("nchw", 4, 4, 4))
    check((2, 6, 2, 3), Layout("nchw", 6, 2, 3), (16, 24))
    check((2, 4, 6, 96), Layout("nhwc", 96, 4, 6), (16, 24))
    check((2, 7), Layout("vector", 7, 1, 1))
    for prefix in (0, 1, 2, 4, 5):
        check((2, 196 + prefix, 8), Layout("tokens", 8, 14, 14, prefix), (224, 224))
        check((2, 24 + prefix, 8), Layout("tokens", 8, 4, 6, prefix), (64, 96))
    check((2, 9, 8), Layout("tokens", 8, 2, 2, 5), (32, 32))  # not 3x3: that does not divide 32
    for shape in ((2, 3, 4), (2,), (2, 3, 4, 4, 4)):
        with pytest.raises(UserError, match=r"tap 'x' has shape \(2"):
            layout_of(torch.zeros(shape), what="tap 'x'")
    with pytest.raises(UserError, match="another size"):
        layout_of((1, 17, 2)).as_map(torch.zeros(1, 26, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_layouts_are_undone_and_restored(dtype: torch.dtype) -> None:
    map_BCHW = torch.randn(2, 8, 4, 4, dtype=dtype)
    front = torch.randn(2, 2, 8, dtype=dtype)
    tokens = torch.cat([front, map_BCHW.flatten(2).mT], dim=1)
    for held in (map_BCHW, map_BCHW.permute(0, 2, 3, 1), tokens, tokens[:, 2:]):
        layout = layout_of(held)
        assert torch.equal(layout.as_map(held), map_BCHW)
        assert torch.equal(layout.restore(layout.as_map(held), layout.prefix_of(held)), held)
        torch.testing.assert_close(layout.as_pooled(held), map_BCHW.mean((2, 3)))
        assert torch.equal(layout_of(held).as_map(held), map_BCHW)
        assert layout.as_map(held).dtype == layout.as_pooled(held).dtype == dtype
    vector = map_BCHW[:, :, 0, 0]
    assert layout_of(vector).as_map(vector).shape == (2, 8, 1, 1)
    assert torch.equal(layout_of(vector).restore(layout_of(vector).as_map(vector)), vector)
    assert torch.equal(layout_of(vector).as_pooled(vector), vector)
