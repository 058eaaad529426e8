"""A rank that stops or comes to rest ends all, with one sentence; torchrun's next attempt goes on by itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from classroomkd.errors import RunStopped, StoppedElsewhere, UserError
from classroomkd.run.folder import restarted
from classroomkd.train import ranks
from classroomkd.train.ranks import Ranks

FAILING = Path(__file__).with_name("failing.py")
PATIENCE = "10"  # seconds without a step, in place of 60; a step here takes milliseconds
RECIPE = {
    "data": {"source": "puppets", "options": {"train": 60, "test": 20, "image_size": 32, "hard": 0.1}},
    "student": {"model": "convnet8"},
    "mentors": [{"name": "big", "model": "convnet8"}],
    "methods": ["kd"],
    "train": {"epochs": 3, "batch_size": 16, "lr": 0.02, "log_every": 2},
    "device": "cpu",
    "threads": 1,
    "check_mentors": "off",
}  # four steps an epoch: the mentor's training ends with step 12, the first student's with step 24


def arguments(folder: Path) -> list[str]:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return [str(FAILING), "run", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--quiet"]


def environment(fail: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CLASSROOMKD_RANKS_PATIENCE": PATIENCE, "FAIL": fail}


def by_hand(folder: Path, fail: str) -> tuple[list[int], str]:
    """Two ranks that nobody watches from outside; exit codes, and what both said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = environment(fail) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    common["LOCAL_WORLD_SIZE"] = "2"
    started = [
        subprocess.Popen(
            [sys.executable, *arguments(folder), "methods=[none,kd]"], env=common | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE, text=True,
        ) for rank in ("0", "1")
    ]  # fmt: skip
    try:
        last = time.monotonic() + 240
        frozen = fail.split(":")[0] if "freeze" in fail else None  # it can only be killed
        said = [one.communicate(timeout=max(1, last - time.monotonic()))[1] for rank, one in enumerate(started)
                if str(rank) != frozen]  # fmt: skip
        return [one.returncode for rank, one in enumerate(started) if str(rank) != frozen], "".join(said)
    finally:
        for one in started:
            one.kill()
            one.wait()
            assert one.stderr is not None
            one.stderr.close()


def sentences(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error:")]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("fail", "codes", "says"),
    [
        ("1:16:full:0", [1, 1], "no space left on the disk"),
        pytest.param("1:16:rest:0", [1, 1], "stopped moving in the middle of training", marks=SLOW),
        pytest.param("0:16:full:0", [1, 1], "no space left on the disk", marks=SLOW),
        pytest.param("0:16:rest:0", [1, 1], "stopped moving in the middle of training", marks=SLOW),
        pytest.param("1:16:broken:0", [1, 1], "ZeroDivisionError: a bug", marks=SLOW),
        pytest.param("1:16:die:0", [1, -9], "went away without a word", marks=SLOW),
        pytest.param("0:16:die:0", [-9, 1], "went away without a word", marks=SLOW),
        pytest.param("1:16:freeze:0", [1], "rank 1 has given no sign of life", marks=SLOW),
        pytest.param("0:16:freeze:0", [1], "cannot be heard any more", marks=SLOW),
    ],
)
def test_all_ranks_stop_and_one_says_why(tmp_path: Path, fail: str, codes: list[int], says: str) -> None:
    found, said = by_hand(tmp_path, fail)
    assert found == codes, said
    assert len(sentences(said)) == 1, said
    assert says in sentences(said)[0]
    assert "--resume" in said or "bug" in said  # the command that goes on


def torchrun(folder: Path, fail: str, restarts: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        f"--max-restarts={restarts}", *arguments(folder),
    ]  # fmt: skip
    return subprocess.run(command, env=environment(fail), capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.parametrize("undisturbed", [False, pytest.param(True, marks=SLOW)])  # whether it is run, too
def test_torchruns_next_attempt_goes_on(tmp_path: Path, undisturbed: bool) -> None:
    """Rank 1 is killed in the student's second epoch; the end is that of a run that nobody disturbed."""
    done = torchrun(tmp_path / "a", "1:18:die:0", restarts=1)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(x) for x in (tmp_path / "a/run/kd/seed0/metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["kind"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert "run_id" in json.loads((tmp_path / "a/run/environment.json").read_text())["torchelastic"]
    if not undisturbed:
        return
    whole = torchrun(tmp_path / "b", "1:18:die:9", restarts=0)
    assert whole.returncode == 0, whole.stderr[-3000:]
    for name in ("student.safetensors", "student-best.safetensors"):
        found, expected = (load_file(tmp_path / f"{which}/run/kd/seed0/{name}") for which in "ab")
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("fail", ["0:16:full:0", "1:16:rest:0", "1:16:freeze:0"])
def test_torchrun_ends(tmp_path: Path, fail: str) -> None:
    done = torchrun(tmp_path / "a", fail, restarts=0)
    assert done.returncode == 1
    assert len(sentences(done.stderr)) == 1, done.stderr


# --- what one rank makes of the others, without processes -------------------------------------------------------------


def test_which_folder_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(**stored: str) -> Path:
        (tmp_path / "environment.json").write_text(json.dumps({"torchelastic": stored} if stored else {}))
        return tmp_path

    from classroomkd.run.folder import attempt

    assert attempt() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "seven")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted(folder(run_id="seven", agent="elsewhere:1"))  # another machine may have taken over
    assert not restarted(folder(run_id="six", agent="elsewhere:1"))
    assert not restarted(folder())
    assert not restarted(tmp_path / "nothing")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not restarted(folder(run_id="seven", agent="elsewhere:1"))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # every torchrun without a name is called so
    own = attempt()
    assert own is not None
    assert restarted(folder(**own))
    assert not restarted(folder(run_id="none", agent="elsewhere:1"))


class Store:
    """The part of torch's store that is used, in one process."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value

    def get(self, key: str) -> bytes:
        return self.kept[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.kept for key in keys)

    def compare_set(self, key: str, expected: str, value: str) -> bytes:
        if self.kept.get(key, "") == expected:
            self.kept[key] = value
        return self.kept[key].encode()


def test_the_first_reason_is_everybodys() -> None:
    store = Store()
    first, second = (Ranks(None, rank, 2, patience=1000, grace=1000) for rank in (0, 1))
    for one in (first, second):
        one.connect(store)
    try:
        error = RunStopped("no space")
        assert second.stop(error) is error
        told = first.stop(UserError("a torn collective"))
        assert isinstance(told, StoppedElsewhere)
        assert str(told) == "rank 1 stopped: no space"
        assert told.exit_code == 1
        with pytest.raises(StoppedElsewhere, match="no space"):
            first.move()
    finally:
        first.end()
        second.end()


def test_an_interruption_ends_others_with_its_code() -> None:
    store = Store()
    first, second = (Ranks(None, rank, 2, patience=1000, grace=1000) for rank in (0, 1))
    for one in (first, second):
        one.connect(store)
    try:
        error = RunStopped("interrupted")
        error.exit_code = 75  # type: ignore[attr-defined]
        assert first.stop(error) is error
        told = second.stop(RuntimeError("gloo"))
        assert isinstance(told, StoppedElsewhere)
        assert told.exit_code == 75
    finally:
        first.end()
        second.end()


@pytest.mark.parametrize(
    ("beats", "verdict"),
    [
        (["9 40 0 60", "9 40 0 60"], "ranks 0, 1 stopped moving"),
        (["9 40 0 60", "9 39 0 60"], "rank 1 stopped moving"),  # the other waits for it
        (["9 40 0 60", "9 39 1 60"], None),  # it scores, or writes a checkpoint
        (["9 40 1 60", "9 41 0 60"], None),
        (["9 40 0 500", "9 40 0 500"], None),  # its steps are long
        (["done", "9 39 1 60"], None),
        (["done", "9 40 0 60"], "rank 1 stopped moving"),
    ],
)
def test_who_has_come_to_rest(monkeypatch: pytest.MonkeyPatch, beats: list[str], verdict: str | None) -> None:
    now = [100.0]
    monkeypatch.setattr(ranks.time, "monotonic", lambda: now[0])
    one, seen = Ranks(None, 0, 2, patience=60), {rank: ranks._Seen() for rank in (0, 1)}

    def heard(passed: float, alive: bool = True) -> str | None:
        now[0] += passed
        for rank, beat in enumerate(beats):
            tick, _, rest = beat.partition(" ")
            seen[rank].hear(f"{now[0] if alive else tick} {rest}" if rest else beat)
        return one._verdict(seen)

    assert heard(0) is None
    assert heard(59) is None
    found = heard(2)
    assert (found is None) if verdict is None else (found or "").startswith(verdict)


def test_a_thread_that_says_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(ranks.time, "monotonic", lambda: now[0])
    one, seen = Ranks(None, 1, 2, patience=60), {0: ranks._Seen()}
    seen[0].hear("1 5 1 60")
    now[0] += 59
    seen[0].hear("1 5 1 60")
    assert one._verdict(seen) is None
    now[0] += 2
    assert one._verdict(seen) == "rank 0 has given no sign of life for 60 s"
    seen[0].hear("done")
    assert one._verdict(seen) is None


def test_a_rank_that_hangs_before_its_first_sign_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(ranks.time, "monotonic", lambda: now[0])
    one, seen = Ranks(None, 0, 2, patience=60), {rank: ranks._Seen(100.0 + ranks.LATER * 60) for rank in (0, 1)}
    for passed in (0, 599):  # others may start late; nobody is blamed for steps meanwhile
        now[0] = 100 + passed
        seen[0].hear(f"{passed} 40 0 60")
        assert one._verdict(seen) is None
    now[0] = 701
    seen[0].hear("601 40 0 60")
    assert one._verdict(seen) == "rank 1 has given no sign of life for 60 s"


def test_one_process_talks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with ranks.together() as alone:
        alone.move("evaluation")
        alone.move()
        assert not alone.connected
        error = RunStopped("x")
        assert alone.stop(error) is error


def test_what_may_take_long_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step (it may compile), scores and checkpoints are no rest; every other step is."""
    moves: list[str | None] = []
    monkeypatch.setattr(Ranks, "move", lambda self, phase=None: moves.append(phase))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    recipe = {**RECIPE, "mentors": [], "methods": ["none"], "workers": 1}
    recipe["train"] = {"epochs": 2, "batch_size": 16, "lr": 0.02}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    from classroomkd.cli.app import main

    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    steps = [None, None]  # before and after a step; fetching is in between
    first = ["opening an epoch", "first step", "first step", *steps[1:]]
    epoch = ["opening an epoch", None]
    assert moves == [*first, *steps * 3, "after an epoch", *epoch, *steps * 4, "after an epoch"]
