"""Weighting × divergence with features: average's hints, camkd's through mentors' classifiers, aekd's own weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import functional, methods, models
from classroomkd.classroom import Answers, Classroom, Lesson, Mentor
from classroomkd.methods.camkd import CAMKD, _turned
from classroomkd.methods.weighted import Weighted

NAN, INF = float("nan"), float("inf")
RULES = ["paper", "reference"]
FEATURES: list[tuple[str, dict[str, Any]]] = [
    ("average", {"feature_weight": 100}),
    *(("camkd", {"rule": rule}) for rule in RULES),
    ("aekd", {"features": True}),
    ("aekd", {"rule": "reference", "features": True, "tap": "@stage:-1"}),
    ("aekd", {"rule": "mgda", "features": True}),
]


def on(cases: list[tuple[str, dict[str, Any]]]) -> Any:
    ids = ["-".join([name, *(f"{k}={v}" for k, v in o.items())]) for name, o in cases]
    return pytest.mark.parametrize(("name", "given"), cases, ids=ids)


def network(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.create(name, num_classes=5)


def images(b: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(b, 3, 32, 32, generator=draw), torch.randint(5, (b,), generator=draw)


def room(name: str, given: dict[str, Any], mentors: list[nn.Module] | None = None, epoch: float = 1.0) -> Classroom:
    mentors = [network(n, i) for i, n in enumerate(("convnet8", "dwnet8", "resnet8"))] if mentors is None else mentors
    student = network("convnet4", 9)
    torch.manual_seed(10)
    found = Classroom(student, mentors, methods.create(name, **given), image_shape=(3, 32, 32))
    found.epoch = epoch
    return found


def hints_of(found: Classroom) -> list[nn.Module]:
    method = found.method
    assert isinstance(method, Weighted)
    assert method.hints is not None
    return list(method.hints.projectors)


def parts(found: Classroom, seen: Lesson) -> tuple[list[Tensor], Tensor]:
    """Projections, and their squared errors (M, B), by hand."""
    assert seen.mentors is not None
    projected = [projector(seen.student.features["@stage:-1"]) for projector in hints_of(found)]
    theirs = seen.mentors.features["@stage:-1"]
    return projected, torch.stack([(a - b).pow(2).flatten(1).mean(1) for a, b in zip(projected, theirs, strict=True)])


@on(FEATURES)
def test_everything_learns_but_the_mentors(name: str, given: dict[str, Any]) -> None:
    found = room(name, given)
    found(*images()).loss.backward()
    for key, parameter in found.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key
    for mentor in found.mentors:
        assert all(p.grad is None and not p.requires_grad for p in mentor.parameters())
        assert not any(m.training for m in mentor.modules())


@pytest.mark.parametrize(("name", "off"), [("average", {}), ("camkd", {"feature_weight": 0}), ("aekd", {})])
def test_without_hints_nothing_is_tapped(name: str, off: dict[str, Any]) -> None:
    method = methods.create(name, **off)
    assert not method.needs.features
    assert not method.needs.heads
    assert not list(method.parameters())


def test_average_hints_by_hand() -> None:
    found = room("average", {"feature_weight": 7})
    seen = found.collect(*images())
    terms = found.method.loss(seen)
    torch.testing.assert_close(terms.values["hints"], parts(found, seen)[1].mean())
    assert terms.coefficients["hints"] == 7


@pytest.mark.parametrize("rule", RULES)
def test_camkd_hints_by_hand(rule: str) -> None:
    found = room("camkd", {"rule": rule})
    seen = found.collect(*images())
    projected, far = parts(found, seen)
    loss = torch.stack(
        [
            nn.functional.cross_entropy(seen.head(m, "@stage:-1", value), seen.target, reduction="none")
            for m, value in enumerate(projected)
        ]
    )
    share = torch.softmax(loss, 0)
    weight = (1 - share) / 2
    wanted = (weight * far).sum(0).mean() if rule == "reference" else (weight.detach() * far).sum(0).mean()
    wanted = wanted / (3 if rule == "reference" else 1)
    hints = found.method.loss(seen).values["hints"]
    torch.testing.assert_close(hints, wanted)
    trained = [p for projector in hints_of(found) for p in projector.parameters()] + list(found.student.parameters())
    for a, b in zip(
        *(torch.autograd.grad(x, trained, retain_graph=True, allow_unused=True) for x in (hints, wanted)), strict=True
    ):
        assert (a is None) == (b is None)  # the student's classifier is behind the tap
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_camkd_reliance_is_a_constant_in_rule_paper() -> None:
    for rule in RULES:
        found = room("camkd", {"rule": rule})
        seen = found.collect(*images())
        assert isinstance(found.method, CAMKD)
        graph, head = [], seen.heads
        assert head is not None

        def watched(m: int, tap: str, value: Tensor, head: Any = head, graph: list[bool] = graph) -> Tensor:
            graph.append(torch.is_grad_enabled())
            said: Tensor = head(m, tap, value)
            return said

        known = torch.ones(3, 6, 1, dtype=torch.bool)
        reliance = found.method.reliance(replace(seen, heads=watched), parts(found, seen)[0], known)
        assert graph == 3 * [rule == "reference"]  # no graph of the mentors' heads where none is used
        assert reliance.requires_grad == (rule == "reference")
        torch.testing.assert_close(reliance.sum(0), torch.ones(6, 1))
        if rule == "reference":
            pulled = [p for projector in hints_of(found) for p in projector.parameters()]
            gradients = torch.autograd.grad(reliance[0].sum(), pulled)
            assert all(g.isfinite().all() for g in gradients)
            assert sum(g.abs().sum() for g in gradients) > 0


def test_differentiable_confidence_is_the_functions() -> None:
    loss = torch.tensor([[5.0, 1.0, INF], [5.2, NAN, 2.0], [0.1, 3.0, NAN]])[..., None]
    known = loss < INF
    torch.testing.assert_close(_turned(loss, known), functional.confidence_weights(loss, known))
    assert _turned(loss, known)[:, 2, 0].tolist() == [0, 1, 0]  # alone: 1
    loss.requires_grad_()
    nobody = _turned(loss, torch.zeros_like(known))
    (gradient,) = torch.autograd.grad(nobody.sum(), loss)
    assert (nobody == 0).all()
    assert (gradient == 0).all()
    assert _turned(loss[:, :1], known[:, :1]).flatten().tolist() == pytest.approx([0.276, 0.226, 0.498], abs=1e-3)


def test_camkd_paper_is_as_many_times_the_release_as_there_are_mentors() -> None:
    """Factors of 1 and 50 in both; the release divides weights that sum to 1 by the number of mentors once more."""
    paper, released = (room("camkd", {"rule": rule})(*images()) for rule in RULES)
    for term in ("distilled", "hints"):
        torch.testing.assert_close(paper.terms[term], 3 * released.terms[term])
    weaker = room("camkd", {"weight": 1 / 3, "feature_weight": 50 / 3})(*images())
    torch.testing.assert_close(weaker.loss, released.loss)
    assert paper.loss > released.loss + 1


def test_camkd_reference_waits_an_epoch_but_keeps_every_parameter_in_the_step() -> None:
    first, second, paper = (
        room("camkd", {"rule": rule}, epoch=epoch)
        for rule, epoch in (("reference", 0.9), ("reference", 1.0), ("paper", 0.0))
    )
    for found in (first, second, paper):
        taught = found(*images())
        coefficients = {"supervised": 1.0, "distilled": 1.0, "hints": 0.0 if found is first else 50.0}
        torch.testing.assert_close(taught.loss, sum(coefficients[k] * v for k, v in taught.terms.items()))
        taught.loss.backward()
        for projector in hints_of(found):
            for parameter in projector.parameters():
                assert parameter.grad is not None
                assert (parameter.grad.abs().sum() == 0) == (found is first)
    assert isinstance(first.method, CAMKD)
    assert first.method.coefficients["hints"] == 50  # the recipe's own is not overwritten
    assert first.method.needs.epoch


def test_aekd_hints_are_the_shortest_mix_of_two_gradients() -> None:
    """Two mentors: the minimum of |a g0 + (1 - a) g1| is at a = (g1 - g0)·g1 / |g1 - g0|², within [0, 1]."""
    found = room("aekd", {"features": True, "rule": "mgda"}, [network("convnet8", 1), network("resnet8", 2)])
    seen = found.collect(*images())
    own = seen.student.features["@stage:-1"].detach().requires_grad_()
    _, far = parts(found, replace(seen, student=Answers(seen.student.prediction, {"@stage:-1": own})))
    g0, g1 = (torch.autograd.grad(d.sum(), own, retain_graph=True)[0].sum(0).flatten() for d in far)
    a = ((g1 - g0) @ g1 / (g1 - g0).square().sum()).clamp(0, 1)
    assert 0.02 < a < 0.98, "a corner would prove little"
    terms = found.method.loss(seen)
    torch.testing.assert_close(terms.values["hints"], (a * far[0] + (1 - a) * far[1]).mean())
    assert terms.weight is not None
    assert not torch.isclose(terms.weight[0, 0, 0], a)  # logits have weights of their own
    tolerance = 0.5 + abs(a.item() - 0.5) / 2  # halfway to an even mix
    given = {"features": True, "tolerance": tolerance}
    capped = room("aekd", given, [network("convnet8", 1), network("resnet8", 2)])
    low = a.clamp(1 - tolerance, tolerance)
    assert abs(low - a) > 0.01
    found_capped = capped.method.loss(capped.collect(*images())).values["hints"]
    torch.testing.assert_close(found_capped, (low * far[0] + (1 - low) * far[1]).mean())
    # As released: of two directions the shortest mix is the middle, whatever it is; then over the lengths.
    given = {"features": True, "rule": "reference", "tap": "@stage:-1"}
    released = room("aekd", given, [network("convnet8", 1), network("resnet8", 2)])
    share = g1.norm() / (g0.norm() + g1.norm())
    assert abs(share - 0.5) > 0.01
    hints = released.method.loss(released.collect(*images())).values["hints"]
    torch.testing.assert_close(hints, (share * far[0] + (1 - share) * far[1]).mean())


def test_aekd_reference_reads_the_released_layer_and_waits_an_epoch() -> None:
    taps = {rule: methods.create("aekd", features=True, rule=rule).needs.features for rule in ("paper", "reference")}
    assert taps == {"paper": {"@stage:-1": "map"}, "reference": {"@stage:-2": "map"}}
    for epoch, weight in ((0.0, 0.0), (0.9, 0.0), (1.0, 100.0)):
        found = room("aekd", {"rule": "reference", "features": True}, epoch=epoch)
        assert found.method.needs.epoch
        taught = found(*images())
        wanted = {"supervised": 1.0, "distilled": 1.0, "hints": weight}
        torch.testing.assert_close(taught.loss, sum(wanted[k] * v for k, v in taught.terms.items()))
        taught.loss.backward()
        assert all(p.grad is not None for p in found.parameters())
        assert isinstance(found.method, Weighted)
        assert found.method.coefficients["hints"] == 100.0
    for rule in ("paper", "mgda"):
        assert not methods.create("aekd", features=True, rule=rule).needs.epoch


class Counting(torch.autograd.Function):
    """Itself; counts how often somebody goes backward through it."""

    backwards = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        Counting.backwards += 1
        return g


@on([case for case in FEATURES if case[0] == "aekd"])
def test_aekd_goes_backward_through_the_student_once(name: str, given: dict[str, Any]) -> None:
    found = room(name, given)
    seen = found.collect(*images())
    features = {"@stage:-1": Counting.apply(seen.student.features["@stage:-1"])}
    seen.student = Answers(Counting.apply(seen.student.prediction), features)
    Counting.backwards = 0
    terms = found.method.loss(seen)
    assert Counting.backwards == 0
    terms.loss().backward()
    assert Counting.backwards == 2  # the prediction's and the map's


@on(FEATURES)
def test_a_loss_can_be_read_without_gradients(name: str, given: dict[str, Any]) -> None:
    found = room(name, given).eval()
    with torch.no_grad():
        silent = found(*images()).loss
    assert not silent.requires_grad
    torch.testing.assert_close(silent, found(*images()).loss.detach())


@on(FEATURES)
def test_a_broken_mentor_sends_no_nan_through_its_features(name: str, given: dict[str, Any]) -> None:
    mentors = [network(n, i) for i, n in enumerate(("convnet8", "dwnet8", "resnet8"))]
    whole = room(name, given, [mentors[0], mentors[2]])
    broken = network("dwnet8", 1)
    found = room(name, given, [mentors[0], broken, mentors[2]])
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(NAN)
    ours, theirs = hints_of(found), hints_of(whole)
    for mine, other in ((ours[0], theirs[0]), (ours[2], theirs[1])):
        mine.load_state_dict(other.state_dict())
    taught = found(*images())
    taught.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())
    if given.get("rule") != "reference" or name == "aekd":
        torch.testing.assert_close(taught.terms["hints"], whole(*images()).terms["hints"])


@on(FEATURES)
def test_nan_in_features_alone_shows(name: str, given: dict[str, Any]) -> None:
    found = room(name, given)
    seen = found.collect(*images())
    assert seen.mentors is not None
    features = list(seen.mentors.features["@stage:-1"])
    features[1] = torch.full_like(features[1], NAN)
    seen.mentors.features = {"@stage:-1": tuple(features)}
    terms = found.method.loss(seen)
    assert terms.values["distilled"].isfinite()
    assert not terms.values["hints"].isfinite()


@on(FEATURES)
def test_features_of_one_mentor_and_of_one_who_knows_fewer_classes(name: str, given: dict[str, Any]) -> None:
    assert room(name, given, [network("convnet8", 0)])(*images()).loss.isfinite()
    torch.manual_seed(0)
    partial = Mentor(models.create("convnet8", num_classes=2), "partial", classes=[0, 3], num_classes=5)
    found = room(name, given, [partial, network("dwnet8", 1)])
    x, _ = images()
    taught = found(x, torch.tensor([0, 1, 2, 3, 4, 0]))
    taught.loss.backward()
    assert taught.active is not None
    assert taught.active[0].tolist() == [True, False, False, True, False, True]
    for parameter in found.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    nobody = found(x, torch.tensor([1, 1, 2, 2, 4, 4]))  # none of its classes in the batch
    assert nobody.loss.isfinite()
    assert nobody.weight is not None
    assert (nobody.weight[0] == 0).all()


def test_one_mentor_of_camkd_counts_once() -> None:
    found = room("camkd", {}, [network("convnet8", 0)])
    seen = found.collect(*images())
    torch.testing.assert_close(found.method.loss(seen).values["hints"], parts(found, seen)[1].mean())


@on(FEATURES)
def test_nothing_waits_for_the_device(name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = room(name, given)
    found(*images())

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the step waited for the device")

    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, reader, forbidden)
    found.method(found.collect(*images()))


@pytest.mark.parametrize("name", ["camkd", "aekd", "average"])
def test_options_that_act_on_nothing_are_named(name: str) -> None:
    off = {"feature_weight": 0} if name == "camkd" else {}
    cls = methods.method_class(name)
    assert [said.split()[0] for said in cls.idle({**off, "projector": "linear", "tap": "@penultimate"})] == [
        "tap",
        "projector",
    ]
    assert cls.idle({**off, "projector": "conv"}) == []
    on_again = {"features": True, "feature_weight": 3, "projector": "linear"}
    assert cls.idle({k: v for k, v in on_again.items() if k != "features" or name == "aekd"}) == []
