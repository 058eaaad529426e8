"""Examples that a teacher chooses, and a linear learner that knows of the choice (iterative teacher-aware learning).

Yuan et al., arXiv 2110.00137, with the rules of its code. η is the learner's step, g_x the gradient of the loss of
example x in the weight w, c the example that was chosen, β how sharp the learner thinks the choice is.

A gradient in a linear layer's weight is an outer product, (C,) ⊗ (D,). It stays in these two factors, so that norms
cost O(B (C + D)) and inner products with a weight what its outputs cost. All is differentiable, and nothing waits for
the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Gradients",
    "aware_update",
    "aware_update_by_losses",
    "awareness",
    "choice_log_probability",
    "choose",
    "dense_gradients",
    "imitating_scores",
    "linear_gradients",
    "linear_losses",
    "naive_update",
    "omniscient_scores",
    "partial_rows",
]


class Gradients(NamedTuple):
    """Gradients of single examples in a weight ``(C, D)``: example b's is ``outputs[b] ⊗ features[b]``.

    Attributes:
        outputs: of the loss in the linear outputs, ``(B, C)``.
        features: what the layer reads, ``(B, D)``; a bias is a feature that is 1.
    """

    outputs: Tensor
    features: Tensor

    def squared_norms(self) -> Tensor:
        """Squared length of each, ``(B,)``."""
        return self.outputs.square().sum(-1) * self.features.square().sum(-1)

    def inner(self, weight: Tensor) -> Tensor:
        """Inner product of each with a weight ``(C, D)``, ``(B,)``."""
        return (self.outputs * (self.features @ weight.mT)).sum(-1)

    def total(self, factors: Tensor) -> Tensor:
        """Sum of all, each times its factor of ``(B,)``: ``(C, D)``."""
        return (self.outputs * factors.unsqueeze(-1)).mT @ self.features

    def rows(self, rows: Tensor) -> Gradients:
        """Those of some examples; ``rows`` ``(m,)`` are indices."""
        return Gradients(self.outputs[rows], self.features[rows])


def linear_losses(weight: Tensor, features: Tensor, target: Tensor) -> Tensor:
    """Loss of each example, ``(B,)``: cross-entropy for classes ``(B,)``, half the squared error for values ``(B, C)``.

    Args:
        weight: ``(C, D)``.
        features: ``(B, D)``.
        target: classes ``(B,)`` int64, or values ``(B, C)``.
    """
    outputs = features @ weight.mT
    if target.is_floating_point():
        return (outputs - target).square().sum(-1) / 2
    return F.cross_entropy(outputs, target, reduction="none")


def linear_gradients(weight: Tensor, features: Tensor, target: Tensor) -> Gradients:
    """Gradients of :func:`linear_losses` in the weight, example by example, in closed form; arguments as there."""
    outputs = features @ weight.mT
    if target.is_floating_point():
        return Gradients(outputs - target, features)
    return Gradients(outputs.softmax(-1) - F.one_hot(target, outputs.shape[-1]).to(outputs.dtype), features)


def dense_gradients(loss: Callable[..., Tensor], weight: Tensor, *examples: Tensor) -> Gradients:
    """Gradients of any loss, example by example, where there is no closed form.

    Args:
        loss: of a weight ``(P,)`` and one example to a number.
        weight: ``(P,)``; as a learner's weight it is then ``(1, P)``.
        examples: tensors whose first axis is the examples'.
    """
    each: Tensor = torch.func.vmap(torch.func.grad(loss), in_dims=(None, *[0] * len(examples)))(weight, *examples)
    return Gradients(each.new_ones(len(each), 1), each)


def omniscient_scores(gradients: Gradients, weight: Tensor, goal: Tensor, eta: float) -> Tensor:
    """How far a step on each example ends from the goal: ‖w − η g_x − w*‖² − ‖w − w*‖², ``(B,)``.

    Args:
        gradients: the learner's, at ``weight``.
        weight: w, ``(C, D)``.
        goal: w*, ``(C, D)``, which the teacher knows.
        eta: the learner's step.
    """
    return eta**2 * gradients.squared_norms() - 2 * eta * gradients.inner(weight - goal)


def imitating_scores(gradients: Gradients, losses: Tensor, best: Tensor, eta: float) -> Tensor:
    """The same by a teacher that sees the learner's outputs and losses, not its weights: ``(B,)``.

    Args:
        gradients: the learner's in its outputs, with the *teacher's* features, of whatever width.
        losses: the learner's, l(w; x), ``(B,)``.
        best: the teacher's own at its optimum, l_T(x), ``(B,)``.
        eta: the learner's step.
    """
    return eta**2 * gradients.squared_norms() - 2 * eta * (losses - best)


def choose(scores: Tensor, beta: float = 1.0) -> Tensor:
    """The example that is taught, a 0-d index: least score; most where ``beta`` is below 0 (an adversary)."""
    return (-beta * scores).argmax(-1)


def choice_log_probability(scores: Tensor, beta: float) -> Tensor:
    """log q of each choice as the learner sees it, ``(B,)``: softmax of −β times the scores."""
    return (-beta * scores).log_softmax(-1)


def awareness(gradients: Gradients, log_q: Tensor, chosen: Tensor, eta: float, beta: float) -> Tensor:
    """Gradient of log q of the choice in the target that the learner imagines, ``(C, D)``: 2 β η (Σ_x q_x g_x − g_c).

    Args:
        gradients: at the learner's weight (omniscient) or at the imagined one (imitating).
        log_q: from :func:`choice_log_probability`, ``(B,)``.
        chosen: 0-d index.
        eta: the learner's step.
        beta: β.
    """
    is_chosen = torch.arange(len(log_q), device=log_q.device) == chosen
    return 2 * beta * eta * gradients.total(log_q.exp() - is_chosen.to(log_q.dtype))


def naive_update(weight: Tensor, gradients: Gradients, chosen: Tensor, eta: float) -> Tensor:
    """The step of a learner that does not know it is taught: w − η g_c, ``(C, D)``."""
    return weight - eta * gradients.rows(chosen.reshape(1)).total(gradients.outputs.new_ones(1))


def aware_update(weight: Tensor, gradients: Gradients, chosen: Tensor, eta: float, beta: float) -> Tensor:
    """The step of a learner that knows of the choice of an omniscient teacher, ``(C, D)``.

    w' = w − η g_c is what the learner imagines as w*; then η times :func:`awareness` there.

    Args:
        weight: w, ``(C, D)``.
        gradients: at ``weight``, of the examples that the learner saw.
        chosen: 0-d index of c among them.
        eta: the step.
        beta: β; 0 is :func:`naive_update`.
    """
    after = naive_update(weight, gradients, chosen, eta)
    log_q = choice_log_probability(omniscient_scores(gradients, weight, after, eta), beta)
    return after + eta * awareness(gradients, log_q, chosen, eta, beta)


def aware_update_by_losses(
    weight: Tensor, features: Tensor, target: Tensor, chosen: Tensor, eta: float, beta: float
) -> Tensor:
    """:func:`aware_update` where the teacher is thought to see losses alone, gradients taken anew at w'; ``(C, D)``.

    Args:
        weight: w, ``(C, D)``.
        features: the learner's own, of the examples that it saw, ``(m, D)``.
        target: as in :func:`linear_losses`.
        chosen: 0-d index of c among them.
        eta: the step.
        beta: β.
    """
    gradients = linear_gradients(weight, features, target)
    after = naive_update(weight, gradients, chosen, eta)
    losses, imagined = (linear_losses(w, features, target) for w in (weight, after))
    log_q = choice_log_probability(imitating_scores(gradients, losses, imagined, eta), beta)
    return after + eta * awareness(linear_gradients(after, features, target), log_q, chosen, eta, beta)


def partial_rows(chosen: Tensor, count: int, shown: int, generator: torch.Generator | None = None) -> Tensor:
    """The choice first, then ``shown − 1`` others of ``count`` examples at random: indices ``(shown,)``."""
    order = torch.randperm(count, generator=generator).to(chosen.device)
    others = order[(order == chosen).to(torch.uint8).argsort(stable=True)][: min(shown, count) - 1]
    return torch.cat([chosen.reshape(1), others])
