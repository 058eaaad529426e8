"""Fast mentors: they say what the mentor says, and the mentor stays as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from test_folding import PIXELS, stirred
from torch import Tensor, nn

from classroomkd import _compat, models
from classroomkd.classroom import Answers, Classroom, Mentor
from classroomkd.errors import UserError
from classroomkd.train import optimize as fast
from classroomkd.train.optimize import FastMentor, has_bf16, optimize_for_inference

BLANK = torch.zeros(2, 3, 32, 32)
vision = pytest.mark.skipif(
    not (_compat.installed("timm") and _compat.installed("torchvision")), reason="needs timm and torchvision"
)


def far(said: Tensor, expected: Tensor) -> float:
    """The error's norm over the expected's."""
    assert said.dtype == torch.float32
    return ((said - expected).norm() / expected.norm()).item()


def made(model: str = "resnet20", **options: object) -> Mentor:
    torch.manual_seed(0)
    return Mentor(stirred(models.create(model, 10)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["resnet20", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_answers_and_taps(name: str, precision: str) -> None:
    mentor = made(name)
    mentor.read({"@stage:-1": "map", "@penultimate": "pooled"}, BLANK)
    before, answers = copy.deepcopy(mentor.module.state_dict()), mentor(PIXELS)
    hasty = optimize_for_inference(mentor, BLANK, precision=precision)  # type: ignore[arg-type]
    assert isinstance(hasty, FastMentor)
    assert hasty.precision == precision
    assert hasty.folded > 0
    said: Answers = hasty(PIXELS)
    bound = 1e-6 if precision == "fp32" else 1e-2
    assert far(said.prediction, answers.prediction) <= bound
    for tap, value in answers.features.items():
        assert far(said.features[tap], value) <= 2 * bound
    assert all(torch.equal(value, before[key]) for key, value in mentor.module.state_dict().items())
    assert torch.equal(mentor(PIXELS).prediction, answers.prediction)
    assert not {id(p) for p in mentor.parameters()} & {id(p) for p in hasty.parameters()}
    assert not any(p.requires_grad for p in hasty.parameters())
    hooks = [sum(len(x._forward_hooks) for x in m.module.modules()) for m in (mentor, hasty)]
    assert hooks[0] == hooks[1]  # those of its own reader alone
    assert optimize_for_inference(hasty, BLANK) is hasty


@pytest.mark.parametrize("name", ["resnet20", "vgg8", "wrn_16_2"])
def test_bf16_of_fresh_networks(name: str) -> None:
    torch.manual_seed(0)
    mentor = Mentor(models.create(name, 100))
    hasty = optimize_for_inference(mentor, BLANK, precision="bf16")
    assert far(hasty(PIXELS).prediction, mentor(PIXELS).prediction) <= 5e-3


@vision
def test_libraries() -> None:
    timm = _compat.import_timm()
    for name, options in (("mobilenetv3_small_050", {}), ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8})):
        torch.manual_seed(0)
        mentor = Mentor(stirred(timm.create_model(name, num_classes=10, **options)))
        expected = mentor(PIXELS).prediction
        assert far(optimize_for_inference(mentor, BLANK)(PIXELS).prediction, expected) <= 3e-6
        assert far(optimize_for_inference(mentor, BLANK, precision="bf16")(PIXELS).prediction, expected) <= 3e-2


def test_heads() -> None:
    mentor = made("wrn_16_1")
    mentor.read({"@stage:-2": "map"}, BLANK, heads=True)
    value = mentor(PIXELS).features["@stage:-2"]
    expected = mentor.head("@stage:-2", value)
    for precision, bound in (("fp32", 1e-6), ("bf16", 1e-2)):
        hasty = optimize_for_inference(mentor, BLANK, precision=precision)  # type: ignore[arg-type]
        own = value.clone().requires_grad_()
        said = hasty.head("@stage:-2", own)
        assert far(said.detach(), expected) <= bound
        said.square().sum().backward()
        assert own.grad is not None
        assert own.grad.dtype == torch.float32
        assert (own.grad != 0).any()


def test_places_that_folding_changes() -> None:
    mentor = made("resnet8", taps=["layer1.0.conv1"])
    expected = mentor(PIXELS).features["layer1.0.conv1"]
    kept = optimize_for_inference(mentor, BLANK)
    assert isinstance(kept, FastMentor)
    assert kept.folded == 8
    assert far(kept(PIXELS).features["layer1.0.conv1"], expected) <= 1e-6
    late = optimize_for_inference(made("resnet8"), BLANK)
    shapes = late.read({"@stage:-1": "map"}, BLANK)  # as Classroom does: a place that is what it was
    assert shapes["@stage:-1"] == (64, 8, 8)
    with pytest.raises(UserError, match=r"layer1\.0\.conv1.*Mentor\.read.*optimize_for_inference"):
        late.read({"layer1.0.conv1": "map"}, BLANK)


def test_what_a_mentor_has_beside_its_network() -> None:
    mentor = made("resnet8", mean=[0.5] * 3, std=[0.2] * 3, size=16, classes=range(3, 13), num_classes=14, name="m")
    hasty = optimize_for_inference(mentor, torch.zeros(1, 3, 16, 16))
    rooms = [Classroom(models.create("resnet8", 14), [m], "kd", mean=[0.1] * 3, std=[0.3] * 3) for m in (mentor, hasty)]
    answers = [room.mentors.ask(PIXELS) for room in rooms]
    assert rooms[1].mentors.names == ["m"]
    assert answers[0] is not None
    assert answers[1] is not None
    torch.testing.assert_close(answers[1].prediction, answers[0].prediction)
    assert answers[1].prediction[..., 0].isneginf().all()
    rooms[1].double()
    said = rooms[1].mentors.ask(PIXELS.double())
    assert said is not None
    assert said.prediction.dtype == torch.float64


def test_what_cannot_be_made_fast() -> None:
    class Mine(Mentor):
        """It answers in a way of its own."""

    own = Mine(models.create("resnet8", 10))
    assert optimize_for_inference(own, BLANK) is own

    class Locked(nn.Module):
        """It cannot be copied."""

        def __init__(self) -> None:
            super().__init__()
            self.value = torch.ones(1, requires_grad=True) * 2

    locked = Mentor(Locked())
    assert optimize_for_inference(locked, BLANK) is locked

    class Wide(nn.Module):
        """It makes float32 tensors on the way."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.float().mean((2, 3)))

    stays = optimize_for_inference(Mentor(Wide()), BLANK, precision="bf16")
    assert isinstance(stays, FastMentor)
    assert stays.precision == "fp32"
    broken = made("resnet8")
    broken.module.fc.weight.data.fill_(float("nan"))
    assert optimize_for_inference(broken, BLANK, precision="bf16")(PIXELS).prediction.isnan().all()


def test_bf16_norms_that_stay_are_float32() -> None:
    hasty = optimize_for_inference(made("wrn_16_1"), BLANK, precision="bf16")
    kinds = {type(m): p.dtype for m in hasty.modules() for p in m.parameters(recurse=False)}
    assert kinds[nn.BatchNorm2d] == torch.float32
    assert kinds[nn.Conv2d] == torch.bfloat16


def test_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, expected in (
        (("avx2", "avx512_bf16"), True),
        (("amx_bf16",), True),
        (("avx512f", "avx512_vnni"), False),
    ):
        monkeypatch.setattr(fast, "_cpu_flags", lambda flags=flags: frozenset(flags))
        assert has_bf16("cpu") is expected
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not has_bf16("cuda")
    assert not has_bf16("mps")
    monkeypatch.undo()
    assert isinstance(has_bf16(torch.device("cpu")), bool)


def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: real(module, backend="aot_eager"))
    mentor = made("resnet8")
    mentor.read({"@stage:-1": "map"}, BLANK)
    expected = mentor(PIXELS)
    try:
        hasty = optimize_for_inference(mentor, BLANK, compile=True)
        said: Answers = hasty(PIXELS)
    finally:
        torch.compiler.reset()
    assert far(said.prediction, expected.prediction) <= 1e-6
    assert far(said.features["@stage:-1"], expected.features["@stage:-1"]) <= 1e-6
    assert torch.equal(mentor(PIXELS).prediction, expected.prediction)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no-such-compiler.*install g\+\+"):
        optimize_for_inference(made("resnet8"), BLANK, compile=True)
