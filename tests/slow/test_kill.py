"""Killed anywhere, a run resumes to the same weights; and a wheel holds everything."""

from __future__ import annotations

import fcntl
import os
import random
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from classroomkd.bank import info
from classroomkd.bank import stores as stores_in

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def command(out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "classroomkd", "run", str(ROOT / "recipes" / "smoke.yaml"), "threads=1", "seeds=[0,1]",
        "methods=[none,classroomkd]", "train.epochs=8", "mentor_train.epochs=4",
        f"cache={out.parent / (out.name + '-cache')}",
        "--out", str(out), "--quiet", *more,
    ]  # fmt: skip


def students(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    places = ("*/seed*", "*/seed*/stages/*")
    names = ("student.safetensors", "peers/*.safetensors")
    files = [file for place in places for name in names for file in out.glob(f"{place}/{name}")]
    return {str(p.relative_to(out)): load_file(p) for p in sorted(files)}


def progress(out: Path) -> int:
    """Bytes of metrics written so far, by mentors and students."""
    folders = (out, out.parent / (out.name + "-cache"))
    return sum(p.stat().st_size for folder in folders for p in folder.rglob("metrics.jsonl"))


TOGETHER = (  # two methods of several trainees
    "mentors=[]", "peers=[{name: b, model: convnet8}, {name: t, model: convnet8, role: teacher}]",
    "methods=[dml,{name: kdml, order: gauss_seidel}]",
)  # fmt: skip


BRANCHES = ("mentors=[]", "methods=[one,pcl]", "data.views=crop_flip")  # of one student; pcl has three averages, too


@pytest.mark.parametrize(
    ("workers", "more", "networks"),
    [(1, (), 4), (2, (), 4), (1, TOGETHER, 4 + 2 * 4 + 4), (1, BRANCHES, 2 * 5 + 2 * (5 + 3))],
)
def test_kill_nine_at_random_moments(tmp_path: Path, workers: int, more: tuple[str, ...], networks: int) -> None:
    """Networks: four students and, of every peer, the last and the best weights."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(whole, f"workers={workers}", *more), check=True, env=ENV, timeout=300)
    draw = random.Random(workers)
    moments = sorted(int(draw.uniform(0.05, 0.95) * progress(whole)) for _ in range(4))
    for moment in [*moments, None]:
        resume = ["--resume"] if cut.exists() and any(cut.iterdir()) else []
        words = command(cut, f"workers={workers}", *more, *resume)
        process = subprocess.Popen(words, env=ENV, start_new_session=True)
        while process.poll() is None and (moment is None or progress(cut) < moment):
            time.sleep(0.02)
        if moment is not None:
            assert process.poll() is None, "it was done before it could be killed"
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=300)
    assert process.returncode == 0
    expected, found = students(whole), students(cut)
    assert expected.keys() == found.keys()
    assert len(expected) == networks
    for name, tensors in expected.items():
        for key, value in tensors.items():
            assert torch.equal(value, found[name][key]), (name, key)  # of two runs on one machine


STAGED = (  # alone, together, and taught by the selves of the first stage
    "mentors=[{name: self, from: alone}]", "peers=[{name: b, model: convnet8}]",
    "methods=[{label: staged, stages: [{name: alone, method: none, trainees: all, epochs: 6}, "
    "{name: together, method: dml, epochs: 6}, {name: again, method: [dml, kd], epochs: 6, start: fresh}]}]",
)  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_a_stage_and_between_stages(tmp_path: Path, workers: int) -> None:
    """In each of three stages, and after two of them: every network of every stage is the same to the bit."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(whole, f"workers={workers}", *STAGED), check=True, env=ENV, timeout=300)
    folder, wholes = cut / "staged" / "seed0", whole / "staged" / "seed0"

    def written(file: Path) -> int:
        return file.stat().st_size if file.exists() else 0

    places = ("stages/alone/metrics.jsonl", "stages/together/metrics.jsonl", "metrics.jsonl")
    sizes = [written(wholes / place) // 2 for place in places]
    moments = [
        lambda: written(folder / places[0]) > sizes[0],
        lambda: (folder / "stages" / "alone" / "entry.json").exists(),
        lambda: written(folder / places[1]) > sizes[1],
        lambda: (folder / "stages" / "together" / "entry.json").exists(),
        lambda: written(folder / places[2]) > sizes[2],
        None,
    ]
    for moment in moments:
        resume = ["--resume"] if cut.exists() and any(cut.iterdir()) else []
        words = command(cut, f"workers={workers}", *STAGED, *resume)
        process = subprocess.Popen(words, env=ENV, start_new_session=True)
        while process.poll() is None and (moment is None or not moment()):
            time.sleep(0.005)
        if moment is not None:
            assert process.poll() is None, "it was done before it could be killed"
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=300)
    assert process.returncode == 0
    expected, found = students(whole), students(cut)
    assert expected.keys() == found.keys()
    assert len(expected) == 2 * 3 * (1 + 2)  # seeds, stages; the student, and of the peer the last and the best
    for name, tensors in expected.items():
        for key, value in tensors.items():
            assert torch.equal(value, found[name][key]), (name, key)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("whole_group", [False, True], ids=["parent", "group"])
def test_terminated_at_random_moments(tmp_path: Path, workers: int, whole_group: bool) -> None:
    """SIGTERM, as batch systems send it: every attempt says how to go on, and the students are the same."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(whole, f"workers={workers}"), check=True, env=ENV, timeout=300)
    draw = random.Random(10 * workers + whole_group)
    moments = sorted(int(draw.uniform(0.05, 0.9) * progress(whole)) for _ in range(3))
    for moment in [*moments, None]:
        resume = ["--resume"] if cut.exists() and any(cut.iterdir()) else []
        process = subprocess.Popen(
            command(cut, f"workers={workers}", *resume),
            env=ENV,
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and (moment is None or progress(cut) < moment):
            time.sleep(0.02)
        if moment is not None:
            assert process.poll() is None, "it was done before it could be stopped"
            (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=300)
        if moment is not None:
            assert process.returncode == 75
            said = stopping(said)
            assert said.startswith("stopped by SIGTERM")
            assert said.count("\n") == 1
            assert "to go on: classroomkd run" in said
    assert process.returncode == 0
    expected, found = students(whole), students(cut)
    assert expected.keys() == found.keys()
    for name, tensors in expected.items():
        assert all(torch.equal(value, found[name][key]) for key, value in tensors.items()), name


def _in_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup passes on as "ignore"


def stopping(said: str) -> str:
    """What is said at the end: without notes and warnings, which ``--quiet`` does not hide."""
    return "".join(
        line for line in said.splitlines(keepends=True) if not line.startswith(("note:", "warning:", "data:"))
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_is_closed(tmp_path: Path, workers: int) -> None:
    """SIGHUP comes, and what is written to the terminal from then on fails: the checkpoint is written all the same."""
    ours, theirs = os.openpty()
    words = [w for w in command(tmp_path / "run", f"workers={workers}", "train.epochs=300") if w != "--quiet"]
    process = subprocess.Popen(
        [*words, "train.checkpoint_every=300"],
        env={**ENV, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_in_terminal,
    )
    os.close(theirs)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("*/seed*/metrics.jsonl")) and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            os.read(ours, 65536)
    os.close(ours)
    assert process.wait(timeout=60) == 75
    assert list((tmp_path / "run").glob("*/seed*/checkpoints/last.pt"))


def test_ranks_stop_at_the_same_step(tmp_path: Path) -> None:
    """torchrun passes SIGTERM on to its ranks, which hear it at different moments or tell each other."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "classroomkd"]
    more = ["train.log_every=7", "train.batch_size=16", "seeds=[0]", "device=cpu", f"cache={tmp_path / 'cache'}"]
    whole, cut = ([*launch, *command(tmp_path / name, *more)[3:]] for name in ("whole", "cut"))
    subprocess.run(whole, env=ENV, check=True, timeout=300)
    process = subprocess.Popen(cut, env=ENV, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and progress(tmp_path / "cut") < 0.4 * progress(tmp_path / "whole"):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert re.search(r"stopped (by SIGTERM|with the run's other processes) at epoch", said), said
    subprocess.run([*cut, "--resume"], env=ENV, check=True, timeout=300)
    expected, found = students(tmp_path / "whole"), students(tmp_path / "cut")
    assert expected.keys() == found.keys()
    for name, tensors in expected.items():
        assert all(torch.equal(value, found[name][key]) for key, value in tensors.items()), name


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    """Only the parent is killed, as an out-of-memory killer or a batch system does it."""
    process = subprocess.Popen(
        command(tmp_path / "run", "workers=2", "train.epochs=200"), env=ENV, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("*/seed*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)
    before = progress(tmp_path / "run")
    time.sleep(2)
    assert progress(tmp_path / "run") == before, "a worker went on writing"


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path / "run", "train.epochs=200"),
        env=ENV,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job, as which the suite may run, passes SIGINT on as "ignore".
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("*/seed*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in said
    assert "Traceback" not in said


def test_wheel_holds_everything(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        check=True,
        timeout=300,
    )
    wheel = next(tmp_path.glob("classroomkd-*.whl"))
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    code = (
        "import classroomkd, pathlib; from classroomkd.cli.app import main;"
        f"assert str(pathlib.Path(classroomkd.__file__)).startswith({str(site)!r});"
        "assert main(['list', 'methods']) == 0;"
        "assert main(['demo', 'data.options.train=100', 'data.options.test=40', 'student.samples=60', 'train.epochs=1',"
        " 'mentor_train.epochs=1', 'mentors.0.train.epochs=1', 'mentors.1.train.epochs=1', 'mentors.2.train.epochs=1',"
        " 'mentors.3.train.epochs=1', 'seeds=[0,1]', 'workers=1', '--quiet']) == 0"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, env={**ENV, "PYTHONPATH": str(site)}, timeout=300
    )
    assert (tmp_path / "runs" / "demo" / "report.html").exists()


@pytest.mark.parametrize("bank", ["off", "views=2", "exact"])
def test_torchrun_gives_one_student(tmp_path: Path, bank: str) -> None:
    words = command(tmp_path / "run", "seeds=[0]", f"bank={bank}", f"cache={tmp_path / 'cache'}")[3:]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "classroomkd"]
    done = subprocess.run([*launch, *words], env=ENV, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(students(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "report.html").exists()
    stores = [info(store) for store in stores_in(tmp_path / "cache" / "bank")]
    assert len({store.key["mentor"] for store in stores}) == len(stores)  # ranks agree on what their mentors are
    assert all(store.rows == store.wanted for store in stores if bank == "views=2")
