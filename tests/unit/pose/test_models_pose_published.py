"""Published weights of pose networks' bodies, from the local cache; a tag is never passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classroomkd import models, tasks
from classroomkd._compat import import_timm, installed
from classroomkd.errors import UserError
from classroomkd.models.pose import resolve_pose
from classroomkd.models.pose.published import library_name, start_body

pytestmark = pytest.mark.skipif(not installed("timm"), reason="timm is not installed")


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def there(tmp_path: Path, name: str) -> nn.Module:
    """timm's network of this name in the Hugging Face cache, with weights of our own."""
    timm = import_timm("test")
    network: nn.Module = timm.create_model(name)
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    models.save_checkpoint(network, folder / "snapshots" / "abc" / "model.safetensors")
    return network


@pytest.mark.parametrize(
    ("spec", "name", "weight", "own"),
    [
        ("simcc:timm:resnet10t", "resnet10t", "layer2.0.conv1.weight", "body.features.layer2.0.conv1.weight"),
        ("heatmap:timm:mobilenetv3_small_050", "mobilenetv3_small_050", "blocks.1.0.conv_pw.weight", None),
        ("simplebaseline_r50", "resnet50", "layer3.1.conv2.weight", "layer3.1.conv2.weight"),
    ],
)
def test_a_body_starts_from_them(spec: str, name: str, weight: str, own: str | None, tmp_path: Path) -> None:
    assert library_name(spec) == f"timm:{name}"
    source = there(tmp_path, name)
    torch.manual_seed(3)
    network: Any = resolve_pose(spec, 5, (64, 64))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    about = start_body(network, spec)
    after = network.state_dict()
    if own is not None:
        assert after[own].equal(source.state_dict()[weight])
    else:
        assert any(value.shape == source.state_dict()[weight].shape and value.equal(source.state_dict()[weight])
                   for value in after.values())  # fmt: skip
    head = ("head.", "body.joins.", "final_layer.", "deconv_layers.")
    assert all(value.equal(before[key]) for key, value in after.items() if key.startswith(head))
    assert "model.safetensors" in about["note"]
    assert about["reset_head"]


def test_what_is_not_there_names_the_command() -> None:
    network = resolve_pose("simcc:timm:resnet10t", 5, (64, 64))
    with pytest.raises(UserError, match=r"timm\.create_model\('resnet10t', pretrained=True\)"):
        start_body(network, "simcc:timm:resnet10t")


@pytest.mark.parametrize(
    ("model", "weights", "said"),
    [
        ("simcc:timm:resnet18.a1_in1k", None, "leave the tag out: simcc:timm:resnet18"),
        ("simcc:timm:resnet18", "pretrained", "not on this machine"),
        ("hrnet_w32", "pretrained", "not on this machine"),
        ("simcc_tiny", "pretrained", "'simcc_tiny' has no published weights here"),
        ("simcc_tiny", None, None),
        ("simcc:timm:resnet18", None, None),
        ("vitpose:usyd-community/vitpose-base-simple", "pretrained", None),
    ],
)
def test_what_a_recipe_asks_for(model: str, weights: str | None, said: str | None) -> None:
    answer = tasks.describe("pose").weights_problem(model, weights)
    assert answer is None if said is None else said in str(answer)
