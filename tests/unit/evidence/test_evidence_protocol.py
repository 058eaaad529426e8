"""The protocol against arithmetic by hand: Holm, paired tests, the margin, convergence, equal time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_study import ARMS, TOY, Scores, finish, store, student

from benchmarks.evidence.cells import cell_of, mentor_cell
from benchmarks.evidence.mentors import MENTORS
from benchmarks.evidence.protocol import MARGIN, Compared, Line, Table, _after, _mentors_seconds, compared, holm, table
from benchmarks.evidence.render import _together
from benchmarks.evidence.study import DEFAULTS, Arm, Panel, Study
from classroomkd.report.statistics import Difference

AVERAGE = ARMS[1]


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


# --- Holm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 × 0.01, 2 × 0.03, and 1 × 0.04 is raised to what stands before it
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.5, 0.4, 0.9], [1.0, 1.0, 1.0]),  # none above 1
        ([0.02, None, 0.01], [0.02, None, 0.02]),  # what has no p is not counted
        ([0.03, 0.03], [0.06, 0.06]),
        ([None], [None]),
        ([], []),
    ],
)
def test_holm(values: list[float | None], adjusted: list[float | None]) -> None:
    assert holm(values) == [None if p is None else pytest.approx(p) for p in adjusted]


# --- one comparison ---------------------------------------------------------------------------------------------------


def cdf_2(t: float) -> float:
    """Student's t with two degrees of freedom, in closed form."""
    return 0.5 + t / (2 * math.sqrt(2 + t * t))


def test_three_seeds_by_hand() -> None:
    found = compared(by_seed(0.51, 0.63, 0.72), by_seed(0.50, 0.60, 0.70))  # 0.01, 0.03, 0.02: sd 0.01
    error = 0.01 / math.sqrt(3)
    assert found.difference.mean == pytest.approx(0.02)
    assert found.p == pytest.approx(2 * (1 - cdf_2(0.02 / error)), abs=1e-9)
    assert found.p == pytest.approx(0.0742, abs=5e-5)
    assert found.apart == pytest.approx(max(cdf_2((0.02 - 0.005) / error), 1 - cdf_2((0.02 + 0.005) / error)), abs=1e-9)
    assert found.adjusted is None


@pytest.mark.parametrize("shift", [0.02, 0.0, -0.02, 0.004])
def test_the_two_one_sided_tests_are_even(shift: float) -> None:
    a, b = by_seed(0.501 + shift, 0.499 + shift, 0.502 + shift), by_seed(0.5, 0.5, 0.5)
    there, back = compared(a, b), compared(b, a)
    assert (there.p, there.apart) == (pytest.approx(back.p), pytest.approx(back.apart))


@pytest.mark.parametrize(
    "gaps",
    [(0.01, 0.03, 0.02), (0.004, 0.001, -0.002, 0.003, 0.002), (-0.02, -0.03, -0.01, -0.02), (0.01, -0.04)],
)
def test_against_scipy(gaps: tuple[float, ...]) -> None:
    stats = pytest.importorskip("scipy.stats")
    found = compared(by_seed(*(0.5 + gap for gap in gaps)), by_seed(*[0.5] * len(gaps)))
    sides = [
        stats.ttest_1samp(gaps, bound, alternative=side).pvalue
        for bound, side in ((0.005, "less"), (-0.005, "greater"))
    ]
    assert found.p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=1e-9)
    assert found.apart == pytest.approx(max(sides), abs=1e-9)


def test_only_shared_seeds_are_compared() -> None:
    found = compared({0: 0.5, 1: 0.6, 2: 0.9}, {0: 0.4, 1: 0.4, 7: 0.0})
    assert (found.difference.n, found.difference.mean) == (2, pytest.approx(0.15))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (by_seed(0.9), by_seed(0.1)),  # one seed
        (by_seed(0.52, 0.62, 0.72), by_seed(0.50, 0.60, 0.70)),  # equal differences: no interval, so nothing is told
        (by_seed(0.5, 0.6), by_seed(0.5, 0.6)),
        (by_seed(0.5), {9: 0.4}),
    ],
)
def test_without_an_interval_there_is_no_verdict(a: dict[int, float], b: dict[int, float]) -> None:
    found = compared(a, b)
    assert (found.p, found.apart, found.verdict) == (None, None, "unclear")


def verdict(mean: float, adjusted: float | None, apart: float | None) -> str:
    return Compared(Difference(5, mean, mean - 0.01, mean + 0.01), 0.01, adjusted, apart).verdict


def test_verdicts() -> None:
    assert verdict(0.02, 0.049, 0.9) == "gain"
    assert verdict(-0.02, 0.049, 0.9) == "loss"
    assert verdict(0.02, 0.05, 0.9) == "unclear"  # however small p was before Holm
    assert verdict(0.001, 0.6, 0.049) == "equal"
    assert verdict(0.001, 0.6, 0.05) == "unclear"  # not told from 0 is not equal
    assert verdict(0.002, 0.01, 0.01) == "gain"  # told from 0 comes first
    assert verdict(0.02, None, None) == "unclear"
    assert pytest.approx(0.005) == MARGIN


# --- a table ----------------------------------------------------------------------------------------------------------


def shown(folder: Path, study: Study = TOY, test: Scores | None = None, panel: str = "small") -> Table:
    results = store(folder)
    finish(results, study, test, lambda cell, seed: 0.5)
    return table("toy", study, study.panel(panel), results)


GAPS = {0: -0.002, 1: 0.0, 2: 0.002}


def scores(**by_method: float) -> Scores:
    """By method, and for other lengths of the student alone; seeds differ, and so do the differences."""

    def score(cell: Any, seed: int) -> float:
        name, epochs = cell.grid[0]["name"], cell.recipe("").train.epochs
        mean = by_method.get(f"e{epochs}", by_method[name]) if name == "none" else by_method[name]
        return mean + 0.01 * (seed % 7) + GAPS.get(seed, 0.0) * (2 if name == "kd" else 1 if name == "average" else 0)

    return score


@pytest.mark.usefixtures("studies")
def test_the_best_is_on_top_and_holm_is_over_the_column(tmp_path: Path) -> None:
    found = shown(tmp_path, test=scores(none=0.5, average=0.52, kd=0.53))
    assert [line.name for line in found.lines] == ["kd", "plain kd", "average", "none"]
    average, kd, none = (found.line(name) for name in ("average", "kd", "none"))
    assert average is not None
    assert kd is not None
    assert none is not None
    # Differences of ± 0.2 points around 2 (average) and ± 0.4 around 3 (kd, which stands twice): t = mean √3 / sd.
    p_average, p_kd = (2 * (1 - cdf_2(m * math.sqrt(3) / s)) for m, s in ((0.02, 0.002), (0.03, 0.004)))
    assert average.alone is not None
    assert kd.alone is not None
    assert (average.alone.p, kd.alone.p) == (pytest.approx(p_average), pytest.approx(p_kd))
    assert average.alone.adjusted == pytest.approx(3 * p_average)
    assert kd.alone.adjusted == pytest.approx(max(2 * p_kd, 3 * p_average))
    assert (average.alone.verdict, kd.alone.verdict) == ("gain", "gain")
    # The student alone is not compared with itself, nor the base with itself; Holm counts neither.
    assert (none.alone, average.base) == (None, None)
    assert kd.base is not None
    assert kd.base.p is not None
    assert kd.base.adjusted is not None
    assert kd.base.adjusted > kd.base.p


@pytest.mark.usefixtures("studies")
def test_a_line_says_mean_spread_best_and_setting(tmp_path: Path) -> None:
    line = shown(tmp_path, test=scores(none=0.5, average=0.52, kd=0.53)).line("average")
    assert line is not None
    assert line.scores == {0: pytest.approx(0.518), 1: pytest.approx(0.53), 2: pytest.approx(0.542)}
    assert (line.mean, line.sd) == (pytest.approx(0.53), pytest.approx(0.012))
    assert line.best == line.scores
    assert line.setting == {"temperature": 1}
    assert line.versions.keys() == {"average"}
    one = Line("a", {0: 0.5}, {}, None, None, {}, {}, {})
    assert (one.mean, one.sd) == (0.5, None)


@pytest.mark.usefixtures("studies")
def test_what_is_not_complete_is_named(tmp_path: Path) -> None:
    results = store(tmp_path)
    finish(results)
    panel = TOY.panels[0]
    assert table("toy", TOY, panel, results).lacking == []
    more = replace(TOY, seeds=(0, 1, 2, 3))
    assert table("toy", more, panel, results).lacking == ["none", "average", "kd", "plain kd"]
    assert table("toy", TOY, panel, store(tmp_path / "nothing")) == Table(
        [], {}, None, ["none", "average", "kd", "plain kd"]
    )


@pytest.mark.parametrize(("longer", "converged"), [(0.5029, True), (0.5031, False), (0.45, True)])
@pytest.mark.usefixtures("studies")
def test_converged_is_less_than_three_tenths_of_a_point(tmp_path: Path, longer: float, converged: bool) -> None:
    found = shown(tmp_path, test=scores(none=0.5, average=0.5, kd=0.5, e6=longer))
    assert found.gain is not None
    assert found.gain.mean == pytest.approx(longer - 0.5)
    assert found.converged is converged
    assert sorted(found.curve) == [0.5, 1, 1.5, 3]


def test_convergence_that_was_not_measured_is_not_claimed(tmp_path: Path, studies: dict[str, Study]) -> None:
    study = studies["toy"] = replace(TOY, panels=(Panel("small", "Small", curve=(0.5,)),))
    found = shown(tmp_path, study)
    assert (found.gain, found.converged) == (None, None)


# --- equal time -------------------------------------------------------------------------------------------------------

CURVE = {0.5: by_seed(0.40, 0.42), 1.0: by_seed(0.50, 0.50), 2.0: by_seed(0.60, 0.56)}


@pytest.mark.parametrize(
    ("share", "scores"),
    [
        (1.0, (0.50, 0.50)),  # a place that is known
        (math.sqrt(2), (0.55, 0.53)),  # half way between 1 and 2, on the logarithm
        (2 ** -0.75, (0.425, 0.44)),  # a quarter of the way from 0.5 to 1
        (0.1, (0.40, 0.42)),  # before the first: the first, in favour of the student alone
        (9.0, (0.60, 0.56)),  # beyond the last: the last
    ],
)  # fmt: skip
def test_the_student_alone_after_a_share_of_the_time(share: float, scores: tuple[float, ...]) -> None:
    assert _after(CURVE, share) == pytest.approx(by_seed(*scores))


def test_more_time_is_never_worse() -> None:
    falling = {**CURVE, 2.0: by_seed(0.45, 0.45), 4.0: by_seed(0.52, 0.50)}
    assert _after(falling, 2.0) == CURVE[1.0]  # it need not use all of its time
    assert _after(falling, 4.0) == falling[4.0]
    steps = [0.3 * 1.1**i for i in range(30)]
    means = [sum(_after(falling, share).values()) / 2 for share in steps]
    assert means == sorted(means)


def test_a_curve_counts_the_seeds_that_all_its_places_have() -> None:
    assert _after({**CURVE, 2.0: {1: 0.56}}, 1.0) == {1: 0.50}


MENTOR_SECONDS = 30.0


@pytest.mark.usefixtures("studies")
def test_mentors_given_and_mentors_paid(tmp_path: Path) -> None:
    """The student alone takes 10 s, a step with mentors 1.2 as long, and two mentors 30 s each to train."""
    results = store(tmp_path)
    finish(results, TOY, scores(none=0.5, average=0.52, kd=0.52, e2=0.4, e6=0.55, e12=0.6), lambda cell, seed: 0.5)
    bare = table("toy", TOY, TOY.panels[0], results).line("average")
    for (
        name
    ) in TOY.mentors:  # 6 batches of 64: 2 epochs of 192 images; 2 views of each are answered, as many as it learned
        entry = student(0.6, seconds=MENTOR_SECONDS, steps=6)
        results.add("mentors", mentor_cell(MENTORS[name]), 0, entry, {})
    found = table("toy", TOY, TOY.panels[0], results)
    average, none = found.line("average"), found.line("none")
    assert average is not None
    assert none is not None
    assert bare is not None
    assert (none.cost, none.spent) == (1.0, 1.0)
    paid = 2 * MENTOR_SECONDS * (1 + 1 / 3)
    assert (average.cost, average.spent) == (1.2, pytest.approx(1.2 + paid / 10))
    assert (bare.spent, bare.paid) == (None, None)  # nobody knows what its mentors took
    part = math.log(1.2) / math.log(1.5)
    assert average.given is not None
    assert average.given.mean == pytest.approx(0.52 - (0.5 + part * 0.05))
    assert average.paid is not None
    assert average.paid.mean == pytest.approx(0.52 - 0.6)  # 9.2 times as long: beyond the curve's last


def test_mentors_seconds_by_hand(tmp_path: Path) -> None:
    results = store(tmp_path)
    for name in TOY.mentors:
        results.add("mentors", mentor_cell(MENTORS[name]), 0, student(0.6, seconds=MENTOR_SECONDS, steps=6), {})

    def seconds(**changes: Any) -> float:
        panel = Panel("small", "Small", {key.replace("__", "."): value for key, value in changes.items()})
        return _mentors_seconds(results, cell_of(TOY, panel, AVERAGE))

    each = 2 * MENTOR_SECONDS
    assert seconds() == pytest.approx(each * (1 + 2 * 192 / (3 * 384)))
    assert seconds(bank="exact") == pytest.approx(
        each * (1 + 4 * 192 / (3 * 384))
    )  # every one of four epochs is another
    assert seconds(student__samples=48) == pytest.approx(each * (1 + 2 * 48 / (3 * 384)))
    assert _mentors_seconds(results, cell_of(TOY, TOY.panels[0], ARMS[0])) == 0


# --- networks that were trained together ------------------------------------------------------------------------------

TWINS = Arm("dml", ({"name": "dml"},), "", (), {"peers": [{"name": "twin", "model": "convnet4"}]}, ())


def test_an_ensemble_is_held_against_the_mean_of_its_members_and_the_cost_is_of_them_all(tmp_path: Path) -> None:
    results, panel = store(tmp_path), replace(TOY.panels[0], tuned=DEFAULTS)
    study = replace(TOY, arms=(*ARMS, TWINS), mentors=(), panels=(panel,))
    found = [((0.50, 0.54), 0.9, 0.55, 0.3), ((0.52, 0.52), 0.7, 0.56, 0.2), ((0.51, 0.55), 0.8, 0.57, 0.4)]
    cell = cell_of(study, study.panels[0], TWINS)
    assert [peer.name for peer in cell.recipe("").peers] == ["twin"]
    for seed, ((own, twin), teacher, ensemble, differ) in enumerate(found):
        members = {"student": own, "twin": twin}
        together = {"members": members, "teachers": {"t": teacher}, "ensemble": ensemble, "disagreement": differ}
        results.add("toy", cell, seed, student(own, cost_ratio=2.1, together=together), {})
    line = table("toy", study, study.panels[0], results).line("dml")
    assert line is not None
    assert line.cost == 2.1
    together = line.together
    assert together is not None
    assert together.members == {"student": pytest.approx(0.51), "twin": pytest.approx(0.61 - 0.22 / 3)}
    assert together.teachers == {"t": pytest.approx(0.8)}
    assert (together.ensemble, together.disagreement) == (pytest.approx(0.56), pytest.approx(0.3))
    assert together.more is not None
    assert together.more.mean == pytest.approx((0.03 + 0.04 + 0.04) / 3)
    assert together.more.n == 3
    said = "\n".join(_together(table("toy", study, study.panels[0], results)))
    assert "| dml | 51.0 · 53.7 | 80.0 | 56.0 | +3.7 [2.2, 5.1] | 30.0 % |" in said


def test_peers_are_in_the_key_and_nobody_else_changes(tmp_path: Path) -> None:
    other = replace(TWINS, changes={"peers": [{"name": "twin", "model": "convnet8"}]})
    keys = {cell_of(TOY, TOY.panels[0], arm).key for arm in (TWINS, other, replace(TWINS, changes={}))}
    assert len(keys) == 3
