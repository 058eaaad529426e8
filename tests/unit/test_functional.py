"""The rules themselves: what specs/classroomkd.md calls edge cases, one by one."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from by_method import Taught, classroom, distilled
from classroomkd import functional
from classroomkd.errors import UserError
from classroomkd.functional.classroom import python_round2

RULES = ["sample", "batch", "rank"]


def logits(*probabilities: float) -> torch.Tensor:
    """Two-class logits whose first class has these probabilities, float64."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], -1)


NATIVE: dict[str, Any] = {"normalise": "native", "floor": 1.0}


def test_rounding_is_pythons() -> None:
    draw = random.Random(0)
    values = (
        [draw.random() for _ in range(20_000)] + [k / 1000 for k in range(1001)] + [(k + 0.5) / 100 for k in range(100)]
    )
    assert python_round2(torch.tensor(values, dtype=torch.float64)).tolist() == [round(v, 2) for v in values]


def test_sample_rule_by_hand() -> None:
    student, mentors = logits(0.5, 0.5, 0.5), torch.stack([logits(0.8, 0.5, 0.4), logits(0.6, 0.9, 0.1)])
    target = torch.zeros(3, dtype=torch.int64)
    terms = classroom(student, mentors, target, tau=12.0, **NATIVE)
    assert terms.active.tolist() == [[True, False, False], [True, True, False]]
    # M · p_m / (p_s + Σ p)
    expected = torch.tensor([[2 * 0.8 / 1.9, 0, 0], [2 * 0.6 / 1.9, 2 * 0.9 / 1.9, 0]], dtype=torch.float64)
    torch.testing.assert_close(terms.weight, expected)
    temperature = torch.tensor([[1 + 12 * 0.3 / 0.8, 1, 1], [1 + 12 * 0.1 / 0.6, 1 + 12 * 0.4 / 0.9, 1]]).double()
    torch.testing.assert_close(terms.temperature, temperature)
    kl = functional.kl_divergence(student[None], mentors, temperature)
    torch.testing.assert_close(terms.distilled, (expected * temperature**2 * kl).sum(0).mean())
    torch.testing.assert_close(terms.loss, terms.supervised + terms.distilled)
    own = classroom(student, mentors, target)  # the defaults: p_m / Σ p of those who teach, and T >= 2
    shared = torch.tensor([[0.8 / 1.4, 0, 0], [0.6 / 1.4, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(own.weight, shared)
    temperature = temperature.clamp_min(2)
    torch.testing.assert_close(own.temperature, temperature)
    kl = functional.kl_divergence(student[None], mentors, temperature)
    torch.testing.assert_close(own.distilled, (shared * temperature**2 * kl).sum(0).mean())
    credibility = torch.tensor([0.5, 0.5, 0.5]).double()
    torch.testing.assert_close(own.supervised, -(credibility * credibility.log()).mean())


def test_a_student_who_is_certain_of_another_class_is_taught_by_who_is_less_wrong() -> None:
    """-300 against -150 nats: both probabilities are 0 in float32, which made them a tie without a gradient."""
    student = torch.tensor([[-300.0, 0.0, 0.0], [-300.0, 0.0, 0.0]], requires_grad=True)
    mentors = torch.tensor([[[-150.0, 0.0, -3.0], [-400.0, 0.0, 0.0]], [[-160.0, 0.0, 0.0], [-500.0, 0.0, 0.0]]])
    target = torch.zeros(2, dtype=torch.int64)
    terms = classroom(student, mentors, target, **NATIVE)
    assert terms.active.tolist() == [[True, False], [True, False]]
    assert terms.temperature[:, 0].tolist() == [13.0, 13.0]
    log = torch.stack([student[0], mentors[0, 0], mentors[1, 0]]).double().log_softmax(-1)[:, 0]
    torch.testing.assert_close(terms.weight[:, 0].double(), 2 * log.softmax(0)[1:], rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(terms.loss, student)
    assert gradient.isfinite().all()
    assert gradient[0, 0] < 0  # the true class is pulled up, as little as its mentors believe in it
    assert gradient[0].abs().max() > 0.1
    assert (gradient[1] == 0).all()
    tied = classroom(student, student.detach()[None], target, gate="hard")
    assert tied.active.all()
    assert tied.temperature.tolist() == [[2.0, 2.0]]
    for option in ({"soft": 0.1}, {"normalise": "unit"}, {"gate": "none"}, {"gate": "hard"}):
        loss = classroom(student, mentors, target, **option).loss
        assert torch.autograd.grad(loss, student)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinary_samples_are_graded_by_their_probabilities(dtype: torch.dtype) -> None:
    """Written out: w = M p_m / (s + Σ p), T = 1 + 12 (p_m - s) / p_m, p_m > s."""
    draw = torch.Generator().manual_seed(3)
    s, p = torch.rand(64, 1, generator=draw).to(dtype), torch.rand(4, 64, 1, generator=draw).to(dtype)
    found = functional.grade(s.log(), p.log(), soft=None)
    ahead = p > s
    torch.testing.assert_close(found.weight, torch.where(ahead, 4 * p / (s + p.sum(0)), 0.0))
    torch.testing.assert_close(found.temperature, 1 + 12 * ((p - s) / p).clamp_min(0))
    torch.testing.assert_close(found.supervised, s)
    assert torch.equal(found.active, ahead)
    soft = functional.grade(s.log(), p.log(), soft=0.1)
    torch.testing.assert_close(soft.weight, 4 * p / (s + p.sum(0)) * ((p - s) / 0.1).sigmoid())


def test_ties_are_strict_by_default_and_may_teach_when_asked() -> None:
    same = logits(0.5)
    target = torch.zeros(1, dtype=torch.int64)
    assert not classroom(same, same[None], target).active.any()
    tied = classroom(same, same[None], target, gate="hard")
    assert tied.active.all()
    assert tied.temperature.item() == 2.0
    assert classroom(same, same[None], target, rule="batch").active.all()
    assert not classroom(same, same[None], target, rule="batch", gate="strict").active.any()


@pytest.mark.parametrize("rule", RULES)
def test_student_best_hears_nobody(rule: str) -> None:
    student, mentors = logits(0.99, 0.98), torch.stack([logits(0.5, 0.6), logits(0.4, 0.3)])
    terms = classroom(student, mentors, torch.zeros(2, dtype=torch.int64), rule=rule)
    assert not terms.active.any()
    assert terms.distilled.item() == 0
    assert terms.supervised.item() > 0


@pytest.mark.parametrize("rule", ["sample", "batch"])
def test_chance_student_gets_the_softest_targets(rule: str) -> None:
    torch.manual_seed(0)
    student = torch.zeros(8, 1000, dtype=torch.float64)
    target = torch.randint(1000, (8,))
    mentors = 20.0 * torch.nn.functional.one_hot(target, 1000).double()[None]
    terms = classroom(student, mentors, target, rule=rule, tau=12.0)
    torch.testing.assert_close(terms.temperature, torch.full_like(terms.temperature, 13.0), rtol=0, atol=0.05)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_mentor_is_silent(rule: str, bad: float) -> None:
    torch.manual_seed(1)
    student = torch.randn(6, 5, requires_grad=True)
    mentors = torch.randn(3, 6, 5) * 3
    mentors[1, 2, 3] = bad
    target = torch.randint(5, (6,))
    terms = classroom(student, mentors, target, rule=rule)
    terms.loss.backward()
    assert terms.loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert not terms.active[1, 2]
    if rule != "sample":
        assert not terms.active[1].any()  # its score is the batch's
    else:
        clean = classroom(student, mentors.nan_to_num(0.0, posinf=0.0), target)
        others = torch.arange(6) != 2
        assert torch.equal(terms.active[1, others], clean.active[1, others])  # the other samples are taught as before


def test_a_ruled_out_class_is_not_a_nan() -> None:
    student = torch.randn(2, 4, requires_grad=True)
    mentor = torch.tensor([[0.0, 1.0, -math.inf, 2.0], [0.0, 1.0, 2.0, 3.0]])
    loss = functional.kd(student, mentor, 4.0)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_class_that_both_rule_out_adds_nothing() -> None:
    mentor = torch.tensor([[0.0, 1.0, -math.inf, 2.0]], dtype=torch.float64)
    student = torch.tensor([[0.5, 0.0, -math.inf, 1.0]], dtype=torch.float64, requires_grad=True)
    kept = [0, 1, 3]
    loss = functional.kl_divergence(student, mentor, torch.tensor([4.0]))
    loss.sum().backward()
    torch.testing.assert_close(loss, functional.kl_divergence(student[:, kept], mentor[:, kept], 4.0))
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[0, 2] == 0
    assert functional.kl_divergence(student, mentor[:, [2, 1, 0, 3]]).isinf()  # the mentor believes what it rules out
    assert functional.kl_divergence(student, mentor * math.nan).isnan()  # a broken mentor is not hidden
    believed = torch.tensor([0.0, 0.0, -80.0])  # e^-80 is something still
    assert functional.kl_divergence(torch.tensor([0.0, 0.0, -math.inf]), believed).isinf()
    assert functional.kl_divergence(torch.tensor([1e20, 0.0]), torch.zeros(2)).isfinite()
    assert functional.kl_divergence(torch.tensor([0.0, math.nan]), torch.zeros(2)).isnan()


def _plainly(student: Tensor, mentor: Tensor, temperature: Tensor | float) -> Tensor:
    """KL written out for autograd to differentiate; the mentor's side is a constant."""
    over = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
    p = torch.softmax(mentor / over, -1).detach()
    return (p * (p.log() - torch.log_softmax(student / over, -1))).sum(-1)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)], ids=["one student", "as many"])
@pytest.mark.parametrize("kind", ["number", "by sample", "by mentor and sample"])
def test_the_slope_of_a_divergence(shape: tuple[int, ...], kind: str) -> None:
    """First and second derivatives, in the student and in a temperature, against autograd's own."""
    draw = torch.Generator().manual_seed(3)
    student = torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_()
    mentor = torch.randn(3, 4, 5, dtype=torch.float64, generator=draw).requires_grad_()  # gets none all the same
    sizes = {"number": None, "by sample": (1, 4), "by mentor and sample": (3, 4)}[kind]
    over = 3.0 if sizes is None else (torch.rand(sizes, dtype=torch.float64, generator=draw) + 1).requires_grad_()
    inputs = (student,) if isinstance(over, float) else (student, over)
    factor = torch.rand(3, 4, dtype=torch.float64, generator=draw)
    found = []
    for divergence in (functional.kl_divergence, _plainly):
        value = (factor * divergence(student, mentor, over)).sum()
        plain = torch.autograd.grad(value, inputs, retain_graph=True)
        slopes = torch.autograd.grad(value, inputs, create_graph=True)
        assert all(torch.equal(a, b) or torch.allclose(a, b, rtol=1e-12) for a, b in zip(plain, slopes, strict=True))
        bends = torch.autograd.grad(sum(x.square().sum() for x in slopes), inputs)
        assert torch.autograd.grad(value, mentor, retain_graph=True, allow_unused=True) == (None,)
        found.append((value, *slopes, *bends))
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gate", [None, "none", "hard", "soft", "argmax"])
def test_no_mentors_add_nothing(rule: str, gate: str | None) -> None:
    terms = classroom(torch.randn(3, 4), torch.zeros(0, 3, 4), torch.tensor([0, 1, 2]), rule=rule, gate=gate)
    assert terms.distilled.item() == 0
    assert terms.loss.isfinite()


@pytest.mark.parametrize("rule", ["batch", "rank"])
def test_soft_gate_of_a_batch_rule_is_the_batchs(rule: str) -> None:
    torch.manual_seed(11)
    student, mentors, target = torch.randn(8, 4), torch.randn(3, 8, 4), torch.randint(4, (8,))
    right = 2 * torch.nn.functional.one_hot(target, 4)
    mentors[0], mentors[1] = mentors[0] + right, mentors[1] - right
    soft = classroom(student, mentors, target, rule=rule, soft=0.1).weight
    assert torch.equal(soft, soft[:, :1].expand_as(soft))
    hard = classroom(student, mentors, target, rule=rule, gate="strict")
    narrow = classroom(student, mentors, target, rule=rule, soft=1e-6)
    torch.testing.assert_close(narrow.weight, hard.weight)
    assert hard.active[:2, 0].tolist() == [True, False]


def test_constants_go_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    args = torch.randn(4, 3), torch.randn(2, 4, 3), torch.tensor([0, 1, 2, 0])
    first = classroom(*args, rule="batch").loss

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a constant was copied again")

    monkeypatch.setattr(torch, "tensor", forbidden)
    assert torch.equal(classroom(*args, rule="batch").loss, first)


@pytest.mark.parametrize("rule", RULES)
def test_batch_of_one_and_permutation(rule: str) -> None:
    torch.manual_seed(2)
    student, mentors, target = torch.randn(1, 7), torch.randn(4, 1, 7) * 2, torch.tensor([3])
    one = classroom(student, mentors, target, rule=rule)
    assert one.loss.isfinite()
    order = torch.tensor([2, 0, 3, 1])
    other = classroom(student, mentors[order], target, rule=rule)
    torch.testing.assert_close(other.weight, one.weight[order])
    torch.testing.assert_close(other.loss, one.loss)


def test_sample_and_batch_agree_on_one_sample_up_to_rounding() -> None:
    torch.manual_seed(3)
    student, mentors, target = torch.randn(1, 3).double(), torch.randn(3, 1, 3).double(), torch.tensor([0])
    sample = classroom(student, mentors, target, rule="sample", gate="hard")
    batch = classroom(student, mentors, target, rule="batch")
    assert (sample.weight - batch.weight).abs().max() <= 3 * 0.005 + 1e-9


def test_identical_mentors_and_unit_weights() -> None:
    torch.manual_seed(4)
    student, mentor, target = torch.randn(16, 10), torch.randn(1, 16, 10) * 4, torch.randint(10, (16,))
    one = classroom(student, mentor, target, normalise="unit")
    six = classroom(student, mentor.expand(6, -1, -1), target, normalise="unit")
    torch.testing.assert_close(one.distilled, six.distilled)  # strength does not depend on the number of mentors
    sums = six.weight.sum(0)
    torch.testing.assert_close(sums[sums > 0], torch.ones_like(sums[sums > 0]))
    native = classroom(student, mentor.expand(6, -1, -1), target, normalise="native")
    assert native.distilled > 1.5 * one.distilled


def test_ablations() -> None:
    torch.manual_seed(5)
    student, mentors, target = torch.randn(9, 4), torch.randn(3, 9, 4) * 2, torch.randint(4, (9,))
    off = classroom(student, mentors, target, gate="none")
    assert off.active.all()
    torch.testing.assert_close(off.weight, torch.full_like(off.weight, 1 / 3))
    for rule, fixed in (("sample", 4.0), ("batch", 1.0), ("rank", 2.2)):
        flat = classroom(student, mentors, target, rule=rule, mentoring=False)
        torch.testing.assert_close(flat.temperature, torch.full_like(flat.temperature, fixed))
        full = classroom(student, mentors, target, rule=rule)
        torch.testing.assert_close(flat.weight, full.weight)  # mentoring off leaves filtering alone
        both = classroom(student, mentors, target, rule=rule, gate="none", mentoring=False)
        assert both.active.all()
        assert torch.equal(both.temperature, flat.temperature)
    both = classroom(student, mentors, target, gate="none", mentoring=False)
    torch.testing.assert_close(both.distilled, distilled("average", student, mentors, temperature=4.0))
    released = classroom(student, mentors, target, rule="batch", gate="none", mentoring=False)
    torch.testing.assert_close(released.distilled, 3 * distilled("average", student, mentors, temperature=1.0))


def test_soft_gate_tends_to_the_hard_one() -> None:
    torch.manual_seed(6)
    student, mentors, target = torch.randn(20, 4), torch.randn(3, 20, 4) * 2, torch.randint(4, (20,))
    hard = classroom(student, mentors, target)
    soft = classroom(student, mentors, target, soft=1e-6)
    torch.testing.assert_close(soft.weight, hard.weight)
    assert (classroom(student, mentors, target, soft=0.1).weight > 0).all()


def test_no_gradient_through_weights() -> None:
    torch.manual_seed(7)
    student, mentors, target = torch.randn(5, 4).double(), torch.randn(2, 5, 4).double() * 2, torch.randint(4, (5,))
    moving = student.clone().requires_grad_()
    terms = classroom(moving, mentors, target)
    terms.loss.backward()
    fixed = student.clone().requires_grad_()
    kl = functional.kl_divergence(fixed[None], mentors, terms.temperature)
    own = torch.nn.functional.cross_entropy(fixed, target, reduction="none")
    credibility = student.softmax(-1).gather(1, target[:, None])[:, 0]
    ((terms.weight * terms.temperature**2 * kl).sum(0).mean() + _supervised(own, credibility)).backward()
    torch.testing.assert_close(moving.grad, fixed.grad)


def _supervised(own: torch.Tensor, credibility: torch.Tensor) -> torch.Tensor:
    """The sample rule's supervised part by default: weighted by the student's credibility."""
    return (own * credibility).mean()


def test_supervised_weight_is_an_option() -> None:
    torch.manual_seed(8)
    student, mentors, target = torch.randn(5, 4), torch.randn(2, 5, 4), torch.randint(4, (5,))
    one = classroom(student, mentors, target, supervised="one")
    torch.testing.assert_close(one.supervised, torch.nn.functional.cross_entropy(student, target))
    own = classroom(student, mentors, target, supervised="credibility")
    assert own.supervised < one.supervised
    torch.testing.assert_close(own.distilled, one.distilled)


@pytest.mark.parametrize("rule", ["batch", "rank"])
def test_two_ranks_are_one_batch(rule: str) -> None:
    torch.manual_seed(9)
    student, mentors, target = torch.randn(8, 5).double(), torch.randn(3, 8, 5).double() * 2, torch.randint(5, (8,))
    whole = classroom(student, mentors, target, rule=rule)
    seen: list[torch.Tensor] = []

    def half(start: int, reduce: object) -> Taught:
        part = slice(start, start + 4)
        return classroom(student[part], mentors[:, part], target[part], rule=rule, reduce=reduce)

    def sums(start: int) -> list[torch.Tensor]:
        seen.clear()
        half(start, lambda t: (seen.append(t), t)[1])
        return [t.clone() for t in seen]

    totals = [a + b for a, b in zip(sums(0), sums(4), strict=True)]
    for start in (0, 4):
        queue = iter(totals)
        terms = half(start, lambda t, queue=queue: next(queue))
        torch.testing.assert_close(terms.weight[:, 0], whole.weight[:, 0])
        torch.testing.assert_close(terms.temperature[:, 0], whole.temperature[:, 0])


def test_half_precisions() -> None:
    torch.manual_seed(10)
    student, mentors, target = torch.randn(6, 5), torch.randn(2, 6, 5), torch.randint(5, (6,))
    wide = classroom(student, mentors, target)
    for dtype in (torch.bfloat16, torch.float16):
        narrow = classroom(student.to(dtype), mentors.to(dtype), target)
        assert narrow.loss.dtype == torch.float32
        assert narrow.loss.item() == pytest.approx(wide.loss.item(), rel=0.05)


def test_kd_is_average_of_one() -> None:
    student, mentor = torch.randn(6, 5), torch.randn(6, 5)
    torch.testing.assert_close(
        functional.kd(student, mentor, 3.0).mean(), distilled("average", student, mentor, temperature=3.0)
    )
    assert functional.kd(student, mentor).shape == (6,)


def test_unknown_rule() -> None:
    with pytest.raises(UserError, match="sample, batch, rank"):
        functional.grade(torch.randn(2, 1), torch.randn(1, 2, 1), rule="rang")
