"""What a run says before and while it works: its plan's cost, its bank, and how far the filling is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classroomkd.bank import RowStore
from classroomkd.cli import bank as bank_verb
from classroomkd.cli import progress
from classroomkd.cli.app import main
from classroomkd.cli.progress import Watch
from classroomkd.run import checks
from classroomkd.taps.taps import TapReader
from classroomkd.train import step_context


def plan(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--dry-run", "--json", "--debug"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


def test_the_total_is_the_stored_step_and_a_share_of_the_mentors(
    smoke: str, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", smoke, *quick, "--out", str(tmp_path / "run"), "methods=[none,average,classroomkd]", "seeds=[0,1]"]
    for more, share in (
        (["train.epochs=40", "bank=views=8"], lambda n: 8 / (40 * n)),
        (["train.epochs=3", "bank=exact"], lambda n: 81 * (1 - (1 - 1 / 81) ** (3 * n)) / (3 * n)),
    ):
        made = plan([*words, *more], capsys)
        arm = max(made["arms"][1:], key=lambda arm: arm["x_floor"])
        for key, trainings in (("one training", 1), ("all trainings", 4)):
            expected = arm["x_floor_bank"] + share(trainings) * (arm["x_floor"] - arm["x_floor_bank"])
            assert made["bank"]["total"][key] == pytest.approx(expected)


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How every context is made from here on; nothing is compiled."""
    made: list[dict[str, Any]] = []

    class Watched(step_context.StepRunner):
        def __init__(
            self, runtime: Any, room: Any, optimizer: Any, inputs: Any, record: Any, progress: Any, **more: Any
        ) -> None:
            compiled = []

            def compile(module: nn.Module, **_: Any) -> nn.Module:
                compiled.append(type(module))
                return module

            monkeypatch.setattr(torch, "compile", compile)
            super().__init__(runtime, room, optimizer, inputs, record, progress, **more)
            pixels = inputs(torch.zeros(2, 3, 8, 8))
            weights = [p for p in room.student.parameters() if p.dim() == 4 and p.shape[1] > 1]
            last = [x.is_contiguous(memory_format=torch.channels_last) for x in (pixels, *weights)]
            made.append({"method": type(room.method).__name__, "compiled": compiled, "last": set(last), **more})

    monkeypatch.setattr(step_context, "StepRunner", Watched)
    monkeypatch.setattr(checks, "check_compiler", lambda device: None)
    return made


@pytest.mark.parametrize("last", ["true", "false"])
def test_a_dry_run_and_a_bench_time_what_a_training_does(
    smoke: str, quick: list[str], tmp_path: Path, contexts: list[dict[str, Any]], last: str
) -> None:
    words = [smoke, *quick, "method=average", "train.compile=true", "train.clip=2", "train.ema=0.5"]
    words += ["train.accumulate=2", f"train.channels_last={last}", "mentor_train.compile=false"]
    assert main(["run", *words, "--out", str(tmp_path / "run"), "--quiet", "--debug"]) == 0
    (trained,) = [made for made in contexts if made["method"] == "Average"]
    assert trained["compiled"] == [TapReader]
    assert trained["last"] == {last == "true"}
    assert (trained["accumulate"], trained["clip"], trained["ema"], trained["compile"]) == (2, 2.0, 0.5, True)
    for verb in (["run", *words, "--dry-run", "--json"], ["bench", *words, "--rounds", "2", "--json"]):
        contexts.clear()
        assert main([*verb, "--debug"]) == 0
        assert [made for made in contexts if made["method"] == "Average"] == [trained]
        assert all(made == trained | {"method": "Alone"} for made in contexts if made["method"] != "Average")


def test_a_run_says_what_its_bank_is_going_to_do(
    smoke: str, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", smoke, *quick, "methods=[none,average]", "train.epochs=3"]

    def said(*more: str) -> str:
        capsys.readouterr()
        assert main([*words, *more, "--out", str(tmp_path / "-".join(more)), "--debug"]) == 0
        lines = capsys.readouterr().err.splitlines()
        banks = [i for i, line in enumerate(lines) if line.startswith("bank ")]
        assert banks == [i for i in banks if not any(" s  " in line for line in lines[:i])]  # before the work
        return "".join(lines[i] for i in banks)

    made = plan([*words, "bank=views=2", "seeds=[0,1]", "--out", str(tmp_path / "no")], capsys)
    networks = [made["student"], *made["mentors"].values()]
    student, *mentors = (network["multiply_adds"] for network in networks)
    asked = sum(mentors) / (3 * student)
    line = said("bank=views=2", "seeds=[0,1]")
    assert line.startswith("bank views=2: as the recipe says. ")
    assert f"about {2 * 60 * 3} times instead of {2 * 3 * 60 * 3:,}" in line
    assert f"up to {made['bank']['bytes'] / 1024:.0f} KiB" in line
    (found,) = re.findall(r"Relative cost of a training .*: ([\d.]+), ([\d.]+) when", line)
    costs = [float(cost) for cost in found]
    assert costs == pytest.approx([1 + 2 / 3 * asked, 1 + 2 / 6 * asked], abs=0.006)
    assert "in multiply-adds, not measured" in line
    assert "when 2 share it" in line
    assert "bank exact, 81 views" in said("bank=exact")
    assert f"relative cost {1 + asked:.2f} where all are asked, in multiply-adds" in said("bank=off")
    assert "and stored features" in said("bank=views=2", "methods=[rkd]")
    assert said("bank=views=2", "methods=[none]") == ""


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What filling tells, and at its end the tasks that are drawn."""
    heard: list[dict[str, Any]] = []

    class Recorded(Watch):
        def __call__(self, event: dict[str, Any]) -> None:
            super().__call__(event)
            heard.append(event)

        def __exit__(self, *error: Any) -> None:
            drawn = [(task.description, task.percentage, task.fields["say"]) for task in self._progress.tasks]
            heard.append({"event": "end", "drawn": drawn})
            super().__exit__(*error)

    monkeypatch.setattr(bank_verb, "Watch", Recorded)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "SHARE", 0.0)
    return heard


def test_filling_shows_all_mentors_and_the_time_left(
    smoke: str, quick: list[str], tmp_path: Path, events: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bank", "fill", smoke, *quick, "bank=views=4", f"cache={tmp_path}", "train.eval_batch_size=25"]
    assert main([*words, "--debug"]) == 0
    (planned,) = [event for event in events if event["event"] == "plan"]
    assert [job["work"] for job in planned["jobs"]] == [4 * 60] * 3
    done = [(event["job"], event["answers"]) for event in events if event["event"] == "done"]
    assert done == [("broad", 240), ("slim", 240), ("arms", 240)]
    assert events[-1]["drawn"] == [("all together", 100.0, "3 of 3")]
    lines = capsys.readouterr().err.splitlines()
    filled = [line for line in lines if "mentor slim: answers stored" in line]
    assert len(filled) == 4 * 3
    assert "answers stored 10% (25 of 240)  (about" in filled[0]
    assert sum("240 samples answered now" in line for line in lines) == 3
    events.clear()
    assert main([*words, "--shard", "1/4", "--debug"]) == 0
    (planned,) = [event for event in events if event["event"] == "plan"]
    assert [job["work"] for job in planned["jobs"]] == [4 * 15] * 3
    assert events[-1]["drawn"] == [("all together", 100.0, "3 of 3")]


def test_info_says_what_top_k_leaves_out(
    smoke: str, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bank", "fill", smoke, *quick, f"cache={tmp_path}", "--quiet"]
    assert main([*words, "bank=views=1"]) == 0
    assert main(["bank", "info", str(tmp_path)]) == 0
    assert "leaves out" not in capsys.readouterr().out
    assert main([*words, "bank=views=1,top=2"]) == 0
    capsys.readouterr()
    assert main(["bank", "info", str(tmp_path), "--json"]) == 0
    found = {(store["key"]["mentor"], store["codec"][:3]): store for store in json.loads(capsys.readouterr().out)}
    whole, top = found["broad", "fp1"], found["broad", "top"]
    with RowStore.at(Path(whole["folder"])) as store:
        logits, _ = store.read(torch.zeros(60, dtype=torch.int64), torch.arange(60))
    kept = logits.float().softmax(1).topk(2, 1).values.sum(1)
    assert top["left_out"] == pytest.approx((1 - kept).mean().item(), rel=0.01)
    assert whole["left_out"] is None
    assert main(["bank", "info", str(tmp_path)]) == 0
    assert f": top-2 leaves out {top['left_out']:.1%} of the probability" in capsys.readouterr().out
