"""The hypergradient against finite differences of real SGD runs, and against autograd through the whole unroll."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.functional.bilevel import (
    Hypergradient,
    Loss,
    Parameters,
    SGDRule,
    hypergradient,
    momentum_of,
    sgd_step,
    unrolled,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "momentum": {"momentum": 0.8},
    "momentum-decay": {"momentum": 0.8, "weight_decay": 0.1},
    "dampening": {"momentum": 0.8, "dampening": 0.3},
    "dampening-decay": {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1},
    "dampening-alone": {"dampening": 0.3},  # torch ignores it without momentum
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "nesterov-decay": {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
}
LR = 0.3
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


class Problem:
    """An MLP whose samples a net weights; the last parameter and the last meta tensor matter to no loss."""

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

        self.x, self.y, self.outer_x, self.outer_y = normal(7, 3), normal(7, 2), normal(5, 3), normal(5, 2)
        self.parameters = {"w": normal(3, 4), "b": normal(4), "v": normal(4, 2), "late": normal(2), "idle": normal(3)}
        self.momentum = {name: 0.5 * normal(*p.shape) for name, p in self.parameters.items()}
        self.meta = [x.requires_grad_() for x in (normal(3, 2), normal(2), normal(2, 1), normal(4))]

    def answer(self, theta: Parameters, x: Tensor) -> Tensor:
        return F.softplus(torch.tanh(x @ theta["w"] + theta["b"]) @ theta["v"])

    def matching(self, theta: Parameters) -> Tensor:
        weight = F.softplus(torch.tanh(self.x @ self.meta[0] + self.meta[1]) @ self.meta[2])
        return (weight * (self.answer(theta, self.x) - self.y) ** 2).mean()

    def plain(self, theta: Parameters) -> Tensor:  # touches no φ, and "late", which matching does not
        return ((self.answer(theta, self.x) + theta["late"] - self.y) ** 2).mean()

    def outer(self, theta: Parameters) -> Tensor:  # depends on φ directly, too
        return ((self.answer(theta, self.outer_x) + theta["late"] - self.outer_y) ** 2).mean() + (
            self.meta[1] * theta["b"][:2]
        ).sum() ** 2

    def steps(self, count: int) -> list[Loss]:
        every: list[Loss] = [self.matching, self.matching, self.plain]
        return every[-count:] if count > 1 else [self.matching]

    def solve(self, solver: Callable[..., Hypergradient], steps: Sequence[Loss], rule: SGDRule, **more: Any) -> Any:
        return solver(steps, self.outer, self.parameters, self.momentum, self.meta, rule, **more)


def after_real_sgd(problem: Problem, steps: Sequence[Loss], options: dict[str, Any]) -> tuple[Tensor, Parameters]:
    """The outer loss after steps of torch.optim.SGD."""
    theta = {name: p.clone().requires_grad_() for name, p in problem.parameters.items()}
    optimizer = torch.optim.SGD(theta.values(), lr=LR, **options)
    for name, p in theta.items():
        if options.get("momentum"):
            optimizer.state[p]["momentum_buffer"] = problem.momentum[name].clone()
    for loss in steps:
        for p in theta.values():
            p.grad = torch.zeros_like(p)  # SGD passes over None; a virtual step decays all
        torch.autograd.backward(loss(theta), inputs=list(theta.values()))
        optimizer.step()
    with torch.no_grad():
        return problem.outer(theta), {name: p.detach() for name, p in theta.items()}


def differences(problem: Problem, steps: Sequence[Loss], options: dict[str, Any], eps: float = 1e-5) -> list[Tensor]:
    found = []
    for tensor in problem.meta:
        gradient, flat = torch.zeros_like(tensor).detach(), tensor.detach().view(-1)
        for i in range(flat.numel()):
            kept = flat[i].clone()
            values = []
            for sign in (1, -1):
                flat[i] = kept + sign * eps
                values.append(after_real_sgd(problem, steps, options)[0])
            flat[i] = kept
            gradient.view(-1)[i] = (values[0] - values[1]) / (2 * eps)
        found.append(gradient)
    return found


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest entry."""
    left, right = (torch.cat([x.detach().flatten() for x in xs]) for xs in (a, b))
    return ((left - right).abs().max() / right.abs().max()).item()


@pytest.mark.parametrize("count", [1, 2, 3])
@every_option
def test_equals_finite_differences_of_real_sgd(options: dict[str, Any], count: int) -> None:
    problem = Problem()
    steps, rule = problem.steps(count), SGDRule(LR, **options)
    found = problem.solve(hypergradient, steps, rule)
    expected = differences(problem, steps, options)
    assert min(x.abs().max() for x in expected[:3]) > 1e-3
    assert distance(found.gradients, expected) < 1e-6
    outer, theta = after_real_sgd(problem, steps, options)
    torch.testing.assert_close(found.outer, outer, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.parameters, theta, rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("options", [*OPTIONS.values(), {"momentum": 0.8, "dampening": 0.3, "nesterov": True}])
def test_equals_autograd_through_the_unroll(options: dict[str, Any], count: int) -> None:
    problem = Problem(seed=1)
    steps, rule = problem.steps(count), SGDRule(LR, **options)
    found, expected = problem.solve(hypergradient, steps, rule), problem.solve(unrolled, steps, rule)
    assert distance(found.gradients, expected.gradients) < 1e-10
    torch.testing.assert_close(
        (found.outer, found.losses, found.parameters), (expected.outer, expected.losses, expected.parameters)
    )
    assert len(found.losses) == count
    everything = [*found.gradients, found.outer, *found.losses, *found.parameters.values()]
    assert not any(x.requires_grad for x in everything)


def released(problem: Problem, steps: Sequence[Loss], rule: SGDRule) -> list[Tensor]:
    """The recursion of MMKD's release, as specs/multi_teacher.md writes it down."""
    theta, v, states = problem.parameters, problem.momentum, []

    def leaves(state: Parameters) -> Parameters:
        return {name: p.detach().requires_grad_() for name, p in state.items()}

    def gradients(loss: Loss, at: Parameters) -> list[Tensor]:
        return list(torch.autograd.grad(loss(at), list(at.values()), create_graph=True, materialize_grads=True))

    for loss in steps:
        states.append(theta)
        at = leaves(theta)
        g = {name: x.detach() for name, x in zip(at, gradients(loss, at), strict=True)}
        theta, v = sgd_step(theta, v, g, rule)
    at = leaves(theta)
    every = [*at.values(), *problem.meta]
    found = torch.autograd.grad(problem.outer(at), every, materialize_grads=True)
    a, total = list(found[: len(at)]), list(found[len(at) :])
    m = [torch.zeros_like(x) for x in a]
    for loss, state in zip(reversed(steps), reversed(states), strict=True):
        at = leaves(state)
        q = [y - rule.lr * x for x, y in zip(a, m, strict=True)]
        product = sum((g * x).sum() for g, x in zip(gradients(loss, at), q, strict=True))
        found = torch.autograd.grad(product, [*at.values(), *problem.meta], materialize_grads=True)  # type: ignore[arg-type]
        total = [x + y for x, y in zip(total, found[len(at) :], strict=True)]
        decay = rule.weight_decay
        a = [(1 - rule.lr * decay) * x + decay * y + z for x, y, z in zip(a, m, found[: len(at)], strict=True)]
        m = [rule.momentum * x for x in q]
    return total


@every_option
def test_heavy_ball_is_exact_but_for_nesterov(options: dict[str, Any]) -> None:
    problem = Problem(seed=2)
    rule = SGDRule(LR, **options)
    steps = problem.steps(3)
    exact = problem.solve(hypergradient, steps, rule)
    ball = problem.solve(hypergradient, steps, rule, adjoint="heavy_ball")
    torch.testing.assert_close(ball.parameters, exact.parameters, rtol=0, atol=0)
    if rule.nesterov:
        assert distance(ball.gradients, exact.gradients) > 0.01
    else:
        torch.testing.assert_close(ball.gradients, exact.gradients, rtol=0, atol=0)
    if not rule.dampening:
        assert distance(ball.gradients, released(problem, steps, rule)) < 1e-12


def test_what_a_loss_does_not_touch_counts_zero() -> None:
    problem = Problem()
    rule = SGDRule(LR, momentum=0.8, weight_decay=0.1)
    found = problem.solve(hypergradient, problem.steps(3), rule)
    torch.testing.assert_close(found.gradients[3], torch.zeros(4).double(), rtol=0, atol=0)
    # Decay and momentum still move a parameter without a gradient.
    p, v = problem.parameters["idle"], problem.momentum["idle"]
    for _ in range(3):
        v = 0.8 * v + 0.1 * p
        p = p - LR * v
    torch.testing.assert_close(found.parameters["idle"], p)

    def constant(theta: Parameters) -> Tensor:  # not even a graph
        return torch.zeros(()).double()

    def linear(theta: Parameters) -> Tensor:  # its gradient has no graph
        return theta["b"].sum()

    for steps in ([constant], [linear], [problem.matching, constant, linear], [linear, problem.matching]):
        a, b = problem.solve(hypergradient, steps, rule), problem.solve(unrolled, steps, rule)
        assert distance(a.gradients, b.gradients) < 1e-10
    none = hypergradient([problem.matching], constant, problem.parameters, problem.momentum, problem.meta, rule)
    assert all((x == 0).all() for x in none.gradients)


def test_nothing_passed_in_changes() -> None:
    problem = Problem()
    rule = SGDRule(LR, momentum=0.8, weight_decay=0.1, nesterov=True)
    parameters = {name: nn.Parameter(p) for name, p in problem.parameters.items()}
    given = [*parameters.values(), *problem.momentum.values(), *problem.meta]
    before = [x.detach().clone() for x in given]
    versions = [x._version for x in given]
    steps = problem.steps(3)
    kept = list(steps)
    with torch.no_grad():  # works there, too
        found = hypergradient(steps, problem.outer, parameters, problem.momentum, problem.meta, rule)
    assert all((x != 0).any() for x in found.gradients[:3])
    torch.testing.assert_close([x.detach() for x in given], before, rtol=0, atol=0)
    assert [x._version for x in given] == versions
    assert all(x.grad is None for x in given)
    assert steps == kept
    assert list(problem.momentum) == list(problem.parameters)


def test_float32_is_near() -> None:
    rule = SGDRule(LR, momentum=0.8, weight_decay=0.1, nesterov=True)
    double, single = Problem(), Problem(torch.float32)
    found = single.solve(hypergradient, single.steps(3), rule)
    assert all(x.dtype is torch.float32 for x in [*found.gradients, *found.parameters.values()])
    exact = double.solve(hypergradient, double.steps(3), rule)
    assert distance([x.double() for x in found.gradients], exact.gradients) < 1e-4


# The rule, and torch.optim.SGD.


@pytest.mark.parametrize("start", ["none yet", "buffers"])
@every_option
def test_step_is_torchs(options: dict[str, Any], start: str) -> None:
    torch.manual_seed(0)
    real = {"a": nn.Parameter(torch.randn(3, 2).double()), "b": nn.Parameter(torch.randn(4).double())}
    optimizer = torch.optim.SGD(real.values(), lr=LR, **options)
    rule = SGDRule.of(optimizer)
    assert rule == SGDRule(LR, **options)

    def step() -> Parameters:
        gradients = {name: torch.randn_like(p) for name, p in real.items()}
        for name, p in real.items():
            p.grad = gradients[name]
        optimizer.step()
        return gradients

    if start == "buffers":
        step()
    theta = {name: p.detach().clone() for name, p in real.items()}
    momentum = {name: b.clone() for name, b in momentum_of(optimizer, real).items()}
    if not rule.dampening:
        assert list(momentum) == list(real)
    for _ in range(4):
        theta, momentum = sgd_step(theta, momentum, step(), rule)
        torch.testing.assert_close(theta, {name: p.detach() for name, p in real.items()}, rtol=0, atol=0)
        if rule.momentum:
            torch.testing.assert_close(momentum, momentum_of(optimizer, real), rtol=0, atol=0)


def test_first_gradient_is_not_damped() -> None:
    problem = Problem()
    rule = SGDRule(LR, momentum=0.8, dampening=0.3, weight_decay=0.1)
    full = problem.momentum
    problem.momentum = {"b": full["b"]}  # the others have no buffer yet
    steps = problem.steps(3)
    found, expected = problem.solve(hypergradient, steps, rule), problem.solve(unrolled, steps, rule)
    assert distance(found.gradients, expected.gradients) < 1e-10
    problem.momentum = {name: torch.zeros_like(b) if name != "b" else b for name, b in full.items()}
    assert distance(problem.solve(hypergradient, steps, rule).gradients, found.gradients) > 1e-3


def test_optimisers_that_have_no_rule_are_named() -> None:
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    with pytest.raises(UserError, match=r"AdamW.*torch\.optim\.SGD"):
        SGDRule.of(torch.optim.AdamW([a]))

    class Mine(torch.optim.SGD):
        pass

    with pytest.raises(UserError, match="Mine"):
        SGDRule.of(Mine([a], lr=0.1))
    with pytest.raises(UserError, match="one weight_decay"):
        SGDRule.of(torch.optim.SGD([{"params": [a]}, {"params": [b], "weight_decay": 0.1}], lr=0.1))
    with pytest.raises(UserError, match="maximize"):
        SGDRule.of(torch.optim.SGD([a], lr=0.1, maximize=True))
    with pytest.raises(UserError, match="lr as a number"):
        SGDRule.of(torch.optim.SGD([a], lr=torch.tensor(0.1)))
    assert SGDRule.of(torch.optim.SGD([{"params": [a]}, {"params": [b]}], lr=0.1)) == SGDRule(0.1)


def test_fabrics_wrapper_is_seen_through() -> None:
    from lightning_fabric import Fabric

    net = nn.Linear(2, 2)
    raw = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    _, wrapped = Fabric(accelerator="cpu", devices=1).setup(net, raw)
    torch.autograd.backward(net(torch.ones(1, 2)).sum())
    wrapped.step()
    raw.load_state_dict(raw.state_dict())  # puts new state where the wrapper must look
    assert SGDRule.of(wrapped) == SGDRule(0.1, momentum=0.9)
    buffers = momentum_of(wrapped, dict(net.named_parameters()))
    torch.testing.assert_close(buffers["bias"], torch.ones(2))
    assert not buffers["bias"].requires_grad


# Networks, and what a step costs.


def conv_net(*extra: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        *extra,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()


def weighted(net: nn.Module, meta: Tensor) -> tuple[Loss, Loss]:
    """A loss with φ-weighted samples and one without, BatchNorm's buffers being clones."""
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 3, 7, 7, generator=draw).double(), torch.randint(3, (6,), generator=draw)

    def losses(theta: Parameters) -> Tensor:
        buffers = {name: b.clone() for name, b in net.named_buffers()}
        return F.cross_entropy(torch.func.functional_call(net, {**theta, **buffers}, (x,)), y, reduction="none")

    return lambda theta: (F.softplus(meta) * losses(theta)).mean(), lambda theta: losses(theta).mean()


@pytest.mark.parametrize("nesterov", [False, True])
def test_conv_net_with_batch_norm(nesterov: bool) -> None:
    net = conv_net().train()
    meta = torch.randn(6, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    matching, plain = weighted(net, meta)
    rule = SGDRule(0.1, momentum=0.9, weight_decay=5e-4, nesterov=nesterov)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=nesterov)
    parameters: dict[str, Any] = dict(net.named_parameters())
    torch.autograd.backward(plain(parameters))
    optimizer.step()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    momentum = {name: b.clone() for name, b in momentum_of(optimizer, parameters).items()}
    arguments = [matching, matching, plain], plain, parameters, momentum_of(optimizer, parameters), [meta], rule
    found = hypergradient(*arguments)
    assert distance(found.gradients, unrolled(*arguments).gradients) < 1e-10
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(momentum_of(optimizer, parameters), momentum, rtol=0, atol=0)
    # The virtual steps are the real ones.
    for loss in arguments[0]:
        optimizer.zero_grad()
        torch.autograd.backward(loss(parameters), inputs=list(parameters.values()))
        optimizer.step()
    torch.testing.assert_close(found.parameters, {name: p.detach() for name, p in parameters.items()})


def test_dropout_draws_the_same_mask_again() -> None:
    net = conv_net(nn.Dropout(0.5)).train()
    meta = torch.zeros(6).double().requires_grad_()
    matching, plain = weighted(net, meta)
    rule = SGDRule(0.1, momentum=0.9)
    arguments: Any = [matching, matching, plain], plain, dict(net.named_parameters()), {}, [meta], rule
    torch.manual_seed(5)
    found = hypergradient(*arguments)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    expected = unrolled(*arguments)
    assert distance(found.gradients, expected.gradients) < 1e-10
    assert torch.equal(after, torch.get_rng_state())  # the second calls leave no trace


class Token:
    """Lives as long as the graph it is put into."""


class Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Token) -> Tensor:
        ctx.token = token
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def test_one_graph_at_a_time_and_two_calls_a_step() -> None:
    problem = Problem()
    rule = SGDRule(LR, momentum=0.8)
    tokens: list[weakref.ref[Token]] = []
    alive: list[int] = []

    def marked(loss: Loss) -> Loss:
        def call(theta: Parameters) -> Tensor:
            alive.append(sum(token() is not None for token in tokens))
            token = Token()
            tokens.append(weakref.ref(token))
            w = Marked.apply(theta["w"], token)  # type: ignore[no-untyped-call]
            return loss({**theta, "w": w})

        return call

    steps, outer = [marked(loss) for loss in problem.steps(3)], marked(problem.outer)
    hypergradient(steps, outer, problem.parameters, problem.momentum, problem.meta, rule)
    assert alive == [0] * 7  # three steps, the outer loss, three steps again
    assert not any(token() for token in tokens)
    alive.clear()
    unrolled(steps, outer, problem.parameters, problem.momentum, problem.meta, rule)
    assert alive == [0, 1, 2, 3]


def test_no_host_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem()
    steps, rule = problem.steps(3), SGDRule(LR, momentum=0.8, weight_decay=0.1, nesterov=True)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the step waited for the device")

    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, reader, forbidden)
    problem.solve(hypergradient, steps, rule)
    problem.solve(unrolled, steps, rule)
