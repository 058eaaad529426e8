"""Folding BatchNorms: what is folded, what must not be, and that nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classroomkd import _compat, models
from classroomkd.models.folding import fold
from classroomkd.models.pairs import TOLERANCE, relative_error, tensors_in
from classroomkd.taps.taps import TapReader

vision = pytest.mark.skipif(
    not (_compat.installed("timm") and _compat.installed("torchvision")), reason="needs timm and torchvision"
)
# The fold is exact, so in float64 rounding alone is left: sums of K <= 3,072 terms are off by K roundings of 1.1e-16
# of their terms' sizes, which together are up to a hundred times their sum: 4e-11 a layer in the worst order, of 56.
EXACT = 1e-8
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def stirred(module: nn.Module) -> nn.Module:
    """Statistics and factors of a trained network's kind; fresh ones would hide a wrong fold."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                size = layer.running_mean.shape
                layer.running_mean.copy_(torch.randn(size, generator=generator) * 0.3)
                layer.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
                if layer.affine:
                    layer.weight.copy_(torch.rand(size, generator=generator) + 0.5)
                    layer.bias.copy_(torch.randn(size, generator=generator) * 0.3)
    return module.eval()


@torch.no_grad()
def check(module: nn.Module, expected: int, pixels: Tensor = PIXELS, **options: object) -> nn.Module:
    """Fold; compare answers, count and the original, which must not change.

    In float32 the answers may differ as much as :func:`fold` promises, in float64 by no more than :data:`EXACT`.
    """
    double = copy.deepcopy(module).double()
    copied = fold(double, torch.zeros(1, *pixels.shape[1:]), **options)  # type: ignore[arg-type]
    folded, count = copied.module, copied.count
    assert count == expected
    said, wanted = (tensors_in(m(pixels.double())) for m in (folded, double.eval()))
    assert relative_error(said, wanted) <= EXACT

    before = copy.deepcopy(module.state_dict())
    random = torch.get_rng_state()
    copied = fold(module, torch.zeros(1, *pixels.shape[1:]), **options)  # type: ignore[arg-type]
    folded, count = copied.module, copied.count
    assert count == expected
    assert relative_error(tensors_in(folded(pixels)), tensors_in(module.eval()(pixels))) <= TOLERANCE
    norms = [sum(isinstance(layer, _BatchNorm) for layer in m.modules()) for m in (module, folded)]
    assert norms[0] - norms[1] == count
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(m.training for m in folded.modules())
    hooks = [sum(len(x._forward_hooks) + len(x._forward_pre_hooks) for x in m.modules()) for m in (module, folded)]
    assert hooks[0] == hooks[1]
    assert {n for n, _ in module.named_modules()} == {n for n, _ in folded.named_modules()}
    return folded


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet20", 21), ("wrn_16_1", 6), ("vgg8", 5), ("mobilenetv2", 53), ("shufflenetv1", 49), ("shufflenetv2", 56),
     ("convnet8", 3), ("dwnet8", 8)],
)  # fmt: skip
def test_zoo(name: str, count: int) -> None:
    check(stirred(models.create(name, 10)), count)


@vision
@pytest.mark.parametrize(
    ("name", "count"),
    [("timm:resnet18", 20), ("timm:mobilenetv3_small_050", 34), ("timm:efficientnet_lite0", 49),
     ("timm:tf_mobilenetv3_small_minimal_100", 34), ("torchvision:resnet18", 20),
     ("torchvision:mobilenet_v3_small", 34), ("torchvision:shufflenet_v2_x0_5", 56)],
)  # fmt: skip
def test_libraries(name: str, count: int) -> None:
    # BatchNorms with activations inside, padding convolutions, activations in place, squeeze and excitation
    check(stirred(models.resolve(name, 5)), count)


class Net(nn.Module):
    """One convolution and one BatchNorm, joined as the test likes."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.conv, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.bn, self.drop, self.same = nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Identity()
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(self, self.how)(x)
        return self.fc(x.mean((2, 3)))

    def plain(self, x: Tensor) -> Tensor:
        return F.relu_(self.bn(self.conv(x)))

    def passed(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        assert x.shape[1] == 4
        return self.bn(self.same(self.drop(x)))

    def shared_norm(self, x: Tensor) -> Tensor:
        return self.bn(self.other(self.bn(self.conv(x))))

    def shared_conv(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.conv(x.flip(3))

    def skip(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.bn(x) + x

    def late(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + F.relu(y)

    def between(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.conv(x)))

    def in_place(self, x: Tensor) -> Tensor:
        return self.bn(F.relu_(self.conv(x)))

    def added(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x += 1.0
        return self.bn(x)

    def written(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x[:, 0] = 0.0
        return self.bn(x)

    def viewed(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = x[:, :2]
        return self.bn(x) + y.mean(1, keepdim=True)

    def asked(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn.weight.view(1, -1, 1, 1)

    def first(self, x: Tensor) -> Tensor:
        return self.other(self.bn(self.conv(x).relu()))


@pytest.mark.parametrize(
    ("how", "count"),
    [("plain", 1), ("passed", 1), ("shared_norm", 0), ("shared_conv", 0), ("skip", 0), ("late", 0), ("between", 0),
     ("in_place", 0), ("added", 0), ("written", 0), ("viewed", 0), ("asked", 0), ("first", 0)],
)  # fmt: skip
def test_hand_written(how: str, count: int) -> None:
    check(stirred(Net(how)), count)


class Standardised(nn.Conv2d):
    """Its weights are not what it computes with."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class Active(nn.BatchNorm2d):
    """An activation inside, as a function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


@pytest.mark.parametrize(
    ("layers", "count"),
    [
        ([nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)], 1),
        ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)], 1),
        ([nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)], 1),
        ([nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)], 1),
        ([nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)], 0),
        ([nn.Flatten(), nn.Linear(3072, 6), nn.BatchNorm1d(6)], 1),
        ([nn.Flatten(2), nn.Linear(1024, 3), nn.BatchNorm1d(3)], 0),  # it normalises another axis
        ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)], 0),
        ([Standardised(3, 4, 3), nn.BatchNorm2d(4)], 0),
        ([nn.Conv2d(3, 4, 3), Active(4)], 0),
        ([nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)], 0),
        ([nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)], 0),
        ([nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)).eval(), nn.BatchNorm2d(4)], 0),
    ],
)
def test_kinds_of_layers(layers: list[nn.Module], count: int) -> None:
    check(stirred(nn.Sequential(*layers)), count)


def test_many_and_one_kept() -> None:
    """One pair that may not be folded does not keep the others from it."""

    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            return Net.skip(self, self.second(x))

    module = Two("skip")
    module.second = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    folded = check(stirred(module), 1)
    assert isinstance(folded.bn, nn.BatchNorm2d)


def test_kept_places() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3))
    module = stirred(nn.Sequential(inner, nn.BatchNorm2d(4), nn.ReLU(inplace=True)))
    copied = fold(module, PIXELS[:1])
    assert copied.count == 1
    assert copied.changed == {"0", "0.0", "1:input"}
    for place in copied.changed:
        assert check(module, 0, keep=[place])
    folded = check(module, 1, keep=["1", "2:input", "0:input", "0.0:input"])  # these do not change
    for place in ("1", "2", "2:input"):
        caught = [TapReader(copy.deepcopy(m), [place])(PIXELS)[1][place] for m in (module, folded)]
        torch.testing.assert_close(caught[1], caught[0])


def test_aliases_hooks_and_weights_in_common() -> None:
    class Tied(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x)) + self[2](x)

    tied = stirred(Tied(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3)))
    tied[2].weight = tied[0].weight
    check(tied, 1)
    alias = Net("plain")
    alias.also = nn.ModuleDict({"norm": alias.bn})
    folded = check(stirred(alias), 1)
    assert folded.also["norm"] is folded.bn
    held = Net("plain")
    held.__dict__["plain"] = nn.Sequential(held.conv, held.bn)  # a way past the names: the copy keeps its BatchNorm
    assert fold(stirred(held), PIXELS).count == 0
    seen: list[int] = []
    hooked = stirred(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    hooked[0].register_forward_hook(lambda _, __, output: seen.append(len(output)))
    assert fold(hooked, PIXELS).count == 0


def test_broken_halves_and_refusals() -> None:
    broken = stirred(models.create("resnet8", 10))
    with torch.no_grad():
        broken.fc.bias[0] = float("nan")
    assert fold(broken, PIXELS).count == 0
    half = stirred(models.create("resnet8", 10)).bfloat16()
    copied = fold(half, PIXELS.bfloat16())
    folded, count = copied.module, copied.count
    assert count == 9
    assert {p.dtype for p in folded.parameters()} == {torch.bfloat16}
    assert fold(models.create("vgg8", 10), torch.zeros(1, 5, 32, 32)).count == 0  # it takes no such inputs
    training = models.create("resnet8", 10)
    assert training.training
    assert not fold(training, PIXELS).module.training
    assert training.training
