"""Weighted mentors by hand, and what every function of the family promises: gradients, widths, no waiting."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from by_method import classroom, distilled, rule_of
from classroomkd import functional
from classroomkd.errors import UserError

NAN, INF = float("nan"), float("inf")
EBKD, CAMKD, AEKD = rule_of("ebkd"), rule_of("camkd", feature_weight=0.0), rule_of("aekd")
MENTOR_RULES = [EBKD, CAMKD, AEKD]
RULES = ["paper", "reference"]


def answers(
    m: int = 3, b: int = 6, c: int = 5, scale: float = 2.0, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    student, mentors = torch.randn(b, c, generator=draw), torch.randn(m, b, c, generator=draw)
    target = torch.randint(c, (b,), generator=draw)
    return (scale * student).to(dtype).requires_grad_(), (scale * mentors).to(dtype), target


def gradient(loss: Tensor, student: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, student, retain_graph=True)
    return found


# Weighted mentors


@pytest.mark.parametrize(("function", "rule"), [*((f, rule) for f in MENTOR_RULES for rule in RULES), (AEKD, "mgda")])
def test_one_mentor_is_plain_kd(function: Callable[..., Tensor], rule: str) -> None:
    student, mentors, target = answers(m=1)
    loss = function(student, mentors, target, 3.0, rule=rule)
    plain = functional.kd(student, mentors[0], 3.0).mean()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradient(loss, student), gradient(plain, student))


@pytest.mark.parametrize("function", MENTOR_RULES)
def test_identical_mentors_are_their_average(function: Callable[..., Tensor]) -> None:
    student, mentors, target = answers(m=1)
    mentors = mentors.expand(4, -1, -1)
    torch.testing.assert_close(function(student, mentors, target), distilled("average", student, mentors))


@pytest.mark.parametrize(("function", "factor"), [(EBKD, 3 / 4), (CAMKD, 1 / 4)])
def test_released_scale_factors(function: Callable[..., Tensor], factor: float) -> None:
    student, mentors, target = answers(m=4)
    torch.testing.assert_close(
        function(student, mentors, target, rule="reference"), factor * function(student, mentors, target)
    )


@pytest.mark.parametrize("function", MENTOR_RULES)
def test_mentor_rules_differentiate_in_the_student_alone(function: Callable[..., Tensor]) -> None:
    student, mentors, target = answers()
    mentors.requires_grad_()
    if function is not AEKD:  # whose weights follow the student, as constants
        assert torch.autograd.gradcheck(lambda z: function(z, mentors.detach(), target), student)
    function(student, mentors, target).backward()
    assert mentors.grad is None
    with pytest.raises(UserError, match=r"'paper'.* or '(reference|mgda)'"):
        function(student, mentors, target, rule="code")


def test_half_precision_mentors() -> None:
    for function in MENTOR_RULES:
        student, mentors, target = answers(dtype=torch.bfloat16)
        loss = function(student, mentors, target)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, function(student.float(), mentors.float(), target))


def test_entropy_weights_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]], dtype=torch.float64)
    h = [math.log(2), -0.9 * math.log(0.9) - 0.1 * math.log(0.1), 0.0]
    weight = functional.entropy_weights(p.log())  # the last holds -inf
    assert weight.tolist() == pytest.approx([(1 - x / sum(h)) / 2 for x in h])


def test_entropy_of_underflowing_probabilities() -> None:
    logits = torch.tensor([[0.0, 3000.0, -3000.0], [0.0, 0.0, 0.0]])
    assert functional.entropy_weights(logits).tolist() == [1, 0]
    certain = torch.tensor([[0.0, 3000.0], [9000.0, 0.0], [0.0, 7000.0]])
    assert functional.entropy_weights(certain).tolist() == pytest.approx([1 / 3] * 3)
    student = torch.zeros(1, 3, requires_grad=True)
    EBKD(student, logits[:, None], torch.zeros(1, dtype=torch.int64)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_confidence_weights_by_hand() -> None:
    # specs: for losses (5.0, 5.2, 0.1) the released code gives (0.276, 0.226, 0.498)
    weight = functional.confidence_weights(torch.tensor([5.0, 5.2, 0.1]))
    assert weight.tolist() == pytest.approx([0.276, 0.226, 0.498], abs=1e-3)
    assert functional.confidence_weights(torch.tensor([1.0, INF, 2.0])).tolist() == pytest.approx([0.5, 0, 0.5])
    assert functional.confidence_weights(torch.tensor([INF, INF, 2.0])).tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert functional.confidence_weights(torch.tensor([[7.0, INF]])).tolist() == [[1, 1]]


def test_unknown_mentors_do_not_count() -> None:
    _, logits, target = answers(m=4, b=4)
    known = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.bool)
    loss = -functional.log_credibility(logits, target)
    for weigh, values in ((functional.entropy_weights, logits), (functional.confidence_weights, loss)):
        hidden = torch.where(known.view(*known.shape, *[1] * (values.dim() - 2)), values, NAN)
        for weight in (weigh(values, known), weigh(hidden, known), weigh(hidden)):
            torch.testing.assert_close(weight.sum(0), torch.tensor([1.0, 1, 1, 0], dtype=torch.float64))
            assert (weight[~known] == 0).all()
            torch.testing.assert_close(weight[[0, 2], 1], weigh(values[[0, 2], 1]))
            assert weight[3, 2] == 1
        # Leading dimensions of any number.
        torch.testing.assert_close(weigh(values.unsqueeze(2), known.unsqueeze(2)).squeeze(2), weigh(values, known))


def test_kl_gradients_are_autograds() -> None:
    student, mentors, _ = answers(m=3, b=4)
    found = functional.kl_gradients(student, mentors, 3.0)
    for k, mentor in enumerate(mentors):
        loss = functional.kd(student, mentor, 3.0).mean()
        torch.testing.assert_close(found[k], gradient(loss, student).sum(0))


def test_kl_gradients_of_masked_units() -> None:
    draw = torch.Generator().manual_seed(1)
    student = torch.randn(4, 2, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    mentors = torch.randn(3, 4, 2, 5, generator=draw, dtype=torch.float64)
    mask = torch.rand(3, 4, 2, generator=draw) < 0.6
    mask[2] = False
    hidden = torch.where(mask[..., None], mentors, NAN)
    found = functional.kl_gradients(student, hidden, 2.0, mask)
    assert found.shape == (3, 10)
    for k in range(2):
        loss = 4 * functional.kl_divergence(student, mentors[k], 2.0)[mask[k]].mean()
        torch.testing.assert_close(found[k], gradient(loss, student).sum(0).flatten())
    assert found[2].isnan().all()
    assert functional.gram_weights(found)[2] == 0
    torch.testing.assert_close(functional.gram_weights(found)[:2], functional.gram_weights(found[:2]))
    # A mask over the units alone, and two halves of a batch summed as two ranks would.
    shared = mask[0]
    whole = functional.kl_gradients(student, mentors, 2.0, shared)
    sums: list[Tensor] = []
    for half in (slice(0, 2), slice(2, 4)):
        functional.kl_gradients(student[half], mentors[:, half], 2.0, shared[half], lambda x: sums.append(x) or x)
    torch.testing.assert_close(
        functional.kl_gradients(student[:2], mentors[:, :2], 2.0, shared[:2], lambda x: sums[0] + sums[1]), whole
    )


def test_gram_weights() -> None:
    g = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert functional.gram_weights(g).tolist() == pytest.approx([0.8, 0.2])
    assert functional.gram_weights(g.double() * 1e-200).tolist() == pytest.approx([0.8, 0.2])  # squares underflow
    assert functional.gram_weights(g, cap=0.6).tolist() == pytest.approx([0.6, 0.4])
    assert functional.gram_weights(g, known=torch.tensor([False, True])).tolist() == [0, 1]
    assert functional.gram_weights(torch.tensor([[NAN, 0.0], [0.0, 2.0]])).tolist() == [0, 1]


def test_aekd_solves_at_training_sizes() -> None:
    """B = 64, C = 100: the released solver stays at (0.6, 0.4, 0, …) here."""
    m = 5
    student, mentors, target = answers(m=m, b=64, c=100, dtype=torch.float32)
    gradients = functional.kl_gradients(student, mentors, 4.0).double()
    weight = functional.gram_weights(gradients, cap=0.6)

    def length(a: Tensor) -> float:
        return (a @ gradients).norm().item()

    start = torch.tensor([0.6, 0.4, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert length(weight) < 0.9 * length(start)

    # By brute force: the best point over every set of mentors held at 0 or at the cap.
    gram, best = gradients @ gradients.T, start
    for held in product((0, 1, 2), repeat=m):
        free = torch.tensor([h == 1 for h in held])
        a = torch.tensor([0.6 if h == 2 else 0.0 for h in held], dtype=torch.float64)
        n = int(free.sum())
        if n:
            kkt = torch.zeros(n + 1, n + 1, dtype=torch.float64)
            kkt[:n, :n], kkt[:n, n], kkt[n, :n] = gram[free][:, free], -1, 1
            a[free] = torch.linalg.solve(kkt, torch.cat([-gram[free] @ a, (1 - a.sum())[None]]))[:n]
        if abs(a.sum() - 1) < 1e-9 and a.min() >= 0 and a.max() <= 0.6 and length(a) < length(best):
            best = a
    torch.testing.assert_close(weight, best, rtol=0, atol=1e-8)
    divergences = functional.kd(student.unsqueeze(0), mentors).mean(1).double()
    for rule in RULES:
        found = AEKD(student, mentors, target, rule=rule).double()  # type: ignore[arg-type]
        torch.testing.assert_close(found, weight @ divergences, rtol=1e-5, atol=0)
    free_of_cap = functional.gram_weights(gradients)
    found = AEKD(student, mentors, target, rule="mgda").double()
    torch.testing.assert_close(found, free_of_cap @ divergences, rtol=1e-5, atol=0)  # a loss in float32


def test_aekds_tolerance_is_its_cap() -> None:
    """Two mentors of whom one is nearly the student: the shortest mix is nearly its alone."""
    student, mentors, target = answers(m=2)
    mentors[0] = student.detach() + 0.1 * mentors[0]
    near, far = (functional.kd(student, m).mean() for m in mentors)
    for rule, tolerance, share in (
        ("paper", 0.6, 0.6),
        ("reference", 0.6, 0.6),
        ("paper", 0.7, 0.7),
        ("paper", 0.3, 0.5),
    ):
        found = AEKD(student, mentors, target, rule=rule, tolerance=tolerance)  # type: ignore[arg-type]
        torch.testing.assert_close(found, share * near + (1 - share) * far)
    torch.testing.assert_close(AEKD(student, mentors, target), 0.6 * near + 0.4 * far)
    free = AEKD(student, mentors, target, rule="mgda")
    assert free < 0.8 * near + 0.2 * far


def test_gram_weights_of_directions() -> None:
    """The released code on features: the mix of unit gradients, each weight over its gradient's length."""
    g = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert functional.gram_weights(g, 0.6).tolist() == pytest.approx([0.6, 0.4])
    assert functional.gram_weights(g, 0.6, unit=True).tolist() == pytest.approx([0.75, 0.25])
    assert functional.gram_weights(g * 1e-20, 0.6, unit=True).tolist() == pytest.approx([0.75, 0.25])
    # Three directions, the first two alike: 0.25, 0.25, 0.5 over lengths of 1, 2, 1.
    three = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert functional.gram_weights(three, 0.6, unit=True).tolist() == pytest.approx([2 / 7, 1 / 7, 4 / 7])
    known = torch.tensor([True, False, True])
    assert functional.gram_weights(three, 0.6, known, unit=True).tolist() == pytest.approx([0.5, 0, 0.5])
    broken = torch.tensor([[NAN, 0.0], [0.0, 2.0]])
    assert functional.gram_weights(broken, unit=True).tolist() == [0, 1]
    still = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert functional.gram_weights(still, unit=True).tolist() == pytest.approx([1, 0])
    assert functional.gram_weights(0 * still, 0.6, unit=True).tolist() == pytest.approx([0.5, 0.5])


# All of them


def _all(dtype: torch.dtype = torch.float64) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    student, mentors, target = answers(dtype=dtype)
    teacher = mentors[0]
    draw = torch.Generator().manual_seed(6)
    own = torch.randn(4, 3, 4, 4, generator=draw).to(dtype).requires_grad_()
    other = torch.randn(4, 5, 2, 2, generator=draw).to(dtype)
    found: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "dkd": (lambda z: distilled("dkd", z, teacher, target), student),
        "dist": (lambda z: functional.dist(z, teacher, tau=2.0), student),
        "dist_by_mentor": (lambda z: functional.dist_by_mentor(z, mentors).sum(), student),
        "dtkd": (lambda z: functional.dtkd_per_sample(z, mentors).mean(), student),
        "rkd": (lambda x: functional.rkd(x, other), own),
        "attention_transfer": (lambda x: functional.attention_transfer(x, other), own),
        "similarity_preserving": (lambda x: functional.similarity_preserving(x, other), own),
    }
    for function in MENTOR_RULES:
        found[function.__name__] = (lambda z, f=function: f(z, mentors, target), student)
    return found


@pytest.mark.parametrize("name", [n for n in _all() if n != "aekd"])
def test_gradients(name: str) -> None:
    function, at = _all()[name]
    assert torch.autograd.gradcheck(function, at)


@pytest.mark.parametrize("name", _all())
def test_half_precisions_and_autocast(name: str) -> None:
    function, at = _all(torch.bfloat16)[name]
    loss = function(at)
    assert loss.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(function(at), loss)


@pytest.mark.parametrize("name", _all())
def test_nothing_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, at = _all()[name]

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a value was read from the device")

    function(at)  # small constants are made once
    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(Tensor, reader, refuse)
    function(at).backward()


def test_names_are_functions_not_modules() -> None:
    for name in functional.__all__:
        assert callable(getattr(functional, name))


# ClassroomKD's rules


@pytest.mark.parametrize("rule", ["sample", "rank"])
@pytest.mark.parametrize("options", [{}, {"gate": "none"}, {"soft": 0.1}])
def test_a_class_that_a_mentor_does_not_know_it_does_not_teach(rule: str, options: dict[str, Any]) -> None:
    student, mentors, _ = answers()
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    mentors += 20 * torch.nn.functional.one_hot(target)  # ahead of the student wherever it knows the class
    mentors[1, :, 2:] = -INF
    found = classroom(student, mentors, target, rule=rule, **options)
    knows = torch.tensor([True, True, False, False, False, True])
    assert not found.active[1, ~knows].any()
    assert (found.weight[1, ~knows] == 0).all()
    assert found.active[1, knows].any()
    assert found.loss.isfinite()


# Functions of earlier versions


def test_old_losses_say_which_method_to_use_and_are_its_loss() -> None:
    student, mentors, target = answers()
    for function, name, wanted in (
        (functional.average, "average", distilled("average", student, mentors)),
        (functional.ebkd, "ebkd", EBKD(student, mentors, target)),
        (functional.camkd, "camkd", CAMKD(student, mentors, target)),
        (functional.aekd, "aekd", AEKD(student, mentors, target)),
    ):
        with pytest.warns(DeprecationWarning, match=rf"functional.{name} goes .*create\('{name}'"):
            loss = function(student, mentors) if name == "average" else function(student, mentors, target)
        torch.testing.assert_close(loss, wanted)
        if name != "average":
            with (
                pytest.warns(DeprecationWarning, match=name),
                pytest.raises(UserError, match="is not one of paper, reference"),
            ):
                function(student, mentors, target, rule="code")
    with pytest.warns(DeprecationWarning, match="functional.dkd goes"):
        loss = functional.dkd(student, mentors[0], target)
    torch.testing.assert_close(loss, distilled("dkd", student, mentors[0], target, beta=8))
    with pytest.warns(DeprecationWarning, match="functional.classroom goes"):
        old = functional.classroom(student, mentors, target)
    for ours, theirs in zip(old, classroom(student, mentors, target, normalise="native", floor=1), strict=True):
        torch.testing.assert_close(ours, theirs)
