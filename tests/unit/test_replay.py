"""Replay: a network's prediction from an activation that is put in its tap's place."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import _compat, models
from classroomkd.errors import UserError
from classroomkd.taps.layout import Layout, layout_of
from classroomkd.taps.roles import survey
from classroomkd.taps.segments import check_forward_from_tap, forward_from_tap
from classroomkd.taps.taps import TapReader

vision = pytest.mark.skipif(
    not (_compat.installed("timm") and _compat.installed("torchvision")), reason="needs timm and torchvision"
)
BLANK = torch.zeros(1, 3, 8, 8)


class Plain(nn.Module):
    """Functions between modules, activations in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.norm, self.relu, self.drop = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.9)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.relu(self.norm(self.a(x))))
        x += 1.0
        return self.fc(self.drop(F.relu_(x).mean((2, 3))))


class Skip(Plain):
    """What the first layer says reaches the classifier past the second."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x))
        return self.fc(self.b(x).mean((2, 3)) + F.pad(x.mean((2, 3)), (1, 1)))


class Counting(Plain):
    """It remembers the batch that came in."""

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        return self.fc(self.b(self.a(x)).amax((2, 3)).reshape(batch, 6))


class Last(Plain):
    """Channels last between two modules, a tuple behind the first."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return x.permute(0, 2, 3, 1), "beside it"

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.dense = Last.Pair(), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dense(self.pair(self.a(x))[0]).relu().mean((1, 2)))


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def read(module: nn.Module, place: str, x: Tensor) -> tuple[Tensor, Tensor, Layout]:
    """The network's prediction, its map at a place, and the layout there."""
    module.eval()
    with torch.no_grad():
        prediction, taps = TapReader(module, [place])(x)
    layout = layout_of(taps[place], image=x.shape[-2:])
    return prediction, layout.as_map(taps[place]), layout


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_the_zoo_replays_itself(name: str) -> None:
    torch.manual_seed(0)
    module = models.create(name, 7).eval()
    seen = survey(module, torch.zeros(1, 3, 16, 16))
    x = torch.randn(3, 3, 16, 16)
    for place in (*(stage.name for stage in seen.stages), seen.penultimate):
        assert place
        assert check_forward_from_tap(module, place, torch.zeros(1, 3, 16, 16))
        expected, value, _ = read(module, place, x)
        torch.testing.assert_close(forward_from_tap(module, place, value, torch.zeros(1, 3, 16, 16)), expected)


@vision
@pytest.mark.parametrize(
    ("library", "name", "side", "options"),
    [
        ("timm", "resnet18", 32, {}),
        ("timm", "mobilenetv3_small_050", 32, {}),
        ("timm", "convnext_atto", 32, {}),
        ("timm", "swin_tiny_patch4_window7_224", 32, {"img_size": 32, "embed_dim": 24, "window_size": 2}),
        ("timm", "vit_tiny_patch16_224", 64, {"img_size": 64, "depth": 4}),
        ("timm", "vit_tiny_patch16_224", 64, {"img_size": 64, "depth": 4, "class_token": False, "global_pool": "avg"}),
        ("torchvision", "resnet18", 32, {}),
        ("torchvision", "squeezenet1_1", 64, {}),
        ("torchvision", "mobilenet_v2", 32, {}),
    ],
)
def test_the_libraries_replay_themselves(library: str, name: str, side: int, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    module = models.create(f"{library}:{name}", 7, **options).eval()
    for parameter in module.parameters():  # some heads start at zero
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    blank = torch.zeros(1, 3, side, side)
    seen = survey(module, blank)
    *inner, last = (stage.name for stage in seen.stages)
    for place in (inner[-1], seen.penultimate):
        assert place
        assert check_forward_from_tap(module, place, blank)
    if seen.layout(last).prefix:  # a class token is read, and nothing attends to the map any more
        with pytest.raises(UserError, match="reads only the tokens in front"):
            check_forward_from_tap(module, last, blank)
    else:
        assert check_forward_from_tap(module, last, blank)


@pytest.mark.parametrize("place", ["norm", "relu", "b", "fc:input", "b:input"])
def test_gradients_reach_the_value_alone(place: str) -> None:
    module = Plain()
    x = torch.randn(4, 3, 8, 8)
    expected, value, layout = read(module, place, x)
    before = hooks(module)
    module.train()
    module.fc.weight.requires_grad_(False)
    learning = [p.requires_grad for p in module.parameters()]
    buffers = [b.clone() for b in module.buffers()]
    given = value.clone().requires_grad_()
    prediction = forward_from_tap(module, place, given, BLANK)
    torch.testing.assert_close(prediction.detach(), expected)  # in evaluation mode, whatever mode it is in
    prediction.square().sum().backward()
    assert torch.equal(given.detach(), value)
    assert all(p.grad is None for p in module.parameters())
    assert learning == [p.requires_grad for p in module.parameters()]
    assert all(m.training for m in module.modules())
    assert all(torch.equal(a, b) for a, b in zip(buffers, module.buffers(), strict=True))
    assert hooks(module) == before
    # The slope by finite differences, from the layers behind the tap alone.
    step = 1e-3 * torch.randn_like(value)
    with torch.no_grad():
        up, down = (forward_from_tap(module, place, value + s * step, BLANK).square().sum() for s in (1, -1))
    assert given.grad is not None
    torch.testing.assert_close(((up - down) / 2).item(), (given.grad * step).sum().item(), rtol=2e-2, atol=1e-5)
    if layout.kind == "vector":
        torch.testing.assert_close(forward_from_tap(module, place, value.flatten(1), BLANK), expected)


def test_what_passes_by_is_found() -> None:
    with pytest.raises(UserError, match=r"mentor 'x': its prediction does not depend on tap 'b' alone \(a skip"):
        check_forward_from_tap(Skip(), "b", BLANK, "mentor 'x'")
    assert check_forward_from_tap(Skip(), "norm", BLANK)
    assert check_forward_from_tap(Skip(), "fc:input", BLANK)
    blind = Plain()
    nn.init.zeros_(blind.b.weight)
    with pytest.raises(UserError, match="Plain: its prediction reads nothing there at tap 'relu'"):
        check_forward_from_tap(blind, "relu", BLANK)


def test_a_network_that_counts_its_batch() -> None:
    module = Counting()
    assert check_forward_from_tap(module, "a", BLANK) is False
    expected, value, _ = read(module, "a", torch.randn(4, 3, 8, 8))
    torch.testing.assert_close(forward_from_tap(module, "a", value, BLANK, thin=False), expected)


def test_other_layouts_and_tuples() -> None:
    module, blank = Last(), torch.zeros(1, 3, 16, 16)
    expected, value, layout = read(module, "pair", torch.randn(4, 3, 16, 16))
    assert layout == Layout("nhwc", 4, 8, 8)
    assert value.shape == (4, 4, 8, 8)
    torch.testing.assert_close(forward_from_tap(module, "pair", value, blank), expected)
    assert check_forward_from_tap(module, "pair", blank)
    assert check_forward_from_tap(module, "dense", blank)


def test_only_the_part_behind_the_tap_sees_the_batch() -> None:
    module, batches = Plain(), []
    for name in ("a", "relu", "fc"):
        module.get_submodule(name).register_forward_hook(lambda _, __, output: batches.append(output.shape[0]))
    _, value, _ = read(module, "norm", torch.randn(9, 3, 8, 8))
    batches.clear()
    forward_from_tap(module, "norm", value, BLANK)
    assert batches == [1, 9, 9]


@pytest.mark.parametrize("where", ["a", "relu"])
def test_beside_readers_and_around_other_passes(where: str) -> None:
    module, x = Plain().eval(), torch.randn(4, 3, 8, 8)
    reader = TapReader(module, ["a", "norm"])
    expected, taps = reader(x)
    others, other_taps = reader(x + 1)
    inner: list[Tensor] = []

    def meanwhile(*_: object) -> None:  # before or behind the tap, once
        if not inner:
            inner.append(expected)
            inner.append(forward_from_tap(module, "a", other_taps["a"], BLANK))
            if where == "relu":
                inner.append(module(x + 1))

    handle = module.get_submodule(where).register_forward_hook(meanwhile)
    torch.testing.assert_close(forward_from_tap(module, "norm", taps["norm"], BLANK), expected)
    handle.remove()
    for said in inner[1:]:
        torch.testing.assert_close(said, others)
    assert torch.equal(reader(x)[0], expected)


def test_precisions_are_the_networks() -> None:
    module = Plain().to(torch.bfloat16)
    _, value, _ = read(module, "norm", torch.randn(4, 3, 8, 8, dtype=torch.bfloat16))
    given = value.float().requires_grad_()
    prediction = forward_from_tap(module, "norm", given, BLANK.bfloat16())
    assert prediction.dtype == torch.bfloat16
    prediction.sum().backward()
    assert given.grad is not None
    assert check_forward_from_tap(module, "norm", BLANK.bfloat16())


@pytest.mark.parametrize("how", ["outside", "inside", "in place"])
def test_compiled_networks_replay(how: str) -> None:
    torch.compiler.reset()
    module: nn.Module = nn.Sequential(Plain()).eval()
    expected, value, _ = read(copy.deepcopy(module), "0.norm", torch.randn(4, 3, 8, 8))  # no hook in the compiled one
    if how == "outside":
        module = torch.compile(module, backend="eager")
    elif how == "inside":
        module[0] = torch.compile(module[0], backend="eager")
    else:
        module.compile(backend="eager")
    with torch.no_grad():
        before = module(BLANK)
        assert [stage.name for stage in survey(module, BLANK).stages] == ["0.relu", "0.b"]
        assert check_forward_from_tap(module, "0.norm", BLANK)
        torch.testing.assert_close(forward_from_tap(module, "0.norm", value, BLANK), expected)
        torch.testing.assert_close(module(BLANK), before)


def test_mistakes() -> None:
    module = Plain()
    for place, value, message in (
        ("norm", torch.zeros(2, 4, 3, 3), r"mentor 'x' holds 4x4x4 a sample, the given activation 4x3x3"),
        ("fc:input", torch.zeros(2, 5), "holds 6x1x1 a sample, the given activation 5x1x1"),
        ("nrm", torch.zeros(2, 4, 4, 4), "did you mean 'norm'"),
    ):
        with pytest.raises(UserError, match=message):
            forward_from_tap(module, place, value, BLANK, what="mentor 'x'")
    module.unused = nn.ReLU()
    with pytest.raises(UserError, match="did not run"):
        forward_from_tap(module, "unused", torch.zeros(1, 4, 4, 4), BLANK)
    with pytest.raises(UserError, match="runs 0 times"):
        check_forward_from_tap(module, "unused", BLANK)
    assert hooks(module) == 0
