"""Checks of names: data sources and their options, models, mentors. On the tree, so one mistake hides no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from classroomkd.data.sources.table import TABLE, kind_of, source_names
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.catalogue import ZOO
from classroomkd.models.pose.catalogue import mentor_only
from classroomkd.recipe.nodes import Loc, Node, task_name
from classroomkd.recipe.paths import data_sources
from classroomkd.recipe.problems import Problem, problem

__all__ = ["check_data", "check_mentors", "check_models"]


def check_data(tree: Node, trust_code: bool, known_sources: Collection[str] = ()) -> list[Problem]:
    """Sources exist and are written in full, their options exist, and exactly one way of naming them is used."""
    task = task_name(tree) or "classification"
    problems = [
        problem(tree, loc, sentence)
        for loc, node in data_sources(tree)
        if node.value not in known_sources and (sentence := _source_problem(node.value, trust_code, task)) is not None
    ]
    data = tree.child("data")
    if data is None or not isinstance(data.value, dict):
        return problems
    given = {
        part for part in ("source", "train", "val", "test") if (node := data.child(part)) and node.value is not None
    }
    if not given:
        problems.append(problem(tree, ("data",), "names no source; write data: puppets, or source: imagefolder:DIR"))
    elif "source" in given and len(given) > 1:
        other = ", ".join(sorted(given - {"source"}))
        problems.append(
            problem(tree, ("data",), f"has both 'source' and {other}; use source alone, or train, val and test")
        )
    elif "source" not in given and "train" not in given:
        problems.append(problem(tree, ("data",), f"has '{min(given)}' but no 'train'; add train: SOURCE", value=False))
    return problems + _source_options(tree)


def _source_problem(text: str, trust_code: bool, task: str) -> str | None:
    name, colon, argument = text.partition(":")
    entry = TABLE.get(name)
    if entry is None:
        return f"there is no data source '{name}'{did_you_mean(name, TABLE)}; there are {', '.join(source_names())}"
    if entry.argument is not None and not argument.strip():
        return f"lacks what follows the colon; write {name}:{entry.argument}"
    if entry.argument is None and colon:
        return f"'{name}' takes nothing after it; write {name} (its settings go into data.options)"
    if entry.trust and not trust_code:
        return "runs code that is not part of classroomkd; if you trust it, add --trust-code"
    if entry.for_task(task) is None:
        others = ", ".join(known for known, one in TABLE.items() if one.for_task(task) is not None)
        wanted = "people with joints; give task: pose" if task != "pose" else "no people with joints"
        return f"has {wanted}; for {task} there are {others}"
    return None


def _source_options(tree: Node) -> list[Problem]:
    data = tree.child("data")
    options = data.child("options") if data is not None else None
    names = [node.value.partition(":")[0] for _, node in data_sources(tree)]
    tables = [TABLE[name] for name in names if name in TABLE]
    if options is None or not isinstance(options.value, dict) or not tables or any(e.options is None for e in tables):
        return []
    known = {key: kinds for entry in tables for key, kinds in (entry.options or {}).items()}
    problems = []
    for key, node in options.value.items():
        loc: Loc = ("data", "options", key)
        if key not in known:
            there = f"; there are {', '.join(known)}" if known else f"; '{names[0]}' has none"
            problems.append(problem(tree, loc, f"unknown option of '{names[0]}'{did_you_mean(key, known)}{there}"))
        elif isinstance(node.value, bool) or not isinstance(node.value, known[key]):
            problems.append(problem(tree, loc, f"must be {kind_of(known[key])}"))
    return problems


def _models(tree: Node) -> Iterator[tuple[Loc, Node]]:
    mentors = tree.child("mentors")
    count = len(mentors.value) if mentors is not None and isinstance(mentors.value, list) else 0
    for loc in [("student",), *(("mentors", index) for index in range(count))]:
        node, rest = tree.find((*loc, "model"))
        if not rest and isinstance(node.value, str) and node.value:
            yield (*loc, "model"), node


def check_models(tree: Node, trust_code: bool, known_models: Collection[str]) -> list[Problem]:
    """Every model exists, in the zoo or in an installed library; ``py:`` is trusted."""
    said: dict[str, str | None] = {}
    problems = []
    check = _CHECKS.get(task_name(tree) or "classification", _model_problem)
    for loc, node in _models(tree):
        name = node.value
        if name in known_models:
            continue
        if name not in said:
            said[name] = check(name, trust_code)
        if loc[0] == "student" and mentor_only(name):
            problems.append(problem(tree, loc, "can teach, not be taught; choose another student"))
        elif (sentence := said[name]) is not None:
            problems.append(problem(tree, loc, sentence))
    return problems


def _model_problem(name: str, trust_code: bool) -> str | None:
    """Why a classifier cannot be had. Library networks are built without memory for their weights."""
    if name in ZOO:
        return None
    if name.startswith("py:"):
        if name.count(":") != 2 or not all(name.split(":")):
            return "is not of the form py:package.module:factory"
        return None if trust_code else "runs code that is not part of classroomkd; if you trust it, add --trust-code"
    import torch

    from classroomkd.models.building import create

    try:
        with torch.device("meta"):
            create(name, num_classes=2)
    except UserError as error:
        if isinstance(error.__cause__, NotImplementedError):
            return None  # it looks at its weights while it is built; the dry run builds it with some
        return str(error)
    return None


def _pose_problem(name: str, trust_code: bool) -> str | None:
    """Why a pose network cannot be had, by its name alone."""
    from classroomkd.models.pose import check_pose

    try:
        check_pose(name, trust_code=trust_code)
    except UserError as error:
        return str(error)
    return None


_CHECKS = {"classification": _model_problem, "pose": _pose_problem}


def check_mentors(tree: Node) -> list[Problem]:
    """Names are unique; a mentor is loaded or trained, not both; preprocessing is complete."""
    mentors = tree.child("mentors")
    if mentors is None or not isinstance(mentors.value, list):
        return []
    problems = []
    first: dict[str, int] = {}
    for index, item in enumerate(mentors.value):
        loc: Loc = ("mentors", index)
        given = {key: node for key in ("name", "checkpoint", "train", "mean", "std") if (node := item.child(key))}
        values = {key: node.value for key, node in given.items() if node.value is not None}
        name = values.get("name")
        if isinstance(name, str) and name in first:
            sentence = f"is called '{name}' like mentors.{first[name]}; give each its own name: {{name: …, model: …}}"
            problems.append(problem(tree, loc, sentence, value=False))
        elif isinstance(name, str):
            first[name] = index
        if "checkpoint" in values and "train" in values:
            sentence = "has both 'checkpoint' and 'train'; keep one: a mentor with a checkpoint is used as it is"
            problems.append(problem(tree, loc, sentence, value=False))
        problems += _preprocessing(tree, loc, values)
        problems += _specialist(tree, loc, given.get("train"))
    return problems


def _preprocessing(tree: Node, loc: Loc, values: dict[str, object]) -> Iterator[Problem]:
    mean, std = values.get("mean"), values.get("std")
    if (mean is None) != (std is None):
        there, missing = ("mean", "std") if std is None else ("std", "mean")
        yield problem(tree, (*loc, there), f"needs '{missing}' beside it")
    elif isinstance(mean, list) and isinstance(std, list):
        if len(mean) != len(std):
            yield problem(tree, (*loc, "std"), f"must have as many numbers as mean ({len(mean)})")
        for node in std:
            if isinstance(node.value, int | float) and node.value <= 0:
                yield problem(tree, (*loc, "std"), "must be above 0 in every channel")
                break
    for key in ("mean", "std"):
        numbers = values.get(key)
        if isinstance(numbers, list) and any(isinstance(n.value, int | float) and n.value > 1 for n in numbers):
            yield problem(tree, (*loc, key), "is for pixels scaled to 0..1; divide by 255")


def _specialist(tree: Node, loc: Loc, train: Node | None) -> Iterator[Problem]:
    others = train.child("others") if train is not None else None
    classes = train.child("classes") if train is not None else None
    if others is not None and others.value and (classes is None or classes.value is None):
        yield problem(tree, (*loc, "train", "others"), "acts only on a specialist; add classes: [NAME, …] beside it")
