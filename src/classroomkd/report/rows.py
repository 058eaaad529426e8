"""Rows of the result table: one per arm and run, numbers only, ready for ``--json``; scores are fractions in 0..1.

A difference is taken against an arm of the same run that is the baseline. A run without one borrows it from another
run of the same table if data, student and training are the same, and the row says from which (or why not).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from classroomkd.report.statistics import paired, spread
from classroomkd.report.summary import ArmInfo, Summary

__all__ = ["Row", "find_baseline", "kept_apart", "mentor_rows", "result_rows"]

Row = dict[str, Any]
BASELINES = ("none", "average")
# Keys of train that do not change the student.
BOOKKEEPING = {
    "log_every", "eval_every", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "eval_batch_size",
}  # fmt: skip


def result_rows(
    summaries: Summary | Iterable[Summary], baselines: Sequence[str] = BASELINES, score: str = "test_last"
) -> list[Row]:
    """One row an arm, in the order of the runs and their recipes.

    Keys: ``run``, ``arm``, ``method``, ``status``, ``seeds`` (finished), ``missing`` (seeds other arms of the run
    have), ``test_last``, ``test_best`` (at the best validation epoch) and ``test_ema``, each ``{n, mean, sd}``;
    ``vs`` = ``{baseline: null | {arm, run, n, mean, low, high, verdict, unpaired}}`` on ``score``, a paired difference
    with its 95 % t interval; ``apart`` = ``{baseline: [{arm, run, why}]}``, where there is none though a run on data
    and a student of the same name has it; ``parameters``, ``multiply_adds`` (student), ``cost_ratio`` (step time over
    the student alone: 1 for ``none``, whatever was measured), ``step_ms``, ``seconds``, ``test`` (samples),
    ``student``, ``data``. Where scores are no accuracies, also ``task`` and ``metric``, where they are no
    fractions or less is better, ``metric_unit`` and ``higher_is_better``; where further figures were
    measured, ``metrics`` = ``{name: {n, mean, sd}}``.
    """
    runs = [summaries] if isinstance(summaries, Summary) else list(summaries)
    titles = _titles(runs)
    rows = []
    for summary, title in zip(runs, titles, strict=True):
        gaps = summary.missing()
        for arm in summary.arms:
            scores = summary.scores(arm.label, score)
            itself = [name for name in baselines if find_baseline(summary, name) is arm]
            against: dict[str, Row | None] = dict.fromkeys(baselines)
            apart: dict[str, list[Row]] = {}
            # A baseline is compared with those named before it only: the other way round is the same figure again.
            for name in baselines[: baselines.index(itself[0])] if itself else baselines:
                against[name], refused = _difference(runs, titles, summary, arm, name, score)
                if refused:
                    apart[name] = refused
            rows.append(
                {
                    "run": title,
                    "arm": arm.label,
                    "method": arm.method or arm.label,
                    "status": arm.status,
                    "seeds": sorted(scores),
                    "missing": gaps.get(arm.label, []),
                    **{key: _spread(summary, arm, key) for key in ("test_last", "test_best", "test_ema")},
                    "vs": against,
                    "apart": apart,
                    "parameters": summary.network_of(arm.label).parameters,
                    "multiply_adds": summary.network_of(arm.label).multiply_adds,
                    "cost_ratio": _cost(summary, arm),
                    "step_ms": _mean(summary, arm, "step_ms"),
                    "seconds": _mean(summary, arm, "seconds"),
                    "test": summary.data.test,
                    "student": summary.student.model,
                    "data": summary.data.name,
                    **summary.say.marks(summary.task),
                    **_further(summary, arm),
                    **({"exported": name} if (name := summary.exported(arm.label)) else {}),
                }
            )
    return rows


def mentor_rows(summaries: Summary | Iterable[Summary]) -> list[Row]:
    """One row a mentor: ``run, name, model, accuracy`` (test), ``val_accuracy, parameters, multiply_adds, samples``
    (labels it was trained on, ``null`` when unknown), ``note, seconds``, and ``task, metric`` where scores are no
    accuracies. The same mentor in several runs comes once.
    """
    runs = [summaries] if isinstance(summaries, Summary) else list(summaries)
    rows: dict[tuple[Any, ...], Row] = {}
    for summary, title in zip(runs, _titles(runs), strict=True):
        for mentor in summary.mentors:
            row = {key: getattr(mentor, key) for key in MENTOR_KEYS}
            broken = mentor.not_finite.get("answers")
            counted = isinstance(broken, int) and broken > 0
            left_out = f"{broken:,} of its answers were not finite and left out" if counted else ""
            row["note"] = "; ".join(filter(None, (mentor.note, left_out)))
            key = tuple(row[name] for name in ("name", "model", "accuracy", "samples"))
            rows.setdefault(key, {"run": title, **row, **summary.say.marks(summary.task)})
    return list(rows.values())


MENTOR_KEYS = (
    "name", "model", "accuracy", "val_accuracy", "parameters", "multiply_adds", "samples", "note", "seconds",
)  # fmt: skip


def find_baseline(summary: Summary, name: str) -> ArmInfo | None:
    """The arm of a run that is baseline ``name``: the one labelled so, else the first whose method it is."""
    labelled = (arm for arm in summary.arms if arm.label == name)
    return next(labelled, next((arm for arm in summary.arms if arm.method == name), None))


def _titles(runs: Sequence[Summary]) -> list[str]:
    """Run names, replaced by folder names (then paths) where two runs are called the same."""
    for titles in ([run.name or run.root.name for run in runs], [run.root.resolve().name for run in runs]):
        if len(set(titles)) == len(titles):
            return titles
    return [str(run.root) for run in runs]


def _difference(
    runs: Sequence[Summary], titles: Sequence[str], summary: Summary, arm: ArmInfo, name: str, score: str
) -> tuple[Row | None, list[Row]]:
    """Against baseline ``name``, the run's own or that of one like it; else ``None`` and why others were refused."""
    own = next(index for index, run in enumerate(runs) if run is summary)
    alike = [index for index, run in enumerate(runs) if index != own and _same_task(run, summary)]
    refused: list[Row] = []
    for index in [own, *alike]:
        run = runs[index]
        base = find_baseline(run, name)
        if base is None:
            continue
        why = None if index == own else _unlike(run, summary)
        if why is not None:
            refused.append({"arm": base.label, "run": titles[index], "why": why})
            continue
        up = summary.say.measure.higher_is_better
        difference = paired(summary.scores(arm.label, score), run.scores(base.label, score), higher_is_better=up)
        figures = {key: getattr(difference, key) for key in ("n", "mean", "low", "high", "verdict")}
        figures["unpaired"] = list(difference.unpaired)
        return {"arm": base.label, "run": titles[index], **figures}, []
    return None, refused


def _same_task(a: Summary, b: Summary) -> bool:
    """Whether two runs are about the same thing by name and number: test part, score and student."""

    def what(run: Summary) -> tuple[Any, ...]:
        data, student = run.data, run.student
        return run.task, run.say.metric, data.name, data.classes, data.test, student.model, student.parameters

    return what(a) == what(b)


def _unlike(a: Summary, b: Summary) -> str | None:
    """Why scores of two runs on one task may not be subtracted; ``None`` where they may.

    What either does not know (a run of an earlier version) is taken to agree.
    """

    def differ(one: Any, other: Any) -> bool:
        return bool(one and other and one != other)

    def other_part(name: str) -> bool:
        return differ(a.data.parts.get(name), b.data.parts.get(name))

    if differ(a.data.fingerprint, b.data.fingerprint) or other_part("student"):
        return "trained on other data"
    if other_part("val") or other_part("test"):
        return "scored on other data"
    if differ(a.data.vote, b.data.vote):
        return "scored against the vote of other mentors"
    if not (a.train and b.train):
        return None
    keys = [key for key in {**a.train, **b.train} if key not in BOOKKEEPING and a.train.get(key) != b.train.get(key)]
    return f"another training: {', '.join(keys)}" if keys else None


def kept_apart(rows: Sequence[Row]) -> list[str]:
    """One line for every baseline that runs without their own were not compared with, and why."""
    refusals: dict[tuple[str, str, str], dict[str, None]] = {}
    for row in rows:
        for refused in row["apart"].values():
            for base in refused:
                refusals.setdefault((base["arm"], base["run"], base["why"]), {})[row["run"]] = None
    return [
        f"Not compared with '{arm}' of {run}: {', '.join(who)} ({why})." for (arm, run, why), who in refusals.items()
    ]


def _cost(summary: Summary, arm: ArmInfo) -> float | None:
    """Step time over the student's alone. For ``none`` that is the same step twice: 1 by definition, not by clock."""
    step, floor, cost = (_mean(summary, arm, field) for field in ("step_ms", "floor_ms", "cost_ratio"))
    if cost is None and step and floor:
        cost = step / floor
    return 1.0 if cost is not None and (arm.method or arm.label) == "none" else cost


def _spread(summary: Summary, arm: ArmInfo, field: str) -> Row:
    return asdict(spread(summary.scores(arm.label, field).values()))


def _further(summary: Summary, arm: ArmInfo) -> Row:
    metrics = {name: asdict(spread(values)) for name, values in summary.metrics(arm.label).items()}
    return {"metrics": metrics} if metrics else {}


def _mean(summary: Summary, arm: ArmInfo, field: str) -> float | None:
    return spread(summary.scores(arm.label, field).values()).mean
