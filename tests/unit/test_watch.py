"""Mentors' answers that are not finite: what counts as one, and that a run names and counts them, or stops."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd import report, tasks
from classroomkd.classroom import Answers
from classroomkd.cli.app import main
from classroomkd.errors import RunStopped, UserError
from classroomkd.recipe import TrainSpec
from classroomkd.tasks.pose.task import Pose
from classroomkd.train.watch import FOLD, NAMED, Watch, added, sentence

NAN, INF = float("nan"), float("inf")
CPU = torch.device("cpu")


def test_what_is_not_finite() -> None:
    task = tasks.create("classification")
    rows = [[0, 1, 2], [0, NAN, 2], [0, INF, 2], [0, -INF, 2], [-INF, -INF, -INF], [NAN, NAN, NAN], [1e30, 0, -1e30]]
    answers = torch.tensor([rows])
    expected = [False, True, True, False, True, True, False]
    assert task.broken(answers).tolist() == [expected]
    assert task.log_credibility(answers, torch.zeros(7, dtype=torch.int64))[0, :, 0].isnan().tolist() == expected


def test_what_is_not_finite_of_joints() -> None:
    task = Pose.sketch()
    answers = torch.zeros(2, 3, *task.coding.answer_shape)
    answers[0, 0, 4, 7] = NAN
    answers[1, 1, 0] = -INF  # a joint that the mentor does not know
    answers[1, 2, 16, 3] = INF
    assert task.broken(answers).tolist() == [[True, False, False], [False, False, True]]


def said(*broken: list[int], count: int = 4) -> Answers:
    """Answers of mentors to ``count`` samples; those named are NaN."""
    logits = torch.zeros(len(broken), count, 3)
    for mentor, rows in enumerate(broken):
        logits[mentor, rows] = NAN
    return Answers(logits)


def test_flags_are_summed_up_and_read_at_once() -> None:
    watch, ids = Watch(["a", "b"], tasks.create("classification"), CPU), torch.arange(4)
    for step in range(FOLD + 6):
        watch(said([], [1, 3]), (0, 1), ids + 10 * step, None)
    watch(said([0]), (0,), torch.tensor([7, 8, 9, 10]), None)  # one alone is asked
    asked = torch.tensor([[True, True, True, True], [True, True, False, False]])
    watch(said([], [1, 2]), (0, 1), ids, asked)  # NaN where nobody is asked says nothing
    found = watch.flush()
    assert found["a"] == {"answers": 1, "ids": [7]}
    assert found["b"]["answers"] == 2 * (FOLD + 6) + 1
    assert found["b"]["ids"] == [1, 3, 11, 13, 21, 23, 31, 33, 41, 43]
    assert watch.flush() == {}
    assert watch.total == found
    assert len(found["b"]["ids"]) == NAMED


def test_features_count() -> None:
    watch = Watch(["a", "b"], tasks.create("classification"), CPU)
    maps = [torch.zeros(4, 2, 3, 3), torch.zeros(4, 5)]
    maps[0][2, 1, 0, 2], maps[1][3, 4] = INF, NAN
    watch(Answers(said([], []).prediction, {"@stage:-1": tuple(maps)}), (0, 1), torch.arange(4), None)
    assert watch.flush() == {"a": {"answers": 1, "ids": [2]}, "b": {"answers": 1, "ids": [3]}}


def test_ranks_add_up() -> None:
    other = torch.full((NAMED, 1), torch.iinfo(torch.int64).max)
    other[0] = 9
    watch = Watch(["a"], tasks.create("classification"), CPU, lambda x: 2 * x, lambda x: torch.cat([x, other]))
    watch(said([0, 2]), (0,), torch.arange(4), None)
    assert watch.flush() == {"a": {"answers": 4, "ids": [0, 2, 9]}}


def test_words() -> None:
    assert sentence("x", {"answers": 1, "ids": [4]}).endswith("1 answer that is not finite (NaN or inf), to sample 4")
    assert sentence("x", {"answers": 1234, "ids": list(range(10))}).endswith(
        "samples 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and others"
    )
    both = added(
        {"a": {"answers": 1, "ids": [4]}}, {"a": {"answers": 2, "ids": [2, 4]}, "b": {"answers": 1, "ids": [0]}}
    )
    assert both == {"a": {"answers": 3, "ids": [2, 4]}, "b": {"answers": 1, "ids": [0]}}


def test_filling_a_bank_says_it(tmp_path: Path, capsys: Any) -> None:
    """``bank fill`` has no run to sum up in: it says what it hears."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    net[1].weight.data.fill_(3e38)  # finite, so the checkpoint is taken; its sums are not
    torch.save(net.state_dict(), tmp_path / "large.pth")
    (tmp_path / "overflowing.py").write_text(
        "from torch import nn\ndef make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    (tmp_path / "recipe.yaml").write_text(
        "data: {source: puppets, views: none, options: {train: 40, test: 20, image_size: 32}}\nstudent: convnet4\n"
        "mentors: [{name: bad, model: 'py:overflowing:make', checkpoint: large.pth}]\nmethod: average\nbank: views=1\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        patch.chdir(tmp_path)
        assert main(["bank", "fill", "recipe.yaml", "--trust-code", "cache=cache", "device=cpu"]) == 0
        assert "note: mentor 'bad' gave 30 answers that are not finite" in " ".join(capsys.readouterr().err.split())
        fill = ["bank", "fill", "recipe.yaml", "--trust-code", "cache=other", "device=cpu", "on_bad_mentor=stop"]
        assert main(fill) != 0
        assert "while its answers were stored, mentor 'bad' gave" in " ".join(capsys.readouterr().err.split())


class Broken(nn.Module):
    """Answers NaN to whoever is bright; to everybody with ``always``."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.net, self.always = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), always

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3)) > (-INF if self.always else 0)
        out: Tensor = self.net(x).masked_fill(bright.unsqueeze(1), NAN)
        return out


DATA = {"source": "puppets", "views": "none", "options": {"train": 60, "test": 20, "image_size": 32}}
SMALL = {"epochs": 2, "batch_size": 16, "log_every": 1, "drop_last": False}


def distilled(out: Path, mentors: dict[str, Any], method: Any = "average", **more: Any) -> ck.Run:
    torch.manual_seed(0)
    more = {"bank": "off", "check_mentors": "off", "device": "cpu", **SMALL, **more}
    return ck.distill("convnet4", mentors, DATA, method, out=out, **more)


@pytest.fixture
def good() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


@pytest.fixture
def bad() -> nn.Module:
    torch.manual_seed(2)
    return Broken()


@pytest.mark.parametrize("bank", [pytest.param("off", marks=pytest.mark.slow), "exact", "views=1"])
def test_a_run_names_and_counts_them(tmp_path: Path, good: nn.Module, bad: nn.Module, bank: str, caplog: Any) -> None:
    """Online, where the bank fills as it goes, filled ahead, and from rows that an earlier run stored."""
    mentors = {"good": good, "bad": bad}
    for attempt in ("first", "again"):
        caplog.clear()
        more = {"seeds": [0, 1], "methods": ["average", "none"], "cache": str(tmp_path / "cache")}
        run = distilled(tmp_path / attempt, mentors, bank=bank, **more)
        notes = [record.message for record in caplog.records if "not finite" in record.message]
        assert len(notes) == 1, notes
        assert notes[0].startswith("mentor 'bad' gave ")
        assert "on_bad_mentor=stop" in notes[0]
        found = {m["name"]: m["not_finite"] for m in run.summary["mentors"]}
        images = ck.data.load(DATA).train
        pixels, *_ = images.batch(torch.arange(len(images)))
        entries = [e for e in run.summary["entries"] if e["method"] == "average"]
        assert found["good"] == {"answers": 0, "ids": []}
        broken = entries[0]["not_finite"]["bad"]["answers"]
        assert 0 < broken < 2 * len(pixels)
        assert broken % 2 == 0  # every sample once an epoch
        assert found["bad"]["answers"] == 2 * broken  # two seeds; the student alone asks nobody
        assert len(found["bad"]["ids"]) == min(NAMED, broken // 2)
        rows = report.mentor_rows(report.collect([tmp_path / attempt]))
        assert [row["note"] for row in rows] == ["", f"{2 * broken} of its answers were not finite and left out"]
        assert all("not_finite" not in e for e in run.summary["entries"] if e["method"] == "none")


@pytest.mark.parametrize("bank", ["off", "exact", "views=1"])
def test_a_run_can_stop(tmp_path: Path, good: nn.Module, bad: nn.Module, bank: str) -> None:
    with pytest.raises(
        (UserError, RunStopped), match=r"mentor 'bad' gave .* not finite .*mentor_precision=fp32"
    ) as told:
        distilled(tmp_path / "run", {"good": good, "bad": bad}, bank=bank, on_bad_mentor="stop")
    assert "learning rate" not in str(told.value)
    assert "train.lr" not in str(told.value)


def test_a_lone_mentor_without_a_number_is_named(tmp_path: Path) -> None:
    """Whatever the method makes of it: where the loss is not finite the mentor is the reason, not the learning rate."""
    with suppress(UserError):
        run = distilled(tmp_path / "run", {"lone": Broken(always=True)}, "kd", log_every=2)
        assert run.summary["mentors"][0]["not_finite"]["answers"] == 2 * run.summary["data"]["student_train"]
        return
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    told = summary["failures"][0]
    assert "mentor 'lone' gave" in told
    assert "train.lr" not in told
    assert "on_bad_mentor=skip" not in told  # it is on


def test_a_resumed_training_counts_all_of_it(tmp_path: Path, bad: nn.Module, good: nn.Module) -> None:
    mentors = {"good": good, "bad": bad}
    whole = distilled(tmp_path / "whole", mentors).summary["mentors"][1]["not_finite"]

    from classroomkd.train.loop import Training

    real = Training._checkpoint

    def then_die(self: Training) -> None:
        real(self)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_checkpoint", then_die)
        with pytest.raises(KeyboardInterrupt):
            distilled(tmp_path / "cut", mentors)
    assert distilled(tmp_path / "cut", mentors, resume=True).summary["mentors"][1]["not_finite"] == whole
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["mentors"][1]["not_finite"] == whole
    assert set(SMALL) <= set(TrainSpec.model_fields)
