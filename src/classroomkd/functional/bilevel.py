"""Gradients through a few virtual SGD steps: how the student fares after them, as a function of what shaped the losses.

θ are the student's parameters, φ the meta tensors. From a state (θ, v), v the momentum buffers, each virtual step is
``g = G + wd·θ``, ``v' = μ·v + (1 - d)·g``, ``θ' = θ - lr·u``, where G is the gradient of that step's loss, u is v', or
g + μ·v' with Nesterov, or g without momentum. :func:`hypergradient` runs the steps, takes the outer loss at the last θ
and pulls A = ∂outer/∂θ' and M = ∂outer/∂v' back through them:

    P = M - lr·A (Nesterov: M - lr·μ·A),  Q = (1 - d)·P (Nesterov: … - lr·A; without momentum: -lr·A)
    φ receives ∂⟨G, Q⟩/∂φ,  A becomes A + wd·Q + ∂⟨G, Q⟩/∂θ,  M becomes μ·P

The recursion needs θ before each step but no v, and one step's graph at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError

__all__ = ["Hypergradient", "Loss", "Parameters", "SGDRule", "hypergradient", "momentum_of", "sgd_step", "unrolled"]

Parameters = dict[str, Tensor]
Loss = Callable[[Parameters], Tensor]  # a scalar of θ; φ comes in through the closure

_REMEDY = "train the student with torch.optim.SGD (train.optimizer: sgd in a recipe)"


@dataclass(frozen=True)
class SGDRule:
    """What a step of ``torch.optim.SGD`` depends on; the fields are its options of the same names."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0  # without effect where momentum is 0, as in torch
    weight_decay: float = 0.0
    nesterov: bool = False

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> SGDRule:
        """The rule an optimiser follows now (its learning rate may be scheduled: ask again at every meta step).

        Raises:
            UserError: not plain SGD, groups that differ, ``maximize``, or a tensor as learning rate.
        """
        inner = _unwrapped(optimizer)
        if type(inner) is not torch.optim.SGD:
            raise UserError(f"virtual steps are plain SGD, but the optimiser is {type(inner).__name__}: {_REMEDY}")
        names = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
        first, *others = inner.param_groups
        for name in (*names, "maximize"):
            if isinstance(first[name], Tensor):  # reading it would wait for the device
                raise UserError(f"virtual steps need SGD's {name} as a number: pass a float, not a tensor, to SGD")
            if any(group[name] != first[name] for group in others):
                raise UserError(
                    f"virtual steps need one {name} for all parameters, but SGD's groups differ: give them the same"
                )
        if first["maximize"]:
            raise UserError("virtual steps descend, but SGD has maximize=True: negate the loss and leave maximize out")
        return cls(**{name: first[name] for name in names})


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)  # Fabric's wrapper keeps its own there
    return inner


def momentum_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> Parameters:
    """The optimiser's momentum buffers by the names of ``parameters``; not copies, so use them before its next step.

    A parameter that SGD has not stepped yet gets zeros, from which its first step is the same. With dampening it is
    not (SGD does not damp the first gradient): there such a parameter is left out, which :func:`sgd_step` and
    :func:`hypergradient` read as "no buffer yet".
    """
    inner, momentum = _unwrapped(optimizer), {}
    damps = any(group.get("dampening", 0.0) != 0 for group in inner.param_groups)
    for name, parameter in parameters.items():
        buffer = inner.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            momentum[name] = buffer.detach()
        elif not damps:
            momentum[name] = torch.zeros_like(parameter, requires_grad=False)
    return momentum


def sgd_step(
    parameters: Mapping[str, Tensor], momentum: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rule: SGDRule
) -> tuple[Parameters, Parameters]:
    """What ``torch.optim.SGD`` would make of parameters and momentum buffers; new tensors, differentiable.

    Args:
        parameters: θ by name.
        momentum: v by name; a missing name has no buffer yet, and its first gradient is not damped.
        gradients: of every parameter. A zero gradient is not SGD's ``None``: decay and momentum still act.
        rule: the options.

    Returns:
        θ' and v'; v as it was (a new dict) where ``rule.momentum`` is 0, as SGD then keeps no buffers.
    """
    stepped: Parameters = {}
    buffers: Parameters = dict(momentum)
    for name, parameter in parameters.items():
        update = gradients[name]
        if rule.weight_decay != 0:
            update = update.add(parameter, alpha=rule.weight_decay)
        if rule.momentum != 0:
            old = momentum.get(name)
            buffers[name] = (
                update.clone() if old is None else old.mul(rule.momentum).add(update, alpha=1 - rule.dampening)
            )
            update = update.add(buffers[name], alpha=rule.momentum) if rule.nesterov else buffers[name]
        stepped[name] = parameter.add(update, alpha=-rule.lr)
    return stepped, buffers


@dataclass
class Hypergradient:
    """What came of a bilevel step; nothing in it carries a graph."""

    gradients: list[Tensor]  # of the outer loss, one per meta tensor, zeros where it does not matter
    outer: Tensor  # scalar
    losses: list[Tensor]  # the inner losses, each before its step
    parameters: Parameters  # θ after the virtual steps


def hypergradient(
    steps: Sequence[Loss],
    outer: Loss,
    parameters: Mapping[str, Tensor],
    momentum: Mapping[str, Tensor],
    meta: Sequence[Tensor],
    rule: SGDRule,
    adjoint: Literal["exact", "heavy_ball"] = "exact",
) -> Hypergradient:
    """The gradient of ``outer`` after virtual SGD steps on ``steps``, with respect to φ.

    Nothing passed in is changed and no ``.grad`` is filled, so there is nothing to roll back. Every step's loss is
    called twice with the same values, the second time with the random state of the first (dropout draws the same
    mask), and is differentiated twice; ``outer`` is called once. Each call must build its graph anew from θ and φ, and
    must not write to a module: with BatchNorm in train mode pass ``functional_call`` clones of the buffers.
    Memory: the graph of one step, and a copy of θ per step. Ranks are not reduced over: give all the same data.

    Args:
        steps: the inner losses, in order. One that does not touch some of θ or φ counts as zero gradient there.
        outer: the loss after the last step; it may depend on φ directly, too.
        parameters: θ, everything the steps move; tensors or ``nn.Parameter``.
        momentum: v, see :func:`momentum_of`; not used if ``rule.momentum`` is 0.
        meta: φ, leaf tensors that require gradients.
        rule: the optimiser's options.
        adjoint: ``heavy_ball`` keeps the recursion of plain momentum when ``rule.nesterov`` is set, which is what
            MMKD's release computes and not the gradient; without Nesterov both are the same.

    Source: reverse-mode differentiation of SGD (Maclaurin et al., arXiv 1502.03492); the use in distillation is that
    of L2T-ww (Jang et al., arXiv 1905.05901) and MMKD (arXiv 2306.06634).
    """
    assert all(tensor.requires_grad for tensor in meta), "φ must be tensors that require gradients"
    theta: Parameters = {name: p.detach() for name, p in parameters.items()}
    buffers: Parameters = {name: b.detach() for name, b in momentum.items()}
    before: list[Parameters] = []
    noise: list[_RandomState] = []
    losses: list[Tensor] = []
    with torch.enable_grad():
        for loss in steps:
            before.append(theta)
            noise.append(_RandomState(next(iter(theta.values())).device))
            value, gradients = _value_and_gradients(loss, theta, ())
            losses.append(value)
            theta, buffers = sgd_step(
                theta, buffers, dict(zip(theta, _filled(gradients, theta.values()), strict=True)), rule
            )
        value, gradients = _value_and_gradients(outer, theta, meta)
        a = _filled(gradients[: len(theta)], theta.values())
        m = [torch.zeros_like(x) for x in a]
        total = _filled(gradients[len(theta) :], meta)

        nesterov = rule.nesterov and adjoint == "exact"
        for t in reversed(range(len(steps))):
            undamped = [t == 0 and name not in momentum for name in theta]
            pulled = [_through_sgd(*x, rule=rule, nesterov=nesterov) for x in zip(a, m, undamped, strict=True)]
            q = [x[0] for x in pulled]
            with noise[t].again():
                of_theta, of_meta = _products(steps[t], before[t], meta, q, with_theta=t > 0)
            total = [x if y is None else x + y for x, y in zip(total, of_meta, strict=True)]
            if t > 0:  # nothing asks for the gradient of the state the steps started from
                a = [x if y is None else x + y for x, y in zip(a, of_theta, strict=True)]
                if rule.weight_decay != 0:
                    a = [x.add(y, alpha=rule.weight_decay) for x, y in zip(a, q, strict=True)]
                m = [x[1] for x in pulled]
    return Hypergradient(total, value, losses, theta)


def unrolled(
    steps: Sequence[Loss],
    outer: Loss,
    parameters: Mapping[str, Tensor],
    momentum: Mapping[str, Tensor],
    meta: Sequence[Tensor],
    rule: SGDRule,
) -> Hypergradient:
    """The same as exact :func:`hypergradient`, by autograd through all steps at once.

    It calls every loss once, so it is faster, but holds the graphs of all steps together.
    """
    with torch.enable_grad():
        theta = _leaves(parameters)
        buffers: Parameters = {name: b.detach() for name, b in momentum.items()}
        losses = []
        for loss in steps:
            value = loss(theta)
            gradients = _filled(_gradients([value], list(theta.values()), create_graph=True), theta.values())
            losses.append(value.detach())
            theta, buffers = sgd_step(theta, buffers, dict(zip(theta, gradients, strict=True)), rule)
        value = outer(theta)
        total = _filled(_gradients([value], list(meta)), meta)
    return Hypergradient(total, value.detach(), losses, {name: p.detach() for name, p in theta.items()})


def _leaves(parameters: Mapping[str, Tensor]) -> Parameters:
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


def _gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """``autograd.grad``, with None for what does not matter and for outputs that depend on nothing."""
    places = [i for i, x in enumerate(outputs) if x.requires_grad]
    if not places:
        return [None] * len(inputs)
    given = None if weights is None else [weights[i] for i in places]
    some = [outputs[i] for i in places]
    return list(torch.autograd.grad(some, inputs, given, create_graph=create_graph, allow_unused=True))


def _filled(gradients: Sequence[Tensor | None], like: Iterable[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(y, requires_grad=False) if x is None else x for x, y in zip(gradients, like, strict=True)]


def _value_and_gradients(loss: Loss, theta: Parameters, meta: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    leaves = _leaves(theta)
    value = loss(leaves)
    return value.detach(), _gradients([value], [*leaves.values(), *meta])


def _through_sgd(a: Tensor, m: Tensor, undamped: bool, *, rule: SGDRule, nesterov: bool) -> tuple[Tensor, Tensor]:
    """Q, what a step's gradient is to the outer loss, and M before the step."""
    direct = -rule.lr * a
    if rule.momentum == 0:
        return direct, m
    p = m.add(direct, alpha=rule.momentum if nesterov else 1.0)
    q = p if undamped or rule.dampening == 0 else (1 - rule.dampening) * p
    return (q + direct if nesterov else q), rule.momentum * p


def _products(
    loss: Loss, theta: Parameters, meta: Sequence[Tensor], q: Sequence[Tensor], *, with_theta: bool
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """∂⟨G, Q⟩/∂θ (empty unless asked for) and ∂⟨G, Q⟩/∂φ. A function of its own so that its graph dies with it."""
    leaves = _leaves(theta)
    gradients = _gradients([loss(leaves)], list(leaves.values()), create_graph=True)
    pairs = [(g, x) for g, x in zip(gradients, q, strict=True) if g is not None]
    inputs = [*(leaves.values() if with_theta else ()), *meta]
    products = _gradients([g for g, _ in pairs], inputs, [x for _, x in pairs])
    return products[: len(inputs) - len(meta)], products[len(inputs) - len(meta) :]


class _RandomState:
    """The random state of the host and of a device, to be entered again. Both are kept on the host: no wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = None if device.type == "cpu" else torch.get_device_module(device)
        self._which = () if device.type == "mps" else (device,)
        self._states = self._read()

    def _read(self) -> list[Tensor]:
        return [torch.get_rng_state(), *([self._device.get_rng_state(*self._which)] if self._device else [])]

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device:
            self._device.set_rng_state(states[1], *self._which)

    @contextmanager
    def again(self) -> Iterator[None]:
        now = self._read()
        self._write(self._states)
        try:
            yield
        finally:
            self._write(now)
