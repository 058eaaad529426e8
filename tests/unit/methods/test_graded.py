"""ClassroomKD's filter and mentoring as a weighting: each gate by hand, and beside every divergence."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from by_method import built, classroom, distilled, lesson
from classroomkd import functional, methods, tasks
from classroomkd.classroom import ClassInfo, Needs
from classroomkd.functional.bound import STEEPEST
from classroomkd.methods.pieces import make_weighting

RULES = ["sample", "batch", "rank"]
GATES = ["hard", "strict", "soft", "argmax", "none"]
# One student, three mentors, four samples: probabilities of the true class.
STUDENT = [0.5, 0.5, 0.9, 0.5]
MENTORS = [[0.8, 0.6, 0.6, 0.5], [0.5, 0.6, 0.3, 0.5], [0.2, 0.1, 0.3, 0.5]]


def logits(probabilities: list[float]) -> Tensor:
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], -1)


def by_hand() -> tuple[Tensor, Tensor, Tensor]:
    return logits(STUDENT), torch.stack([logits(p) for p in MENTORS]), torch.zeros(4, dtype=torch.int64)


def answers(m: int = 3, b: int = 8, c: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A student, its twin among mentors of whom the first is ahead, labels."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(b, c, generator=generator, dtype=torch.float64)
    mentors = 2 * torch.randn(m, b, c, generator=generator, dtype=torch.float64)
    target = torch.randint(c, (b,), generator=generator)
    mentors[-1], mentors[0] = student, mentors[0] + 2 * torch.nn.functional.one_hot(target, c)
    return student.requires_grad_(), mentors, target


# --- the gates --------------------------------------------------------------------------------------------------------

SHARES = [[1.2, 1.0, 1.8 / 2.1, 0.75], [0.75, 1.0, 0.9 / 2.1, 0.75], [0.3, 0.3 / 1.8, 0.9 / 2.1, 0.75]]  # 3 p / (s + Σ)
ACTIVE = {
    "strict": [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]],
    "hard": [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1]],  # who ties teaches too
    "argmax": [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]],  # all who are best, behind the student too
    "none": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    "soft": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
}


@pytest.mark.parametrize("gate", GATES)
def test_each_gate_by_hand(gate: str) -> None:
    student, mentors, target = by_hand()
    active, share = torch.tensor(ACTIVE[gate]).bool(), torch.tensor(SHARES, dtype=torch.float64)
    s, p = torch.tensor(STUDENT, dtype=torch.float64), torch.tensor(MENTORS, dtype=torch.float64)
    weight = {"none": torch.full_like(share, 1 / 3), "soft": share * ((p - s) / 0.2).sigmoid()}.get(gate, share)
    weight = weight.where(active, 0.0)
    temperature = 1 + 12 * ((p - s) / p).clamp_min(0)
    options: dict[str, Any] = {"gate": gate, "normalise": "native", "floor": 1}
    options |= {"soft": 0.2} if gate == "soft" else {}
    terms = classroom(student, mentors, target, **options)
    assert torch.equal(terms.active, active)
    torch.testing.assert_close(terms.weight, weight)
    torch.testing.assert_close(terms.temperature, temperature)
    unit = classroom(student, mentors, target, **{**options, "normalise": "unit"}).weight
    total = weight.sum(0)
    torch.testing.assert_close(unit, weight / total.where(total > 0, 1.0))
    flat = classroom(student, mentors, target, mentoring=False, fixed_temperature=3.0, **options)
    torch.testing.assert_close(flat.weight, weight)  # the filter stays without mentoring
    assert (flat.temperature == 3).all()


@pytest.mark.parametrize(("rule", "own"), [("sample", "strict"), ("batch", "hard"), ("rank", "strict")])
def test_each_rule_has_a_gate_of_its_own(rule: str, own: str) -> None:
    student, mentors, target = answers()
    default, named = (classroom(student, mentors, target, rule=rule, **o) for o in ({}, {"gate": own}))
    assert torch.equal(default.loss, named.loss)
    assert torch.equal(default.active, named.active)


def test_the_gates_of_ranks_and_shares_are_the_batchs() -> None:
    student, mentors, target = answers(4)
    for rule in ("batch", "rank"):
        for gate in GATES:
            active = classroom(student, mentors, target, rule=rule, gate=gate).active
            assert torch.equal(active, active[:, :1].expand_as(active))
        assert classroom(student, mentors, target, rule=rule, gate="argmax").active[:, 0].tolist() == [1, 0, 0, 0]


def test_a_mentor_that_says_nothing_is_never_the_best() -> None:
    student, mentors, target = answers()
    mentors[0, 0] = torch.nan
    mentors[0, 1, target[1]] = -torch.inf
    active = classroom(student, mentors, target, gate="argmax").active
    assert active[:, :2].sum(0).tolist() == [1, 1]
    assert not active[0, :2].any()


# --- beside any divergence --------------------------------------------------------------------------------------------

SETTINGS = [
    {"rule": rule, "gate": gate, "mentoring": mentoring, "normalise": normalise, "tau": 5.0}
    for rule, gate, mentoring, normalise in itertools.product(RULES, GATES, [True, False], ["native", "unit"])
]


@pytest.mark.parametrize("rule", RULES)
def test_with_kl_it_is_classroomkd_with_the_whole_supervised_loss(rule: str) -> None:
    student, mentors, target = answers()
    for given in SETTINGS:
        if given["rule"] != rule:
            continue
        wanted = classroom(student, mentors, target, supervised="one", **given)
        method = built("weighted", 3, weighting={"name": "classroomkd", **given})
        taught = lesson(student, mentors, target)
        taught.conclude(method(taught))
        torch.testing.assert_close(taught.terms["distilled"], wanted.distilled, msg=str(given))
        torch.testing.assert_close(taught.terms["supervised"], wanted.supervised)
        assert taught.weight is not None
        assert taught.temperature is not None
        torch.testing.assert_close(taught.weight, wanted.weight)
        torch.testing.assert_close(taught.temperature, wanted.temperature)
        ours, theirs = (torch.autograd.grad(x, student, retain_graph=True)[0] for x in (taught.loss, wanted.loss))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_beside_dkd_and_dtkd_each_mentor_has_its_temperature(given: dict[str, Any]) -> None:
    student, mentors, target = answers()
    graded = classroom(student, mentors, target, **given)
    t = graded.temperature
    strength = ((t - 1) / t) ** 2 if given["rule"] == "rank" else 1.0
    each = {
        "dkd": [[functional.dkd_per_sample(student[b], mentors[m, b], target[b], temperature=float(t[m, b]))
                 for b in range(8)] for m in range(3)],
        "dtkd": [[functional.dtkd_per_sample(student[b], mentors[m, b], temperature=float(t[m, b]))
                  for b in range(8)] for m in range(3)],
    }  # fmt: skip
    for divergence, far in each.items():
        wanted = (graded.weight * strength * torch.stack([torch.stack(row) for row in far])).sum(0).mean()
        weighting = {"name": "classroomkd", "bound": 0.0, **given}
        found = distilled("weighted", student, mentors, target, weighting=weighting, divergence=divergence)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("rule", ["batch", "rank"])
def test_beside_dist_a_mentors_temperature_is_dists(rule: str) -> None:
    """Scores of the batch give a mentor one temperature, at which DIST compares it."""
    student, mentors, target = answers()
    graded = classroom(student, mentors, target, rule=rule, gate="none")
    t = graded.temperature[:, 0]
    strength = ((t - 1) / t) ** 2 if rule == "rank" else torch.ones(3)
    each = torch.stack([functional.dist(student, mentors[m], tau=float(t[m])) for m in range(3)])
    found = distilled(
        "weighted", student, mentors, target, weighting={"name": "classroomkd", "rule": rule, "gate": "none"},
        divergence="dist",
    )  # fmt: skip
    torch.testing.assert_close(found, (graded.weight[:, 0] * strength * each).sum())


def test_dist_at_a_temperature_for_each_row() -> None:
    student, mentors, _ = answers()
    mask = torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) > 0.3
    for counted in (None, mask):
        number = functional.dist_by_mentor(student, mentors, 2.0, 3.0, 4.0, counted)
        rows = functional.dist_by_mentor(student, mentors, 2.0, 3.0, torch.full((3, 8), 4.0).double(), counted)
        torch.testing.assert_close(rows, number)
    t = torch.linspace(1, 5, 24, dtype=torch.float64).view(3, 8)
    p, q = (torch.softmax(x / t[..., None], -1) for x in (mentors, student))
    found = functional.dist_by_mentor(student, mentors, 1.0, 0.0, t)
    for m in range(3):
        by_row = torch.stack([torch.corrcoef(torch.stack([p[m, b], q[m, b]]))[0, 1] for b in range(8)])
        torch.testing.assert_close(found[m], (t[m] ** 2 * (1 - by_row)).mean(), rtol=1e-5, atol=1e-4)
    flat = torch.zeros(8, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(functional.dist_by_mentor(flat, mentors, tau=t).sum(), flat)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("divergence", ["kl", "dkd", "dtkd"])
def test_the_bound_holds_for_any_divergence_of_units(divergence: str) -> None:
    student, mentors, target = answers()
    student = (20 * student.detach()).requires_grad_()

    def pulls(bound: float | None) -> Tensor:
        loss = distilled(
            "weighted", student, mentors, target, weighting={"name": "classroomkd", "bound": bound},
            divergence=divergence,
        )  # fmt: skip
        found: Tensor = 8 * torch.autograd.grad(loss, student)[0].norm(dim=1)
        return found

    assert pulls(0.0).max() > 2 * STEEPEST
    assert pulls(None).max() <= STEEPEST + 1e-9


def test_what_the_weighting_needs_the_method_declares() -> None:
    assert built("weighted", 3, weighting={"name": "classroomkd", "rule": "batch"}).needs.whole_batch
    assert built("weighted", 3, weighting={"name": "classroomkd", "credibility": "held_out"}).needs.calibration
    assert not built("weighted", 3, weighting="classroomkd").needs.distributions  # credibility and a divergence
    assert built("weighted", 3, weighting="classroomkd", divergence="dkd").needs.distributions
    for name, wanted in (("kd", False), ("classroomkd", False), ("dkd", True), ("ebkd", True), ("amtml", True)):
        assert methods.create(name).needs.distributions == wanted
    assert methods.compose([("kd", {}), ("dist", {})]).needs.distributions


def test_a_task_has_its_own_temperature_per_gap() -> None:
    weighting: Any = make_weighting("classroomkd")
    weighting.setup(ClassInfo(tasks.sketch("pose"), ["a"]))
    assert (weighting.tau, weighting.fixed_temperature) == (1.0, 1.0)
    for given in ({"tau": 4.0, "fixed_temperature": 2.0}, {"rule": "rank", "tau": 4.0, "fixed_temperature": 2.0}):
        own: Any = make_weighting({"name": "classroomkd", **given})
        own.setup(ClassInfo(tasks.sketch("pose"), ["a"]))
        assert (own.tau, own.fixed_temperature) == (4.0, 2.0)
    rank: Any = make_weighting({"name": "classroomkd", "rule": "rank"})
    rank.setup(ClassInfo(tasks.sketch("pose"), ["a"]))
    assert rank.tau is rank.fixed_temperature is None


# --- options of earlier versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "notes"),
    [
        ({"gate": False}, {"gate": "none"}, ["gate: false is read as gate: none"]),
        ({"gate": True}, {}, []),
        ({"strict": True}, {"gate": "strict"}, ["strict: true is read as gate: strict"]),
        ({"strict": False, "gate": True}, {"gate": "hard"}, ["strict: false is read as gate: hard"]),
        ({"soft": 0.2}, {"soft": 0.2}, []),
        ({"soft": 0.2, "strict": True}, {"gate": "soft", "soft": 0.2}, ["strict: true is read as gate: soft"]),
        ({"gate": False, "soft": 0.2}, {"gate": "none", "soft": 0.2}, ["gate: false is read as gate: none"]),
        ({"gate": True, "strict": None, "soft": None, "normalise": None}, {"soft": None}, []),
        ({"gate": "argmax", "tau": 3}, {"gate": "argmax", "tau": 3}, []),
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_old_options_are_read_as_the_new(old: dict[str, Any], new: dict[str, Any], notes: list[str], rule: str) -> None:
    assert methods.renewed("classroomkd", old) == (new, notes)
    assert methods.filled("classroomkd", old) == methods.filled("classroomkd", new)
    student, mentors, target = answers()
    wanted = classroom(student, mentors, target, rule=rule, **new)
    if notes:
        with pytest.warns(DeprecationWarning, match=r"method 'classroomkd': .* is read as gate: "):
            found = classroom(student, mentors, target, rule=rule, **old)
    else:
        found = classroom(student, mentors, target, rule=rule, **old)
    assert torch.equal(found.loss, wanted.loss)


def test_old_arguments_of_grade() -> None:
    student, mentors, target = answers()
    logs = [functional.log_credibility(x, target).unsqueeze(-1).detach() for x in (student, mentors)]
    for old, new in (
        ({"gate": False}, "none"),
        ({"strict": False}, "hard"),
        ({"strict": True, "gate": True}, "strict"),
    ):
        with pytest.warns(DeprecationWarning, match="grade"):
            found = functional.grade(*logs, rule="batch", **old)  # type: ignore[arg-type]
        wanted = functional.grade(*logs, rule="batch", gate=new)  # type: ignore[arg-type]
        assert torch.equal(found.weight, wanted.weight)


def test_needs_of_earlier_versions_act_on_nothing() -> None:
    with pytest.warns(DeprecationWarning, match=r"Needs\(logits, own_step\) acts on nothing"):
        old = Needs(logits=False, own_step=True, ids=True)
    assert old == Needs(ids=True)
