"""Every method that does pose answers the same questions on both heads, on lessons without a network."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import cases, few, labels, rules
from pose_lessons import (
    FIVE,
    HEADS,
    B,
    K,
    M,
    answers_to,
    at_rest,
    coding,
    halved,
    leaves,
    lesson,
    method,
    people,
    taught,
)
from torch import Tensor

from classroomkd import methods
from classroomkd.classroom import Lesson, Method
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.methods.pieces.features import FeatureMethod
from classroomkd.methods.pieces.graded import Graded
from classroomkd.methods.weighted import Weighted
from classroomkd.recipe import load_recipe
from classroomkd.tasks import offering
from classroomkd.tasks.pose.task import Pose
from classroomkd.train.meter import Record

CASES, RULES = cases("pose"), rules("simcc")
every = pytest.mark.parametrize(("name", "given"), CASES, ids=labels(CASES))
every_rule = pytest.mark.parametrize(("name", "given"), RULES, ids=labels(RULES))
some_rule = pytest.mark.parametrize(("name", "given"), few(RULES))
heads = pytest.mark.parametrize("head", HEADS)
Given = dict[str, Any]


def all_finite(of: Method, what: Lesson) -> None:
    assert what.loss.isfinite()
    for key, leaf in leaves(of, what).items():
        assert leaf.grad is None or leaf.grad.isfinite().all(), key


def by_truth(of: Method) -> bool:
    """Whether mentors teach nothing where there is no label."""
    weighted = isinstance(of, Weighted) and (of.divergence.needs_truth or of.weighting.needs_truth)
    return weighted or type(of).__name__ == "ClassroomKD"


def rounded(given: Given) -> bool:
    """Whether it is the weighting of rounded shares: a mentor who ties at a share of 0.00 has no weight there."""
    return given.get("weighting") == {"name": "classroomkd", "rule": "batch"}


@heads
@every
def test_finite_and_everything_trainable_learns(name: str, given: Given, head: str) -> None:
    of = method(name, given, head)
    what = taught(of, lesson(of, head))
    assert what.loss.dim() == 0
    assert what.loss.isfinite()
    for key, leaf in leaves(of, what).items():
        if key in what.student.features and leaf.grad is None:
            continue  # a method may look at a feature without teaching it
        assert leaf.grad is not None, key
        assert leaf.grad.isfinite().all(), key
        assert leaf.grad.abs().sum() > 0, key


@heads
@every_rule
def test_record(name: str, given: Given, head: str) -> None:
    of = method(name, given, head)
    what = taught(of, lesson(of, head))
    record = Record(M, K, torch.device("cpu"))
    record.add(what)
    if of.needs.mentors == 0:
        assert what.weight is None
        return
    assert what.weight is not None
    assert what.temperature is not None
    assert what.active is not None
    assert what.weight.shape == what.temperature.shape == what.active.shape == (M, B, K)
    assert (what.weight[~what.active] == 0).all()
    assert not what.weight.requires_grad
    mask = what.task.mask(what.target)
    taught_there = what.active.any(0)
    if of.for_unlabelled:  # all of these people have joints
        assert not taught_there.any()
        return
    assert taught_there.any()
    assert not (taught_there & ~(mask if by_truth(of) else what.task.distill_mask(what.target))).any()
    if not by_truth(of):
        assert (taught_there & ~mask).any()  # joints without a label too
    assert torch.equal(record.taught[0].sum(1), what.active.flatten(1).sum(1).float())
    assert torch.equal(record.taught[0], what.active.float().sum(1))  # by joint


@heads
@some_rule
def test_batch_of_one_and_one_and_twelve_mentors(name: str, given: Given, head: str) -> None:
    of = method(name, given, head)
    all_finite(of, taught(of, lesson(of, head, n=1)))
    for mentors in (2 if of.needs.selves else 1, 12):
        of = method(name, given, head, mentors)
        all_finite(of, taught(of, lesson(of, head, mentors=mentors)))


@heads
@every_rule
def test_permuting_mentors_permutes_weights(name: str, given: Given, head: str) -> None:
    order = torch.tensor([2, 0, 1])
    of = method(name, given, head)
    fields = methods.options_model(name).model_fields
    named = any(key in fields and fields[key].default != "all" for key in ("mentor", "assistant"))
    if named or of.order_matters or of.needs.mentors == 0:
        return
    one, other = (of(lesson(of, head, order=o)) for o in (None, order))
    torch.testing.assert_close(other.weight, one.weight[order])
    if not any(of.children()):
        torch.testing.assert_close(other.loss(), one.loss())


@heads
@every_rule
@pytest.mark.parametrize("where", ["everywhere", "on a joint"])
def test_nan_of_a_mentor_stays_away(name: str, given: Given, head: str, where: str) -> None:
    of = method(name, given, head)
    answers = answers_to(head, people(B), M).clone()
    answers[1, :, (slice(None) if where == "everywhere" else 2)] = float("nan")
    what = lesson(of, head, answers=answers)
    terms = of(what)
    asks = of.mentor_indices or range(M)
    if 1 in asks and name == "kd":
        assert not terms.loss().isfinite()
        return
    all_finite(of, taught(of, what))
    if terms.active is None or isinstance(of, FeatureMethod):
        return
    assert not terms.active[1, :, 2].any()
    if where == "on a joint" and 1 in asks:
        usual = of(lesson(of, head)).active
        assert usual is not None
        if not rounded(given):
            assert terms.active[1].any() == usual[1].any()  # it still teaches the others
        assert (
            terms.active[1].any()
            or type(of).__name__ in ("ClassroomKD", "RandomMentor")
            or of.for_unlabelled
            or of.needs.selves  # the student hears its own, mentor 0
            or any(rule in str(given) for rule in ("random", "classroomkd"))
        )


@heads
@every_rule
def test_a_mentor_that_does_not_know_some_joints(name: str, given: Given, head: str) -> None:
    """Mentor 1 does not know joint 2, and nobody knows joint 4."""
    answers = answers_to(head, people(B), M).clone()
    answers[1, :, 2] = -torch.inf
    answers[:, :, 4] = -torch.inf
    of = method(name, given, head)
    what = taught(of, lesson(of, head, answers=answers))
    all_finite(of, what)
    if what.active is None or isinstance(of, FeatureMethod):
        return
    assert not what.active[1, :, 2].any()
    assert not what.active[:, :, 4].any()
    usual = of(lesson(of, head)).active
    assert usual is not None
    if not rounded(given):
        assert torch.equal(what.active[..., :2].flatten(1).any(1), usual[..., :2].flatten(1).any(1))
    own = isinstance(of, Weighted) and isinstance(of.weighting, Graded) and of.weighting.normalise == "native"
    if isinstance(of, Weighted) and of.factor(M) == 1 and 1 in (of.mentor_indices or range(M)) and not own:
        shares = what.weight.sum(0)[:, [0, 1, 2, 3]]  # type: ignore[union-attr]
        there = what.active.any(0)[:, [0, 1, 2, 3]]
        torch.testing.assert_close(shares[there], torch.ones_like(shares[there]))


JOINT_BY_JOINT: list[tuple[str, Given]] = [
    ("classroomkd", {}),
    *(("weighted", {"weighting": w}) for w in ("uniform", "entropy", "confidence", "random")),
    *(("weighted", {"divergence": d}) for d in ("dkd", "dtkd")),
]


@heads
@pytest.mark.parametrize("said", [float("nan"), -torch.inf])
@pytest.mark.parametrize(("name", "given"), JOINT_BY_JOINT, ids=labels(JOINT_BY_JOINT))
def test_the_other_joints_are_taught_as_if_nothing_were(name: str, given: Given, head: str, said: float) -> None:
    answers = answers_to(head, people(B), M).clone()
    answers[1, :, 2] = said
    of, others = method(name, given, head), [0, 1, 3, 4]
    usual, odd = (taught(of, lesson(of, head, answers=a)).student.prediction.grad for a in (None, answers))
    assert usual is not None
    assert odd is not None
    torch.testing.assert_close(odd[:, others], usual[:, others])
    assert not torch.equal(odd[:, 2], usual[:, 2])


@heads
@every_rule
def test_no_joint_is_labelled(name: str, given: Given, head: str) -> None:
    target = torch.zeros(B, K, 3)
    of = method(name, given, head)
    what = taught(of, lesson(of, head, target=target, answers=answers_to(head, people(B), M)))
    all_finite(of, what)
    assert what.terms["supervised"] == 0
    assert what.student.prediction.grad is not None
    if "distilled" in what.terms:
        assert (what.terms["distilled"] != 0) == (not by_truth(of) and not of.for_unlabelled)


@heads
@every_rule
def test_mentors_teach_labelled_joints_alone_if_told(name: str, given: Given, head: str) -> None:
    of = method(name, given, head)
    what = lesson(of, head)
    what.task.distil_hidden = False  # type: ignore[attr-defined]
    taught(of, what)
    all_finite(of, what)
    assert what.active is None or not what.active[:, ~what.task.mask(what.target)].any()


@heads
@some_rule
def test_bf16(name: str, given: Given, head: str) -> None:
    of = method(name, given, head)
    usual, half = (taught(of, lesson(of, head, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    all_finite(of, half)
    assert half.loss.dtype == torch.float32
    for key, value in usual.terms.items():
        torch.testing.assert_close(half.terms[key], value, rtol=0.25, atol=0.1)


@heads
@some_rule
def test_no_host_sync_in_the_terms(name: str, given: Given, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = method(name, given, head)
    of(lesson(of, head))
    what = lesson(of, head)
    if of.needs.heads:  # the made-up heads look at their place
        said = [what.head(m, tap, x) for tap, several in what.mentors.features.items() for m, x in enumerate(several)]  # type: ignore[union-attr]
        what.heads = lambda mentor, tap, value: said[mentor] + 0 * value.mean()

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the step waited for the device")

    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, reader, forbidden)
    what.conclude(of(what))


class Pair:
    """Two ranks as two threads."""

    def __init__(self) -> None:
        self.slots: list[Tensor | None] = [None, None]
        self.barrier = threading.Barrier(2, timeout=300)

    def exchange(self, rank: int, x: Tensor) -> list[Tensor]:
        self.slots[rank] = x
        self.barrier.wait()
        found = [slot for slot in self.slots if slot is not None]
        self.barrier.wait()
        return found

    def reduce(self, rank: int) -> Callable[[Tensor], Tensor]:
        return lambda x: sum(self.exchange(rank, x))  # type: ignore[return-value]

    def join(self, rank: int) -> Callable[[Tensor], Tensor]:
        def joined(x: Tensor) -> Tensor:
            parts = [part.detach() for part in self.exchange(rank, x)]
            if x.requires_grad:
                parts[rank] = 2 * x - x.detach()
            return torch.cat(parts)

        return joined


@pytest.mark.parametrize(("head", "bare"), [(HEADS[0], 0), (HEADS[1], 0), (HEADS[0], 3)])
@some_rule
def test_two_ranks_are_one(name: str, given: Given, head: str, bare: int) -> None:
    """Though one has more labelled joints than the other, or everybody who has any; ``bare``: how many have none."""
    of = at_rest(method(name, given, head)).double()
    target = people(B).double()  # labels of rounded sums would be another batch's by a digit of float32
    assert (target[: B // 2, :, 2] > 0).sum() != (target[B // 2 :, :, 2] > 0).sum()
    if bare:
        target[:bare] = torch.tensor([0.0, 0.0, UNLABELLED]).double()
    whole = lesson(of, head, target=target, dtype=torch.float64)
    whole.task = Pose(coding(head), FIVE, unlabelled=bool(bare))
    with torch.no_grad():
        of(whole)  # builds what is built at its first use
    copies = [copy.deepcopy(of) for _ in range(2)]
    taught(of, whole)
    pair, found = Pair(), {}

    def work(rank: int) -> None:
        part = halved(whole, rank)
        part.reduce, part.join = pair.reduce(rank), pair.join(rank)
        found[rank] = taught(copies[rank], part)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2

    def alike(one: Tensor, other: Tensor | None, what: str) -> None:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9, msg=lambda m: f"{what}: {m}")

    alike((found[0].loss + found[1].loss) / 2, whole.loss, "loss")
    usual, halves = leaves(of, whole), [leaves(copies[rank], found[rank]) for rank in range(2)]
    for key, leaf in usual.items():
        one, two = (half[key].grad for half in halves)
        if leaf.grad is not None and one is not None and two is not None:
            mine = key == "the student's answer" or key in whole.student.features
            alike((torch.cat([one, two]) if mine else one + two) / 2, leaf.grad, key)


@heads
@pytest.mark.parametrize("name", [n for n, o in CASES if not o and methods.method_class(n).needs.mentors > 0])
def test_matched_strength_is_one(name: str, head: str) -> None:
    of = method(name, {"strength": "matched", "schedule": "constant"}, head)
    terms = of(lesson(of, head))
    assert terms.weight is not None
    assert terms.active is not None
    if "distilled" in terms.values and "distilled" not in terms.totals:
        total = terms.weight.sum(0)[terms.active.any(0)].mean()
        own = torch.as_tensor(float(of.coefficients["distilled"]))  # type: ignore[index]
        torch.testing.assert_close(terms.coefficients["distilled"] * total, own)


def test_every_method_of_the_table_does_pose_and_those_for_pose_alone_say_so(tmp_path: Path) -> None:
    without = [name for name, entry in methods.METHODS.items() if "pose" not in offering(entry.asks)]
    assert without == ["ital"]  # its rule is of the one layer that makes an answer
    assert {name for name, _ in CASES} == set(methods.METHODS) - set(without)
    file = tmp_path / "ital.yaml"
    file.write_text("data: puppets\ntask: pose\nmentors: [simcc_small]\nstudent: simcc_tiny\nmethod: ital\n")
    with pytest.raises(UserError, match="'ital' does not do pose; it does classification"):
        load_recipe(file)
    alone = [name for name, entry in methods.METHODS.items() if offering(entry.asks) == ["pose"]]
    assert alone == ["dwpose", "fpd"]
    for name in alone:
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"data: puppets\ntask: classification\nmentors: [resnet20]\nmethod: {name}\n")
        with pytest.raises(UserError, match=f"'{name}' does not do classification; it does pose"):
            load_recipe(file)
