"""A signal while a run is on: the word, the command that goes on, the exit code; and what goes on ends the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from spoken import ending

import classroomkd as ck
from classroomkd import bank
from classroomkd.cli.app import main
from classroomkd.errors import Interrupted
from classroomkd.run import mentor_cache as answering
from classroomkd.run import mentors
from classroomkd.train.step import StepRunner


@pytest.fixture(autouse=True)
def plain_handlers() -> Iterator[None]:
    """As a terminal starts a program; a shell's background job and nohup ignore some."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Send this process a signal at the n-th call of something that is ``counted``."""

    def arrange(
        target: Any,
        name: str,
        at: int,
        number: int = signal.SIGTERM,
        counted: Callable[..., bool] = lambda *given, **named: True,
    ) -> None:
        plain, calls = getattr(target, name), []

        def called(*given: Any, **named: Any) -> Any:
            if counted(*given, **named):
                calls.append(1)
                if len(calls) == at:
                    os.kill(os.getpid(), number)
            return plain(*given, **named)

        monkeypatch.setattr(target, name, called)

    return arrange


def run_words(smoke: str, quick: list[str], out: Path, *more: str) -> list[str]:
    return ["run", smoke, *quick, *more, "--out", str(out), "--quiet"]


def test_a_run_stops_within_an_epoch_and_goes_on_to_the_same_students(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, send: Any
) -> None:
    """In the second arm, whose bank is half filled by then."""
    words = ["methods=[none,classroomkd]", "bank=exact", "train.batch_size=16"]
    whole, cut = (run_words(smoke, quick, tmp_path / name, *words) for name in ("whole", "cut"))
    send(StepRunner, "step", 2, counted=lambda context, batch: len(context.classroom.mentors) > 0)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    assert main(cut) == 75
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == handlers
    said = ending(capsys)
    assert said.startswith("stopped by SIGTERM at epoch 0.")
    assert "; a checkpoint was written; to go on: classroomkd run " in said
    assert said.rstrip().endswith("--resume")
    assert main([*cut, "--resume"]) == 0
    assert main(whole) == 0
    for arm in ("none", "classroomkd"):
        expected, found = (load_file(tmp_path / d / arm / "seed0" / "student.safetensors") for d in ("whole", "cut"))
        assert all(torch.equal(value, found[key]) for key, value in expected.items())


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGHUP, 75, "stopped by SIGHUP"), (signal.SIGINT, 130, "\ninterrupted")],
    ids=["hup", "int"],
)
def test_each_signal_has_its_exit_code(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, send: Any, number: int, code: int, word: str
) -> None:
    send(StepRunner, "step", 2, number)
    assert main(run_words(smoke, quick, tmp_path / "run", "method=none")) == code
    said = ending(capsys)
    assert said.startswith(f"{word} at epoch ")
    assert said.rstrip().endswith("--resume")
    assert (tmp_path / "run" / "none" / "seed0" / "checkpoints" / "last.pt").exists()


def test_a_mentor_in_training_is_kept(tmp_path: Path, quick: list[str], smoke: str, capsys: Any, send: Any) -> None:
    own = [w for w in quick if not w.startswith("cache=")]
    words = run_words(smoke, own, tmp_path / "run", f"cache={tmp_path / 'cache'}", "train.epochs=1")
    send(StepRunner, "step", 3)
    assert main(words) == 75
    assert "stopped by SIGTERM at epoch" in capsys.readouterr().err
    assert len(list((tmp_path / "cache" / "mentors").glob("*/checkpoints/last.pt"))) == 1
    assert main([*words, "--resume"]) == 0


def test_filling_a_bank_stops_at_once_and_rows_stay(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["bank=views=4", "train.eval_batch_size=16", f"cache={tmp_path / 'cache'}", "mentors=[{model: convnet4}]"]
    words = ["bank", "fill", smoke, *[w for w in quick if not w.startswith("cache=")], *words, "--quiet"]
    plain, asked = answering.asker, []

    def asker(*given: Any) -> Any:
        ask = plain(*given)

        def counted(pixels: torch.Tensor) -> Any:
            asked.append(len(pixels))
            if len(asked) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
                pytest.fail("it went on")
            return ask(pixels)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(answering, "asker", asker)
        assert main(words) == 75
    said = ending(capsys)
    assert said.startswith("stopped by SIGTERM; to go on: classroomkd bank fill ")
    store = bank.stores(tmp_path / "cache" / "bank")[0]
    assert bank.info(store).rows == sum(asked[:4])
    assert main(words) == 0
    found = bank.info(store)
    assert found.rows == found.wanted


def test_scoring_mentors_stops_at_once(tmp_path: Path, quick: list[str], smoke: str, capsys: Any, send: Any) -> None:
    words = run_words(smoke, quick, tmp_path / "run", "train.epochs=1")
    send(mentors, "_logits", 1, signal.SIGHUP)
    assert main(words) == 75
    said = ending(capsys)
    assert said.startswith("stopped by SIGHUP; to go on: classroomkd run ")
    assert main([*words, "--resume"]) == 0


def test_from_python_it_is_an_exception_of_its_own(tmp_path: Path, send: Any) -> None:
    data = {"source": "puppets", "options": {"train": 60, "test": 20, "image_size": 32}}
    settings: dict[str, Any] = {"out": tmp_path / "run", "epochs": 2, "batch_size": 16, "device": "cpu"}
    send(StepRunner, "step", 2)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM at epoch"):
        ck.distill("convnet4", [], data, "none", **settings)
    assert signal.getsignal(signal.SIGTERM) is before
    assert ck.distill("convnet4", [], data, "none", resume=True, **settings).summary["entries"]
