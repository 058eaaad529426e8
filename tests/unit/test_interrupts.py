"""Asked to stop, a training finishes one update, writes a checkpoint within the epoch, and resumes to the same bits."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classroomkd import data, methods, tasks
from classroomkd.classroom import Classroom
from classroomkd.errors import Interrupted, RunStopped, UserError
from classroomkd.recipe import TrainSpec
from classroomkd.train import checkpoint, stopping
from classroomkd.train import loop as training
from classroomkd.train.inputs import Inputs
from classroomkd.train.loop import Result, Training
from classroomkd.train.runtime import Runtime

NEVER: Callable[[Training], int | None] = lambda job: None  # noqa: E731
TIMES = ("seconds", "data_wait", "x_floor", "crc")  # of a line of the log: clocks, and the sum with them


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 90, "test": 20, "image_size": 32}})


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu", "fp32", 1)


@pytest.fixture(autouse=True)
def plain_handlers() -> Iterator[None]:
    """As a terminal starts a program; a shell's background job and nohup ignore some."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def net(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(),
        nn.Dropout(0.2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10),
    )  # fmt: skip


def train(
    images: Any,
    runtime: Runtime,
    folder: Path | None,
    spec: TrainSpec,
    name: str,
    options: dict[str, Any] | None = None,
    stop: Callable[[Training], int | None] = NEVER,
    resume: bool = False,
) -> tuple[dict[str, torch.Tensor], Result]:
    """Raises ``Interrupted`` where ``stop`` says a signal."""
    torch.manual_seed(0)
    student = net(4)
    mentors = [net(5), net(6)] if methods.method_class(name).needs.mentors else []
    method = methods.create(name, **(options or {}))
    room = Classroom(
        student, mentors, method, task=tasks.create("classification"), image_shape=(3, 32, 32),
        register=(images.train.ids, images.train.target),
    )  # fmt: skip
    views = data.make_views("crop_flip", view_seed=0, image_size=(32, 32))
    inputs = Inputs(images.mean, images.std, runtime.device)
    job = Training(
        runtime, room, images.train, images.val, views, inputs, spec, images.classes, 0, folder, measure=False,
        asked=lambda: stop(job),
    )  # fmt: skip
    result = job.run(resume=resume)
    return {k: v.clone() for k, v in student.state_dict().items()}, result


def after(step: int) -> Callable[[Training], int | None]:
    return lambda job: int(signal.SIGTERM) if job.progress.step >= step else None


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


# Five steps an epoch; stops at the first step, within both epochs, at an epoch's last step and at the very last.
@pytest.mark.parametrize(
    ("name", "options", "more", "stops"),
    [
        ("none", {}, {"ema": 0.9, "clip": 1.0}, (1, 4, 5, 8, 10)),
        ("classroomkd", {}, {"optimizer": "adamw", "lr": 0.01}, (2, 7)),
        ("kd", {}, {"accumulate": 3, "ema": 0.9}, (1, 4, 9)),
        ("crd", {"negatives": 20}, {}, (3, 8)),
        ("mmkd", {"projector": "linear", "meta_every": 3, "buffer": 32}, {}, (2, 7)),
        ("aekd", {}, {}, (3,)),
    ],
)
def test_stopped_within_an_epoch_it_resumes_to_the_bit(
    images: Any,
    runtime: Runtime,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    more: dict[str, Any],
    stops: tuple[int, ...],
) -> None:
    """Two trainings on this machine are compared with each other."""
    spec = TrainSpec(epochs=2, batch_size=16, log_every=3, **more)
    whole, result = train(images, runtime, tmp_path / "whole", spec, name, options)
    for step in stops:
        folder = tmp_path / f"cut{step}"
        with pytest.raises(
            Interrupted, match=r"stopped by SIGTERM at epoch [\d.]+, step \d+; a checkpoint was written"
        ):
            train(images, runtime, folder, spec, name, options, after(step))
        state = checkpoint.load(folder / "checkpoints" / "last.pt")["progress"]
        wanted = step if spec.accumulate == 1 else min(-(-(step % 5) // 3) * 3 or 5, 5) + step // 5 * 5
        assert state["step"] == wanted  # no step more than the update needs
        assert state["epoch"] * 5 + state["batch"] == wanted
        again, resumed = train(images, runtime, folder, spec, name, options, resume=True)
        assert all(torch.equal(value, again[key]) for key, value in whole.items())
        assert resumed.teaching == result.teaching
        assert [(s.accuracy, s.loss) for s in resumed.val] == [(s.accuracy, s.loss) for s in result.val]
        assert (result.ema is None) == (resumed.ema is None)
        assert all(torch.equal(value, resumed.ema[key]) for key, value in (result.ema or {}).items())  # type: ignore[index]
        assert log(folder) == log(tmp_path / "whole")


def test_a_checkpoint_every_so_many_minutes(
    images: Any, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int]] = []

    def place(progress: dict[str, Any]) -> tuple[int, int]:
        return progress["epoch"], progress["batch"]

    monkeypatch.setattr(checkpoint, "save", lambda path, state, keep: written.append(place(state["progress"])))
    spec = TrainSpec(epochs=2, batch_size=16, checkpoint_every=2)
    train(images, runtime, tmp_path, spec, "none")
    assert written == [(2, 0)]
    written.clear()
    train(images, runtime, tmp_path, spec.model_copy(update={"checkpoint_minutes": 1e-9}), "none")
    assert written == [(epoch, batch) for epoch in (0, 1) for batch in range(1, 6)] + [(2, 0)]


def test_an_exam_is_not_waited_for(
    images: Any, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring can take minutes; the training is kept as it is before."""
    spec = TrainSpec(epochs=2, batch_size=16)
    whole, result = train(images, runtime, tmp_path / "whole", spec, "none")

    plain, calls = training.evaluate, []

    def exam(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            kill(signal.SIGTERM)
        return plain(*given)

    def run(resume: bool) -> tuple[dict[str, torch.Tensor], Result]:
        with stopping.listening():
            return train(images, runtime, tmp_path / "cut", spec, "none", resume=resume)

    monkeypatch.setattr(training, "evaluate", exam)
    with pytest.raises(Interrupted, match="SIGTERM"):
        run(False)
    state = checkpoint.load(tmp_path / "cut" / "checkpoints" / "last.pt")["progress"]
    assert (state["epoch"], state["batch"], state["history"]) == (0, 5, [])
    again, resumed = run(True)
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    assert [s.accuracy for s in resumed.val] == [s.accuracy for s in result.val]


def test_a_term_that_is_not_finite_never_reaches_a_checkpoint(images: Any, runtime: Runtime, tmp_path: Path) -> None:
    """The bad step lies between two log lines; the checkpoint of the stop must not hide it."""

    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.seen = net(4), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            out: torch.Tensor = self.inner(x)
            return out * float("nan") if self.seen > 7 else out

    torch.manual_seed(0)
    room = Classroom(Bad(), [], "none", task=tasks.create("classification"))
    views = data.make_views("none", view_seed=0, image_size=(32, 32))
    spec, inputs = TrainSpec(epochs=2, batch_size=16, log_every=100), Inputs(images.mean, images.std, runtime.device)
    job = Training(
        runtime, room, images.train, None, views, inputs, spec, images.classes, 0, tmp_path, measure=False,
        asked=lambda: after(8)(job),
    )  # fmt: skip
    with pytest.raises(RunStopped, match="'supervised' is not finite"):
        job.run()
    assert checkpoint.load(tmp_path / "checkpoints" / "last.pt")["progress"]["epoch"] == 1


def test_after_the_end_a_checkpoint_holds_what_the_files_need(images: Any, runtime: Runtime, tmp_path: Path) -> None:
    spec = TrainSpec(epochs=1, batch_size=16)
    weights, result = train(images, runtime, tmp_path, spec, "crd", {"negatives": 20})
    state = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    assert not {"optimizer", "method"} & set(state)
    again, resumed = train(images, runtime, tmp_path, spec, "crd", {"negatives": 20}, resume=True)
    assert all(torch.equal(value, again[key]) for key, value in weights.items())
    assert resumed.teaching == result.teaching


def test_checkpoints_of_the_schema_before_are_read(tmp_path: Path) -> None:
    torch.save({"schema": 1, "epoch": 3}, tmp_path / "last.pt")
    assert checkpoint.load(tmp_path / "last.pt") == {"epoch": 3}
    torch.save({"schema": 4, "epoch": 3}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="schema 4, this version reads 3"):
        checkpoint.load(tmp_path / "last.pt")


def as_one_dictionary(state: dict[str, Any]) -> dict[str, Any]:
    """What schema 2 wrote in place of components."""
    progress, runtime = state.pop("progress"), state.pop("runtime")
    learner = {f"{part}{key}": value for name, part in (("student", "reader.module."), ("method", "method."))
               for key, value in state.pop(name, {}).items()}  # fmt: skip
    return {
        **progress,
        "learner": learner,
        "optimizer": state.pop("optimizer", None),
        "scaler": runtime["scaler"],
        "ema": state.pop("average", None),
        "record": state.pop("record"),
        "rng": runtime["generators"],
        "threads": runtime["threads"],
        "seconds": state.pop("timer")["seconds"],
        "cost": state.pop("cost"),
        **state,
    }


@pytest.mark.parametrize(
    ("name", "options", "more", "stop"),
    [
        ("none", {}, {"ema": 0.9}, 4),
        ("crd", {"negatives": 20}, {}, 7),
        ("mmkd", {"projector": "linear", "meta_every": 3, "buffer": 32}, {}, 7),
        ("crd", {"negatives": 20}, {}, 10),  # its training had ended
    ],
)
def test_a_checkpoint_of_one_dictionary_is_taken_up_to_the_bit(
    images: Any, runtime: Runtime, tmp_path: Path, name: str, options: dict[str, Any], more: dict[str, Any], stop: int
) -> None:
    spec = TrainSpec(epochs=2, batch_size=16, log_every=3, **more)
    whole, result = train(images, runtime, tmp_path / "whole", spec, name, options)
    with pytest.raises(Interrupted):
        train(images, runtime, tmp_path / "cut", spec, name, options, after(stop))
    path = tmp_path / "cut" / "checkpoints" / "last.pt"
    old = as_one_dictionary(checkpoint.load(path))
    assert len(old) == 16
    torch.save({"schema": 2, "sum": checkpoint._digest(old), **old}, path)
    (path.parent / "SHA256SUMS").unlink()  # which there was not then
    again, resumed = train(images, runtime, tmp_path / "cut", spec, name, options, resume=True)
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    assert resumed.teaching == result.teaching
    assert [(s.accuracy, s.loss) for s in resumed.val] == [(s.accuracy, s.loss) for s in result.val]
    assert all(torch.equal(value, (resumed.ema or {})[key]) for key, value in (result.ema or {}).items())
    assert log(tmp_path / "cut") == log(tmp_path / "whole")


def test_every_flipped_byte_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """Or falls on padding, and what is read is what was written."""
    path = tmp_path / "last.pt"
    state = {"epoch": 1, "learner": {"a": torch.arange(300.0)}, "seconds": 1.5, "best": [0.5, 1]}
    checkpoint.save(path, state)
    content, found = path.read_bytes(), 0
    for place in range(7, len(content), 13):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            read = checkpoint.load(path)
        except UserError:
            found += 1
            continue
        assert torch.equal(read.pop("learner")["a"], state["learner"]["a"])  # type: ignore[index]
        assert read == {k: v for k, v in state.items() if k != "learner"}
    assert found > 1200 // 13


# --- signals ----------------------------------------------------------------------------------------------------------


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


@stopping.listening()
def heard(*numbers: int, then: Callable[[], None] = lambda: None) -> None:
    """Signals to this process, while one listens."""
    for number in numbers:
        kill(number)
    then()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_elsewhere_a_signal_is_obeyed_at_once(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match=f"stopped by {number.name}"):
        heard(number, then=lambda: pytest.fail("it went on"))
    assert stopping.asked() is None


def test_ctrl_c_stays_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        heard(signal.SIGINT)


def test_no_broad_except_holds_a_signal_up() -> None:
    @stopping.listening()
    def work() -> None:
        with suppress(Exception):
            kill(signal.SIGTERM)

    with pytest.raises(Interrupted):
        work()


def test_within_a_step_it_waits_and_a_second_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []

    @stopping.listening()
    @stopping.patient()
    def work() -> None:
        kill(signal.SIGHUP)
        kill(signal.SIGTERM)  # so soon it is the same wish: a launcher passes on what the terminal has sent
        seen.append(stopping.asked())
        monkeypatch.setattr(stopping, "SAME", 0.0)
        kill(signal.SIGTERM)
        seen.append(0)

    with pytest.raises(Interrupted, match="SIGTERM"):
        work()
    assert seen == [signal.SIGHUP]


def test_handlers_are_put_back_and_others_left_alone() -> None:
    def own(number: int, frame: object) -> None:
        pass

    before = signal.signal(signal.SIGHUP, own)
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell's background do
    try:
        plain = signal.getsignal(signal.SIGTERM)
        with stopping.listening():
            assert signal.getsignal(signal.SIGHUP) is own
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not plain
            with stopping.listening():  # a run within a run changes nothing
                pass
            assert signal.getsignal(signal.SIGTERM) is not plain
        assert signal.getsignal(signal.SIGTERM) is plain
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGINT, ignored)


def test_another_thread_listens_to_nothing() -> None:
    found: list[Any] = []

    def work() -> None:
        with stopping.listening():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
