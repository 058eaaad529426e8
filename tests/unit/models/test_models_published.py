"""Published weights: from the local caches alone, and never silently left out."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classroomkd import models
from classroomkd._compat import import_timm, import_torchvision, installed
from classroomkd.errors import UserError
from classroomkd.models.published import published

needs_libraries = pytest.mark.skipif(
    not (installed("timm") and installed("torchvision")), reason="timm and torchvision are not installed"
)
pytestmark = needs_libraries


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and an error for whoever opens a connection."""
    from huggingface_hub import constants

    def refuse(*args: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def network(name: str, **options: Any) -> nn.Module:
    """The library's own, with weights that no seed gives."""
    prefix, _, rest = name.partition(":")
    library = import_timm("test") if prefix == "timm" else import_torchvision("test").models
    build = library.create_model if prefix == "timm" else library.get_model
    torch.manual_seed(7)
    module: nn.Module = build(rest, **options)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.01)
    return module


def in_hub(tmp_path: Path, repository: str, module: nn.Module) -> Path:
    """As the Hugging Face cache keeps a file."""
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    path = folder / "snapshots" / "abc" / "model.safetensors"
    models.save_checkpoint(module, path)
    return path


def in_torch(tmp_path: Path, file: str, state: dict[str, Any]) -> Path:
    """As torch's hub keeps a file."""
    path = tmp_path / "torch" / "hub" / "checkpoints" / file
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return path


def equal(module: nn.Module, other: nn.Module, but: str = "nothing") -> bool:
    own, theirs = module.state_dict(), other.state_dict()
    return all(torch.equal(own[key], theirs[key]) for key in own if not key.startswith(but))


def test_timm_in_the_hub_cache(tmp_path: Path) -> None:
    there = network("timm:resnet10t")
    in_hub(tmp_path, "timm/resnet10t.c3_in1k", there)
    assert equal(models.create("timm:resnet10t.c3_in1k", 1000, weights="pretrained"), there)
    assert equal(models.create("timm:resnet10t", 1000, weights="pretrained"), there)
    torch.manual_seed(0)
    fewer = models.resolve("timm:resnet10t", 8)
    head = fewer.state_dict()["fc.weight"].clone()
    about = models.start_pretrained(fewer, "timm:resnet10t")
    assert equal(fewer, there, "fc.")
    assert torch.equal(fewer.state_dict()["fc.weight"], head)
    assert about["reset_head"] == "dropped fc.weight, fc.bias (1000 rows, 8 are wanted)"
    assert "model.safetensors" in about["note"]


def test_timm_fits_the_first_layer_to_the_channels(tmp_path: Path) -> None:
    there = network("timm:resnet10t")
    in_hub(tmp_path, "timm/resnet10t.c3_in1k", there)
    grey = models.create("timm:resnet10t", 8, in_channels=1, weights="pretrained")
    first = there.state_dict()["conv1.0.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(grey.state_dict()["conv1.0.weight"], first)


def test_timm_in_torchs_hub_folder(tmp_path: Path) -> None:
    there = network("timm:resnet18")
    address = import_timm("test").get_pretrained_cfg("resnet18.a1_in1k").url
    in_torch(tmp_path, address.rpartition("/")[2], dict(there.state_dict()))
    assert equal(models.create("timm:resnet18.a1_in1k", 1000, weights="pretrained"), there)


def test_torchvision(tmp_path: Path) -> None:
    there = network("torchvision:shufflenet_v2_x0_5")
    file = published("torchvision:shufflenet_v2_x0_5").places[0]
    assert tmp_path in file.parents
    in_torch(tmp_path, file.name, dict(there.state_dict()))
    assert equal(models.create("torchvision:shufflenet_v2_x0_5", 1000, weights="pretrained"), there)
    assert equal(models.create("torchvision:shufflenet_v2_x0_5.IMAGENET1K_V1", 5, weights="pretrained"), there, "fc.")


def test_torchvisions_old_names_and_helper_heads(tmp_path: Path) -> None:
    """Densenet's published file has names of 2017; googlenet's has heads that only its training read."""
    there = network("torchvision:densenet121")
    old = {
        key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.") if "denselayer" in key else key: value
        for key, value in there.state_dict().items()
    }  # fmt: skip
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    in_torch(tmp_path, published("torchvision:densenet121").places[0].name, old)
    assert equal(models.create("torchvision:densenet121", 3, weights="pretrained"), there, "classifier.")


def test_googlenets_normalisation_comes_with_its_weights(tmp_path: Path) -> None:
    there = network("torchvision:googlenet", aux_logits=True, init_weights=False)
    in_torch(tmp_path, published("torchvision:googlenet").places[0].name, dict(there.state_dict()))
    module: Any = models.create("torchvision:googlenet", 3, weights="pretrained")
    assert module.transform_input
    assert not models.create("torchvision:googlenet", 3).transform_input  # type: ignore[truthy-bool]


@pytest.mark.parametrize(
    ("spec", "command", "place"),
    [
        (
            "timm:resnet18.a1_in1k",
            "timm.create_model('resnet18.a1_in1k', pretrained=True)",
            "models--timm--resnet18.a1",
        ),
        ("timm:resnet18", "timm.create_model('resnet18', pretrained=True)", "checkpoints/resnet18_a1_0-"),
        ("torchvision:resnet18", "torchvision.models.get_model('resnet18', weights='IMAGENET1K_V1')", "torch/hub"),
    ],
)
def test_what_is_not_there_names_the_command(spec: str, command: str, place: str) -> None:
    with pytest.raises(UserError) as caught:
        models.create(spec, 10, weights="pretrained")
    assert f'python -c "import {spec.partition(":")[0]}; {command}"' in str(caught.value)
    assert "not on this machine" in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "weights", "said"),
    [
        (
            "timm:resnet18.a1_in1k",
            None,
            "add weights: pretrained (or weights: FILE), or leave the tag out: timm:resnet18",
        ),
        ("torchvision:resnet18.IMAGENET1K_V1", None, "leave the tag out: torchvision:resnet18"),
        ("timm:resnet18.a1_in1", None, "has no weights 'a1_in1' of resnet18 (did you mean 'a1_in1k'?)"),
        ("torchvision:resnet18.V9", "pretrained", "has no weights 'V9' of resnet18; there are IMAGENET1K_V1"),
        ("timm:hf_hub:timm/resnet18.a1_in1k", "pretrained", "write timm:resnet18.a1_in1k with weights: pretrained"),
        ("timm:hf-hub:somebody/net", None, "write timm:NAME with weights: FILE"),
        ("resnet20", "pretrained", "'resnet20' has no published weights"),
    ],
)
def test_what_a_name_asks_for_is_honoured_or_refused(spec: str, weights: str | None, said: str) -> None:
    with pytest.raises(UserError) as caught:
        models.create(spec, 10, weights=weights)
    assert said in str(caught.value)


def test_a_file_of_another_network_in_the_cache(tmp_path: Path) -> None:
    path = in_hub(tmp_path, "timm/resnet10t.c3_in1k", nn.Linear(3, 3))
    with pytest.raises(UserError, match=r"does not fit it .*; fetch it again: python -c") as caught:
        models.create("timm:resnet10t", 8, weights="pretrained")
    assert str(path) in str(caught.value)
