"""What ``distill`` takes: all that a recipe takes, and what it refuses before any work."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from colours import Colours
from safetensors.torch import load_file
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe
from classroomkd.run import workers
from classroomkd.run.session import Session

NAMES = ("red", "green", "blue")


class Channels(nn.Module):
    """Knows the colours without training: its logits are the channels, in some order."""

    def __init__(self, order: tuple[int, ...] = (0, 1, 2)) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, len(order), 1, bias=False)
        with torch.no_grad():
            self.body.weight.copy_(4 * torch.eye(3)[list(order)].view(len(order), 3, 1, 1))
        self.flat = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(len(order), len(order))
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(len(order)))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flat(self.body(x)).flatten(1))
        return logits


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def data(n: int = 48) -> dict[str, Any]:
    return {"train": Colours(n), "test": Colours(18), "classes": NAMES}


@pytest.fixture
def distill(tmp_path: Path) -> Callable[..., ck.Run]:
    """``ck.distill`` of a tiny run; every call has a folder of its own."""
    count = iter(range(100))

    def call(student: Any = None, mentors: Any = None, of: Any = None, method: Any = "average", **more: Any) -> ck.Run:
        settings = {
            "epochs": 1,
            "batch_size": 16,
            "lr": 0.05,
            "device": "cpu",
            "cache": str(tmp_path / "cache"),
            **more,
        }
        out = tmp_path / f"run{next(count)}"
        student, mentors = small() if student is None else student, [Channels()] if mentors is None else mentors
        return ck.distill(student, mentors, data() if of is None else of, method, out=out, **settings)

    return call


def test_the_same_job_as_a_recipe_gives_the_same_bits(tmp_path: Path) -> None:
    """Names as names: everything that stands in a recipe is said by ``distill`` in one way or another."""
    path = tmp_path / "big.safetensors"
    torch.manual_seed(5)
    ck.models.save_checkpoint(ck.models.create("convnet8", 10), path)
    puppets = {"train": 60, "test": 20}
    common = {"bank": "off", "device": "cpu", "check_mentors": "off", "workers": 1}
    own = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3], "size": 24, "taps": {"@stage:-2": "stage2"}}
    recipe = make_recipe(
        {
            "name": "as-recipe",
            "data": {"source": "puppets", "options": puppets, "size": 40, "resize": "stretch", "views": "flip"},
            "student": {"model": "convnet4", "samples": 40, "taps": {"@stage:-2": "stage1"}},
            "mentors": [{"name": "big", "model": "convnet8", "weights": str(path), **own}],
            "methods": [{"name": "fitnet", "weight": 2.0}],
            "train": {"epochs": 1, "batch_size": 16, "lr": 0.03},
            "seeds": [3],
            "cache": str(tmp_path / "one"),
            **common,
        }
    )
    outcome = Session(recipe, tmp_path / "as-recipe").run()
    run = ck.distill(
        {"model": "convnet4", "samples": 40, "taps": {"@stage:-2": "stage1"}},
        {"big": {"model": "convnet8", "weights": str(path), **own}},
        "puppets",
        methods=[{"name": "fitnet", "weight": 2.0}],
        out=tmp_path / "as-call",
        seeds=[3],
        options=puppets,
        size=40,
        resize="stretch",
        views="flip",
        train={"epochs": 1, "batch_size": 16},
        lr=0.03,
        cache=str(tmp_path / "two"),
        **common,
    )
    for arm in outcome.summary["arms"]:
        one, two = (
            load_file(folder / arm["folder"] / "seed3" / "student.safetensors")
            for folder in (outcome.folder, run.folder)
        )
        assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_network_handed_over_teaches_as_its_file_does(tmp_path: Path, distill: Callable[..., ck.Run]) -> None:
    path = tmp_path / "big.safetensors"
    torch.manual_seed(5)
    network = ck.models.create("convnet8", 3)
    ck.models.save_checkpoint(network, path)
    own: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3), "size": 24, "taps": {"@stage:-2": "stage1"}}
    how: dict[str, Any] = {"method": ["average", "fitnet"], "check_mentors": "off", "bank": "off", "precision": "fp32"}
    classes = ["blue", "red", "green"]
    named = {"name": "m", "model": "convnet8", "weights": str(path), "classes": classes, **own}
    handed = ck.Mentor(copy.deepcopy(network), "m", classes=classes, **own)
    runs = [distill("convnet4", [mentor], **how) for mentor in (named, handed)]
    states = [run.student().state_dict() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert runs[0].summary["mentors"][0]["accuracy"] == runs[1].summary["mentors"][0]["accuracy"]


@pytest.mark.parametrize(
    ("classes", "order", "accuracy"),
    [
        (["blue", "red", "green"], (2, 0, 1), 1.0),
        ([2, 0, 1], (2, 0, 1), 1.0),
        (["blue", "red"], (2, 0), 2 / 3),
        ([2, 0], (2, 0), 2 / 3),
    ],
)
def test_classes_meet_by_name(
    classes: Any, order: tuple[int, ...], accuracy: float, distill: Callable[..., ck.Run]
) -> None:
    mentor = ck.Mentor(Channels(order), "own", classes=classes)
    assert distill(mentors=[mentor]).summary["mentors"][0]["accuracy"] == pytest.approx(accuracy)
    as_keys = {"model": Channels(order), "name": "own", "classes": [NAMES[place] for place in order]}
    assert distill(mentors=[as_keys]).summary["mentors"][0]["accuracy"] == pytest.approx(accuracy)


def test_another_order_of_classes_is_suspected(
    distill: Callable[..., ck.Run], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="classroomkd"):
        distill(mentors=[Channels((2, 0, 1))])
    assert any("another order of classes" in text and "classes: [" in text for text in caplog.messages)


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["red", "grene"], "no class 'grene' .did you mean 'green'"),
        ([0, 7], "no class '@7'; the data 'Colours' has 3 .red, green, blue; @0 to @2 by place"),
        (["red", "red"], "a class twice"),
    ],
)
def test_classes_that_the_data_does_not_have(classes: Any, sentence: str, distill: Callable[..., ck.Run]) -> None:
    with pytest.raises(UserError, match=rf"mentor 'own': classes names {sentence}"):
        distill(mentors=[ck.Mentor(Channels((0, 1)), "own", classes=classes)])


@pytest.mark.parametrize("bank", ["off", "exact"])
@pytest.mark.parametrize(
    "dtype", [torch.float16, *(pytest.param(d, marks=pytest.mark.slow) for d in (torch.bfloat16, torch.float64))]
)
def test_networks_of_another_precision(dtype: torch.dtype, bank: str, distill: Callable[..., ck.Run]) -> None:
    student: Any = ck.models.create("convnet4", 3).to(dtype)
    mentor: Any = ck.models.create("convnet8", 3).to(dtype)
    own = ck.Mentor(Channels().to(dtype), taps={"@stage:-2": "body"})
    run = distill(student, [own, mentor], method="fitnet", bank=bank, check_mentors="off")
    assert run.summary["mentors"][0]["accuracy"] == 1.0
    assert next(run.student().parameters()).dtype == torch.float32
    assert next(student.parameters()).dtype == next(mentor.parameters()).dtype == dtype


def test_traced_scripted_and_exported_mentors(distill: Callable[..., ck.Run]) -> None:
    x = torch.randn(4, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced, scripted = torch.jit.trace(Channels().eval(), x), torch.jit.script(Channels().eval())
        exported = torch.export.export(
            Channels().eval(), (x,), dynamic_shapes=({0: torch.export.Dim("count", min=1, max=4096)},)
        ).module()
        run = distill(mentors={"traced": traced, "scripted": scripted, "exported": exported})
    assert [mentor["accuracy"] for mentor in run.summary["mentors"]] == [1.0, 1.0, 1.0]
    with pytest.raises(UserError, match=r"student: .* is a traced or exported network"):
        distill(traced)


class Session_(nn.Module):  # noqa: N801 - as a runtime's session in a module
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT\n  at session.run")


def _shared() -> dict[str, Any]:
    student, mentor = small(0), small(1)
    mentor.register_module("0", student.get_submodule("0"))
    return {"student": student, "mentors": [ck.Mentor(mentor, "big")]}


CASES: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("misspelt", lambda: {"epohcs": 3}, "epohcs: unknown key here; perhaps 'epochs', which belongs under 'train:'"),
    ("misspelt of data", lambda: {"resise": "crop"}, "resise: unknown key here; perhaps 'resize', which belongs under"),
    ("misspelt of the student", lambda: {"student": {"model": small(), "sampels": 9}}, "did you mean 'samples'"),
    ("twice", lambda: {"train": {"lr": 2.0}}, "'lr' is given twice, in train and as a keyword"),
    ("twice, data", lambda: {"of": {**data(), "size": 16}, "size": 32}, "'size' is given twice, in data"),
    ("translate", lambda: {"mentors": [ck.Mentor(Channels(), translate=lambda z: 2 * z)]}, "has translate="),
    ("weights", lambda: {"mentors": [{"model": Channels(), "weights": "w.pth"}]}, "taken as trained: 'weights'"),
    ("train", lambda: {"mentors": [{"model": Channels(), "train": {"epochs": 1}}]}, "taken as trained: 'train'"),
    ("shared", _shared, r"mentor 'big' and the student share '0' \(the student's '0'\)"),
    ("frozen", lambda: {"student": small().requires_grad_(False)}, "student: nothing in it can be trained"),
    ("nothing to train", lambda: {"student": nn.Flatten()}, "student: nothing in it can be trained"),
    ("lazy student", lambda: {"student": nn.Sequential(nn.Flatten(), nn.LazyLinear(3))}, "the student has layers with"),
    ("lazy mentor", lambda: {"mentors": [nn.Sequential(nn.Flatten(), nn.LazyLinear(3))]}, "'Sequential' has layers"),
    ("session", lambda: {"mentors": [Session_()]}, r"mentors.0 \(Session_\): .*INVALID_ARGUMENT. Set data.size"),
    ("two of three", lambda: {"mentors": [{"model": Channels(), "mean": [0.5, 0.5], "std": [0.2, 0.2]}]},
     r"mentors.0.mean = \[0.5, 0.5\]: must have one number, or one a channel"),
    ("number", lambda: {"mentors": [7]}, "is a int; give a model name"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "sentence"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_would_not_be_honoured_is_refused_before_any_work(
    given: Callable[[], dict[str, Any]], sentence: str, distill: Callable[..., ck.Run], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        distill(**given())
    assert "Traceback" not in str(error.value)
    assert not list(tmp_path.glob("run*/summary.json"))


def test_what_is_no_logit_is_said_once(distill: Callable[..., ck.Run], caplog: pytest.LogCaptureFixture) -> None:
    sure = nn.Sequential(Channels((0, 2)), nn.Softmax(-1))
    with caplog.at_level(logging.WARNING, logger="classroomkd"):
        distill(
            nn.Sequential(small(), nn.Softmax(-1)), [ck.Mentor(sure, "sure", classes=["red", "blue"])], seeds=(0, 1)
        )
    said = [text for text in caplog.messages if "answers probabilities" in text]
    assert [text.split(" answers")[0] for text in said] == ["the student", "mentor 'sure'"]


def test_sizes_and_rules_of_a_dataset(distill: Callable[..., ck.Run]) -> None:
    ways: list[dict[str, Any]] = [
        {"of": {**data(), "size": 16, "resize": "letterbox"}},
        {"of": data(), "size": 16, "resize": "letterbox"},
        {"of": (Colours(48), Colours(18)), "size": 16, "resize": "letterbox", "classes": NAMES},
    ]
    runs = [distill(**way) for way in ways]
    first, *others = (run.student().state_dict() for run in runs)
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())
    plain = distill(of=(Colours(48), Colours(18))).student().state_dict()
    assert not all(torch.equal(value, plain[name]) for name, value in first.items())


def test_a_single_mentor_needs_no_list(distill: Callable[..., ck.Run]) -> None:
    for mentor in (Channels(), {"model": Channels()}, ck.Mentor(Channels())):
        assert distill(mentors=mentor).summary["mentors"][0]["accuracy"] == 1.0


def test_a_run_is_five_lines(distill: Callable[..., ck.Run]) -> None:
    run = distill(method=None, methods=["none", "average"], seeds=(0, 1))
    lines = str(run).splitlines()
    assert [line.split(":")[0] for line in lines] == ["run", "best", "mentors", "time", "next"]
    assert lines[0] == f"run: {run.folder} (none, average; 2 seeds)"
    assert "accuracy" in lines[1]
    assert "on test (validation " in lines[1]
    assert lines[2] == "mentors: Channels 100.0%"
    assert repr(run) == str(run)
    assert "Conv2d" not in repr(run)


def test_the_student_of_several(distill: Callable[..., ck.Run], tmp_path: Path) -> None:
    """Printed, given and exported is the same, the best on validation; others by the name or place of their arm."""
    run = distill(method=None, methods=["none", "average"], seeds=(0, 1))
    scores = {(entry["method"], entry["seed"]): entry["val_last"] for entry in run.summary["entries"]}
    found = re.search(r"best: (\w+), seed (\d): ", str(run))
    assert found is not None
    arm, seed = found[1], int(found[2])
    assert scores[arm, seed] == max(scores.values())

    def weights(student: nn.Module) -> list[float]:
        return torch.cat([p.flatten() for p in student.parameters()]).tolist()

    best = weights(run.student(arm, seed))
    assert weights(run.student()) == best
    exported = load_file(run.export(tmp_path / "s.safetensors"))
    assert all(torch.equal(exported[name], value) for name, value in run.student(arm, seed).state_dict().items())
    assert weights(run.student("average")) == weights(run.student(1, 0)) == weights(run.student(-1, 0))
    assert weights(run.student("average", 1)) != weights(run.student("average", 0))
    for wrong, said in (
        (("kd",), "arm 'kd': the run has 'none', 'average'"),
        ((2,), "arm 2: the run has 'none', 'average', by name or from 0"),
        ((None, 1), "seed 1 of which arm?"),
        ((0, 7), "seed 7: the run has 0, 1"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            run.student(*wrong)


def test_a_script_without_a_guard_is_told_of_it(
    distill: Callable[..., ck.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker reads the script again, and what is said there and here names the guard."""
    guard = 'inside `if __name__ == "__main__":`'
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.process, "current_process", lambda: SimpleNamespace(_inheriting=True))
        patch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(_inheriting=True))
        with pytest.raises(UserError, match=guard):
            distill()
    script = ModuleType("__main__")
    script.__file__ = "/home/me/teach.py"
    monkeypatch.setitem(workers.sys.modules, "__main__", script)
    assert f"teach.py must call classroomkd {guard}" in workers._why_a_worker_died()
