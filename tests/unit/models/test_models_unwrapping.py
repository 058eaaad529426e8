"""What training scripts and toolboxes write around and beside the weights: found, and what was left out is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from classroomkd import Classroom, methods, models
from classroomkd._compat import installed
from classroomkd.classroom import Mentor
from classroomkd.errors import UserError
from classroomkd.models.pose import resolve_pose

State = dict[str, Tensor]


def network(seed: int = 0, classes: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return models.create("resnet8", classes)


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def inside(wrapper: str, state: State) -> State:
    """Every residual layer wrapped."""
    return {key.replace("layer2.0.", f"layer2.0.{wrapper}.").replace("layer3.", f"layer3.{wrapper}."): value
            for key, value in state.items()}  # fmt: skip


EXTRA = {"acc.total": torch.zeros(()), "criterion.weight": torch.ones(10)}
FILES: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "averaged": (
        lambda net: {"epoch": 3, "model_ema": AveragedModel(net).state_dict()},
        "used the entry 'model_ema'; took the network 'module' out of it; left out n_averaged",
    ),
    "profiled": (
        lambda net: {**net.state_dict(), "total_ops": torch.zeros(()), "layer1.total_params": torch.zeros(())},
        "left out total_ops, layer1.total_params",
    ),
    "numbers beside tensors": (
        lambda net: {**net.state_dict(), "epoch": 3, "scheduler": None, "optimizer": {"state": {}}},
        "left out epoch, scheduler, optimizer",
    ),
    "settings under a known name": (
        lambda net: {"model": {"depth": 8}, "state_dict": net.state_dict()},
        "used the entry 'state_dict'",
    ),
    "settings beside tensors": (lambda net: {**net.state_dict(), "model": {"depth": 8}}, "left out model"),
    "extra state": (lambda net: {**net.state_dict(), "layer1._extra_state": None}, "left out layer1._extra_state"),
    "extra state as bytes": (
        lambda net: {**net.state_dict(), "layer1._extra_state": torch.zeros(2, dtype=torch.uint8)},
        "left out layer1._extra_state",
    ),
    "compiled inside": (lambda net: inside("_orig_mod", net.state_dict()), "took _orig_mod out of the names"),
    "sharded inside": (
        lambda net: {"model": under("_fsdp_wrapped_module.", inside("_fsdp_wrapped_module", net.state_dict()))},
        "used the entry 'model'; took _fsdp_wrapped_module out of the names",
    ),
    "recomputed inside, parallel": (
        lambda net: under("module.", inside("_checkpoint_wrapped_module", net.state_dict())),
        "took _checkpoint_wrapped_module out of the names; took the prefix 'module.' off",
    ),
    "lightning": (
        lambda net: {"state_dict": {**under("model.", net.state_dict()), **EXTRA}, "optimizer_states": [], "epoch": 2},
        "used the entry 'state_dict'; took the network 'model' out of it; left out acc.total, criterion.weight",
    ),
    "lightning, compiled inside": (
        lambda net: {"state_dict": {**under("net.", inside("_orig_mod", net.state_dict())), **EXTRA}},
        "took the network 'net' out of it",
    ),
    "student and teacher of one form": (
        lambda net: {
            "model": {**under("module.teacher.", network(4).state_dict()), **under("module.student.", net.state_dict())}
        },
        "took the network 'module.student' out of it",
    ),
    "averaged beside": (
        lambda net: {
            "state_dict": {**under("ema_model.", network(4).state_dict()), **under("my.net.", net.state_dict())}
        },
        "took the network 'my.net' out of it",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_network_is_found(kind: str, tmp_path: Path) -> None:
    make, note = FILES[kind]
    net, other = network(), network(1)
    torch.save(make(net), tmp_path / "x.pth")
    about = models.load_checkpoint(other, tmp_path / "x.pth")
    assert same(net, other)
    assert note in about["note"]


@pytest.mark.parametrize("wrapped", ["plain", "lightning", "safetensors", "parallel", "beside its mentor"])
def test_the_student_is_found_in_a_classroom(wrapped: str, tmp_path: Path) -> None:
    """As loops of one's own, Lightning and Accelerate save it, with what the method trains beside it."""
    classroom = Classroom(network(), [Mentor(network(4), "big")], methods.create("fitnet"), image_shape=(3, 32, 32))
    state = dict(classroom.state_dict())
    assert any(key.startswith("method.") for key in state)
    path = tmp_path / "x.ckpt"
    if wrapped == "lightning":
        torch.save({"state_dict": under("classroom.", state), "callbacks": {}}, path)
    elif wrapped == "safetensors":
        safetensors.torch.save_file({key: value.clone() for key, value in state.items()}, path)
    elif wrapped == "beside its mentor":
        torch.save({**under("big.", network(4).state_dict()), **under("classroom.", state)}, path)
    else:
        torch.save(under("module.", state) if wrapped == "parallel" else state, path)
    other = network(1)
    about = models.load_checkpoint(other, path)
    assert same(network(), other)
    assert "reader.module' out of it; left out" in about["note"]


def test_several_networks_that_fit_are_not_guessed(tmp_path: Path) -> None:
    torch.save(
        {**under("left.", network().state_dict()), **under("right.", network(1).state_dict())}, tmp_path / "x.pth"
    )
    with pytest.raises(UserError, match=r"holds several networks of this form: left\., right\.; save the one you mean"):
        models.load_checkpoint(network(), tmp_path / "x.pth")


def test_a_larger_network_is_still_another_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for state in (models.create("resnet14", 10).state_dict(), under("module.", models.create("resnet14").state_dict())):
        torch.save(state, tmp_path / "x.pth")
        with pytest.raises(UserError, match="is not one of this CifarResNet"):
            models.load_checkpoint(network(), tmp_path / "x.pth")


class Stateful(nn.Module):
    """With a state that is no tensor, as quantisers have."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.words = ["a"]

    def get_extra_state(self) -> list[str]:
        return self.words

    def set_extra_state(self, state: list[str]) -> None:
        self.words = state


def test_a_module_keeps_its_own_extra_state(tmp_path: Path) -> None:
    module, other = Stateful(), Stateful()
    other.words = ["b"]
    torch.save(module.state_dict(), tmp_path / "x.pth")
    models.load_checkpoint(other, tmp_path / "x.pth")
    assert torch.equal(other.fc.weight, module.fc.weight)
    assert other.words == ["b"]


ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "int8": (lambda value: (value * 10).to(torch.int8), "conv1.weight is stored as int8, as quantised weights are"),
    "bool": (lambda value: value > 0, "conv1.weight is stored as bool"),
    "fp8": (lambda value: value.to(torch.float8_e4m3fn), "conv1.weight is stored as float8_e4m3fn"),
    "meta": (lambda value: value.to("meta"), "conv1.weight holds no values (a meta tensor)"),
    "complex": (lambda value: value.to(torch.complex64), "conv1.weight is stored as complex64"),
    "sparse": (lambda value: value.to_sparse(), "conv1.weight is a sparse tensor"),
    "quantised": (
        lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        "conv1.weight is stored as qint8",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_values_that_are_no_weights_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    change, said = ODD[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = {**network().state_dict(), "conv1.weight": change(network().state_dict()["conv1.weight"])}
        torch.save(state, tmp_path / "x.pth")
        module = network(1)
        with pytest.raises(UserError) as caught:
            models.load_checkpoint(module, tmp_path / "x.pth")
    assert said in str(caught.value)
    assert same(module, network(1))


def test_fp8_in_safetensors(tmp_path: Path) -> None:
    state = network().state_dict()
    state = {key: value.to(torch.float8_e5m2) if value.dim() == 4 else value for key, value in state.items()}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"conv1\.weight is stored as float8_e5m2"):
        models.load_checkpoint(network(), tmp_path / "x.safetensors")


def test_a_whole_module_is_converted_by_the_lines_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(network(), "x.pth")
    with pytest.raises(UserError, match="for a whole module leave it out") as caught:
        models.load_checkpoint(network(1), "x.pth")
    code = "\n".join(line.strip() for line in str(caught.value).splitlines() if line.startswith("    "))
    exec(code.replace('["state_dict"]', ""), {})
    other = network(1)
    models.load_checkpoint(other, "x.safetensors")
    assert same(other, network())


# --- the distillation zoos --------------------------------------------------------------------------------------------

NAMES = {  # of released checkpoints, as their networks name them: first, inside, last
    "resnet8x4": ("conv1.weight", "layer1.0.downsample.0.weight", "fc.bias"),
    "resnet32x4": ("bn1.running_mean", "layer3.4.conv2.weight", "fc.weight"),
    "resnet56": ("conv1.weight", "layer2.0.downsample.1.running_var", "fc.bias"),
    "wrn_40_2": ("conv1.weight", "block1.layer.0.convShortcut.weight", "fc.bias"),
    "vgg13": ("block0.0.weight", "block4.4.running_mean", "classifier.weight"),
    "mobilenetv2": ("conv1.0.weight", "blocks.1.0.conv.7.running_mean", "classifier.0.weight"),
    "shufflenetv1": ("conv1.weight", "layer2.0.bn3.weight", "linear.weight"),
    "shufflenetv2": ("conv1.weight", "layer1.0.conv5.weight", "linear.weight"),
    "resnet50c": ("conv1.weight", "layer1.0.shortcut.0.weight", "linear.weight"),
}


@pytest.mark.parametrize("form", ["repdistiller", "mdistiller", "mdistiller, in training", "parallel"])
@pytest.mark.parametrize("name", ["resnet8x4", "wrn_40_2", "mobilenetv2"])
def test_released_forms(name: str, form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = models.create(name, 100)
    state = net.state_dict()
    files: dict[str, Any] = {
        "repdistiller": {"epoch": 240, "model": state, "best_acc": torch.tensor(73.0), "optimizer": {"state": {}}},
        "mdistiller": {"model": state},
        "mdistiller, in training": {
            "epoch": 240,
            "model": {**under("module.student.", state), **under("module.teacher.", network().state_dict())},
            "optimizer": {"state": {}},
            "best_acc": 75.0,
        },
        "parallel": {"model": under("module.", state), "epoch": 1, "accuracy": 70.0},
    }
    torch.save(files[form], tmp_path / "ckpt.pth")
    torch.manual_seed(1)
    other = models.create(name, 100)
    models.load_checkpoint(other, tmp_path / "ckpt.pth")
    assert same(net, other)


@pytest.mark.parametrize("name", NAMES)
def test_released_names(name: str) -> None:
    own = models.create(name, 100).state_dict()
    assert all(key in own for key in NAMES[name])


# --- heads ------------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """A network with a second head, as those that were distilled have."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head, self.head_dist = nn.Linear(6, 4), nn.Linear(4, classes), nn.Linear(4, classes)


@pytest.mark.parametrize(
    ("make", "content", "said"),
    [
        (network, lambda net: network(3, 100).state_dict(), "dropped fc.weight, fc.bias (100 rows, 10 are wanted)"),
        (network, lambda net: network(3).state_dict(), "dropped fc.weight, fc.bias"),
        (
            network,
            lambda net: {k: v for k, v in network(3).state_dict().items() if not k.startswith("fc.")},
            "it has no head",
        ),
        (
            network,
            lambda net: {**network(3).state_dict(), "projector.0.weight": torch.ones(2, 2)},
            "dropped fc.weight, fc.bias; left out projector.0.weight",
        ),
        (
            lambda seed: Twice(10),
            lambda net: Twice(100).state_dict(),
            "dropped head.weight, head.bias, head_dist.weight, ",
        ),
    ],
)
def test_a_head_is_reset(make: Callable[[int], nn.Module], content: Callable[[nn.Module], State], said: str,
                         tmp_path: Path) -> None:  # fmt: skip
    module = make(1)
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, content(module)
    torch.save(state, tmp_path / "x.pth")
    about = models.load_checkpoint(module, tmp_path / "x.pth", reset_head=True)
    assert about["reset_head"].startswith(said)
    for key, value in module.state_dict().items():
        head = key.startswith(("fc.", "head"))
        assert value.equal(before[key] if head else state[key]), key


def test_a_body_of_another_width_is_refused_with_a_reset_head_too(tmp_path: Path) -> None:
    torch.save(models.create("resnet8x4", 100).state_dict(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"of another shape: conv1\.weight"):
        models.load_checkpoint(network(), tmp_path / "x.pth", reset_head=True)


@pytest.mark.skipif(not installed("timm"), reason="timm is not installed")
@pytest.mark.parametrize("head", ["head.final_layer.", "keypoint_head.final_layer."])
def test_heatmap_networks_of_toolboxes(head: str, tmp_path: Path) -> None:
    def build(joints: int = 17) -> nn.Module:
        return resolve_pose("simplebaseline_r50", joints, (32, 32))

    net, other = build(), build()
    last, parts = "final_layer.", head.removesuffix("final_layer.")
    state = {
        (f"{parts}{key}" if key.startswith((last, "deconv_layers.")) else f"backbone.{key}"): value
        for key, value in net.state_dict().items()
    }
    torch.save({"state_dict": state, "meta": {"epoch": 210}}, tmp_path / "x.pth")
    models.load_checkpoint(other, tmp_path / "x.pth")
    assert same(net, other)
    fewer = build(14)
    about = models.load_checkpoint(fewer, tmp_path / "x.pth", reset_head=True)
    assert about["reset_head"] == "dropped final_layer.weight, final_layer.bias (17 rows, 14 are wanted)"
