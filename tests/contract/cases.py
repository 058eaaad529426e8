"""Every method with its defaults and with every closed choice of its options."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from classroomkd import methods
from classroomkd.tasks import offering

__all__ = ["CLASSES", "KINDS", "cases", "few", "labels", "options", "rules"]

CLASSES = "classification"
KINDS = (CLASSES, "simcc", "heatmap")  # of answers
# What projectors and the common options do, they do on any task, and a divergence is the same in every method but the
# one that differentiates it: on pose these are asked the first question only.
ALIKE = {"projector", "strength", "detach_temperature"}
OF_VECTORS = [("pcl", {"ensemble": "concat"})]  # refused where an answer is not one vector a sample
# Choices that need pictures of classes, or mentors as wide as the student, which those of poses are not.
OF_CLASSES = {("cost", "class"), ("projector", "none")}
# Without a projector student and mentors must have as many channels: the first map.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {("projector", "none"): {"tap": "@stage:-3"}}
OWN_DIVERGENCE = ("weighted", "aekd")


def options(name: str) -> list[dict[str, Any]]:
    """The defaults and one variant for every closed choice and switch of a method's options."""
    found: list[dict[str, Any]] = [{}]
    for key, field in methods.options_model(name).model_fields.items():
        choices: tuple[Any, ...] = getattr(field.annotation, "__args__", ())
        flat = tuple(itertools.chain.from_iterable(getattr(c, "__args__", (c,)) for c in choices))
        values: list[Any] = [v for v in flat if isinstance(v, str)] if flat else []
        if field.annotation is bool:
            values = [not field.default]
        found += [{key: v, **BESIDE.get((key, v), {})} for v in values if v != field.default]
    if methods.method_class(name).needs.mentors == 0:  # it has no mentors' terms to match
        found = [o for o in found if "strength" not in o]
    return found


def _hints(name: str, task: str | None = None) -> Any:
    return methods.defaults(name, task).get("feature_weight")


# ClassroomKD's weighting beside other divergences: every gate, every divergence, every rule.
GRADED: list[dict[str, Any]] = [
    {"weighting": {"name": "classroomkd", **given}, "divergence": divergence}
    for divergence, given in (
        ("kl", {"gate": "hard"}),
        ("dkd", {"gate": "strict", "mentoring": False}),
        ("dist", {"gate": "soft", "normalise": "unit"}),
        ("dtkd", {"gate": "argmax"}),
        ("kl", {"gate": "none", "credibility": "held_out"}),
        ("dkd", {"rule": "batch"}),
        ("dist", {"rule": "rank"}),
    )
]


def cases(task: str) -> list[tuple[str, dict[str, Any]]]:
    """All methods that do a task, with all their options."""
    names = [name for name, entry in methods.entries().items() if task in offering(entry.asks)]
    found = [(name, given) for name in names for given in options(name)]
    found = [
        (name, o)
        for name, o in found
        if task == CLASSES or not OF_CLASSES & {(k, v) for k, v in o.items() if isinstance(v, str)}
    ]
    found += [("weighted", given) for given in GRADED]
    found = [case for case in found if task == CLASSES or case not in OF_VECTORS]
    off = [name for name in names if _hints(name, task) == 0 and _hints(name) != 0]
    return found + [(name, {"feature_weight": 1.0}) for name in off]  # hints that a task does without, turned on


def rules(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The cases of a kind of answers that differ there."""
    if kind == CLASSES:
        return cases(CLASSES)
    return [(n, o) for n, o in cases("pose") if not ALIKE & set(o) and ("divergence" not in o or n in OWN_DIVERGENCE)]


def labels(found: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Names for pytest."""
    return [f"{n}-{'-'.join(f'{k}={v}' for k, v in o.items()) or 'default'}" for n, o in found]


def few(found: list[tuple[str, dict[str, Any]]], *before: str) -> list[Any]:
    """Parameters: a method's defaults and one other of its cases, of its own if it has any. The rest is alike.

    Args:
        found: the cases.
        before: parameters that stand before a case's own, and in its name.
    """
    kept: dict[str, list[dict[str, Any]]] = {}
    for name, given in sorted(found, key=lambda case: bool(ALIKE & set(case[1]))):
        kept[name] = [*kept.get(name, []), given][:2]
    return [
        pytest.param(
            *before, name, given, id="-".join([*before, label]),
            marks=() if given in kept[name] else (pytest.mark.slow, pytest.mark.alike),
        ) for (name, given), label in zip(found, labels(found), strict=True)
    ]  # fmt: skip
