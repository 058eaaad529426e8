"""Names to pose networks: what is found, what is refused, and whether the sentence says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from classroomkd import _compat
from classroomkd.errors import UserError
from classroomkd.models.pose import check_pose, mentor_only, pose_names, pose_table, resolve_pose

needs_timm = pytest.mark.skipif(not _compat.installed("timm"), reason="timm is not installed")
SIZE = (64, 48)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("simc_tiny", "did you mean 'simcc_tiny'?"),
        ("simcc:tiny", "did you mean 'simcc_tiny'?"),
        ("hrnet_w23", "did you mean 'hrnet_w32'?"),
        ("wrn_40_2", "it is a network for classification"),
        ("qqqqqq", "unknown pose network 'qqqqqq'; known are simcc_tiny, "),
        ("", "unknown pose network ''"),
        ("simc:timm:resnet18", "unknown kind of pose network 'simc:'"),
        ("simc:timm:resnet18", "did you mean 'simcc'?"),
        ("zz:x/y", "(known: simcc:, heatmap:, vitpose:, py:)"),
        ("simcc:tim:resnet18", "did you mean 'timm'?"),
        ("simcc:torchvision:resnet18", "takes a body of timm, as in simcc:timm:resnet18"),
        ("simcc:", "takes a body of timm"),
        ("heatmap:timm:", "takes a body of timm"),
        ("simcc:resnet18", "did you mean 'simcc:timm:resnet18'?"),
        ("timm:resnet18", "called simcc:timm:resnet18 or heatmap:timm:resnet18"),
        ("py:nets", "py:package.module:factory"),
        ("vitpose:base", "is not of the form vitpose:ORG/NAME"),
        ("vitpose:", "is not of the form vitpose:ORG/NAME"),
        ("vitpose:./no_such", "there is no folder ./no_such"),
    ],
)
def test_unknown_names_say_the_nearest(spec: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_pose(spec, 17, SIZE, trust_code=True)
    assert said in str(caught.value)
    with pytest.raises(UserError):
        check_pose(spec, trust_code=True)


@needs_timm
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet18", "did you mean 'simcc:timm:resnet18' or 'heatmap:timm:resnet18'"),
        ("simcc:timm:resnt18", r"'simcc:timm:resnt18': timm .* has no model 'resnt18' \(did you mean 'resnet18'\?\)"),
        ("simcc:timm:hrnet_w32", "take heatmap:timm:hrnet_w32"),
        ("heatmap:timm:resnet10t", "multiples of 32, not 64x48"),
        ("hrnet_w32", "multiples of 32, not 64x48"),
        ("simplebaseline_r50", "multiples of 32, not 64x48"),
    ],
)
def test_what_timm_cannot_be(spec: str, said: str) -> None:
    if spec == "resnet18" or "resnt" in spec or "simcc" in spec:
        with pytest.raises(UserError, match=said):
            check_pose(spec)
    with pytest.raises(UserError, match=said):
        resolve_pose(spec, 17, SIZE)


@pytest.mark.parametrize("spec", ["simcc:timm:resnet18", "heatmap:timm:resnet18", "hrnet_w32", "rtmpose_t"])
def test_a_missing_timm_names_the_command(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _compat.import_timm.cache_clear()
    monkeypatch.setattr(_compat, "installed", lambda name: name != "timm")
    with pytest.raises(UserError, match=rf'{spec}.* needs timm, .*pip install "classroomkd\[vision\]"'):
        check_pose(spec)


def test_a_timm_without_the_body_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classroomkd.models.pose.building.import_timm", lambda wanted_by: None)
    monkeypatch.setattr("classroomkd.models.pose.building.library_names", lambda prefix: frozenset({"resnet50"}))
    with pytest.raises(UserError, match="'rtmpose_t' is built on cspnext_tiny, which the installed timm lacks"):
        check_pose("rtmpose_t")


def test_missing_transformers_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classroomkd.models.pose.vitpose.installed", lambda name: name != "transformers")
    with pytest.raises(UserError, match="needs transformers, which is not installed: pip install transformers"):
        check_pose("vitpose:usyd-community/vitpose-base-simple")


@pytest.mark.parametrize(
    ("joints", "size", "channels", "said"),
    [
        (0, SIZE, 3, "joints must be"),
        (True, SIZE, 3, "joints must be"),
        (17, SIZE, 0, "in_channels must be"),
        (17, (64,), 3, r"size must be \(height, width\)"),
        (17, (64, 8), 3, "16 or more"),
        (17, (64.0, 48.0), 3, "whole pixels"),
        (17, 64, 3, "size must be"),
    ],
)
def test_figures_are_checked(joints: object, size: object, channels: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve_pose("simcc_tiny", joints, size, in_channels=channels)  # type: ignore[arg-type]


class Maps(nn.Module):
    def __init__(self, num_joints: int, size: tuple[int, int], in_channels: int, shape: str = "maps") -> None:
        super().__init__()
        self.size, self.shape = size, shape
        self.conv = nn.Conv2d(in_channels, num_joints, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return {"maps": x, "vector": x.mean((2, 3)), "none": "x"}[self.shape]  # type: ignore[return-value]


class TestOwn:
    @pytest.fixture(autouse=True)
    def _code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        module = type(sys)("own_pose_nets")
        module.maps = Maps  # type: ignore[attr-defined]
        module.few = lambda: Maps(16, SIZE, 3)  # type: ignore[attr-defined]
        module.vector = lambda size, in_channels, joints: Maps(joints, size, in_channels, "vector")  # type: ignore[attr-defined]
        module.nothing = lambda **k: Maps(k["num_joints"], k["size"], k["in_channels"], "none")  # type: ignore[attr-defined]
        module.text = lambda: "a network"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_pose_nets", module)

    def test_gets_what_it_takes(self) -> None:
        network = resolve_pose("py:own_pose_nets:maps", 5, SIZE, in_channels=1, trust_code=True)
        assert isinstance(network, Maps)
        assert (network.size, network.conv.in_channels, network.conv.out_channels) == (SIZE, 1, 5)
        assert network.training

    @pytest.mark.parametrize(
        ("name", "joints", "said"),
        [
            ("few", 17, r"answers with shape \(B, 16, 16, 12\); a pose network of 17 joints"),
            ("vector", 17, r"answers with shape \(B, 17\)"),
            ("nothing", 17, "answers with no tensor"),
            ("text", 17, "made a str, not a torch.nn.Module"),
            ("map", 17, "did you mean 'maps'?"),
        ],
    )
    def test_what_is_no_pose_network(self, name: str, joints: int, said: str) -> None:
        with pytest.raises(UserError, match=said):
            resolve_pose(f"py:own_pose_nets:{name}", joints, SIZE, trust_code=True)

    def test_needs_channels_that_fit(self) -> None:
        with pytest.raises(UserError, match="cannot take one crop of 1x64x48"):
            resolve_pose("py:own_pose_nets:few", 16, SIZE, in_channels=1, trust_code=True)

    def test_needs_trust(self) -> None:
        for call in (check_pose, lambda spec: resolve_pose(spec, 17, SIZE)):
            with pytest.raises(UserError, match="--trust-code"):
                call("py:own_pose_nets:maps")


def test_the_table_is_readable_without_torch() -> None:
    code = "import sys; from classroomkd.models.pose import pose_table, pose_names; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert [row["name"] for row in pose_table()] == pose_names()
    assert {row["needs"] for row in pose_table()} == {"", "timm"}
    assert mentor_only("vitpose:a/b")
    assert not mentor_only("simcc_tiny")


def test_the_random_state_and_the_modes_stay() -> None:
    torch.manual_seed(1)
    resolve_pose("simcc_tiny", 4, (32, 32))
    one = torch.rand(1)
    torch.manual_seed(1)
    network = resolve_pose("simcc_tiny", 4, (32, 32))
    assert torch.equal(one, torch.rand(1))
    assert all(layer.training for layer in network.modules())
