"""Checkpoints: strict, told apart by content, nothing run, nothing half written."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from classroomkd import _files, models
from classroomkd.errors import RunStopped, UserError
from classroomkd.models.pose import resolve_pose

STARTED = Path("code_of_the_file_was_run")


class Evil:
    """What a pickle can do to you."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (STARTED,)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return models.create("resnet8", 10)


def fresh(classes: int = 10) -> nn.Module:
    torch.manual_seed(1)
    return models.create("resnet8", classes)


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def test_there_and_back_with_metadata(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "net.safetensors"
    models.save_checkpoint(net, path, {"classes": '["a", "b"]'})
    other = fresh()
    metadata = models.load_checkpoint(other, path)
    assert same(net, other)
    assert metadata == {"classes": '["a", "b"]', "format": "pt"}
    assert [file.name for file in path.parent.iterdir()] == ["net.safetensors"]


def test_equal_tensors_are_equal_files(net: nn.Module, tmp_path: Path) -> None:
    """Whatever the order of the metadata, which is sorted; the reader of the format takes it as ever."""
    about = {f"key{n}": f"value {n} ü" for n in range(12)}
    for n in range(8):
        turned = dict(list(about.items())[n:] + list(about.items())[:n])
        models.save_checkpoint(net, tmp_path / f"{n}.safetensors", turned)
    files = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 1
    assert safetensors.torch.load(files.pop())["conv1.weight"].equal(net.state_dict()["conv1.weight"])


def test_a_state_can_be_saved_too(net: nn.Module, tmp_path: Path) -> None:
    models.save_checkpoint(net.state_dict(), tmp_path / "x.safetensors")
    other = fresh()
    models.load_checkpoint(other, tmp_path / "x.safetensors")
    assert same(net, other)
    with pytest.raises(UserError, match="cannot save epoch: a checkpoint holds tensors only"):
        models.save_checkpoint({"epoch": 3}, tmp_path / "y.safetensors")  # type: ignore[dict-item]
    assert not (tmp_path / "y.safetensors").exists()


class Tied(nn.Module):
    """Two names for one weight, a view into a larger tensor, and one that is not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight
        self.turned: Tensor
        self.part: Tensor
        self.register_buffer("turned", torch.randn(3, 5).t())
        self.register_buffer("part", torch.randn(100)[10:12])
        self.register_buffer("overlap", self.part[1:])


def test_shared_and_odd_tensors(tmp_path: Path) -> None:
    module, other = Tied(), Tied()
    models.save_checkpoint(module, tmp_path / "tied.safetensors")
    models.load_checkpoint(other, tmp_path / "tied.safetensors")
    assert same(module, other)
    assert other.decoder.weight is other.encoder.weight
    assert (tmp_path / "tied.safetensors").stat().st_size < 1_500  # not the 100 numbers behind `part`


def test_an_interrupted_save_keeps_the_old_file(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    models.save_checkpoint(net, path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(RunStopped, match=r"net\.safetensors.*Nothing already made is lost"):
        models.save_checkpoint(fresh(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def some_prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key if key.startswith("fc.") else f"backbone.{key}": value for key, value in state.items()}


WRAPPERS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str | None]] = {
    "plain": (lambda state: state, None),
    "ordered": (OrderedDict, None),
    "state_dict": (lambda state: {"epoch": 3, "state_dict": state}, "used the entry 'state_dict'"),
    "model": (lambda state: {"model": state, "optimizer": {"lr": 0.1}}, "used the entry 'model'"),
    "model_state": (lambda state: {"model_state": state}, "used the entry 'model_state'"),
    "model before ema": (
        lambda state: {"model_ema": {key: value + 1 for key, value in state.items()}, "model": state},
        "used the entry 'model'",
    ),
    "only ema": (lambda state: {"model_ema": state}, "used the entry 'model_ema'"),
    "twice": (lambda state: {"state": 1, "model": {"state_dict": state}}, "'model'; used the entry 'state_dict'"),
    "module.": (lambda state: prefixed(state, "module."), "took the prefix 'module.' off"),
    "compiled, parallel, inside": (
        lambda state: {"model": prefixed(state, "_orig_mod.module.")},
        "used the entry 'model'; took the prefix '_orig_mod.' off; took the prefix 'module.' off",
    ),
    "backbone.": (some_prefixed, "took the prefix 'backbone.' off"),
    "half": (
        lambda state: {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
        "stored as float16, loaded in the module's precision",
    ),
    "old batch normalisation": (
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        "it has no num_batches_tracked, the module's were kept",
    ),
    "arguments and numpy numbers": (
        lambda state: {"model": state, "args": argparse.Namespace(lr=[0.1]), "accuracy": np.float64(71.2)},
        "used the entry 'model'",
    ),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_common_wrappers_are_looked_through(kind: str, net: nn.Module, tmp_path: Path) -> None:
    wrap, note = WRAPPERS[kind]
    torch.save(wrap(net.state_dict()), tmp_path / "net.pth")
    other = fresh()
    metadata = models.load_checkpoint(other, tmp_path / "net.pth")
    if kind == "half":
        assert torch.equal(other.get_parameter("fc.weight"), net.get_parameter("fc.weight").half().float())
    else:
        assert same(net, other)
    assert metadata.get("note", "") == (note or "") or (kind == "twice" and str(note) in metadata["note"])


def test_a_prefix_the_module_has_itself_stays(tmp_path: Path) -> None:
    module = nn.ModuleDict({"backbone": nn.Linear(2, 2), "model": nn.Linear(2, 2)})
    torch.save(module.state_dict(), tmp_path / "x.pt")
    assert models.load_checkpoint(module, tmp_path / "x.pt") == {}


def test_names_do_not_decide_the_kind(net: nn.Module, tmp_path: Path) -> None:
    models.save_checkpoint(net, tmp_path / "pytorch_model.bin")
    torch.save(net.state_dict(), tmp_path / "torch.safetensors")
    torch.save(net.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("pytorch_model.bin", "torch.safetensors", "old.pth"):
        other = fresh()
        models.load_checkpoint(other, tmp_path / name)
        assert same(net, other), name


class TestRefused:
    def refused(self, module: nn.Module, path: Path, what: str = "mentor 'big'") -> str:
        before = {key: value.clone() for key, value in module.state_dict().items()}
        with pytest.raises(UserError) as caught:
            models.load_checkpoint(module, path, what=what)
        after = module.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        message = str(caught.value)
        assert message.startswith(f"checkpoint {path} of the {what}")
        assert len(message.splitlines()) <= 6
        return message

    def test_another_number_of_classes(self, net: nn.Module, tmp_path: Path) -> None:
        models.save_checkpoint(models.create("resnet8", 1000), tmp_path / "x.safetensors")
        assert "the checkpoint has 1000 classes, the data 10 (last layer fc.weight)" in self.refused(
            net, tmp_path / "x.safetensors"
        )

    @pytest.mark.parametrize("name", ["simcc_tiny", "heatmap_tiny", "hrnet_w32", "rtmpose_t", "simplebaseline_r50"])
    def test_another_number_of_joints(self, tmp_path: Path, name: str) -> None:
        theirs, ours = (resolve_pose(name, joints, (64, 64)) for joints in (17, 14))
        models.save_checkpoint(theirs, tmp_path / "x.safetensors")
        message = self.refused(ours, tmp_path / "x.safetensors")
        assert "the checkpoint answers 17 joints, 14 are wanted" in message
        assert "`skeleton:` beside the mentor ('coco')" in message

    def test_another_depth(self, net: nn.Module, tmp_path: Path) -> None:
        models.save_checkpoint(models.create("resnet14", 10), tmp_path / "x.safetensors")
        message = self.refused(net, tmp_path / "x.safetensors")
        assert "is not one of this CifarResNet" in message
        assert "36 unexpected: layer1.1.bn1.bias, " in message
        assert "(32 more)" in message
        assert "missing" not in message

    def test_another_width_and_family(self, net: nn.Module, tmp_path: Path) -> None:
        models.save_checkpoint(models.create("resnet8x4", 10), tmp_path / "x.safetensors")
        assert "of another shape: conv1.weight 32x3x3x3, not 16x3x3x3" in self.refused(net, tmp_path / "x.safetensors")
        models.save_checkpoint(models.create("vgg8", 10), tmp_path / "y.safetensors")
        message = self.refused(net, tmp_path / "y.safetensors")
        assert "missing: conv1.weight" in message
        assert "unexpected: block0.0.bias" in message

    def test_first_layer_of_another_size_is_not_about_classes(self, net: nn.Module, tmp_path: Path) -> None:
        models.save_checkpoint(models.create("resnet8", 10, in_channels=1), tmp_path / "x.safetensors")
        message = self.refused(net, tmp_path / "x.safetensors")
        assert "classes" not in message
        assert "1 of another shape: conv1.weight 16x1x3x3, not 16x3x3x3" in message

    def test_an_inner_layer_of_another_size_is_not_about_classes(self, tmp_path: Path) -> None:
        def make(width: int) -> nn.Module:
            return nn.ModuleDict({"norm": nn.BatchNorm1d(width), "fc": nn.Linear(2, 3)})

        models.save_checkpoint(make(6), tmp_path / "x.safetensors")
        assert "4 of another shape: norm.weight 6, not 4" in self.refused(make(4), tmp_path / "x.safetensors")

    def test_missing_with_the_nearest_file(self, net: nn.Module, tmp_path: Path) -> None:
        (tmp_path / "resnet50.pth").touch()
        assert "does not exist (did you mean 'resnet50.pth'?)" in self.refused(net, tmp_path / "resnet5.pth")
        assert "does not exist" in self.refused(net, tmp_path / "nowhere" / "x.pth")
        assert "is a folder" in self.refused(net, tmp_path)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize("keep", [0, 5, 60, 3000, -10])
    def test_truncated(self, suffix: str, keep: int, net: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / f"x{suffix}"
        if suffix == ".pth":
            torch.save(net.state_dict(), path)
        else:
            models.save_checkpoint(net, path)
        path.write_bytes(path.read_bytes()[:keep])
        assert "damaged or not a" in self.refused(net, path)

    def test_not_a_checkpoint_at_all(self, net: nn.Module, tmp_path: Path) -> None:
        (tmp_path / "x.pth").write_text("<html>404 not found</html>" * 20)
        assert "damaged or not a checkpoint" in self.refused(net, tmp_path / "x.pth")
        torch.save(torch.ones(3), tmp_path / "y.pth")
        assert "holds a Tensor, not named weights" in self.refused(net, tmp_path / "y.pth")
        torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "z.pth")
        assert "no weights under a known name; its entries: epoch, lr" in self.refused(net, tmp_path / "z.pth")

    @pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
    def test_graphs_are_no_weights(self, name: str, net: nn.Module, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b"\x08\x0a\x12\x07pytorch")
        assert "is a graph, not weights: give the .safetensors or .pth" in self.refused(net, tmp_path / name)

    @pytest.mark.parametrize("form", ["torch", "old torch", "pickle"])
    def test_nothing_in_a_file_is_run(
        self, form: str, net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        content = {"state_dict": net.state_dict(), "extra": Evil()}
        if form == "pickle":
            (tmp_path / "x.pth").write_bytes(pickle.dumps(content))
        else:
            torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=form == "torch")
        message = self.refused(net, tmp_path / "x.pth")
        assert "was refused: it holds more than weights" in message
        assert not STARTED.exists()

    def test_the_refusal_shows_a_conversion_that_works(self, net: nn.Module, tmp_path: Path) -> None:
        torch.save({"state_dict": net.state_dict(), "extra": Holder()}, tmp_path / "x.pth")
        message = self.refused(net, tmp_path / "x.pth")
        code = [line.strip() for line in message.splitlines() if line.startswith("    ")]
        assert len(code) == 2
        exec("\n".join(code).replace("x.safetensors", str(tmp_path / "x.safetensors")), {})
        other = fresh()
        models.load_checkpoint(other, tmp_path / "x.safetensors")
        assert same(net, other)

    def test_torchscript(self, net: nn.Module, tmp_path: Path) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "x.pt")
        assert "is a TorchScript program, not weights" in self.refused(net, tmp_path / "x.pt")

    def test_weights_that_diverged(self, net: nn.Module, tmp_path: Path) -> None:
        broken = fresh()
        with torch.no_grad():
            broken.get_parameter("layer2.0.conv1.weight")[0, 0, 0, 0] = float("nan")
        models.save_checkpoint(broken, tmp_path / "x.safetensors")
        assert "not finite in layer2.0.conv1.weight" in self.refused(net, tmp_path / "x.safetensors")

    def test_a_newer_schema(self, net: nn.Module, tmp_path: Path) -> None:
        safetensors.torch.save_file(net.state_dict(), tmp_path / "x.safetensors", {"classroomkd_schema": "7"})
        assert "written by another version (schema 7, this one reads 1)" in self.refused(
            net, tmp_path / "x.safetensors"
        )


class Holder:
    """An object of the training script, as some put into their checkpoints."""


def test_files_of_others_need_no_schema(net: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(net.state_dict(), tmp_path / "x.safetensors", {"author": "someone"})
    assert models.load_checkpoint(fresh(), tmp_path / "x.safetensors") == {"author": "someone"}
