"""AMTML-KD: both rules by hand, where gradients go, and an adapter that does not collapse."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.classroom import Classroom, Lesson, Method
from classroomkd.errors import UserError
from classroomkd.functional import kl_divergence, rkd_angle
from classroomkd.methods import create
from classroomkd.methods.amtml import AMTML
from classroomkd.methods.pieces.latent import Latent, hint_distance, mixture, mixture_kl
from classroomkd.tasks.classification.task import Classification

B, C, K = 6, 5, 3


class Net(nn.Module):
    """Three stages and a classifier."""

    def __init__(self, seed: int, width: int = 4, classes: int = C) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one = nn.Conv2d(3, width, 3, padding=1)
        self.two = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.three = nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(3 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.three(F.relu(self.two(F.relu(self.one(x))))))
        return self.head(x.mean((2, 3)))


def classroom(method: str | Method = "amtml", mentors: int = K, **options: Any) -> Classroom:
    method = create(method, **options) if isinstance(method, str) else method
    networks = [Net(10 + m, width=3 + m) for m in range(mentors)]
    for network in networks:
        network.head.weight.data *= 20  # answers that are not all alike
    torch.manual_seed(1)
    return Classroom(Net(0), networks, method, image_shape=(3, 8, 8)).double()


def batch(n: int = B) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(n, 3, 8, 8, generator=draw, dtype=torch.float64), torch.randint(C, (n,), generator=draw)


def latent_of(room: Classroom) -> Latent:
    assert isinstance(room.method, AMTML)
    assert room.method.latent is not None
    return room.method.latent


def by_hand(room: Classroom, lesson: Lesson, y: Tensor, temperature: float) -> dict[str, Tensor]:
    """Weights and terms in loops, from the formulas of the data sheet."""
    method, latent = room.method, latent_of(room)
    assert isinstance(method, AMTML)
    assert lesson.mentors is not None
    feature, student, mentors = lesson.student.features["@penultimate"], lesson.student.prediction, lesson.mentors
    theta, omega = latent.representations, latent.mixing
    weights, losses, mixed = [], [], []
    for b in range(len(y)):
        beta = feature[b]
        if method.rule == "paper":
            beta = (beta - beta.mean()) / (beta.var(unbiased=False) + 1e-10).sqrt()
        s = torch.stack([sum(beta[c] * theta[k, c] * omega[c] for c in range(len(beta))) for k in range(K)])
        w = torch.softmax(s / len(beta) ** 0.5 if method.rule == "paper" else s, 0)
        q = sum(w[k] * torch.softmax(mentors.prediction[k, b] / temperature, -1) for k in range(K))
        p = torch.softmax(student[b] / temperature, -1)
        kl = (q * (q / p).log()).sum()
        losses.append(temperature**2 * (kl if method.rule == "paper" else kl / C))
        weights.append(w)
        mixed.append(q)
    goal, p = torch.stack(mixed), torch.softmax(student / temperature, -1)
    hints = []
    for j, (tap, projector) in enumerate(zip(method.taps, method.projectors, strict=True)):
        ours = F.normalize(lesson.student.features[tap], dim=1)
        cosine = F.cosine_similarity(projector(ours), mentors.features[tap][j % K], dim=1)
        hints.append((2 - 2 * cosine).mean())
    return {
        "weight": torch.stack(weights, 1),
        "supervised": F.cross_entropy(student, y),
        "distilled": torch.stack(losses).mean(),
        "angle": rkd_angle(p, goal),
        "hints": torch.stack(hints).mean() if hints else torch.zeros(()),
    }


@pytest.mark.parametrize("rule", ["paper", "reference"])
def test_the_rules_by_hand(rule: str) -> None:
    room, (x, y) = classroom(rule=rule), batch()
    lesson = room(x, y)
    expected = by_hand(room, lesson, y, 5.0)
    torch.testing.assert_close(lesson.weight, expected["weight"].detach())
    torch.testing.assert_close(lesson.terms["supervised"], expected["supervised"])
    torch.testing.assert_close(lesson.terms["distilled"], expected["distilled"])
    if rule == "paper":
        assert list(lesson.terms) == ["supervised", "distilled", "angle", "hints"]
        torch.testing.assert_close(lesson.terms["angle"], expected["angle"])
        torch.testing.assert_close(lesson.terms["hints"], expected["hints"], rtol=1e-3, atol=0)
        torch.testing.assert_close(lesson.loss, sum(lesson.terms.values()))
    else:
        assert list(lesson.terms) == ["supervised", "distilled"]
        torch.testing.assert_close(lesson.loss, 0.3 * expected["supervised"] + 1.4 * expected["distilled"])
    assert lesson.weight is not None
    assert lesson.active is not None
    torch.testing.assert_close(lesson.weight.sum(0), torch.ones(B, dtype=torch.float64))
    assert lesson.active.all()
    assert not lesson.weight.requires_grad


@pytest.mark.parametrize(("rule", "through"), [("paper", False), ("reference", True)])
def test_the_student_is_trained_through_the_weights_only_in_the_released_rule(rule: str, through: bool) -> None:
    """With the student's answer held fixed, only β is left for a gradient to reach the student by."""
    room, (x, y) = classroom(rule=rule, hint_weight=0.0, angle_weight=0.0), batch()
    lesson = room.collect(x, y)
    lesson.student.prediction = lesson.student.prediction.detach()
    room.method(lesson).values["distilled"].backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in room.student.parameters()]
    assert any(reached) == through
    for parameter in latent_of(room).parameters():  # the adapter learns in both
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_everything_that_is_trained_gets_a_gradient() -> None:
    room, (x, y) = classroom(), batch()
    room(x, y).loss.backward()
    silent = [name for name, p in room.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert sum("projectors" in name for name, _ in room.named_parameters()) == 6  # three hints, weight and bias each


def test_the_divergence_with_a_gradient_into_the_target() -> None:
    draw = torch.Generator().manual_seed(0)
    student, one = (torch.randn(B, 1, C, generator=draw, dtype=torch.float64, requires_grad=True) for _ in "ab")
    alone = mixture(one[None], torch.ones(1, B, 1, dtype=torch.float64), 3.0)
    torch.testing.assert_close(mixture_kl(student, alone, 3.0), kl_divergence(student, one, 3.0))
    logits = torch.randn(K, B, 1, C, generator=draw, dtype=torch.float64)
    logits[0, 0, 0, 2] = -torch.inf  # a class that one mentor rules out
    logits[:, 1, 0, 3] = -torch.inf  # and one that all of them do
    raw = torch.randn(K, B, 1, generator=draw, dtype=torch.float64, requires_grad=True)

    def far(student: Tensor, raw: Tensor) -> Tensor:
        return mixture_kl(student, mixture(logits, torch.softmax(raw, 0), 2.0), 2.0)

    assert torch.autograd.gradcheck(far, (student, raw))
    ruled_out = torch.zeros(B, 1, C, dtype=torch.float64, requires_grad=True)  # by the student too
    both = ruled_out + torch.zeros(C, dtype=torch.float64).index_fill(0, torch.tensor([3]), -torch.inf)
    mixed = alone.detach().index_fill(-1, torch.tensor([3]), 0.0).requires_grad_()
    mixture_kl(both, mixed, 3.0).sum().backward()
    for x in (ruled_out, mixed):
        assert x.grad is not None
        assert x.grad.isfinite().all()
    nobody = mixture_kl(student, mixture(logits, torch.zeros(K, B, 1, dtype=torch.float64), 2.0), 2.0)
    assert torch.equal(nobody, torch.zeros(B, 1, dtype=torch.float64))
    nobody.sum().backward()
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("channels", [8, 512])
def test_weights_begin_neither_equal_nor_sure(channels: int, scale: float) -> None:
    torch.manual_seed(0)
    found = []
    for _ in range(20):  # one draw may be odd
        latent, beta = Latent(K, channels), scale * torch.rand(64, channels)
        found.append(spread(latent(beta, torch.ones(K, 64, 1, dtype=torch.bool)).squeeze(-1)))
    assert 0.5 < sum(found) / len(found) < 0.97
    raw = Latent(K, channels, normalised=False)  # the released start, for contrast
    sharp = spread(raw(1e3 * torch.rand(64, channels), torch.ones(K, 64, 1, dtype=torch.bool)).squeeze(-1))
    assert sharp < 0.05


def spread(weight_MB: Tensor) -> float:
    """The mean entropy of the weights, in units of log M."""
    weight = weight_MB.detach()
    return torch.special.entr(weight).sum(0).mean().item() / math.log(len(weight))


class Expert(nn.Module):
    """Sure and right about its own third of nine classes, mildly sure and wrong about the rest."""

    def __init__(self, prototypes: Tensor, own: int) -> None:
        super().__init__()
        self.prototypes, self.own = nn.Parameter(prototypes), own
        self.head = nn.Linear(9, 9, bias=False)
        self.head.weight.data = torch.eye(9)

    def forward(self, x: Tensor) -> Tensor:
        label = torch.cdist(x.flatten(1), self.prototypes.flatten(1)).argmin(1)
        right = F.one_hot(label, 9).float()
        wrong = F.one_hot((label + 1 + self.own) % 9, 9).float()
        knows = (label // 3 == self.own).unsqueeze(1)
        return self.head(torch.where(knows, 6 * right, 3 * wrong))


def learned(penalty: float, lr: float = 0.05, steps: int = 300) -> tuple[Tensor, Tensor, float]:
    """Weights and labels of the last batch after a few hundred steps, and how often the student is right."""
    draw = torch.Generator().manual_seed(0)
    prototypes = torch.randn(9, 3, 4, 4, generator=draw)
    torch.manual_seed(1)
    student = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 9))
    experts = [Expert(prototypes, k) for k in range(K)]
    room = Classroom(student, experts, create("amtml", hint_weight=0.0), image_shape=(3, 4, 4))
    optimizer = torch.optim.SGD(room.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    for _ in range(steps):
        y = torch.randint(9, (24,), generator=draw)
        x = prototypes[y] + 0.5 * torch.randn(24, 3, 4, 4, generator=draw)
        lesson = room(x, y)
        loss = lesson.loss + penalty * sum(p.square().sum() for p in latent_of(room).parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert lesson.weight is not None
    return lesson.weight, y, (lesson.student.prediction.argmax(1) == y).float().mean().item()


def test_the_adapter_does_not_collapse_and_the_released_penalty_makes_it() -> None:
    weight, y, right = learned(penalty=0.0)
    assert 0.05 < spread(weight) < 0.98
    assert weight.std(1).min() > 0.05  # samples differ
    own = torch.stack([weight[k, y // 3 == k].mean() for k in range(K)])
    assert own.min() > 0.5  # and each expert teaches its own classes
    assert right > 0.9
    weight, _, _ = learned(penalty=0.1, lr=0.1, steps=120)  # the flagship notebook's settings
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / K), atol=1e-3, rtol=0)


def test_mentors_that_do_not_know_do_not_count() -> None:
    room, (x, y) = classroom(), batch()
    lesson = room.collect(x, y)
    assert lesson.mentors is not None
    said = lesson.mentors.prediction
    said[1, 2] = float("nan")
    said[0, torch.arange(B), y] = -torch.inf  # the first knows nobody's class
    said[:, 4] = float("nan")  # and nobody has anything to say about one sample
    lesson.conclude(room.method(lesson))
    assert lesson.weight is not None
    assert lesson.active is not None
    assert lesson.active.tolist() == [
        [False] * 6, [True, True, False, True, False, True], [True, True, True, True, False, True],
    ]  # fmt: skip
    expected = torch.tensor([1.0, 1, 1, 1, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(lesson.weight.sum(0), expected)
    assert (lesson.weight[~lesson.active] == 0).all()
    lesson.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in room.parameters())
    silent = room.collect(x, y)
    assert silent.mentors is not None
    silent.mentors.prediction[:] = float("nan")
    terms = room.method(silent)
    assert terms.values["distilled"] == 0
    torch.testing.assert_close(terms.values["angle"], torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("channels", [16, 64, 256])
def test_hints_do_not_fade_with_the_channels(channels: int) -> None:
    """2 - 2 cos: averaged over channels they were 0.126, 0.031 and 0.0078 for maps that have nothing in common."""
    draw = torch.Generator().manual_seed(0)
    student, mentor = (torch.randn(64, channels, 8, 8, generator=draw) for _ in range(2))
    assert hint_distance(nn.Identity(), student, mentor).item() == pytest.approx(2, abs=0.05)
    assert hint_distance(nn.Identity(), student, 5 * student).item() == pytest.approx(0, abs=1e-5)
    assert hint_distance(nn.Identity(), student, -student).item() == pytest.approx(4, abs=1e-5)
    torch.manual_seed(0)
    projector = nn.Conv2d(channels, channels, 1)  # whose own scale is none of the hint's
    assert hint_distance(projector, student, mentor).item() == pytest.approx(2, abs=0.05)
    with torch.no_grad():
        projector.weight.mul_(7), projector.bias.mul_(7)  # type: ignore[union-attr]
    assert hint_distance(projector, student, mentor).item() == pytest.approx(2, abs=0.05)


def test_hints_go_round_the_mentors() -> None:
    room, (x, y) = classroom(mentors=2), batch()
    method = room.method
    assert isinstance(method, AMTML)
    assert [p[-1].out_channels for p in method.projectors] == [3, 8, 9]  # of mentors 0, 1, 0
    lesson = room.collect(x, y)
    before = room.method(lesson).values["hints"]
    assert lesson.mentors is not None
    lesson.mentors.features["@stage:-2"][0].fill_(7.0)
    assert torch.equal(room.method(lesson).values["hints"], before)  # the second mentor teaches that stage
    lesson.mentors.features["@stage:-2"][1].fill_(7.0)
    assert not torch.equal(room.method(lesson).values["hints"], before)


@pytest.mark.parametrize("said", [float("nan"), -torch.inf])
def test_a_mentor_that_does_not_count_gives_no_hints(said: float) -> None:
    room, (x, y) = classroom(), batch()
    lesson = room.collect(x, y)
    assert lesson.mentors is not None
    lesson.mentors.prediction[1, 2:, y[2]] = said  # of one sample at least: others may have another class
    counts = room.task.log_credibility(lesson.mentors.prediction, y)[1, :, 0] > -torch.inf
    assert counts[:2].all()
    assert not counts[2]
    for tap in room.method.needs.features:
        lesson.mentors.features[tap][1][~counts] = float("nan")  # a mentor of NaN weights has such features too
    lesson.conclude(room.method(lesson))
    lesson.loss.backward()
    assert lesson.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in room.parameters())
    method = room.method
    assert isinstance(method, AMTML)
    own, theirs = lesson.student.features["@stage:-2"], lesson.mentors.features["@stage:-2"][1]
    far = [hint_distance(method.projectors[1], own[[b]], theirs[[b]]) for b in range(B) if counts[b]]
    every = hint_distance(method.projectors[1], own, theirs, counts)
    torch.testing.assert_close(every, torch.stack(far).sum() / B)


def test_matched_strength_undoes_the_released_division_by_classes() -> None:
    room, (x, y) = classroom(rule="reference", strength="matched"), batch()
    lesson = room(x, y)
    mixed = mixture(lesson.mentors.prediction.unsqueeze(-2), lesson.weight.unsqueeze(-1), 5.0)  # type: ignore[union-attr]
    far = 25 * mixture_kl(lesson.student.prediction.unsqueeze(-2), mixed, 5.0).mean()
    torch.testing.assert_close(lesson.loss, lesson.terms["supervised"] + far)
    torch.testing.assert_close(lesson.terms["distilled"], far / C)  # the term itself stays as released


def test_a_place_without_activation_has_a_bounded_gradient() -> None:
    student = torch.zeros(1, 4, 1, 1, requires_grad=True)
    hint_distance(nn.Conv2d(4, 2, 1), student, torch.ones(1, 2, 1, 1)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e4


def test_angles_run_over_the_samples_of_all_ranks() -> None:
    room, (x, y) = classroom(hint_weight=0.0), batch()
    whole = room(x, y).terms["angle"]
    half = room.collect(x[:3], y[:3])
    other = room.collect(x[3:], y[3:])
    rows: list[Tensor] = []
    other.join = lambda part: (rows.append(part), part)[1]
    room.method(other)
    waiting = iter(rows)
    half.join = lambda part: torch.cat([part, next(waiting)])
    torch.testing.assert_close(room.method(half).values["angle"], whole)


class Twice(Classification):
    """Two distributions a sample: the first two logits, and the others."""

    def distributions(self, answer: Tensor) -> list[Tensor]:
        return [answer[..., None, :2], answer[..., None, 2:]]


def test_distributions_are_mixed_each_by_itself() -> None:
    room, (x, y) = classroom(hint_weight=0.0, angle_weight=0.0), batch()
    lesson = room.collect(x, y)
    lesson.task = Twice()
    terms = room.method(lesson)
    assert terms.weight is not None
    assert lesson.mentors is not None
    found = []
    for part in (slice(0, 2), slice(2, 5)):
        q = (terms.weight * torch.softmax(lesson.mentors.prediction[..., part] / 5, -1)).sum(0)
        p = torch.softmax(lesson.student.prediction[..., part] / 5, -1)
        found.append(25 * (q * (q / p).log()).sum(-1).mean())
    torch.testing.assert_close(terms.values["distilled"], torch.stack(found).mean())


def test_options() -> None:
    for rule, factors in (("paper", (1.0, 1.0, 1.0, 1.0)), ("reference", (0.3, 1.4, 0.0, 0.0))):
        assert tuple(create("amtml", rule=rule).coefficients.values()) == factors
    assert create("amtml", rule="reference", weight=0.5).coefficients["distilled"] == 0.5
    matched = create("amtml", rule="reference", strength="matched")
    assert (matched.coefficients["supervised"], matched.coefficients["distilled"]) == (1.0, 1.0)
    assert dict(create("amtml", hint_weight=0).needs.features) == {"@penultimate": "pooled"}
    assert list(create("amtml", taps=["@stage:-1"]).needs.features) == ["@penultimate", "@stage:-1"]
    for taps in (["@penultimate"], ["@stage:-1", "@stage:-1"]):
        with pytest.raises(UserError, match="must be different places of maps"):
            create("amtml", taps=taps)
    with pytest.raises(UserError, match="taps"):
        create("amtml", taps=[])
    assert AMTML.idle({"taps": ["@stage:-1"], "rule": "reference"}) == ["taps act only with hint_weight above 0"]
    assert AMTML.idle({"taps": ["@stage:-1"], "hint_weight": 1.0, "rule": "reference"}) == []
    assert AMTML.idle({"taps": ["@stage:-1"]}) == []
    assert AMTML.idle({"rule": "reference"}) == []


def test_half_precision_and_copies() -> None:
    room, (x, y) = classroom(), batch()
    wide = room(x, y)
    half = copy.deepcopy(room).to(torch.bfloat16)
    lesson = half(x.bfloat16(), y)
    lesson.loss.backward()
    assert lesson.loss.dtype == torch.float32
    for name, value in wide.terms.items():
        torch.testing.assert_close(lesson.terms[name].double(), value, rtol=0.1, atol=0.02)
    assert ck.methods.METHODS["amtml"].rules == ("paper", "reference")


def test_a_frozen_adapter_is_an_earlier_one_and_stays() -> None:
    """Θ and ω alone are taken over where the second stage has no hints, and no step changes them."""
    first, second = classroom(), classroom(adapter="frozen", hint_weight=0.0)
    with torch.no_grad():
        latent_of(first).mixing.mul_(2)
    second.method.take_over(first.method.state_dict())
    optimizer = torch.optim.SGD(second.parameters(), lr=0.5, weight_decay=0.1)
    before = [p.clone() for p in second.student.parameters()]
    second(*batch()).loss.backward()
    optimizer.step()
    for own, other in zip(latent_of(second).parameters(), latent_of(first).parameters(), strict=True):
        assert torch.equal(own, other)
    assert not any(torch.equal(own, old) for own, old in zip(second.student.parameters(), before, strict=True))
    assert isinstance(second.method, AMTML)
    assert len(second.method.projectors) == 0
