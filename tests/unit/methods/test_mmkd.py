"""mmkd: its nets, its buffer, and meta steps against real SGD steps; toy networks, float64."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import methods, models
from classroomkd.classroom import Answers, Classroom, Lesson, Mentor, PlainContext
from classroomkd.classroom.schedule import make_schedule
from classroomkd.errors import UserError
from classroomkd.methods.mmkd import MMKD
from classroomkd.methods.pieces.hard_buffer import HardBuffer, mistaken, recorded
from classroomkd.methods.pieces.meta_step import agreed
from classroomkd.methods.pieces.meta_weights import similarities
from classroomkd.tasks.classification.task import Classification

B, C, K = 8, 4, 3
RULES = ["paper", "reference"]
by_rule = pytest.mark.parametrize("rule", RULES)


class Net(nn.Module):
    """A smooth network with a map, batch normalisation and, on demand, dropout."""

    def __init__(self, width: int = 4, size: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Tanh())
        self.pool = nn.AdaptiveAvgPool2d(size)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.pool(self.body(x)))
        return self.head(x.mean((2, 3)))


def classroom(count: int = K, dropout: float = 0.0, dtype: torch.dtype = torch.float64, **options: Any) -> Classroom:
    torch.manual_seed(0)
    given = {"tap": "pool", "projector": "linear", "feature_weight": 5.0, "meta_every": 3, "buffer": 24, **options}
    student = Net(dropout=dropout)
    mentors = [Net(width=5 + k, size=3 + k % 3) for k in range(count)]
    return Classroom(student, mentors, methods.create("mmkd", **given), image_shape=(3, 6, 6)).to(dtype)


def method_of(room: Classroom) -> MMKD:
    assert isinstance(room.method, MMKD)
    return room.method


def batch(step: int, count: int = B, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(step)
    inputs = torch.randn(count, 3, 6, 6, generator=draw, dtype=torch.float64).to(dtype)
    return {"inputs": inputs, "target": torch.randint(C, (count,), generator=draw)}


def sgd(room: Classroom, **options: Any) -> torch.optim.SGD:
    own = {id(p) for p in room.method.meta_parameters()}
    given = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2, **options}
    return torch.optim.SGD([p for p in room.parameters() if id(p) not in own], **given)


def run(context: PlainContext, steps: Sequence[int], count: int = B) -> Lesson:
    for step in steps:
        lesson = context.classroom.method.step(context, batch(step, count))
        context.classroom.steps += 1
    return lesson


def untrained(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """From now on φ's gradients are noted, and φ stays."""
    noted: list[list[Tensor]] = []
    monkeypatch.setattr(method_of(room).meta.adam, "step", lambda _, gradients: noted.append(list(gradients)))
    return noted


# --- the gradient -----------------------------------------------------------------------------------------------------


def after_real_steps(
    room: Classroom, optimizer: torch.optim.SGD, lesson: Lesson, shift: Callable[[MMKD], None]
) -> float:
    """The outer loss after the virtual steps of the meta step that is due, done by the optimiser itself."""
    twin = copy.deepcopy(room)
    other = sgd(twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # the tensors in it would be shared
    context, method = PlainContext(twin, other), method_of(twin)
    shift(method)
    meta, size = method.meta, B
    rows = meta.buffer.sample(2 * size if method.paper else size, meta.taught)
    inner, outer = [x[:size] for x in rows], [x[-size:] for x in rows]

    def on(rows: Sequence[Tensor]) -> Lesson:
        return recorded(rows, lesson, context.student(rows[0]), meta.recall(rows))

    def own(rows: Sequence[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(on(rows).student.prediction, rows[1])

    seen = method.see(on(inner))
    for _ in range(2):
        now = on(inner)
        context.backward(method.matching(now, seen if method.paper else method.see(now)))
        context.update()
    context.backward(own(inner))
    context.update()
    return own(outer).item()


def slopes(room: Classroom, optimizer: torch.optim.SGD, lesson: Lesson, ours: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Ours and the measured slope of the outer loss at the entry of each parameter of φ where ours is largest."""
    found, measured, eps = [], [], 1e-4
    for which, gradient in enumerate(ours):
        entry = int(gradient.reshape(-1).abs().argmax())
        ends = []
        for sign in (1, -1):

            def shift(method: MMKD, which: int = which, entry: int = entry, by: float = sign * eps) -> None:
                method.meta_parameters()[which].data.view(-1)[entry] += by

            ends.append(after_real_steps(room, optimizer, lesson, shift))
        found.append(gradient.reshape(-1)[entry].item())
        measured.append((ends[0] - ends[1]) / (2 * eps))
    return torch.tensor(found), torch.tensor(measured)


@pytest.mark.parametrize("schedule", ["constant", {"warmup": {"epochs": 20}}], ids=str)
@pytest.mark.parametrize("options", [{}, {"nesterov": False}], ids=str)
def test_gradient_is_that_of_real_steps(
    options: dict[str, Any], schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = classroom(schedule=schedule)
    room.epoch = 4.0  # a quarter of a warm-up of 20
    optimizer = sgd(room, **options)
    noted = untrained(room, monkeypatch)
    lesson = run(PlainContext(room, optimizer), range(6))
    assert len(noted) == 2  # after steps 3 and 6
    ours, truth = slopes(room, optimizer, lesson, noted[-1])
    assert (truth.abs() > 1e-5 * room.method.factor_of(lesson)).all()
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-9)


def test_schedule_acts_in_virtual_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are steps on factor · (α L_KD + β L_F), which is what the student's own step has beside CE."""
    factors = {"constant": 1.0, "warmup": 0.05, "after": 0.0}
    norms: dict[str, list[float]] = {}
    for name, factor in factors.items():
        room = classroom(schedule={name: {"epochs": 20} if factor < 1 else {}})
        room.epochs, room.epoch = 240.0, 0.0
        method, noted = method_of(room), untrained(room, monkeypatch)
        lesson = run(PlainContext(room, sgd(room, lr=1e-6)), range(6))  # no step moves anything to speak of
        norms[name] = [torch.cat([g.reshape(-1) for g in gradients]).norm().item() for gradients in noted]
        assert method.meta.buffer.count == 24  # it fills under any
        rows = method.meta.buffer.sample(B, 1)
        on = recorded(rows, lesson, lesson.student, method.meta.recall(rows))
        scheduled = method.matching(on, method.see(on))
        method.schedule = make_schedule("constant")
        torch.testing.assert_close(scheduled, factor * method.matching(on, method.see(on)))
    assert norms["after"] == []  # no meta step while nobody teaches
    assert norms["warmup"] == pytest.approx([0.05 * norm for norm in norms["constant"]], rel=1e-2)


def test_reference_is_the_gradient_without_nesterov_only(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {}
    for nesterov in (False, True):
        room = classroom(rule="reference")
        optimizer = sgd(room, nesterov=nesterov)
        noted = untrained(room, monkeypatch)
        lesson = run(PlainContext(room, optimizer), range(6))
        ours, truth = slopes(room, optimizer, lesson, noted[-1])
        wrong[nesterov] = ((ours - truth).norm() / truth.norm()).item()
    assert wrong[False] < 1e-3  # not exact: what the nets see moves with the virtual steps, as a constant
    assert wrong[True] > 0.1


# --- a meta step ------------------------------------------------------------------------------------------------------


def snapshot(room: Classroom, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """All that the student's training depends on."""
    own = {id(p) for p in room.method.meta_parameters()}
    found = {name: p for name, p in room.named_parameters() if id(p) not in own}
    found |= dict(room.named_buffers()) | {"noise": torch.get_rng_state()}
    momentum = [optimizer.state[p]["momentum_buffer"] for g in optimizer.param_groups for p in g["params"]]
    return {name: x.detach().clone() for name, x in {**found, **{f"v{i}": v for i, v in enumerate(momentum)}}.items()}


@by_rule
def test_meta_step_changes_the_nets_alone(rule: str) -> None:
    room = classroom(rule=rule, dropout=0.3)
    optimizer = sgd(room)
    context, method = PlainContext(room, optimizer), method_of(room)
    lesson = run(context, range(5))
    nets = [p.detach().clone() for p in method.meta_parameters()]
    before, forwards = snapshot(room, optimizer), room.mentors.forwards
    method.meta.learn(context, lesson, B, method.meta_parameters(), method.see, method.matching)
    after = snapshot(room, optimizer)
    moved = {name for name, x in before.items() if not torch.equal(x, after[name])}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert statistics
    assert moved == (set() if rule == "paper" else statistics)
    if rule == "reference":  # once
        name = next(n for n in statistics if "num_batches" in n)
        assert after[name] - before[name] == 1
    assert all(not torch.equal(old, new) for old, new in zip(nets, method.meta_parameters(), strict=True))
    assert all(p.grad is None for p in method.meta_parameters())
    assert room.mentors.forwards == forwards  # their answers were stored


@by_rule
def test_samples_of_a_meta_step(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = classroom(rule=rule)
    context, method = PlainContext(room, sgd(room)), method_of(room)
    lesson = run(context, range(5))
    shown: list[set[float]] = []
    real = context.student

    def student(inputs: Tensor) -> Answers:
        shown.append(set(inputs[:, 0, 0, 0].tolist()))
        return real(inputs)

    monkeypatch.setattr(context, "student", student)
    method.meta.learn(context, lesson, B, method.meta_parameters(), method.see, method.matching)
    assert len(shown) == 7 + (rule == "reference")  # 3 steps, the outer loss, 3 steps again; the running statistics
    inner, outer = shown[0], shown[3]
    assert len(inner) == len(outer) == B
    assert inner.isdisjoint(outer) if rule == "paper" else inner == outer
    assert all(x == inner for i, x in enumerate(shown) if i != 3)


@by_rule
def test_when_and_how_many(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = classroom(rule=rule, meta_every=2, buffer=64)
    context, method = PlainContext(room, sgd(room)), method_of(room)
    sizes: list[int] = []
    monkeypatch.setattr(method.meta, "learn", lambda _, __, size, *___: sizes.append(size))
    run(context, range(1), B)
    assert sizes == []
    run(context, [1], 2)
    assert sizes == [5 if rule == "paper" else B]  # half of the ten there are; a smaller batch changes nothing
    run(context, range(4))
    assert sizes[1:] == [B, B]


def test_other_optimisers_are_refused() -> None:
    room = classroom(meta_every=1)
    context = PlainContext(room, torch.optim.AdamW(room.student.parameters()))
    with pytest.raises(UserError, match="AdamW"):
        run(context, [0])


def test_gradients_agree_over_ranks_or_are_dropped() -> None:
    mine, other = [torch.ones(2, 2), torch.zeros(3)], [3 * torch.ones(2, 2), torch.ones(3)]
    flat = torch.cat([*(g.reshape(-1) for g in other), torch.ones(1)])
    found = agreed(mine, lambda x: x + flat)
    torch.testing.assert_close(found, [2 * torch.ones(2, 2), torch.full((3,), 0.5)])
    assert all((g == 0).all() for g in agreed([torch.ones(2), torch.tensor([torch.nan])], None))


def truth(x: Tensor) -> Tensor:
    return ((x[:, 0] > 0).long() * 2 + (x[:, 1] > 0).long()) ^ (x[:, 2] > 0).long()


class Known(nn.Module):
    """Says the true class, or one that has nothing to do with it."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self.right, self.mix = right, nn.Parameter(400 * torch.randn(8, C))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return 4 * nn.functional.one_hot(truth(x) if self.right else (x @ self.mix).sin().argmax(1), C).float()


@by_rule
def test_the_good_mentor_is_found(rule: str) -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, C))
    method = methods.create("mmkd", rule=rule, feature_weight=0, meta_every=1, meta_lr=0.01, buffer=128)
    room = Classroom(student, [Known(False), Known(True), Known(False)], method)
    context = PlainContext(room, torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True))
    shares = []
    for _ in range(50):
        x = torch.randn(32, 2, 2, 2)
        lesson = method.step(context, {"inputs": x, "target": truth(x.flatten(1))})
        assert lesson.weight is not None
        shares.append(lesson.weight.mean(1))
    assert shares[0][1] < 0.4
    assert shares[-1][1] > 0.7


def test_wrong_labels_gather_in_the_buffer() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, C))
    method = methods.create("mmkd", feature_weight=0, meta_every=1000, buffer=128)
    assert isinstance(method, MMKD)
    room = Classroom(student, [Known(True), Known(True)], method)
    context = PlainContext(room, torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9))
    wrong = 0.0
    for _ in range(150):
        x = torch.randn(32, 2, 2, 2)
        y = truth(x.flatten(1)).where(torch.rand(32) > 0.2, torch.randint(C, (32,)))
        wrong += (y != truth(x.flatten(1))).double().mean().item() / 150
        method.step(context, {"inputs": x, "target": y})
    inputs, target, *_ = method.meta.buffer.sample(128, 0)
    assert (target != truth(inputs.flatten(1))).double().mean().item() > 2 * wrong


# --- the buffer -------------------------------------------------------------------------------------------------------


def rows(first: int, count: int) -> list[Tensor]:
    ids = torch.arange(first, first + count)
    return [ids, ids.to(torch.float32).view(-1, 1).expand(-1, 3)]


def test_buffer_fills_exactly_and_then_takes_mistakes() -> None:
    buffer = HardBuffer(16)
    for step, count in enumerate((7, 14, 16)):
        buffer.add(rows(7 * step, 7), torch.zeros(7, dtype=torch.bool), step)
        assert buffer.count == count
    held = buffer.state()["rows"][0].clone()
    assert held.tolist() == list(range(16))  # whole batches, the last one cut
    buffer.add(rows(100, 7), torch.zeros(7, dtype=torch.bool), 3)
    assert torch.equal(buffer.state()["rows"][0], held)
    wrong = torch.tensor([True, False, True, True, False, False, True])
    buffer.add(rows(200, 7), wrong, 4)
    ids, values = buffer.state()["rows"]
    assert sorted(set(ids.tolist()) - set(held.tolist())) == [200, 202, 203, 206]
    assert len(set(ids.tolist())) == 16  # four places, each its own
    torch.testing.assert_close(values[:, 1], ids.to(torch.float32))  # the parts of a sample stay together
    buffer.add(rows(300, 40), torch.ones(40, dtype=torch.bool), 5)  # a batch larger than the buffer
    assert set(buffer.state()["rows"][0].tolist()) == set(range(300, 316))


def test_buffer_draws_distinct_rows_by_step() -> None:
    buffer = HardBuffer(32)
    buffer.add(rows(0, 20), torch.ones(20, dtype=torch.bool), 0)
    one, again, other = buffer.sample(12, 5), buffer.sample(12, 5), buffer.sample(12, 6)
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    assert len(set(one[0].tolist())) == 12
    assert max(one[0].tolist()) < 20
    torch.testing.assert_close(one[1][:, 0], one[0].to(torch.float32))
    places = torch.cat([buffer.sample(4, step)[0] for step in range(200)])
    assert torch.bincount(places, minlength=20).min() > 15  # of 40 expected


def test_mistakes_are_wrong_answers_that_count() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
    lesson = Lesson(torch.zeros(3, 1), torch.tensor([0, 1, 1]), Answers(logits), None, Classification())
    assert mistaken(lesson).tolist() == [False, True, False]


def test_buffer_keeps_what_the_mentors_said() -> None:
    room = classroom()
    context, method = PlainContext(room, sgd(room)), method_of(room)
    lesson = run(context, range(2))
    assert lesson.mentors is not None
    said = method.meta.recall(method.meta.buffer.sample(16, 0))
    assert said.prediction.shape == (K, 16, C)
    inputs = method.meta.buffer.sample(16, 0)[0]
    again = room.mentors.ask(inputs)
    assert again is not None
    torch.testing.assert_close(said.prediction, again.prediction)
    torch.testing.assert_close(said.features["pool"], again.features["pool"])


# --- going on from a checkpoint ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"rule": "reference"}, {"feature_weight": 0.0}], ids=str)
def test_resume_is_bitwise(options: dict[str, Any]) -> None:
    def end(cut: int | None) -> dict[str, Any]:
        room = classroom(dtype=torch.float32, **options)
        optimizer = sgd(room)
        context = PlainContext(room, optimizer)
        steps = list(range(9))
        start = copy.deepcopy(room.state_dict())  # an engine that measures a step first puts everything back
        for step in steps[: cut or 4]:
            room.method.step(context, batch(step, dtype=torch.float32))
        if cut is None:
            room.load_state_dict(start)
            optimizer = sgd(room)
            context, cut = PlainContext(room, optimizer), 0
        else:
            file = io.BytesIO()
            torch.save({"room": room.state_dict(), "optimizer": optimizer.state_dict()}, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
            room = classroom(dtype=torch.float32, **options)
            room.load_state_dict(saved["room"])
            optimizer = sgd(room)
            optimizer.load_state_dict(saved["optimizer"])
            context = PlainContext(room, optimizer)
        for step in steps[cut:]:
            room.method.step(context, batch(step, dtype=torch.float32))
        return room.state_dict()

    straight = end(None)
    extra = straight.pop("method._extra_state")
    for cut in (4, 7):  # before and after there are moments of Adam
        resumed = end(cut)
        other = resumed.pop("method._extra_state")
        assert straight.keys() == resumed.keys()
        # Bits are promised of two runs on one machine, whose steps have the same shapes.
        assert all(torch.equal(straight[name], resumed[name]) for name in straight)
        assert extra["taught"] == other["taught"] == 9
        for one, two in zip(extra["buffer"]["rows"], other["buffer"]["rows"], strict=True):
            assert torch.equal(one, two)


# --- the nets ---------------------------------------------------------------------------------------------------------


def test_sizes_of_the_released_nets() -> None:
    torch.manual_seed(0)
    names = ["resnet8", "resnet8", "resnet8"]
    mentors = [models.create(name, 100) for name in names]
    room = Classroom(
        models.create("resnet8", 100), mentors, methods.create("mmkd", rule="reference"), image_shape=(3, 8, 8)
    )
    room(torch.randn(64, 3, 8, 8), torch.randint(100, (64,)))
    method = method_of(room)
    assert method.features is not None
    assert sum(p.numel() for p in method.weighting.parameters()) == 80_803
    assert sum(p.numel() for p in method.features.parameters()) == 33_283


def test_similarities_by_hand() -> None:
    torch.manual_seed(0)
    networks = [torch.randn(6, 5, dtype=torch.float64).relu() for _ in range(K + 1)]
    found = similarities(networks, lambda x: x)
    assert found.shape == (6, 3 * K + 2)
    cosines = []
    for x in networks:
        unit = x / x.norm(dim=1, keepdim=True)
        cosines.append(unit @ unit.T)
    others = [torch.stack([torch.cat([c[i, :i], c[i, i + 1 :]]) for i in range(6)]) for c in cosines]
    expected = []
    for rest in others:
        expected += [rest.mean(1), rest.amax(1)]
    for rest in others[:-1]:
        pairs = zip(rest, others[-1], strict=True)
        expected.append(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]))
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-4, atol=1e-4)

    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(similarities([x[order] for x in networks], lambda x: x), found[order])
    torch.testing.assert_close(similarities([50 * x for x in networks], lambda x: x), found)
    halves = [similarities([x[part] for x in networks], whole(networks)) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(torch.cat(halves), found)  # two ranks see what one does


def whole(networks: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """``everywhere`` of a rank that is asked for each network in turn."""
    units = iter([nn.functional.normalize(x, dim=1) for x in networks])
    return lambda _: next(units)


def test_similarities_without_anything_to_compare() -> None:
    assert similarities([torch.randn(1, 4) for _ in range(3)], lambda x: x).abs().max() < 1e-6
    found = similarities([torch.zeros(4, 5), torch.full((4, 5), torch.nan), torch.randn(4, 5)], lambda x: x)
    assert found.isfinite().all()


@by_rule
def test_feature_weights_on_real_features(rule: str) -> None:
    """The release's net saturates on raw Gram rows (specs, finding 5); ours does not."""
    torch.manual_seed(0)
    mentors = [models.create("resnet8", 10) for _ in range(K)]
    for mentor in mentors:
        mentor.train()
        for _ in range(3):  # running statistics that fit
            mentor(torch.randn(32, 3, 32, 32))
    room = Classroom(models.create("resnet8", 10), mentors, methods.create("mmkd", rule=rule), image_shape=(3, 32, 32))
    method = method_of(room)
    lesson = room(torch.randn(32, 3, 32, 32), torch.randint(10, (32,)))
    assert method.features is not None
    with torch.no_grad():
        v = method.features.weigh(method.features.see(lesson), torch.ones(K, 32, dtype=torch.bool))
    torch.testing.assert_close(v.sum(0), torch.ones(32))
    entropy = -(v * v.clamp_min(1e-30).log()).sum(0)
    if rule == "paper":
        assert entropy.min() > 0.8 * math.log(K)
    else:
        assert (v.amax(0) > 0.999).float().mean() > 0.9


def test_logit_weights_do_not_see_scale() -> None:
    found = {}
    for rule in RULES:
        room = classroom(rule=rule, feature_weight=0.0)
        method = method_of(room)
        lesson = room(**batch(0))
        assert lesson.mentors is not None
        known = torch.ones(K, B, 1, dtype=torch.bool)
        seen = [method.weighting.see(lesson, scale * lesson.mentors.prediction) for scale in (1.0, 30.0)]
        one, other = (method.weighting.weigh(x, known) for x in seen)
        found[rule] = (one - other).abs().max().item()
    assert found["paper"] < 1e-3
    assert found["reference"] > 0.1


@by_rule
def test_mentors_who_do_not_count(rule: str) -> None:
    torch.manual_seed(0)

    class Silent(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.nan

    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :2]

    mentors = [Net(5), Silent(6), Mentor(Two(7), classes=(0, 2), num_classes=C), Net(4)]
    method = methods.create("mmkd", rule=rule, tap="pool", feature_weight=5.0, meta_every=2)
    room = Classroom(Net(), mentors, method, image_shape=(3, 6, 6))
    context = PlainContext(room, sgd(room))
    for step in range(6):
        lesson = method.step(context, batch(step, dtype=torch.float32))
        assert lesson.loss.isfinite()
        assert lesson.weight is not None
        torch.testing.assert_close(lesson.weight.sum(0), torch.ones(B))
        assert (lesson.weight[1] == 0).all()
        unknown = (lesson.target % 2 == 1).nonzero()[:, 0]
        assert len(unknown)
        assert (lesson.weight[2, unknown] == 0).all()
    assert all(p.isfinite().all() for p in room.parameters())


@by_rule
def test_one_mentor_and_twelve(rule: str) -> None:
    alone = classroom(1, rule=rule)
    lesson = run(PlainContext(alone, sgd(alone)), range(4))
    assert lesson.weight is not None
    assert (lesson.weight == 1).all()
    assert alone.method.meta_parameters() == []
    assert method_of(alone).meta.buffer.count == 0
    many = classroom(12, rule=rule)
    lesson = run(PlainContext(many, sgd(many)), range(4))
    assert lesson.loss.isfinite()
    assert lesson.weight is not None
    assert lesson.weight.shape == (12, B)


def test_logits_only() -> None:
    torch.manual_seed(0)
    method = methods.create("mmkd", feature_weight=0, meta_every=2)
    assert method.needs.features == {}
    room = Classroom(Net(), [Net(), Net()], method)  # no image_shape
    lesson = run32(room, range(4))
    assert set(lesson.terms) == {"supervised", "distilled"}
    assert len(method.meta_parameters()) == 4


def run32(room: Classroom, steps: Sequence[int], count: int = B) -> Lesson:
    context = PlainContext(room, sgd(room))
    for step in steps:
        lesson = room.method.step(context, batch(step, count, torch.float32))
    return lesson


@by_rule
def test_a_batch_of_another_size(rule: str) -> None:
    room = classroom(rule=rule, dtype=torch.float32)
    first, second = run32(room, range(1)), run32(room, [1], 5)
    assert first.terms["hints"] > 0
    assert (second.terms["hints"] == 0) == (rule == "reference")


def test_what_acts_in_the_real_step() -> None:
    paper = classroom(weight=2.0, supervised_weight=0.5)(**batch(0)).outcome
    reference = classroom(rule="reference", weight=2.0, supervised_weight=0.5)(**batch(0)).outcome
    assert paper is not None
    assert reference is not None
    assert paper.coefficients == {"supervised": 0.5, "distilled": 2.0, "hints": 5.0}
    assert reference.coefficients == {"supervised": 1.0, "distilled": 1.0, "hints": 5.0}


def test_maps_are_compared_at_the_smaller_size_in_reference() -> None:
    for rule, size in (("paper", [(3, 3), (4, 4), (5, 5)]), ("reference", [(3, 3), (4, 4), (4, 4)])):
        room = classroom(rule=rule)
        hints = method_of(room).hints
        assert hints is not None
        projected = hints.projected(room(**batch(0)))
        assert [tuple(x.shape[2:]) for x in projected] == size


def test_the_student_gets_no_gradient_through_the_weights() -> None:
    room = classroom()
    lesson = room(**batch(0))
    lesson.loss.backward()
    assert all(p.grad is None for p in room.method.meta_parameters())
    method = method_of(room)
    seen = method.see(lesson)
    assert not seen[0].requires_grad
    assert seen[1] is not None
    assert not seen[1].requires_grad


def test_options_that_act_on_nothing() -> None:
    assert MMKD.idle({}) == []
    assert len(MMKD.idle({"feature_weight": 0, "tap": "body", "projector": "linear"})) == 2
    assert len(MMKD.idle({"rule": "reference", "supervised_weight": 0.5})) == 1
    with pytest.raises(UserError, match="meta_every"):
        methods.create("mmkd", meta_every=0)
