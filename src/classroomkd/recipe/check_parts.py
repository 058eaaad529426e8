"""Checks of names: data sources and their options, models, mentors. On the tree, so one mistake hides no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from classroomkd import tasks
from classroomkd.data.sources.table import entries, option_problems, source_problem
from classroomkd.data.spec import OF_CLASSES, OF_PERSONS, PARTS, parts_problem
from classroomkd.errors import did_you_mean
from classroomkd.recipe.check_weights import taken_as_is
from classroomkd.recipe.nodes import Loc, Node, described_task, of_networks
from classroomkd.recipe.paths import data_sources
from classroomkd.recipe.problems import Problem, problem

if TYPE_CHECKING:
    from classroomkd.tasks.spec import TaskDescription

__all__ = ["check_data", "check_mentors", "check_models"]


def check_data(tree: Node, trust_code: bool, known_sources: Collection[str] = ()) -> list[Problem]:
    """Sources exist and are written in full, their options exist, and exactly one way of naming them is used."""
    task = described_task(tree)
    problems = [
        problem(tree, loc, f"{sentence}{_other_task(node.value, task)}")
        for loc, node in data_sources(tree)
        if node.value not in known_sources
        and (sentence := source_problem(node.value, task.reads, trust_code=trust_code, task=task.name))
    ]
    data = tree.child("data")
    if data is None or not isinstance(data.value, dict):
        return problems
    given = [part for part in ("source", *PARTS) if (node := data.child(part)) and node.value is not None]
    if sentence := parts_problem(given):
        problems.append(problem(tree, ("data",), sentence, value=not given or "source" in given))
    return [
        *problems,
        *check_views(tree),
        *_check_resize(tree, task),
        *_check_labels(tree, task),
        *_source_options(tree, task),
    ]


def _other_task(text: str, task: TaskDescription) -> str:
    """The task that reads a source which the default one does not: perhaps nobody named the task."""
    name = text.partition(":")[0]
    opens = entries()[name].opens if name in entries() else {}
    if task.name != tasks.DEFAULT or not opens or task.reads in opens:
        return ""
    reader = next((row.name for row in tasks.rows() if row.description.reads in opens), None)
    return "" if reader is None else f" (give task: {reader})"


def _source_options(tree: Node, task: TaskDescription) -> list[Problem]:
    options = tree.at("data", "options")
    if options is None or not isinstance(options.value, dict):
        return []
    names = [node.value.partition(":")[0] for _, node in data_sources(tree)]
    wrong = option_problems(names, {key: node.value for key, node in options.value.items()}, task.reads)
    return [problem(tree, ("data", "options", key), sentence) for key, sentence in wrong.items()]


def check_views(tree: Node) -> Iterator[Problem]:
    """The views' name is one of some task; the task's own loader says what it does not allow."""
    views = tree.text("data", "views")
    known = dict.fromkeys(name for row in tasks.rows() for name in row.description.views)
    if views is not None and views not in known:
        *most, last = (f"'{name}'" for name in known)
        near = did_you_mean(views, known)
        yield problem(tree, ("data", "views"), f"must be {', '.join(most)} or {last}{near}")


def _check_resize(tree: Node, task: TaskDescription) -> Iterator[Problem]:
    node = tree.at("data", "resize")
    if node is not None and node.value is not None and not task.resizes:
        sentence = f"is for whole images; for {task.name} crops of data.size are cut around {task.vocabulary.samples}"
        yield problem(tree, ("data", "resize"), f"{sentence}: leave it out")


def _check_labels(tree: Node, task: TaskDescription) -> Iterator[Problem]:
    keys = () if task.reads == "classes" else OF_CLASSES if task.resizes else (*OF_CLASSES, "classes")
    for key in keys:
        node = tree.at("data", key)
        if key not in task.partly and node is not None and node.value is not None:
            sentence = f"is for images with a class each, not for {task.vocabulary.samples}: leave it out"
            yield problem(tree, ("data", key), sentence)
    table = tree.at("data", "labels", "file")
    if "labels" in task.partly and table is not None and table.value is not None:
        yield problem(tree, ("data", "labels", "file"), OF_PERSONS)


def check_models(tree: Node, trust_code: bool, known_models: Collection[str]) -> list[Problem]:
    """Every model exists, in the zoo or in an installed library; ``py:`` is trusted."""
    by_name: dict[str, str | None] = {}
    problems = []
    task = described_task(tree)
    for loc, node in of_networks(tree, "model"):
        name = node.value
        if name in known_models:
            continue
        if name not in by_name:  # a library may be slow to ask
            by_name[name] = task.model_problem(name, trust_code)
        if loc[0] != "mentors" and task.mentor_only(name):
            problems.append(problem(tree, loc, f"can teach, not be taught; choose another {str(loc[0]).rstrip('s')}"))
        elif (sentence := by_name[name]) is not None:
            problems.append(problem(tree, loc, sentence))
    return problems


def check_mentors(tree: Node) -> list[Problem]:
    """Names are unique; a mentor is loaded or trained, not both; preprocessing is complete."""
    problems = []
    first: dict[str, int] = {}
    for index, item in enumerate(tree.items("mentors")):
        loc: Loc = ("mentors", index)
        keys = ("name", "train", "mean", "std")
        values = {key: node.value for key in keys if (node := item.child(key)) and node.value is not None}
        name = values.get("name")
        if isinstance(name, str) and name in first:
            sentence = f"is called '{name}' like mentors.{first[name]}; give each its own name: {{name: …, model: …}}"
            problems.append(problem(tree, loc, sentence, value=False))
        elif isinstance(name, str):
            first[name] = index
        if "train" in values and (key := taken_as_is(item)):
            what = "a checkpoint" if key == "checkpoint" else "weights of its own"
            sentence = (
                f"has both '{key}' and 'train'; keep one: a mentor with {what} is used as it is (reset_head: true has "
                "the run train it from them)"
            )
            problems.append(problem(tree, loc, sentence, value=False))
        problems += _preprocessing(tree, loc, values)
        problems += _specialist(tree, (*loc, "train"))
    return problems


def _preprocessing(tree: Node, loc: Loc, values: dict[str, object]) -> Iterator[Problem]:
    mean, std = values.get("mean"), values.get("std")
    if (mean is None) != (std is None):
        there, missing = ("mean", "std") if std is None else ("std", "mean")
        yield problem(tree, (*loc, there), f"needs '{missing}' beside it")
    elif isinstance(mean, list) and isinstance(std, list):
        if len(mean) not in (1, 3):
            yield problem(tree, (*loc, "mean"), "must have one number, or one a channel (3)")
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


def _specialist(tree: Node, loc: Loc) -> Iterator[Problem]:
    others, classes = tree.at(*loc, "others"), tree.at(*loc, "classes")
    if others is not None and others.value and (classes is None or classes.value is None):
        yield problem(tree, (*loc, "others"), "acts only on a specialist; add classes: [NAME, …] beside it")
