"""Pose networks: answers, sizes, gradients, how they start, folding and cost."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classroomkd import _compat
from classroomkd.errors import UserError
from classroomkd.models import multiply_adds, parameters
from classroomkd.models.folding import fold
from classroomkd.models.pairs import relative_error
from classroomkd.models.pose import mentor_only, pose_table, resolve_pose
from classroomkd.models.pose.heads import DeconvHead, marginals
from classroomkd.models.pose.rtmpose import GatedAttention, ScaleNorm
from classroomkd.taps.taps import TapReader

BUILT_IN = [f"{kind}_{size}" for kind in ("simcc", "heatmap") for size in ("tiny", "small", "base")]
needs_timm = pytest.mark.skipif(not _compat.installed("timm"), reason="timm is not installed")
ON_TIMM = [
    "simcc:timm:mobilenetv3_small_050",
    "heatmap:timm:mobilenetv3_small_050",
    "heatmap:timm:hrnet_w18_small",
    "simcc:timm:swin_tiny_patch4_window7_224",  # channels last, and a size given to the library
    "heatmap:timm:vit_tiny_patch16_224",
    "rtmpose_t",
]


def answer_shape(network: nn.Module, joints: int, size: tuple[int, int]) -> tuple[int, ...]:
    said = network.pose_head
    if said["kind"] == "simcc":
        return joints, round(size[1] * said["split"]) + round(size[0] * said["split"])
    return joints, size[0] // said["stride"], size[1] // said["stride"]


def built(spec: str, size: tuple[int, int], joints: int = 5, device: str = "cpu", **options: int) -> nn.Module:
    torch.manual_seed(0)
    with torch.device(device):
        return resolve_pose(spec, joints, size, **options)


@pytest.mark.parametrize("row", pose_table(), ids=lambda row: row["name"])
def test_parameters_are_those_of_the_table(row: dict[str, object]) -> None:
    if row["needs"] and not _compat.installed("timm"):
        pytest.skip("timm is not installed")
    network = built(str(row["name"]), row["size"], joints=17, device="meta")  # type: ignore[arg-type]
    assert parameters(network) == row["parameters"]


def test_sizes_are_as_promised() -> None:
    count = {row["name"]: row["parameters"] for row in pose_table()}
    assert 30_000 < count["heatmap_tiny"] < count["simcc_tiny"] < 100_000
    assert 1e6 < count["heatmap_base"] < count["simcc_base"] < 2e6
    published = {"rtmpose_t": 3.34, "rtmpose_s": 5.47, "rtmpose_m": 13.59, "rtmpose_l": 27.66}
    published |= {"simplebaseline_r50": 34.0, "hrnet_w32": 28.5, "hrnet_w48": 63.6}
    for name, millions in published.items():
        assert abs(count[name] / 1e6 - millions) < 0.06, name
    cost = {
        name: multiply_adds(built(name, (64, 64), 17, "meta"), (3, 64, 64)) for name in ("simcc_tiny", "simcc_base")
    }
    assert cost["simcc_tiny"] < 5e6
    assert cost["simcc_base"] < 10 * cost["simcc_tiny"]


@pytest.mark.parametrize("spec", BUILT_IN)
@pytest.mark.parametrize("size", [(64, 64), (96, 72), (128, 96), (16, 20), (65, 50)])
def test_built_in_answers(spec: str, size: tuple[int, int]) -> None:
    if spec.startswith("heatmap") and any(side % 4 for side in size):
        with pytest.raises(UserError, match="multiples of 4, not 65x50"):
            built(spec, size, device="meta")
        return
    network = built(spec, size, device="meta")
    for batch in (1, 3):
        answer = network.eval()(torch.zeros(batch, 3, *size, device="meta"))
        assert tuple(answer.shape) == (batch, *answer_shape(network, 5, size))


@pytest.mark.parametrize("spec", [*BUILT_IN, *(pytest.param(spec, marks=needs_timm) for spec in ON_TIMM)])
def test_every_parameter_learns(spec: str) -> None:
    size = (64, 64)
    network = built(spec, size, in_channels=1)
    answer = network(torch.randn(2, 1, *size))
    assert tuple(answer.shape) == (2, *answer_shape(network, 5, size))
    (answer - torch.randn(answer.shape)).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert not any(getattr(layer, "inplace", False) is True for layer in network.modules())


@pytest.mark.parametrize("spec", ["simcc_tiny", pytest.param("rtmpose_t", marks=needs_timm)])
def test_the_head_reads_the_bodys_map(spec: str) -> None:
    network = built(spec, (64, 64)).eval()
    answer, found = TapReader(network, ["head:input"])(torch.randn(2, 3, 64, 64))
    assert found["head:input"].dim() == 4
    assert torch.equal(network.head(found["head:input"]), answer)  # type: ignore[operator]


def test_a_simcc_network_takes_its_own_size_only() -> None:
    network = built("simcc_tiny", (64, 64)).eval()
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 3, 64, 72))


def test_a_simcc_head_starts_as_marginals() -> None:
    rows, columns, size = 8, 6, (64, 48)
    weights = marginals((rows, columns), size)
    for row, column in ((0, 0), (3, 5), (7, 2)):
        one = torch.zeros(rows, columns)
        one[row, column] = 1.0
        bins = weights @ one.flatten()
        x, y = bins[:96].argmax() / 2, bins[96:].argmax() / 2
        assert abs(x - column * 47 / 5) <= 0.25
        assert abs(y - row * 63 / 7) <= 0.25


@pytest.mark.parametrize("spec", ["heatmap_tiny", pytest.param("heatmap:timm:resnet10t", marks=needs_timm)])
def test_heatmaps_start_near_nothing(spec: str) -> None:
    with torch.no_grad():
        assert built(spec, (64, 64)).eval()(torch.randn(4, 3, 64, 64)).abs().max() < 0.1


def test_simcc_tiny_learns() -> None:
    torch.manual_seed(0)
    network = built("simcc_tiny", (32, 32), joints=2)
    places = torch.randint(4, 28, (32, 2, 2))
    x = torch.zeros(32, 3, 32, 32)
    for joint in range(2):
        x[torch.arange(32), joint, places[:, joint, 1], places[:, joint, 0]] = 5.0
    x = nn.functional.avg_pool2d(x, 5, 1, padding=2) * 10
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    target = torch.cat([nn.functional.one_hot(2 * places[..., axis], 64) for axis in (0, 1)], -1).float()
    for _ in range(60):
        answer = network(x)
        halves = zip(answer.split(64, -1), target.split(64, -1), strict=True)
        loss = -sum(((10 * a).log_softmax(-1) * t).sum(-1).mean() for a, t in halves)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimiser.step()
    found = torch.stack([half.argmax(-1) / 2 for half in answer.split(64, -1)], -1)
    assert (found - places).norm(dim=-1).median() < 1.0


def stirred(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                size = layer.num_features
                layer.running_mean.copy_(torch.randn(size, generator=generator) * 0.3)  # type: ignore[union-attr]
                layer.running_var.copy_(torch.rand(size, generator=generator) + 0.5)  # type: ignore[union-attr]
                layer.bias.copy_(torch.randn(size, generator=generator) * 0.3)
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.std() < 0.002:
                layer.weight.mul_(30)
    return module.eval()


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        ("simcc_base", 1),  # the stem pools between
        ("heatmap_base", 1),
        pytest.param("heatmap:timm:resnet10t", 0, marks=needs_timm),
        pytest.param("heatmap:timm:hrnet_w18_small", 0, marks=needs_timm),
        pytest.param("rtmpose_t", 0, marks=needs_timm),
    ],
)
def test_folding(spec: str, left: int) -> None:
    network = stirred(built(spec, (64, 64)))
    folded = fold(network, torch.zeros(1, 3, 64, 64))
    norms = sum(isinstance(layer, _BatchNorm) for layer in network.modules())
    assert folded.count == norms - left > 0
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert relative_error([folded.module(pixels)], [network(pixels)]) < 1e-5


def test_transposed_convolutions_are_folded_and_counted() -> None:
    network = stirred(nn.Sequential(DeconvHead(4, 3, count=2, width=8)))
    folded = fold(network, torch.zeros(1, 4, 5, 3))
    x = torch.randn(2, 4, 5, 3)
    with torch.no_grad():
        assert folded.count == 2
        assert relative_error([folded.module(x)], [network(x)]) < 1e-6
        assert not torch.equal(network(x), network(x.flip(0)))
    # each input number meets 16 weights an output channel
    assert multiply_adds(network, (4, 5, 3)) == 15 * 4 * 16 * 8 + 60 * 8 * 16 * 8 + 240 * 8 * 3


def test_scale_norm() -> None:
    x = torch.randn(4, 9)
    said = ScaleNorm()(7.0 * x)
    assert torch.allclose(said.square().mean(-1), torch.ones(4), atol=1e-5)
    assert torch.isfinite(ScaleNorm()(torch.zeros(1, 9))).all()


def test_gated_attention() -> None:
    torch.manual_seed(0)
    unit = GatedAttention(6, shared=4)
    x = torch.randn(2, 3, 6)
    order = [2, 0, 1]  # no joint has a place of its own
    assert torch.allclose(unit(x)[:, order], unit(x[:, order]), atol=1e-6)
    u, v, b = torch.nn.functional.silu(unit.project(x / x.square().mean(-1, keepdim=True).sqrt())).split(
        [12, 12, 4], -1
    )
    mixed = torch.zeros(2, 3, 12)
    for i in range(3):
        for j in range(3):
            q, k = b[:, i] * unit.gamma[0] + unit.beta[0], b[:, j] * unit.gamma[1] + unit.beta[1]
            mixed[:, i] += ((q * k).sum(-1) / math.sqrt(4)).clamp_min(0).square()[:, None] * v[:, j]
    assert torch.allclose(unit(x), x + unit.out(u * mixed), atol=1e-5)


class TestViTPose:
    """Against a stand-in with the interface of transformers, which is not needed to be installed."""

    @pytest.fixture(autouse=True)
    def _library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Network(nn.Module):
            def __init__(self, name: str) -> None:
                super().__init__()
                body = SimpleNamespace(image_size=[64, 48], patch_size=[16, 16], num_experts=6 if "plus" in name else 1)
                self.config = SimpleNamespace(num_labels=17, scale_factor=4, backbone_config=body)
                self.conv = nn.Conv2d(3, 17, 4, 4)

            @classmethod
            def from_pretrained(cls, name: str, use_safetensors: bool) -> Network:
                assert use_safetensors
                if "missing" in name:
                    raise OSError("We could not connect\nto anything")
                return cls(name)

            def forward(self, pixels: Tensor, dataset_index: Tensor | None = None) -> SimpleNamespace:
                assert (dataset_index is not None) == (self.config.backbone_config.num_experts > 1)
                return SimpleNamespace(heatmaps=self.conv(pixels))

        library = type(sys)("transformers")
        library.VitPoseForPoseEstimation = Network  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "transformers", library)

    @pytest.mark.parametrize("name", ["base", "plus"])
    def test_answers(self, name: str) -> None:
        network = resolve_pose(f"vitpose:org/{name}", 17, (64, 48))
        assert network(torch.zeros(2, 3, 64, 48)).shape == (2, 17, 16, 12)
        assert network.pose_head == {"kind": "heatmap", "stride": 4}
        assert not any(p.requires_grad for p in network.parameters())
        assert mentor_only(f"vitpose:org/{name}")

    @pytest.mark.parametrize(
        ("name", "joints", "size", "channels", "said"),
        [
            ("org/missing", 17, (64, 48), 3, "'vitpose:org/missing' cannot be loaded: We could not connect$"),
            ("org/base", 16, (64, 48), 3, "finds 17 joints, not 16"),
            ("org/base", 17, (64, 64), 3, r"set the mentor's size: \[64, 48\]"),
            ("org/base", 17, (64, 48), 1, "takes crops of 3 x 64 x 48, not 1 x 64 x 48"),
        ],
    )
    def test_refusals(self, name: str, joints: int, size: tuple[int, int], channels: int, said: str) -> None:
        with pytest.raises(UserError, match=said):
            resolve_pose(f"vitpose:{name}", joints, size, in_channels=channels)

    def test_old_versions_say_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(sys.modules["transformers"], "VitPoseForPoseEstimation")
        with pytest.raises(UserError, match="the installed transformers has no ViTPose"):
            resolve_pose("vitpose:org/base", 17, (64, 48))
