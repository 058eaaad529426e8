"""Weighting × divergence on logits: average, camkd, ebkd, aekd, dkd, dist, dtkd, random, weighted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import functional, methods, tasks
from classroomkd.classroom import Answers, ClassInfo, Lesson, Method, Terms
from classroomkd.errors import UserError
from classroomkd.methods.pieces import make_divergence, make_weighting
from classroomkd.methods.pieces.divergences import Divergence
from classroomkd.methods.pieces.sharing import spread
from classroomkd.methods.weighted import Weighted

NAN, INF = float("nan"), float("inf")
TASK = tasks.create("classification")
RULES = ["paper", "reference"]
# Every method of the family on logits alone.
LOGITS: list[tuple[str, dict[str, Any]]] = [
    ("average", {}),
    ("kd", {"mentor": "all"}),
    *(("camkd", {"rule": rule, "feature_weight": 0}) for rule in RULES),
    *(("ebkd", {"rule": rule}) for rule in RULES),
    *(("aekd", {"rule": rule}) for rule in (*RULES, "mgda")),
    ("dkd", {}),
    ("dist", {}),
    ("dtkd", {}),
    ("dtkd", {"detach_temperature": True, "floor": 0}),
    ("random", {}),
    ("weighted", {"weighting": "gram", "divergence": "dist"}),
    ("weighted", {"weighting": "entropy", "divergence": {"dkd": {"beta": 2}}}),
    ("weighted", {"weighting": "confidence", "divergence": "dtkd"}),
]


def on(cases: list[tuple[str, dict[str, Any]]]) -> Any:
    ids = ["-".join([name, *(f"{k}={v}" for k, v in o.items())]) for name, o in cases]
    return pytest.mark.parametrize(("name", "given"), cases, ids=ids)


def answers(m: int = 3, b: int = 8, c: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    student, mentors = (2 * torch.randn(*size, c, generator=draw).double() for size in ((b,), (m, b)))
    return student.requires_grad_(), mentors, torch.randint(c, (b,), generator=draw)


def lesson(student: Tensor, mentors: Tensor, target: Tensor, **more: Any) -> Lesson:
    return Lesson(torch.zeros(len(student), 1, 1, 1), target, Answers(student), Answers(mentors), TASK, **more)


def built(name: str, given: dict[str, Any], m: int = 3, scores: list[float] | None = None) -> Method:
    method = methods.create(name, **given)
    method.setup(ClassInfo(TASK, [f"m{i}" for i in range(m)], scores))
    return method


def taught(name: str, given: dict[str, Any], *said: Tensor, **more: Any) -> Terms:
    terms: Terms = built(name, given, len(said[1])).loss(lesson(*said, **more))
    return terms


# --- on logits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rule"), [*((name, rule) for name in ("camkd", "ebkd", "aekd") for rule in RULES), ("aekd", "mgda")]
)
@pytest.mark.parametrize("m", [1, 2, 3, 12])
@pytest.mark.filterwarnings("ignore:functional:DeprecationWarning")
def test_the_method_is_the_function(name: str, rule: str, m: int) -> None:
    student, mentors, target = answers(m)
    given = {"rule": rule, "temperature": 3.0} | ({"feature_weight": 0} if name == "camkd" else {})
    found = taught(name, given, student, mentors, target).values["distilled"]
    wanted = getattr(functional, name)(student, mentors, target, temperature=3.0, rule=rule)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(x, student, retain_graph=True)[0] for x in (found, wanted)))


def test_the_baselines_are_the_mean_over_mentors() -> None:
    student, mentors, target = answers()
    for name, wanted in {
        "average": functional.kd(student.unsqueeze(0), mentors, 4.0).mean(),
        "dkd": torch.stack(
            [functional.dkd_per_sample(student, m, target, 1.0, 2.0, 4.0).mean() for m in mentors]
        ).mean(),
        "dist": torch.stack([functional.dist(student, m, 1.0, 1.0, 1.0) for m in mentors]).mean(),
        "dtkd": functional.dtkd_per_sample(student, mentors, 3.0, 1.0, 4.0).mean(),
    }.items():
        terms = taught(name, {}, student, mentors, target)
        torch.testing.assert_close(terms.values["distilled"], wanted)
        torch.testing.assert_close(terms.values["supervised"], nn.functional.cross_entropy(student, target))
        assert terms.coefficients == {"supervised": 1.0, "distilled": 2.0 if name == "dist" else 1.0}


def test_options_reach_the_divergence() -> None:
    student, mentors, target = answers(1)
    for name, given, wanted in (
        ("dkd", {"alpha": 2, "beta": 3}, functional.dkd_per_sample(student, mentors[0], target, 2, 3, 2.0).mean()),
        ("dist", {"beta": 2, "gamma": 3}, functional.dist(student, mentors[0], 2, 3, 2.0)),
        ("dtkd", {"alpha": 2, "beta": 3}, functional.dtkd_per_sample(student, mentors[0], 2, 3, 2.0).mean()),
        (
            "dtkd",
            {"detach_temperature": True, "floor": 0.5},
            functional.dtkd_per_sample(student, mentors[0], 3, 1, 2.0, True, 0.5).mean(),
        ),
    ):
        found = taught(name, {"temperature": 2, **given}, student, mentors, target).values["distilled"]
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(*(torch.autograd.grad(x, student, retain_graph=True)[0] for x in (found, wanted)))


def test_aekds_rules_and_their_weights() -> None:
    """The authors' code has tolerance 0.6 and weight 0.9, CA-MKD's 1; without a tolerance it is another rule."""
    student, mentors, target = answers(2)
    mentors[0] = student.detach() + 0.1 * mentors[0]
    for given, share, weight in (
        ({}, 0.6, 0.9),
        ({"rule": "reference"}, 0.6, 1.0),
        ({"tolerance": 0.8}, 0.8, 0.9),
        ({"weight": 2.0}, 0.6, 2.0),
        ({"strength": "matched"}, 0.6, 1.0),
        ({"rule": "mgda"}, None, 1.0),
    ):
        terms = taught("aekd", given, student, mentors, target)
        assert terms.weight is not None
        assert terms.coefficients == {"supervised": 1.0, "distilled": weight}
        assert terms.weight[0, 0, 0].item() == (pytest.approx(share) if share else pytest.approx(0.95, abs=0.05))
    cls = methods.method_class("aekd")
    assert cls.idle({"rule": "mgda", "tolerance": 0.8}) == ["tolerance acts only with rule: paper or reference"]
    assert cls.idle({"rule": "mgda"}) == cls.idle({"tolerance": 0.8}) == []
    entry = methods.METHODS["aekd"]
    assert (entry.rules, entry.status_of({}), entry.status_of({"rule": "mgda"})) == (
        ("paper", "reference", "mgda"),
        "corrected rule",
        "baseline",
    )


def test_a_divergence_of_the_batch_takes_the_mean_of_the_weights() -> None:
    student, mentors, target = answers()
    weight = functional.entropy_weights(mentors).mean(1)
    each = torch.stack([functional.dist(student, m, 1.0, 1.0, 4.0) for m in mentors])
    found = taught("weighted", {"weighting": "entropy", "divergence": "dist"}, student, mentors, target)
    torch.testing.assert_close(found.values["distilled"], (weight * each).sum())


@on(LOGITS)
@pytest.mark.parametrize("m", [1, 12])
def test_one_mentor_and_twelve(name: str, given: dict[str, Any], m: int) -> None:
    student, mentors, target = answers(m, b=5)
    terms = taught(name, given, student, mentors, target)
    assert terms.loss().isfinite()
    assert terms.weight is not None
    total = terms.weight.sum(0)
    scale = (
        {"ebkd": (m - 1) / m if m > 1 else 1.0, "camkd": 1 / m}.get(name, 1.0) if "reference" in given.values() else 1.0
    )
    torch.testing.assert_close(total, torch.full_like(total, scale))
    if m == 1:
        # As a piece the two keep the values of the pair that they were published with.
        own = {"dkd": {"dkd": {"beta": 2}}, "dist": {"dist": {"temperature": 1}}, "dtkd": "dtkd"}
        divergence = given.get("divergence", own.get(name, "kl"))
        alone = taught("weighted", {"divergence": divergence}, student, mentors, target)
        torch.testing.assert_close(terms.values["distilled"], alone.values["distilled"])


@on(LOGITS)
def test_a_broken_mentor_is_as_if_it_were_not_there(name: str, given: dict[str, Any]) -> None:
    student, mentors, target = answers(4)
    broken = mentors.clone()
    broken[1] = NAN
    broken[1, 0, 2] = INF
    terms = taught(name, given, student, broken, target)
    (gradient,) = torch.autograd.grad(terms.loss(), student)
    assert gradient.isfinite().all()
    assert terms.active is not None
    assert terms.weight is not None
    assert not terms.active[1].any()
    assert (terms.weight[1] == 0).all()
    if name != "random" and given.get("rule") != "reference":  # draws and released scales know how many are listed
        rest = taught(name, given, student, mentors[[0, 2, 3]], target)
        torch.testing.assert_close(terms.loss(), rest.loss())


@on(LOGITS)
def test_a_mentor_of_fewer_classes(name: str, given: dict[str, Any]) -> None:
    student, mentors, target = answers(3)
    target[:4] = torch.tensor([0, 1, 2, 3])
    mentors[1, :, :2] = -INF
    terms = taught(name, given, student, mentors, target)
    (gradient,) = torch.autograd.grad(terms.loss(), student)
    assert gradient.isfinite().all()
    assert terms.active is not None
    assert terms.weight is not None
    assert not terms.active[1, target < 2].any()
    total = terms.weight.sum(0)
    torch.testing.assert_close(total, total[:1].expand_as(total))  # the others take its part


def test_nobody_knows_a_sample() -> None:
    student, mentors, target = answers(2)
    mentors[:, 0] = NAN
    for name, given in LOGITS:
        terms = taught(name, given, student, mentors, target)
        (gradient,) = torch.autograd.grad(terms.values["distilled"], student)
        assert gradient.isfinite().all(), name
        assert (gradient[0] == 0).all(), name


class ByAutograd(Divergence):
    """KL, unrecognisable."""

    temperature = 4.0

    def __call__(
        self, lesson: Lesson, student: Tensor, mentors: Tensor, known_MBU: Tensor, temperature: Tensor | None = None
    ) -> Tensor:
        return make_divergence("kl", 4.0)(lesson, student, mentors, known_MBU, temperature)


@pytest.mark.parametrize("cap", [None, 0.6])
def test_gradients_in_closed_form_are_those_of_autograd(cap: float | None) -> None:
    student, mentors, target = answers(4)
    known = torch.rand(4, 8, 1, generator=torch.Generator().manual_seed(1)) > 0.3
    weigh = make_weighting({"name": "gram", "cap": cap})
    seen = lesson(student, mentors, target)
    closed, general = (weigh(seen, mentors, known, d).weight for d in (make_divergence("kl", 4.0), ByAutograd()))
    torch.testing.assert_close(closed, general, atol=1e-6, rtol=0)
    assert (closed[known] > 1e-3).any()
    assert cap is None or closed[:, known.all(0)[:, 0]].max() <= cap + 1e-9


@pytest.mark.parametrize("name", ["kl", "dkd", "dtkd", "dist"])
def test_mentors_pulls_are_told_apart(name: str) -> None:
    """As by a student and a backward pass for each mentor alone."""
    student, mentors, target = answers(4)
    known = torch.rand(4, 8, 1, generator=torch.Generator().manual_seed(1)) > 0.3
    seen, far = lesson(student, mentors, target), make_divergence(name, 4.0)
    several = torch.stack([student.detach() + m for m in mentors]).requires_grad_()
    found = far(seen, several, mentors, known)
    alone = [far(seen, several[m], mentors[m : m + 1], known[m : m + 1]) for m in range(4)]
    torch.testing.assert_close(found, torch.cat(alone))
    if name == "kl":
        return  # in closed form, see above
    pulls = []
    for m in range(4):
        each = far(seen, student, mentors[m : m + 1], known[m : m + 1])
        mean = each if each.dim() == 1 else each.where(known[m : m + 1], 0.0) / known[m].sum()
        pulls.append(torch.autograd.grad(mean.sum(), student)[0].sum(0))
    weight = spread(functional.gram_weights(torch.stack(pulls)), known)
    torch.testing.assert_close(make_weighting("gram")(seen, mentors, known, far).weight, weight)
    assert weight.std() > 0.05


def test_a_mentor_that_counts_nowhere_does_not_win_by_having_no_gradient() -> None:
    student, mentors, target = answers(3)
    mentors[0] = NAN
    for divergence in ("kl", "dist", "dtkd"):
        terms = taught("weighted", {"weighting": "gram", "divergence": divergence}, student, mentors, target)
        rest = taught("weighted", {"weighting": "gram", "divergence": divergence}, student, mentors[1:], target)
        assert terms.weight is not None
        assert rest.weight is not None
        torch.testing.assert_close(terms.weight[1:], rest.weight)


class Nowhere(ByAutograd):
    """Not finite where a mentor does not count."""

    def __call__(
        self, lesson: Lesson, student: Tensor, mentors: Tensor, known_MBU: Tensor, temperature: Tensor | None = None
    ) -> Tensor:
        return super().__call__(lesson, student, mentors, known_MBU).where(known_MBU, INF)


def test_a_divergence_may_be_anything_where_a_mentor_does_not_count() -> None:
    student, mentors, target = answers(3)
    mentors[1] = NAN
    method = built("average", {})
    assert isinstance(method, Weighted)
    plain = method.loss(lesson(student, mentors, target)).values["distilled"]
    method.divergence = Nowhere()
    torch.testing.assert_close(method.loss(lesson(student, mentors, target)).values["distilled"], plain)


def test_one_weight_a_mentor_over_those_who_count() -> None:
    known = torch.tensor([[[True], [True], [False]], [[True], [False], [False]]])
    found = spread(torch.tensor([0.0, 1.0]), known)
    assert found[..., 0].tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def over_ranks(call: Callable[[Lesson], Tensor], parts: list[Lesson]) -> list[Tensor]:
    """What ``call``, which adds up over ranks once, gives on each of them."""
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    for part in parts:
        call(replace(part, reduce=watched))
    total = torch.stack(seen).sum(0)
    return [call(replace(part, reduce=lambda _: total)) for part in parts]


@pytest.mark.parametrize("divergence", ["kl", "dtkd"])
def test_gram_weights_are_those_of_the_whole_batch(divergence: str) -> None:
    student, mentors, target = answers(3)
    known = torch.ones(3, 8, 1, dtype=torch.bool)
    known[1, :2] = False
    weigh, far = make_weighting("gram"), make_divergence(divergence, 4.0)
    whole = weigh(lesson(student, mentors, target), mentors, known, far).weight
    cuts = [slice(0, 3), slice(3, 8)]
    parts = [lesson(student[cut], mentors[:, cut], target[cut], ids=torch.arange(8)[cut]) for cut in cuts]

    def call(part: Lesson) -> Tensor:
        assert part.mentors is not None
        assert part.ids is not None
        found: Tensor = weigh(part, part.mentors.prediction, known[:, part.ids], far).weight
        return found

    torch.testing.assert_close(torch.cat(over_ranks(call, parts), 1), whole)


def test_weights_of_a_batch_divergence_are_averaged_over_ranks() -> None:
    weight = torch.rand(3, 8, 1, generator=torch.Generator().manual_seed(0))
    far, mask = torch.tensor([1.0, 2.0, 4.0]), torch.ones(8, 1, dtype=torch.bool)
    student, mentors, target = answers(3)
    parts = [lesson(student, mentors, target, ids=ids) for ids in torch.arange(8).split([3, 5])]

    def call(part: Lesson) -> Tensor:
        assert part.ids is not None
        return Weighted.mean(weight[:, part.ids], far, mask[part.ids], part)

    wanted = (weight.mean((1, 2)) * far).sum()
    for found in over_ranks(call, parts):
        torch.testing.assert_close(found, wanted)


# --- who is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *((name, {"mentor": "m1"}) for name in ("kd", "dkd", "dist", "dtkd")),
        ("kd", {}),
        ("dkd", {"mentor": "best"}),
        ("weighted", {"weighting": "best"}),
        ("weighted", {"weighting": {"best": {"mentor": 1}}}),
    ],
)
def test_one_mentor_is_chosen_and_recorded_in_its_place(name: str, given: dict[str, Any]) -> None:
    student, mentors, target = answers(3)
    method = built(name, given, scores=[0.1, 0.9, 0.5])
    assert method.mentor_indices == (1,)
    assert method.order_matters == (name == "weighted")
    terms = method.loss(lesson(student, mentors[1:2], target))
    assert terms.weight is not None
    assert terms.active is not None
    assert terms.temperature is not None
    assert terms.weight.shape == terms.active.shape == terms.temperature.shape == (3, 8, 1)
    assert terms.weight.mean((1, 2)).tolist() == [0, 1, 0]
    assert terms.active.all(1).flatten().tolist() == [False, True, False]
    plain = taught(name, {}, student, mentors[1:2], target)
    torch.testing.assert_close(terms.values["distilled"], plain.values["distilled"])


def test_kd_does_not_teach_a_class_that_its_mentor_does_not_know() -> None:
    """It pushed the true class down there: +1 on its logit with four equal ones at T 4, where the label has -0.75."""
    student, mentors, target = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(1, 3, 4).double(), torch.zeros(3)
    mentors[0, 0, 0], mentors[0, 1, 2] = -INF, NAN
    mentors[0, 2] = torch.tensor([2.0, 1.0, 0.0, 0.0])
    student.requires_grad_()
    terms = taught("kd", {}, student, mentors, target.long())
    (gradient,) = torch.autograd.grad(terms.values["distilled"], student)
    wanted = functional.kd(student[2:], mentors[0, 2:]).sum() / 3
    torch.testing.assert_close(terms.values["distilled"], wanted)
    assert (gradient[:2] == 0).all()
    torch.testing.assert_close(gradient[2], torch.autograd.grad(wanted, student)[0][2])
    assert terms.loss().isfinite()
    assert terms.active is not None
    assert terms.active.flatten().tolist() == [False, False, True]


def test_kd_where_its_mentor_knows_all_is_hintons_to_the_bit() -> None:
    student, mentors, target = (x.float() if x.is_floating_point() else x for x in answers(2))
    student = student.detach().requires_grad_()
    terms = built("kd", {}, 2, [0.1, 0.9]).loss(lesson(student, mentors[1:], target))
    far = 16 * functional.kl_divergence(student, mentors[1], 4.0).mean()
    own = nn.functional.cross_entropy(student, target)
    assert torch.equal(terms.values["distilled"], far)
    assert terms.coefficients == {"supervised": 0.1, "distilled": 0.9}
    torch.testing.assert_close(terms.loss(), 0.1 * own + 0.9 * far)
    assert torch.equal(
        *(torch.autograd.grad(x, student, retain_graph=True)[0] for x in (far, terms.values["distilled"]))
    )


def test_everybody_is_asked_otherwise() -> None:
    for name, given in LOGITS:
        assert built(name, given).mentor_indices is None
    assert built("dkd", {"mentor": "all"}, 1).mentor_indices is None


def test_draws_belong_to_sample_and_step() -> None:
    draw = torch.Generator().manual_seed(0)
    student, mentors = torch.randn(900, 4, generator=draw), torch.randn(3, 900, 4, generator=draw)
    target, ids = torch.zeros(900, dtype=torch.int64), torch.arange(900) * 13 + 5

    def drawn(seed: int = 0, step: int = 0, order: Tensor | None = None, lost: int | None = None) -> Tensor:
        order = torch.arange(900) if order is None else order
        said = mentors[:, order].clone()
        if lost is not None:
            said[lost] = NAN
        seen = lesson(student[order], said, target, ids=ids[order], step=step)
        weight = built("random", {"seed": seed}).loss(seen).weight
        assert weight is not None
        return weight[..., 0]

    one, order = drawn(), torch.randperm(900, generator=draw)
    assert (one.sum(0) == 1).all()
    assert ((one == 0) | (one == 1)).all()
    luck = torch.stack([functional.draw(ids, 0, 7919 * m) for m in range(3)])  # other seeds would break a resume
    assert torch.equal(one.argmax(0), luck.argmax(0))
    # 300 expected of each, standard deviation 14
    assert all(230 < count < 370 for count in one.sum(1).tolist())
    assert torch.equal(drawn(order=order), one[:, order])
    for other in (drawn(seed=1), drawn(step=1)):
        assert 0.2 < (one * other).sum().item() / 900 < 0.47  # a third by chance
    fewer = drawn(lost=0)
    assert (fewer[0] == 0).all()
    assert (fewer.sum(0) == 1).all()
    assert torch.equal(fewer[:, one[0] == 0], one[:, one[0] == 0])
    assert methods.create("random").order_matters


# --- strength and schedule --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dkd", "dtkd"])
def test_warm_up_is_built_in_and_can_be_changed(name: str) -> None:
    student, mentors, target = answers()

    def factor(epoch: float, epochs: int = 240, **given: Any) -> float | Tensor:
        terms: Terms = built(name, given)(lesson(student, mentors, target, epoch=epoch, progress=epoch / epochs))
        return terms.coefficients["distilled"]

    # The released ramp, min(epoch / 20, 1) with the epoch counted from 1, at whole epochs; and the line between them.
    assert [factor(epoch) for epoch in range(240)] == pytest.approx([min((e + 1) / 20, 1) for e in range(240)])
    assert factor(0.5) == pytest.approx(0.075)
    assert [factor(epoch, 12) for epoch in (0, 0.5, 0.95, 1, 11)] == pytest.approx([0.05, 0.55, 1, 1, 1])
    assert factor(0, schedule="constant") == 1
    assert factor(0, schedule={"warmup": {"epochs": 4}}) == 0.25


@pytest.mark.parametrize("name", ["camkd", "ebkd"])
def test_matched_strength_undoes_the_released_scale(name: str) -> None:
    said = answers()
    more = {"feature_weight": 0} if name == "camkd" else {}
    native, matched, paper = (
        built(name, {"rule": rule, "strength": strength, **more})(lesson(*said)).loss()
        for rule, strength in (("reference", "native"), ("reference", "matched"), ("paper", "matched"))
    )
    torch.testing.assert_close(matched, paper)
    assert not torch.isclose(native, paper)


@pytest.mark.parametrize("given", [{"schedule": "warmup"}, {"strength": "native"}])
def test_what_acts_on_mentors_terms_is_refused_without_them(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"'none': {next(iter(given))} acts on mentors' terms, and it has none"):
        methods.create("none", **given)


def test_matched_dist_counts_once() -> None:
    for given, wanted in (({}, 2.0), ({"strength": "matched"}, 1.0)):
        terms: Terms = built("dist", given)(lesson(*answers()))
        torch.testing.assert_close(
            torch.as_tensor(terms.coefficients["distilled"]), torch.as_tensor(wanted), check_dtype=False
        )
