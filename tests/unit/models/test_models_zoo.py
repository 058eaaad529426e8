"""The zoo is the literature's: exact sizes, costs, shapes, and nothing that would spoil a tap."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd._compat import installed

# parameters at 100 classes, M multiply-adds at 32x32 (None: not published)
PUBLISHED: dict[str, tuple[int, float | None]] = {
    "resnet8": (83_892, 12.5),
    "resnet14": (181_108, 26.7),
    "resnet20": (278_324, 40.8),
    "resnet32": (472_756, 69.1),
    "resnet44": (667_188, None),
    "resnet56": (861_620, 125.8),
    "resnet110": (1_736_564, 253.2),
    "resnet8x4": (1_233_540, None),
    "resnet32x4": (7_433_860, 1083),
    "wrn_16_1": (180_916, None),
    "wrn_16_2": (703_284, 101),
    "wrn_40_1": (569_780, 83),
    "wrn_40_2": (2_255_156, 328),
    "wrn_16_8": (11_007_540, 1548),
    "wrn_28_10": (36_536_884, 5243),
    "vgg8": (3_965_028, 96),
    "vgg11": (9_277_284, None),
    "vgg13": (9_462_180, 285),
    "vgg16": (14_774_436, None),
    "vgg19": (20_086_692, None),
    "mobilenetv2": (812_836, 6.5),
    "shufflenetv1": (949_258, 38.7),
    "shufflenetv2": (1_355_528, 44.5),
    "resnet18c": (11_220_132, None),
    "resnet34c": (21_328_292, 1159),
    "resnet50c": (23_705_252, 1298),
}
ONE_PER_FAMILY = ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2", "convnet8", "dwnet8"]


def on_meta(name: str, **options: int) -> nn.Module:
    """The network without memory for its weights: shapes and counts only."""
    with torch.device("meta"):
        return models.create(name, **options)


def test_every_published_network_is_there() -> None:
    assert set(PUBLISHED) <= set(models.names())


@pytest.mark.parametrize("name", models.names())
def test_parameters_are_exact(name: str) -> None:
    row = next(row for row in models.table() if row["name"] == name)
    count = models.parameters(on_meta(name))
    assert count == row["parameters"]
    assert count == PUBLISHED.get(name, (count,))[0]


@pytest.mark.parametrize(("name", "expected"), [(name, cost) for name, (_, cost) in PUBLISHED.items() if cost])
def test_multiply_adds_are_those_of_the_literature(name: str, expected: float) -> None:
    assert models.multiply_adds(on_meta(name), (3, 32, 32)) / 1e6 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", ["convnet4", "convnet8", "convnet12", "dwnet8", "dwnet16"])
def test_tiny_networks_stay_tiny(name: str) -> None:
    module = on_meta(name, num_classes=10)
    assert models.parameters(module) < 20_000
    assert models.multiply_adds(module, (3, 48, 48)) < 600_000


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
@pytest.mark.parametrize("side", [8, 28, 33, 48, 64])
def test_any_side_from_8_pixels(name: str, side: int) -> None:
    module = models.create(name, num_classes=7, in_channels=1).eval()
    with torch.no_grad():
        logits_BC = module(torch.randn(2, 1, side, side))
    assert logits_BC.shape == (2, 7)
    assert logits_BC.isfinite().all()


@pytest.mark.parametrize("name", ["wrn_28_10", "vgg19", "resnet18c", "resnet50c", "resnet110", "convnet32", "dwnet32"])
def test_the_others_take_small_and_oblong_images(name: str) -> None:
    assert on_meta(name, num_classes=5, in_channels=4)(torch.zeros(1, 4, 8, 24, device="meta")).shape == (1, 5)


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    module = models.create(name, num_classes=3)
    nn.functional.cross_entropy(module(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    for key, parameter in module.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, key
        assert gradient.isfinite().all(), key
        # A bias before a batch normalisation is taken out again: its gradient is rounding.
        if not (name == "vgg8" and key.endswith(".0.bias")):
            assert gradient.abs().max() > 0, key


@pytest.mark.parametrize("name", [*ONE_PER_FAMILY, "resnet18c", "timm:resnet10t", "torchvision:mobilenet_v3_small"])
def test_an_output_that_changes_after_a_hook_saw_it_is_marked(name: str) -> None:
    if ":" in name and not installed(name.partition(":")[0]):
        pytest.skip("not installed")
    torch.manual_seed(0)
    module = models.create(name, num_classes=3).eval()
    seen: list[tuple[str, Tensor, Tensor]] = []

    def watch(key: str, layer: nn.Module) -> None:
        def hook(layer: nn.Module, inputs: object, output: Tensor) -> None:
            seen.append((key, output, output.clone()))

        layer.register_forward_hook(hook)

    for key, layer in module.named_modules():
        watch(key, layer)
    with torch.no_grad():
        module(torch.randn(1, 3, 32, 32))
    assert len(seen) > 5
    changed = {key for key, kept, then in seen if not torch.equal(kept, then)}
    assert changed == {row["name"] for row in models.summary(module, (3, 32, 32)) if row["overwritten"]}
    if ":" not in name:
        assert not changed
    # A library's `x += shortcut` stays, but no activation overwrites what a convolution said.
    assert not [key for key in changed if isinstance(module.get_submodule(key), nn.Conv2d)]


@pytest.mark.parametrize(
    ("name", "side", "tap", "shape"),
    [
        ("resnet20", 32, "layer1", (16, 32, 32)),
        ("resnet20", 32, "layer3", (64, 8, 8)),
        ("resnet8x4", 48, "layer2", (128, 24, 24)),
        ("wrn_16_2", 32, "block3", (128, 8, 8)),
        ("vgg13", 32, "block4", (512, 4, 4)),
        ("vgg13", 64, "block4", (512, 4, 4)),
        ("vgg13", 48, "block4", (512, 6, 6)),
        ("mobilenetv2", 32, "conv2", (1280, 2, 2)),
        ("shufflenetv1", 32, "layer3", (960, 4, 4)),
        ("shufflenetv2", 32, "conv2", (1024, 4, 4)),
        ("resnet50c", 32, "layer4", (2048, 4, 4)),
        ("convnet16", 48, "stem", (16, 12, 12)),
        ("convnet16", 48, "stage3", (64, 3, 3)),
    ],
)
def test_stages_work_where_the_tables_say(name: str, side: int, tap: str, shape: tuple[int, ...]) -> None:
    rows = models.summary(on_meta(name), (3, side, side))
    assert next(row for row in rows if row["name"] == tap)["output_shape"] == shape


def test_wide_resnet_activates_before_the_projecting_shortcut() -> None:
    """Pre-activation: where the width changes, both branches start from the activated input."""
    module = models.create("wrn_16_1", num_classes=2).eval()
    block = module.get_submodule("block2.layer.0")
    inputs: list[Tensor] = []
    block.get_submodule("convShortcut").register_forward_hook(lambda layer, given, output: inputs.append(given[0]))
    with torch.no_grad():
        module(torch.randn(1, 3, 16, 16))
    assert inputs[0].min() == 0


def test_channel_shuffle_deals_channels_out() -> None:
    from classroomkd.models.zoo.shufflenetv1 import channel_shuffle

    x_BCHW = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(x_BCHW, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x_BCHW, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_initial_weights_follow_the_seed_and_kaiming() -> None:
    torch.manual_seed(3)
    first = models.create("resnet8x4")
    torch.manual_seed(3)
    again = models.create("resnet8x4")
    weight = first.get_submodule("layer3.0").conv2.weight
    assert torch.equal(weight, again.get_submodule("layer3.0").conv2.weight)
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("resnet8", "conv1.weight layer2.0.downsample.1.running_mean layer3.0.bn2.bias fc.bias"),
        ("wrn_16_1", "block1.layer.0.bn1.weight block2.layer.0.convShortcut.weight bn1.bias fc.weight"),
        ("vgg11", "block0.0.bias block2.3.weight block2.4.running_var classifier.weight"),
        ("mobilenetv2", "conv1.1.bias blocks.2.1.conv.7.weight conv2.0.weight classifier.0.bias"),
        ("shufflenetv1", "bn1.weight layer2.0.conv3.weight layer1.3.bn2.bias linear.weight"),
        ("shufflenetv2", "layer1.0.conv5.weight layer2.6.bn3.bias conv2.weight linear.bias"),
        ("resnet50c", "layer1.0.shortcut.0.weight layer4.2.bn3.bias linear.weight"),
        ("convnet8", "stem.0.weight stage1.1.bias fc.weight"),
    ],
)
def test_checkpoints_keep_the_names_of_the_benchmarks(name: str, keys: str) -> None:
    """Published checkpoints load, and so do those that older versions of us wrote."""
    assert set(keys.split()) <= set(on_meta(name).state_dict())


def test_the_table_is_readable_without_torch() -> None:
    code = (
        "import sys, classroomkd.models as models; rows = models.table(); "
        "assert len(rows) == len(models.names()) > 30 and set(rows[0]) == {'name', 'family', 'parameters'}; "
        "assert 'resolve' in dir(models); "
        "print([name for name in ('torch', 'numpy', 'timm', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
