"""The engine: schedules, evaluation, calibration, records; and the loop: resume to the bit, masks, accumulation."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import bank, data, methods, tasks
from classroomkd.bank import LOGITS
from classroomkd.classroom import Batch, Classroom, Lesson, Method, StepContext
from classroomkd.errors import RunStopped, UserError
from classroomkd.methods.none import Alone
from classroomkd.recipe import TrainSpec
from classroomkd.train import step_cost as floor
from classroomkd.train.ema import too_slow
from classroomkd.train.inputs import Batches, Inputs
from classroomkd.train.loop import Result, Training
from classroomkd.train.optim import learning_rate
from classroomkd.train.progress import Progress
from classroomkd.train.runtime import Runtime
from classroomkd.train.scoring import Score, answers, calibration_of, evaluate

CLASSES = 10


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 120, "test": 60, "image_size": 32}})


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu", "fp32", 1)


def net(width: int = 4, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=4), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(),
        nn.Linear(width * 64, CLASSES),
    )  # fmt: skip


def fit(
    images: Any,
    runtime: Runtime,
    folder: Path | None = None,
    *,
    spec: TrainSpec | None = None,
    method: str = "classroomkd",
    resume: bool = False,
    stop_after: int | None = None,
    student: nn.Module | None = None,
    measure: bool = False,
) -> tuple[nn.Module, Result | None]:
    torch.manual_seed(0)
    student = net(dropout=0.2) if student is None else student
    mentors = [net(6), net(8)] if methods.method_class(method).needs.mentors else []
    room = Classroom(student, mentors, method, task=tasks.create("classification"))

    class KilledError(Exception):
        pass

    def notify(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == stop_after:
            raise KilledError

    job = Training(
        runtime,
        room,
        images.train,
        images.val,
        data.make_views("crop_flip", view_seed=0, image_size=images.shape[1:]),
        Inputs(images.mean, images.std, runtime.device),
        spec or TrainSpec(epochs=3, batch_size=32, log_every=2),
        images.classes,
        0,
        folder,
        notify,
        measure,
    )
    try:
        return student, job.run(resume=resume)
    except KilledError:
        return student, None


def same(a: nn.Module, b: nn.Module) -> bool:
    """To the bit, as is promised of two runs on one machine; from one machine to another nothing is."""
    return all(torch.equal(x, b.state_dict()[k]) for k, x in a.state_dict().items())


# --- schedules and order ----------------------------------------------------------------------------------------------


def test_standard_schedule() -> None:
    rate = learning_rate(TrainSpec(epochs=240, lr=0.05))
    assert [rate(e) for e in (0, 149.9)] == [0.05, 0.05]
    assert [rate(e) for e in (150, 180, 210, 239)] == pytest.approx([5e-3, 5e-4, 5e-5, 5e-5])
    short = learning_rate(TrainSpec(epochs=8, lr=1.0))
    assert [short(e) for e in (4, 5, 6, 7)] == pytest.approx([1, 0.1, 0.01, 0.001])


def test_released_schedule_falls_for_120_epochs() -> None:
    """specs: 0.05, 0.04 @30, 0.03 @60, 0.01 @120, then a tenth at 150, 180 and 210."""
    spec = TrainSpec(epochs=240, lr=0.01, warmup_epochs=120, warmup_lr=0.05, milestones=(150, 180, 210))
    rate = learning_rate(spec)
    at = [rate(e) for e in (0, 30, 60, 120, 149, 151, 181, 211)]
    assert at == pytest.approx([0.05, 0.04, 0.03, 0.01, 0.01, 1e-3, 1e-4, 1e-5])


def test_cosine_with_warm_up() -> None:
    rate = learning_rate(TrainSpec(epochs=10, lr=1.0, schedule="cosine", warmup_epochs=2, min_lr=0.1))
    assert [rate(e) for e in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1.0, 0.55, 0.1])


def test_order_is_fresh_complete_and_split_over_ranks(images: Any) -> None:
    views = data.make_views("crop_flip", view_seed=0, image_size=images.shape[1:])
    whole = Batches(images.train, views, 32, seed=1)
    first, second = (torch.cat([b["ids"] for b in whole.epoch(e)]) for e in (0, 1))
    assert torch.equal(first.sort().values, images.train.ids.sort().values)
    assert not torch.equal(first, second)
    ranks = [list(Batches(images.train, views, 32, seed=1, rank=r, world=2).epoch(0)) for r in (0, 1)]
    for batch, left, right in zip(whole.epoch(0), *ranks, strict=True):
        assert torch.equal(torch.cat([left["ids"], right["ids"]]), batch["ids"])
        assert torch.equal(torch.cat([left["pixels"], right["pixels"]]), batch["pixels"])


class Decoded:
    """The pixels of an image set as if they were decoded on demand; knows who fetched what, and in what order."""

    decodes = True

    def __init__(self, pixels: Any) -> None:
        self.pixels, self.shape, self.device = pixels, pixels.shape, pixels.device
        self.fetched: list[tuple[str, int]] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def fetch(self, index: torch.Tensor) -> torch.Tensor:
        self.fetched.append((threading.current_thread().name, len(index)))
        return self.pixels.fetch(index)


def test_files_are_decoded_a_batch_ahead(images: Any) -> None:
    views = data.make_views("crop_flip", view_seed=0, image_size=images.shape[1:])
    pixels = Decoded(images.train.pixels)
    part = replace(images.train, pixels=pixels)
    expected, found = Batches(images.train, views, 32, seed=1), Batches(part, views, 32, seed=1)
    last = time.monotonic() + 300
    for place, (batch, other) in enumerate(zip(expected.epoch(0), found.epoch(0), strict=True)):
        assert all(torch.equal(batch[key], other[key]) for key in batch)
        wanted = min(place + 2, len(found))  # the next is decoded while this one is used, and none after it
        while len(pixels.fetched) < wanted and time.monotonic() < last:
            time.sleep(0.001)
        assert len(pixels.fetched) == wanted
    assert all(name.startswith("batch") for name, _ in pixels.fetched)
    next(found.epoch(1))  # whoever stops early waits for what is being decoded, no longer
    assert not any(thread.name.startswith("batch") for thread in threading.enumerate())


def test_a_file_that_cannot_be_decoded_ends_the_epoch(images: Any) -> None:
    class Broken(Decoded):
        def fetch(self, index: torch.Tensor) -> torch.Tensor:
            raise UserError("data: picture 7 cannot be used")

    views = data.make_views("none", view_seed=0, image_size=images.shape[1:])
    with pytest.raises(UserError, match="picture 7"):
        list(Batches(replace(images.train, pixels=Broken(images.train.pixels)), views, 32, seed=1).epoch(0))


def test_a_single_left_over_sample_is_left_out(images: Any) -> None:
    views = data.make_views("none", view_seed=0, image_size=images.shape[1:])
    n = len(images.train)
    assert Batches(images.train, views, n - 1, 0).sizes == [n - 1]
    assert Batches(images.train, views, n - 2, 0).sizes == [n - 2, 2]
    assert Batches(images.train, views, n - 2, 0, drop_last=True).sizes == [n - 2]
    assert Batches(images.train, views, 10 * n, 0).sizes == [n]


# --- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resume_is_bitwise(images: Any, runtime: Runtime, tmp_path: Path, optimizer: str) -> None:
    spec = TrainSpec(epochs=3, batch_size=32, optimizer=optimizer, lr=0.02, ema=0.9, clip=1.0, log_every=2)
    whole, result = fit(images, runtime, tmp_path / "a", spec=spec)
    for stop in (1, 2):
        folder = tmp_path / f"b{stop}"
        fit(images, runtime, folder, spec=spec, stop_after=stop)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "train", "step": 99')  # what a kill leaves
        again, resumed = fit(images, runtime, folder, spec=spec, resume=True)
        assert same(whole, again)
        assert result is not None
        assert resumed is not None
        assert resumed.teaching == result.teaching
        assert [s.accuracy for s in resumed.val] == [s.accuracy for s in result.val]
        assert all(torch.equal(v, resumed.ema[k]) for k, v in result.ema.items())
        steps = [
            [json.loads(x)["step"] for x in (tmp_path / d / "metrics.jsonl").read_text().splitlines()]
            for d in ("a", folder.name)
        ]
        assert steps[0] == steps[1]


def test_same_seed_same_weights_and_the_probe_leaves_no_trace(images: Any, runtime: Runtime) -> None:
    plain, _ = fit(images, runtime)
    measured, result = fit(images, runtime, measure=True)
    assert same(plain, measured)
    assert result is not None
    assert result.cost["cost_ratio"] > 0


def test_the_probe_does_not_dwell_on_slow_steps(images: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(floor, "_pass", lambda *_: passes.append(1))
    for enough, rounds in ((0.0, 2), (1e9, 8)):  # the first round is not measured
        passes.clear()
        monkeypatch.setattr(floor, "ENOUGH", enough)
        _, result = fit(images, runtime, measure=True)
        assert len(passes) == 2 * rounds
        assert result is not None
        assert result.cost["step_ms"] >= 0


class Poison(nn.Module):
    """A network whose answers become NaN after some batches."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.inner, self.after, self.seen = net(), after, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        out: Tensor = self.inner(x)
        return out * float("nan") if self.training and self.seen > self.after else out


def test_nan_stops_names_the_term_and_keeps_the_last_good_checkpoint(
    images: Any, runtime: Runtime, tmp_path: Path
) -> None:
    student = Poison(after=6)
    with pytest.raises(RunStopped, match=r"the term '(supervised|distilled)' is not finite.*last\.pt"):
        fit(images, runtime, tmp_path, student=student)
    state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert state["progress"]["epoch"] == 1
    assert all(v.isfinite().all() for v in state["student"].values() if v.is_floating_point())


@pytest.mark.parametrize(
    ("decay", "updates", "says"),
    [
        (None, 1, ""), (0.9, 30, ""), (0.999, 3000, ""),
        (0.9999, 120, "train.ema=0.9999 averages over about 10,000 steps and the training has 120: "),
        (0.999, 500, "try train.ema=0.98"), (0.9, 5, "try train.ema=null"),
    ],
)  # fmt: skip
def test_an_average_slower_than_its_training_is_named(decay: float | None, updates: int, says: str) -> None:
    assert says in too_slow(decay, updates)
    assert bool(too_slow(decay, updates)) == bool(says)


def test_a_training_says_so_once_for_all_seeds(images: Any, runtime: Runtime) -> None:
    spec = TrainSpec(epochs=1, batch_size=32, ema=0.9999, accumulate=2)
    for label, expected in (("arm 'x'", 1), ("", 0)):
        told: list[dict[str, Any]] = []
        Training(
            runtime, Classroom(net(), [], "none"), images.train, None,
            data.make_views("crop_flip", view_seed=0, image_size=images.shape[1:]),
            Inputs(images.mean, images.std, runtime.device), spec,
            images.classes, 0, None, told.append, False, label=label,
        ).run()  # fmt: skip
        assert sum("train.ema" in event.get("text", "") for event in told) == expected


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_bad_update_is_masked_without_a_sync(images: Any, runtime: Runtime, optimizer: str) -> None:
    student = Poison(after=2)
    with pytest.raises(RunStopped):
        fit(
            images,
            runtime,
            student=student,
            spec=TrainSpec(epochs=1, batch_size=32, optimizer=optimizer, log_every=100),
        )
    assert all(p.isfinite().all() for p in student.parameters())


def test_accumulated_batches_are_one_large_one(images: Any, runtime: Runtime) -> None:
    def linear() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))

    def train(batch_size: int, accumulate: int) -> nn.Module:
        spec = TrainSpec(
            epochs=2, batch_size=batch_size, accumulate=accumulate, lr=0.01, drop_last=True, schedule="constant"
        )
        part = images.train.subset(torch.arange(96))
        return fit(images_with(images, part), runtime, spec=spec, method="none", student=linear())[0]

    for a, b in zip(train(32, 1).parameters(), train(16, 2).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_group_cut_by_the_epoch_is_resumed_to_the_bit(images: Any, runtime: Runtime, tmp_path: Path) -> None:
    spec = TrainSpec(
        epochs=3, batch_size=32, accumulate=3, lr=0.02, log_every=1
    )  # four batches: a group of 3 and one of 1
    whole, _ = fit(images, runtime, tmp_path / "a", spec=spec)
    fit(images, runtime, tmp_path / "b", spec=spec, stop_after=1)
    again, _ = fit(images, runtime, tmp_path / "b", spec=spec, resume=True)
    assert same(whole, again)
    large = TrainSpec(epochs=1, batch_size=32, accumulate=1000, lr=0.02)
    torch.manual_seed(0)
    fresh = net(dropout=0.2)
    taught, _ = fit(images, runtime, spec=large)
    assert not same(fresh, taught)  # an epoch is at least one update


def test_a_ramp_goes_by_steps_and_is_resumed_to_the_bit(
    images: Any, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float, float]] = []
    asked = Classroom.collect

    def gather(self: Classroom, *args: Any, **kwargs: Any) -> Any:
        lesson = asked(self, *args, **kwargs)
        seen.append((lesson.epoch, lesson.progress, self.method.factor_of(lesson)))
        return lesson

    monkeypatch.setattr(Classroom, "collect", gather)
    spec = TrainSpec(epochs=3, batch_size=16, log_every=2)
    whole, _ = fit(images, runtime, tmp_path / "a", method="dkd", spec=spec)
    each = len(seen) // 3
    epochs, progress, factors = (torch.tensor(column) for column in zip(*seen, strict=True))
    torch.testing.assert_close(epochs, torch.arange(3 * each) / each)
    torch.testing.assert_close(progress, epochs / 3)
    assert factors[0] == 0.05
    assert 0.05 < factors[1] < 1  # a twelfth of three epochs is a quarter of one
    assert (factors[each // 4 + 1 :] == 1).all()
    first = list(seen)
    fit(images, runtime, tmp_path / "b", method="dkd", spec=spec, stop_after=1)
    again, _ = fit(images, runtime, tmp_path / "b", method="dkd", spec=spec, resume=True)
    assert same(whole, again)
    assert seen[len(first) :] == first


def images_with(images: Any, part: Any) -> Any:
    from dataclasses import replace

    return replace(images, train=part)


def test_bf16_trains(images: Any) -> None:
    _, result = fit(images, Runtime("cpu", "bf16", 1))
    assert result is not None
    assert all(s.loss > 0 for s in result.val)


def test_runtime_refuses_what_is_not_there() -> None:
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        Runtime("cpu", "fp16")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device=cpu"):
            Runtime("cuda")
    with pytest.raises(UserError, match="not known"):
        Runtime("gpu")


def test_teaching_record_counts_every_sample(images: Any, runtime: Runtime, tmp_path: Path) -> None:
    _, result = fit(images, runtime, tmp_path, spec=TrainSpec(epochs=2, batch_size=30, log_every=3))
    assert result is not None
    seen = sum(result.teaching["count"])
    assert seen == 2 * sum(
        Batches(images.train, data.make_views("none", view_seed=0, image_size=(32, 32)), 30, 0).sizes
    )
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = [x for x in lines if x["kind"] == "train"]
    assert all(len(x["mentors"]["active"]) == 2 for x in train)
    assert all(0 <= share <= 1 for x in train for share in x["mentors"]["active"])
    assert [x["epoch"] for x in lines if x["kind"] == "val"] == [1, 2]


# --- scores, calibration, bank ----------------------------------------------------------------------------------------


def test_evaluate_by_hand(images: Any, runtime: Runtime) -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0] + [0.0] * (CLASSES - 1)]).repeat(len(x), 1)

    inputs = Inputs(images.mean, images.std, runtime.device)
    score = evaluate(First(), images.test, inputs, CLASSES, 7)
    assert score.accuracy == pytest.approx(float((images.test.target == 0).double().mean()))
    assert score.per_class[0] == 1.0
    assert set(score.per_class[1:]) == {0.0}
    assert score.samples == len(images.test)
    with pytest.raises(UserError, match="answers 10 classes, the data has 7"):
        evaluate(First(), images.test, inputs, 7)


def test_calibration_finds_the_temperature() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 5)
    target = torch.distributions.Categorical(logits=logits).sample()
    found = calibration_of(torch.stack([3 * logits, 0.5 * logits]), target)
    assert found.temperature.tolist() == pytest.approx([3.0, 0.5], rel=0.1)
    assert found.ceiling.shape == (2, 5)
    assert ((found.ceiling > 0) & (found.ceiling <= 1)).all()


def test_bank_holds_what_mentors_say(images: Any, runtime: Runtime, tmp_path: Path) -> None:
    inputs = Inputs(images.mean, images.std, runtime.device)
    views = data.FixedViews(data.make_views("crop_flip", view_seed=0, image_size=images.shape[1:]), 3)
    module = net().eval()

    def ask(pixels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return {LOGITS: module(inputs(pixels))}

    part = images.train.subset(torch.arange(5, 60))
    key, codec = {"mentor": "a"}, bank.Dense((CLASSES,))
    store = bank.RowStore.open(tmp_path, key, kind=LOGITS, views=3, samples=55, codec=codec, write=True)
    assert bank.fill({LOGITS: store}, ask, part, views, batch_size=16) == 3 * 55
    assert bank.fill({LOGITS: store}, ask, part, views, batch_size=16) == 0
    index = torch.tensor([40, 3, 17])
    pixels, _, ids = part.batch(index)
    for room in (0, 2**20):  # one slab at a time, or all
        slabs = bank.EpochCache([{LOGITS: store}] * 2, part.ids, runtime.device, room=room)
        assert slabs.slabs.shape[:2] == (2, 3 if room else 1)
        for epoch in range(4):
            slots = views.pick(0, ids, epoch)
            slabs.begin(views.slot(0, epoch), views.slot(0, epoch + 1))
            told = slabs.lookup(ids, slots)
            live = ask(views.apply(pixels, ids, slots))[LOGITS]
            torch.testing.assert_close(told[0], live, atol=2e-3, rtol=2e-3)
            assert torch.equal(told[0], told[1])
            other = slabs.lookup(ids, (slots + 1) % 3)
            assert not torch.equal(told, other)  # another view is another answer, or none where it is not at hand
            assert bool(other.isnan().all()) or room
    assert slabs.lookup(torch.tensor([int(part.ids.max())]), slots[:1]).isfinite().all()
    stranger = next(i for i in range(int(part.ids.max())) if i not in part.ids.tolist())
    assert slabs.lookup(torch.tensor([stranger]), slots[:1]).isnan().all()


@pytest.mark.parametrize("room", [0, 2**20], ids=["a slab", "all slabs"])
@pytest.mark.parametrize("shape", [(CLASSES,), (2, 3)], ids=["classes", "bins by joint"])
def test_a_slab_keeps_the_mentors_apart(tmp_path: Path, room: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(3, 2, 9, *shape, generator=generator).half()  # mentors, views, samples
    stores = []
    for m, by_view in enumerate(said):
        store = bank.RowStore.open(
            tmp_path / str(m), {"m": m}, kind=LOGITS, views=2, samples=9, codec=bank.Dense(shape), write=True
        )
        for view, values in enumerate(by_view):
            store.write(torch.full((9,), view), torch.arange(9), values)
        stores.append({LOGITS: store})
    slabs = bank.EpochCache(stores, torch.arange(9) + 4, torch.device("cpu"), room=room)
    for view in (0, 1, 0):
        slabs.begin(view)
        told = slabs.lookup(torch.tensor([12, 4, 7]), torch.full((3,), view))
        assert torch.equal(told, said[:, view, [8, 0, 3]].float())


def test_a_damaged_slab_stops_the_training(tmp_path: Path) -> None:
    key, codec = {"mentor": "a"}, bank.Dense((CLASSES,))
    store = bank.RowStore.open(tmp_path, key, kind=LOGITS, views=1, samples=9, codec=codec, write=True)
    slabs = bank.EpochCache([{LOGITS: store}], torch.arange(9), torch.device("cpu"))
    with pytest.raises(RunStopped, match=r"9 stored answers in .* missing or damaged"):
        slabs.begin(0)
    store.write(torch.zeros(9, dtype=torch.int64), torch.arange(9), torch.randn(9, CLASSES))
    slabs.begin(0)


def test_answers_leave_the_mode_alone(images: Any, runtime: Runtime) -> None:
    module = net().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    answers(module, images.test, Inputs(images.mean, images.std, runtime.device))
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def in_halves(self: Method, context: StepContext, batch: Batch) -> Lesson:
    """A step of two lessons, one by one backward, and one update."""
    half = len(batch["ids"]) // 2
    for rows in (slice(half), slice(half, None)):
        lesson = context.lesson({key: value[rows] for key, value in batch.items()})
        lesson.conclude(self(lesson))
        context.backward(0.5 * lesson.loss)
    context.update()
    return lesson


def test_a_step_may_have_several_lessons(
    images: Any, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are recorded, and the student is that of whole batches."""

    def linear() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))

    spec = TrainSpec(epochs=2, batch_size=32, lr=0.01, drop_last=True, log_every=2, schedule="constant")
    part = images_with(images, images.train.subset(torch.arange(64)))
    whole, expected = fit(part, runtime, tmp_path / "whole", spec=spec, method="none", student=linear())
    monkeypatch.setattr(Alone, "step", in_halves)
    halved, result = fit(part, runtime, tmp_path / "halves", spec=spec, method="none", student=linear())
    assert result is not None
    assert expected is not None
    assert (result.steps, expected.steps) == (4, 4)
    for a, b in zip(whole.parameters(), halved.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    lines = [
        [json.loads(text)["loss"] for text in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "halves")
    ]
    assert lines[0] == pytest.approx(lines[1], rel=1e-4)


def test_the_best_score_has_a_direction() -> None:
    weights = {"a": torch.zeros(1)}
    for higher, values, best in (
        (True, (math.nan, -5.0, -3.0, -3.0, -4.0), (-3.0, 3)),
        (False, (2.5, math.nan, 1.5, 3.0), (1.5, 3)),
    ):
        progress = Progress(higher_is_better=higher)
        for epoch, value in enumerate(values, start=1):
            progress.score(Score(value, 0.0, [], 1), epoch, weights)
        assert progress.best == best
        assert [s.accuracy for s in progress.history[2:]] == list(values[2:])
    assert Progress().best_weights is None
