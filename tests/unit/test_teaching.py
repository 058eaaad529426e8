"""Examples that a teacher chooses, and the learner that knows: against autograd, finite differences and search."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.functional import teaching

B, C, D = 7, 4, 5
ETA, BETA = 0.1, 3.0
KINDS = pytest.mark.parametrize("kind", ["classes", "values"])


def lesson(kind: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A weight (C, D), a goal, features (B, D) and targets, in float64."""
    g = torch.Generator().manual_seed(seed)
    weight, goal = torch.randn(2, C, D, generator=g, dtype=torch.float64)
    features = torch.randn(B, D, generator=g, dtype=torch.float64)
    if kind == "classes":
        return weight, goal, features, torch.randint(C, (B,), generator=g)
    return weight, goal, features, torch.randn(B, C, generator=g, dtype=torch.float64)


def whole(gradients: teaching.Gradients) -> Tensor:
    """Every gradient as a matrix, (B, C, D)."""
    return torch.einsum("bc,bd->bcd", gradients.outputs, gradients.features)


@KINDS
def test_gradients_are_those_of_autograd_and_of_torch_func(kind: str) -> None:
    weight, goal, features, target = lesson(kind)
    closed = teaching.linear_gradients(weight, features, target)
    leaf = weight.clone().requires_grad_()
    losses = teaching.linear_losses(leaf, features, target)
    for b in range(B):
        (g,) = torch.autograd.grad(losses[b], leaf, retain_graph=True)
        torch.testing.assert_close(whole(closed)[b], g)

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        z = x @ flat.view(C, D).mT
        return F.cross_entropy(z, y) if kind == "classes" else (z - y).square().sum() / 2

    dense = teaching.dense_gradients(loss, weight.flatten(), features, target)
    torch.testing.assert_close(whole(dense).flatten(1), whole(closed).flatten(1))
    torch.testing.assert_close(dense.squared_norms(), closed.squared_norms())
    torch.testing.assert_close(dense.inner(goal.view(1, -1)), closed.inner(goal))
    factors = torch.randn(B, dtype=torch.float64)
    torch.testing.assert_close(dense.total(factors).view(C, D), closed.total(factors))


@KINDS
@pytest.mark.parametrize("seed", range(5))
def test_omniscient_choice_is_the_least_distance_by_search(kind: str, seed: int) -> None:
    weight, goal, features, target = lesson(kind, seed)
    gradients = teaching.linear_gradients(weight, features, target)
    scores = teaching.omniscient_scores(gradients, weight, goal, ETA)
    after = (weight - ETA * whole(gradients) - goal).square().sum((1, 2))
    torch.testing.assert_close(scores, after - (weight - goal).square().sum())
    assert teaching.choose(scores) == after.argmin()
    assert teaching.choose(scores, beta=-1.0) == after.argmax()  # an adversary


def test_imitating_teacher_with_the_learners_features_bounds_the_omniscient_one() -> None:
    """Of half a squared error ⟨w − w*, g⟩ = l(w) − l(w*) + ½ ‖(w − w*) x‖²; its features may be others."""
    weight, goal, features, _ = lesson("values")
    target = features @ goal.mT  # w* explains all: its losses are 0
    gradients = teaching.linear_gradients(weight, features, target)
    losses, best = (teaching.linear_losses(w, features, target) for w in (weight, goal))
    seen = teaching.imitating_scores(gradients, losses, best, ETA)
    known = teaching.omniscient_scores(gradients, weight, goal, ETA)
    torch.testing.assert_close(seen - known, 2 * ETA * losses)
    own = teaching.Gradients(gradients.outputs, torch.randn(B, 2, dtype=torch.float64))  # another width
    expected = ETA**2 * whole(own).square().sum((1, 2)) - 2 * ETA * (losses - best)
    torch.testing.assert_close(teaching.imitating_scores(own, losses, best, ETA), expected)


@KINDS
@pytest.mark.parametrize("imitating", [False, True])
def test_awareness_is_the_finite_difference_of_log_q(kind: str, imitating: bool) -> None:
    weight, _, features, target = lesson(kind)
    chosen = torch.tensor(2)
    gradients = teaching.linear_gradients(weight, features, target)
    after = teaching.naive_update(weight, gradients, chosen, ETA)

    def log_q(imagined: Tensor) -> Tensor:
        if imitating:
            losses, best = (teaching.linear_losses(w, features, target) for w in (weight, imagined))
            scores = teaching.imitating_scores(gradients, losses, best, ETA)
        else:
            scores = teaching.omniscient_scores(gradients, weight, imagined, ETA)
        return teaching.choice_log_probability(scores, BETA)[chosen]

    found, h = torch.zeros_like(weight), 1e-5
    for i in range(C):
        for j in range(D):
            nudge = torch.zeros_like(weight)
            nudge[i, j] = h
            found[i, j] = (log_q(after + nudge) - log_q(after - nudge)) / (2 * h)
    if imitating:
        stepped = teaching.aware_update_by_losses(weight, features, target, chosen, ETA, BETA)
    else:
        stepped = teaching.aware_update(weight, gradients, chosen, ETA, BETA)
    torch.testing.assert_close((stepped - after) / ETA, found, rtol=1e-6, atol=1e-8)  # h² and 1e-16 / h


@KINDS
def test_aware_update_is_the_formula_written_out(kind: str) -> None:
    weight, _, features, target = lesson(kind)
    chosen = torch.tensor(1)
    gradients = teaching.linear_gradients(weight, features, target)
    after = weight - ETA * whole(gradients)[1]
    q = teaching.choice_log_probability(teaching.omniscient_scores(gradients, weight, after, ETA), BETA).exp()
    expected = torch.einsum("b,bcd->cd", q, whole(gradients))
    written = weight - ETA * ((1 + 2 * BETA * ETA) * whole(gradients)[1] - 2 * BETA * ETA * expected)
    torch.testing.assert_close(teaching.aware_update(weight, gradients, chosen, ETA, BETA), written)


@KINDS
def test_beta_of_0_is_the_naive_learner(kind: str) -> None:
    weight, _, features, target = lesson(kind)
    chosen = torch.tensor(3)
    gradients = teaching.linear_gradients(weight, features, target)
    naive = teaching.naive_update(weight, gradients, chosen, ETA)
    torch.testing.assert_close(naive, weight - ETA * whole(gradients)[3])
    assert torch.equal(teaching.aware_update(weight, gradients, chosen, ETA, 0.0), naive)
    assert torch.equal(teaching.aware_update_by_losses(weight, features, target, chosen, ETA, 0.0), naive)


@KINDS
def test_equal_examples_give_a_plain_step(kind: str) -> None:
    weight, _, features, target = lesson(kind)
    same, label = features[:1].expand(20, -1), target[:1].expand(20, *target.shape[1:])
    gradients = teaching.linear_gradients(weight, same, label)
    chosen = torch.tensor(0)
    naive = teaching.naive_update(weight, gradients, chosen, ETA)
    torch.testing.assert_close(teaching.aware_update(weight, gradients, chosen, ETA, BETA), naive)
    torch.testing.assert_close(teaching.aware_update_by_losses(weight, same, label, chosen, ETA, BETA), naive)


@pytest.mark.parametrize("shown", [1, 2, 5, 20, 50])
def test_partial_minibatch_has_the_choice_first_and_others_once(shown: int) -> None:
    for chosen in (0, 7, 19):
        rows = teaching.partial_rows(torch.tensor(chosen), 20, shown, torch.Generator().manual_seed(shown))
        assert rows[0] == chosen
        assert len(rows) == min(shown, 20) == len(set(rows.tolist()))
    weight, _, features, target = lesson("classes")
    rows = teaching.partial_rows(torch.tensor(4), B, 3, torch.Generator().manual_seed(0))
    part = teaching.linear_gradients(weight, features, target).rows(rows)
    torch.testing.assert_close(part.features, features[rows])
    one = part.rows(rows.new_zeros(1))  # shown alone, a choice says nothing: a batch of 1 is a plain step
    chosen_alone = teaching.aware_update(weight, one, torch.tensor(0), ETA, BETA)
    torch.testing.assert_close(chosen_alone, teaching.naive_update(weight, part, torch.tensor(0), ETA))


def test_choice_of_several_is_differentiable_to_second_order() -> None:
    weight, _, features, target = lesson("classes")

    def log_q(imagined: Tensor) -> Tensor:
        scores = teaching.omniscient_scores(teaching.linear_gradients(weight, features, target), weight, imagined, ETA)
        return teaching.choice_log_probability(scores, BETA)

    assert torch.autograd.gradcheck(log_q, (weight.clone().requires_grad_(),))
