"""Every method in the table answers the same questions, without being told its name (DESIGN, tests)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import cases, labels
from torch import Tensor, nn

from classroomkd import bank, methods
from classroomkd.classroom import Calibration, Classroom, Lesson, PlainContext
from classroomkd.errors import UserError

B, C, M = 6, 5, 3
IDS = torch.arange(B) * 7 + 3
SHAPE = (3, 8, 8)


CASES = cases("classification")
NAMES = list(dict.fromkeys(name for name, _ in CASES))
every = pytest.mark.parametrize(("name", "given"), CASES, ids=labels(CASES))


class Rounded(nn.Module):
    """To the bank's precision and back, so that stored and live answers can be the same."""

    def forward(self, x: Tensor) -> Tensor:
        return x.half().to(x.dtype)


class Speaker(nn.Module):
    """A network that says what it was told to say about :func:`batch`, by way of features of its own.

    What it was told is a parameter, so that a leak of gradient shows.
    """

    def __init__(self, logits: Tensor, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        width = 6 + 2 * (seed % 2)
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Rounded())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), Rounded())
        self.three = nn.Sequential(nn.Conv2d(6, width, 3, 2, 1), nn.ReLU(), Rounded())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Rounded())
        self.head = nn.Linear(width, C)
        self.last = Rounded()
        self.logits = nn.Parameter(logits.float())
        with torch.no_grad():
            self.eval()
            known = batch(len(logits))[0]
            self.register_buffer("own", self.head(self.trunk(known)))
            self.register_buffer("known", known.flatten(1)[:, 0])

    def trunk(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.three(self.two(self.one(x))))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        said = self.head(self.trunk(x))
        at = torch.arange(len(said))
        if len(x) == len(said):  # a replay puts the batch in behind one blank image
            # It may be asked about some of the batch alone, so it looks which samples these are.
            nearest = (x.flatten(1)[:, :1].float() - self.known.float()).abs().min(1)
            at = torch.where(nearest.values < 0.02, nearest.indices, at)
        answer: Tensor = self.last(said - self.own[at] + self.logits[at])
        return answer


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh()),
        nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1), nn.Tanh()),
        nn.Sequential(nn.Conv2d(5, 6, 3, 2, 1), nn.Tanh()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(6, C),
    )


def said(seed: int = 1, mentors: int = M) -> Tensor:
    torch.manual_seed(seed)
    return (3 * torch.randn(mentors, B, C)).half().float()  # in the bank's precision


def classroom(
    name: str,
    given: dict[str, Any],
    answers: Tensor,
    net: nn.Module | None = None,
    order: Tensor | None = None,
    store: Any = None,
) -> Classroom:
    order = torch.arange(len(answers)) if order is None else order
    count = len(answers)
    mentors = [Speaker(answers[i], seed=10 + int(i)).to(answers.dtype) for i in order]
    torch.manual_seed(5)
    room = Classroom(
        net or student(),
        mentors,
        methods.create(name, **given),
        image_shape=SHAPE,
        register=(torch.arange(60), torch.arange(60) % C),
        taught=[i == count - 1 for i in range(count)],
        store=store,
    )
    room.epoch = 1.0  # a rule may make an exception of the first epoch (0)
    ceiling = torch.linspace(0.6, 0.9, count)[order, None].repeat(1, C)
    room.calibration = Calibration(torch.linspace(0.5, 2.0, count)[order], ceiling)
    return room


def batch(n: int = B, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, *SHAPE, generator=generator).to(dtype), torch.randint(C, (n,), generator=generator)


def teach(name: str, given: dict[str, Any], answers: Tensor, n: int = B) -> tuple[Classroom, Lesson]:
    room = classroom(name, given, answers)
    return room, room(*batch(n), ids=IDS[:n])


def by_main(room: Classroom) -> dict[str, nn.Parameter]:
    """What the main optimiser trains."""
    own = {id(p) for p in room.method.own_parameters()}
    return {name: p for name, p in room.named_parameters() if id(p) not in own}


@every
def test_finite_and_everything_trainable_learns(name: str, given: dict[str, Any]) -> None:
    room, lesson = teach(name, given, said())
    lesson.loss.backward()
    assert lesson.loss.dim() == 0
    assert lesson.loss.isfinite()
    assert lesson.terms
    trainable = by_main(room)
    assert trainable
    for key, parameter in trainable.items():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key
    for mentor in room.mentors:
        assert all(p.grad is None and not p.requires_grad for p in mentor.parameters())
        assert not any(m.training for m in mentor.modules())


@every
def test_mentors_are_outside(name: str, given: dict[str, Any]) -> None:
    room = classroom(name, given, said())
    room.train()
    assert not any(m.training for mentor in room.mentors for m in mentor.modules())
    assert not any("logits" in key for key in room.state_dict())
    room.to(torch.float64)
    assert all(p.dtype == torch.float64 for mentor in room.mentors for p in mentor.parameters())


@every
def test_record_has_its_shapes(name: str, given: dict[str, Any]) -> None:
    _, lesson = teach(name, given, said())
    if lesson.weight is None:
        assert lesson.active is None
        return
    assert lesson.temperature is not None
    assert lesson.active is not None
    assert lesson.weight.shape == lesson.temperature.shape == lesson.active.shape == (M, B)
    assert lesson.active.dtype == torch.bool
    assert (lesson.weight[~lesson.active] == 0).all()
    assert not lesson.weight.requires_grad


@every
def test_permuting_mentors_permutes_weights(name: str, given: dict[str, Any]) -> None:
    answers, order = said(), torch.tensor([2, 0, 1])
    room = classroom(name, given, answers)
    one = room(*batch(), ids=IDS)
    chosen = methods.options_model(name).model_fields
    named = any(key in chosen and chosen[key].default != "all" for key in ("mentor", "assistant"))
    if one.weight is None or named or room.method.by_place:
        return  # a method that names its one mentor, or learns something by place, is not symmetric by its own rule
    torch.manual_seed(5)
    other = classroom(name, given, answers, order=order)(*batch(), ids=IDS)
    assert other.weight is not None
    torch.testing.assert_close(other.weight, one.weight[order])
    if not any(room.method.children()):  # trainable parts start from other numbers
        torch.testing.assert_close(other.loss, one.loss)


@every
def test_batch_of_one_and_one_and_twelve_mentors(name: str, given: dict[str, Any]) -> None:
    _, lesson = teach(name, given, said(), 1)
    assert lesson.loss.isfinite()
    for mentors in (1, 12):
        room, lesson = teach(name, given, said(mentors=mentors))
        lesson.loss.backward()
        assert lesson.loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in room.parameters())


@every
def test_nan_of_an_inactive_mentor_stays_away(name: str, given: dict[str, Any]) -> None:
    answers = said()
    answers[1] = float("nan")
    room, lesson = teach(name, given, answers)
    if room.method.needs.logits and lesson.active is not None and lesson.active[1].any():
        assert not lesson.loss.isfinite()  # it does teach: the loss must say so rather than hide it
        return
    lesson.loss.backward()
    assert lesson.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in by_main(room).values())


@every
def test_bf16(name: str, given: dict[str, Any]) -> None:
    answers = said()
    _, wide = teach(name, given, answers)
    net = student().to(torch.bfloat16)
    room = classroom(name, given, answers.to(torch.bfloat16), net)
    lesson = room(*batch(dtype=torch.bfloat16), ids=IDS)
    lesson.loss.backward()
    assert lesson.loss.dtype == torch.float32
    assert all(v.isfinite() for v in lesson.terms.values())
    for key, value in wide.terms.items():
        torch.testing.assert_close(lesson.terms[key], value, rtol=0.25, atol=0.1)


@every
def test_bank_equals_online(name: str, given: dict[str, Any], tmp_path: Path) -> None:
    answers = said()
    x, y = batch()
    views = torch.zeros(B, dtype=torch.int64)
    room = classroom(name, given, answers)
    online = room(x, y, ids=IDS, views=views)
    if room.method.needs.mentors == 0:
        return
    asks, room.method.asks = room.method.asks, None
    everything = room.mentors.ask(x)
    room.method.asks = asks
    assert everything is not None

    def stored(kind: str, mentor: int, value: Tensor) -> bank.RowStore:
        folder, codec = tmp_path / f"{kind.strip('@').replace(':', '')}-{mentor}", bank.Dense(value.shape[1:])
        made = bank.RowStore.open(folder, {}, kind=kind, views=1, samples=B, codec=codec, write=True)
        made.write(views, torch.arange(B), value)
        return made

    kinds = {bank.LOGITS: everything.prediction} | {t: everything.features[t] for t in room.method.needs.features}
    stores = [{kind: stored(kind, m, values[m]) for kind, values in kinds.items()} for m in range(M)]
    store = bank.SlabBank(stores, IDS, torch.device("cpu"))
    store.begin(0)
    again = classroom(name, given, answers, store=store)
    told = again(x, y, ids=IDS, views=views)
    assert again.mentors.forwards == 0
    if room.method.needs.features:
        torch.testing.assert_close(told.loss, online.loss, rtol=1e-3, atol=1e-4)
    else:
        assert torch.equal(told.loss, online.loss)
    shuffled = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    other = classroom(name, given, answers, store=store)(x[shuffled], y[shuffled], ids=IDS[shuffled], views=views)
    if not room.method.by_place:
        torch.testing.assert_close(other.loss, told.loss, rtol=1e-4, atol=1e-5)
    exact = bank.MissBank(stores, IDS, torch.device("cpu"))
    exact.stage(IDS, views, lambda mentor, rows: pytest.fail("everything is stored"))
    assert torch.equal(classroom(name, given, answers, store=exact)(x, y, ids=IDS, views=views).loss, told.loss)


@every
def test_a_step_changes_everything_in_a_foreign_loop(name: str, given: dict[str, Any]) -> None:
    room = classroom(name, given, said())
    if room.method.needs.own_step:
        pytest.skip("says when built that it needs its own loop")
    before = {key: p.detach().clone() for key, p in room.named_parameters()}
    x, y = batch()
    context = PlainContext(room, torch.optim.SGD(by_main(room).values(), lr=0.1, momentum=0.9))
    for _ in range(1 if room.method.period == 1 else 2 * room.method.period + 1):
        lesson = room.method.step(context, {"inputs": x, "target": y, "ids": IDS})
        assert lesson.loss.isfinite()
    for key, parameter in room.named_parameters():
        assert parameter.isfinite().all(), key
        assert key not in before or not torch.equal(parameter, before[key]), key


@every
def test_no_host_sync_in_the_terms(name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    room = classroom(name, given, said())
    x, y = batch()
    context = PlainContext(room, torch.optim.SGD(by_main(room).values(), lr=0.1, momentum=0.9))
    for _ in range(2 * room.method.period):
        room.method.step(context, {"inputs": x, "target": y, "ids": IDS})

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the step waited for the device")

    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, reader, forbidden)
    for _ in range(room.method.period):
        lesson = room.gather(x, y, ids=IDS)
        lesson.conclude(room.method(lesson))
        if room.method.period > 1:
            room.method.after_step(context, lesson)
            room.steps += 1


@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_multiplies_the_mentors_terms(name: str) -> None:
    if methods.method_class(name).needs.mentors == 0:
        return
    _, whole = teach(name, {"schedule": "constant"}, said())
    room = classroom(name, {"schedule": {"decay": {"epochs": 4}}}, said())
    room.epoch = 3.0
    quarter = room(*batch(), ids=IDS)
    supervised = {key for key in whole.terms if key == "supervised"}
    assert whole.outcome is not None
    assert quarter.outcome is not None
    for key in whole.terms.keys() - supervised:
        assert quarter.outcome.coefficients[key] == pytest.approx(whole.outcome.coefficients.get(key, 1.0) / 4)
    for key in supervised:
        assert quarter.outcome.coefficients.get(key) == whole.outcome.coefficients.get(key)


@pytest.mark.parametrize("name", NAMES)
def test_matched_strength_is_one(name: str) -> None:
    if methods.method_class(name).needs.mentors == 0:
        with pytest.raises(UserError, match="strength"):
            methods.create(name, strength="matched")
        return
    _, lesson = teach(name, {"strength": "matched", "schedule": "constant"}, said())
    terms = lesson.outcome
    assert terms is not None
    assert terms.weight is not None
    assert terms.active is not None
    if "distilled" in terms.values and "distilled" not in terms.totals:
        taught = terms.active.any(0)
        total = terms.weight.sum(0)[taught].mean() if taught.any() else torch.ones(())
        coefficient = torch.as_tensor(terms.coefficients["distilled"])
        own = methods.create(name, strength="matched").coefficients["distilled"]  # type: ignore[operator,index]
        torch.testing.assert_close(coefficient * total, torch.as_tensor(float(own)))


@pytest.mark.parametrize("name", NAMES)
def test_mentors_needed_are_asked_for(name: str) -> None:
    method = methods.create(name)
    if method.needs.mentors == 0:
        assert Classroom(student(), [], method)(*batch()).loss.isfinite()
        return
    with pytest.raises(UserError, match="mentor"):
        Classroom(student(), [], method)


@pytest.mark.parametrize("name", methods.names())
def test_data_sheet(name: str) -> None:
    import sys

    sheet = sys.modules[methods.method_class(name).__module__].__doc__ or ""
    for word in ("System", "Rule", "Defaults", "Cost", "Hurts"):
        assert word in sheet, f"{name}: the data sheet lacks '{word}'"
    source = Path(sys.modules[methods.method_class(name).__module__].__file__ or "")
    if "classroomkd/methods" in source.as_posix():
        assert len(source.read_text().splitlines()) <= 160
