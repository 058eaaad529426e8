"""From a file (or a mapping) and overrides to a checked recipe; every mistake is reported at once.

The order: YAML to a tree that remembers lines, overrides, short forms written out, files found, the schema, then names
and everything that no schema can know. Nothing is downloaded, built or trained here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from classroomkd import tasks
from classroomkd._sums import DIFFERS, SUMS, as_written
from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.check_methods import check_assistants, check_methods
from classroomkd.recipe.check_parts import check_data, check_mentors, check_models
from classroomkd.recipe.check_training import check_bank, check_machine, check_seeds, check_training
from classroomkd.recipe.check_weights import check_weights
from classroomkd.recipe.data_section import LabelsSpec
from classroomkd.recipe.find import find_recipe
from classroomkd.recipe.nodes import Loc, Node, Origin, from_python
from classroomkd.recipe.old_options import renew_options
from classroomkd.recipe.overrides import apply_overrides
from classroomkd.recipe.paths import check_leads_out, resolve_paths
from classroomkd.recipe.peer_section import PeerTrain
from classroomkd.recipe.problems import Problem, from_pydantic, option_problems, problem, raise_if_any
from classroomkd.recipe.resolve import resolve, training_layers
from classroomkd.recipe.schema import (
    SCHEMA,
    DataSpec,
    MentorSpec,
    PeerSpec,
    Recipe,
    StageSpec,
    StudentSpec,
    TaughtBy,
)
from classroomkd.recipe.short_forms import name_mentors, write_out
from classroomkd.recipe.stage_nodes import stage_epochs
from classroomkd.recipe.training import MentorTrain, TrainSpec
from classroomkd.recipe.versions import renew_recipe
from classroomkd.recipe.yaml_source import read_yaml

__all__ = ["load_recipe", "make_recipe"]

_LARGEST = 1_000_000  # bytes; a recipe is a page
SMALLEST = "the smallest recipe is: data: puppets, student: resnet8, method: none"


def load_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    trust_code: bool = False,
    writes: bool = False,
    out: Path | None = None,
) -> Recipe:
    """The recipe in a YAML file, or by its short name (``smoke`` for ``recipes/smoke.yaml``), checked and resolved.

    Args:
        path: the file.
        overrides: ``key=value`` texts, applied in order.
        trust_code: whether ``py:`` models and data may be used.
        writes: whether it is going to be run: then what the file says of ``name`` and ``cache`` must stay in the run
            folder's parent; what ``overrides`` say may lead anywhere.
        out: the run folder, where the user named it; ``runs/NAME`` otherwise.

    Raises:
        UserError: no such file, or a file that is not readable as text.
        RecipeError: mistakes in the recipe; all of them in one message.
    """
    file = find_recipe(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise UserError(f"{file} is not a recipe: it has more than {_LARGEST:,} bytes")
        content = file.read_bytes()
        if not as_written(file, content):
            raise UserError(
                f"{file} {DIFFERS}; put it back (a file that you have changed yourself: take its line out of "
                f"{file.parent / SUMS})"
            )
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not a recipe: not text in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    tree, problems = read_yaml(text, str(file))
    if tree.value is None:
        raise UserError(f"{file} is empty; {SMALLEST}")
    if not isinstance(tree.value, dict):
        kind = "a list" if isinstance(tree.value, list) else f"the text {str(tree.value)[:40]!r}"
        raise UserError(f"{file} holds {kind}, but a recipe is a mapping of keys; {SMALLEST}")
    contain = (lambda tree: check_leads_out(tree, file, out)) if writes else None
    return _finish(tree, problems, overrides, file.stem, file.parent, trust_code, (), (), contain)


def make_recipe(
    mapping: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    name: str = "recipe",
    folder: str | Path = ".",
    trust_code: bool = False,
    known_models: Collection[str] = (),
    known_sources: Collection[str] = ("python",),
) -> Recipe:
    """A recipe from Python data of the same form as the file.

    Args:
        mapping: keys and values as in YAML, short forms included.
        overrides: ``key=value`` texts, applied in order.
        name: the experiment's name where the mapping has none.
        folder: where relative paths are looked for after the current folder.
        trust_code: whether ``py:`` models and data may be used.
        known_models: names for ``model:`` that are accepted without being in any library (modules handed over).
        known_sources: names for ``data.source`` that are accepted without being in the table (data sets handed over).

    Raises:
        RecipeError: mistakes in the recipe; all of them in one message.
    """
    tree = from_python(mapping, Origin("recipe", ""))
    return _finish(tree, [], overrides, name, Path(folder), trust_code, known_models, known_sources)


def _finish(
    tree: Node,
    problems: list[Problem],
    overrides: Sequence[str],
    name: str,
    folder: Path,
    trust_code: bool,
    known_models: Collection[str],
    known_sources: Collection[str],
    contain: Callable[[Node], list[Problem]] | None = None,
) -> Recipe:
    write_out(tree)
    problems += apply_overrides(tree, overrides)
    _check_version(tree)
    renewed = [*renew_recipe(tree), *renew_options(tree)]
    name_mentors(tree)
    tree.value.setdefault("name", Node(name, tree.origin))
    problems += resolve_paths(tree, folder)
    problems += contain(tree) if contain is not None else []
    recipe, schema_problems = _validate(tree)
    problems += schema_problems
    problems += _check_task(tree)
    problems += check_data(tree, trust_code, known_sources)
    problems += check_models(tree, trust_code, known_models)
    problems += check_weights(tree, known_models)
    problems += check_mentors(tree)
    problems += check_methods(tree)
    problems += check_assistants(tree)
    problems += _training_problems(tree)
    if recipe is None:
        raise_if_any(problems)
    assert recipe is not None
    for check in (check_seeds, check_bank, check_machine):
        problems += check(tree, recipe)
    raise_if_any(problems)
    resolved = resolve(recipe)
    _check_labels(tree, resolved)
    resolved._renewed = tuple(renewed)
    return resolved


def _check_version(tree: Node) -> None:
    """Refuse a newer format before anything in it is called a mistake."""
    node = tree.child("schema")
    if node is not None and isinstance(node.value, int) and node.value > SCHEMA:
        sentence = f"this recipe is of version {node.value}, this classroomkd reads up to {SCHEMA}; update classroomkd"
        raise_if_any([problem(tree, ("schema",), sentence, value=False)])


# --- the schema -------------------------------------------------------------------------------------------------------

_EXAMPLES = {
    ("data",): "is missing; for example data: puppets, or data: imagefolder:DIR",
    ("student",): "is missing; for example student: resnet8",
    ("student", "model"): "is missing; name the network, for example model: resnet8",
}
# What a stage must say.
_OF_STAGE = {
    "epochs": "is missing; say how many passes over the training part this stage has, for example epochs: 10",
    "method": "is missing; name what teaches in this stage, for example method: none",
}


def _keys(model: type[BaseModel]) -> list[str]:
    keys = [field.alias or key for key, field in model.model_fields.items()]
    return [*keys, "checkpoint"] if "weights" in keys else keys  # another name of it


_METHOD_KEYS = ("tau", "rule", "temperature", "gate", "mentoring")
_KNOWN: list[tuple[tuple[str | None, ...], type[BaseModel]]] = [  # None stands for any index
    ((), Recipe),
    (("data",), DataSpec),
    (("data", "labels"), LabelsSpec),
    (("student",), StudentSpec),
    (("train",), TrainSpec),
    (("mentor_train",), TrainSpec),
    (("mentors", None), MentorSpec),
    (("mentors", None, "train"), MentorTrain),
    (("peers", None), PeerSpec),
    (("peers", None, "train"), PeerTrain),
    (("mentors", None, "taught_by"), TaughtBy),
    (("method", None, "stages", None), StageSpec),
    (("methods", None, None, "stages", None), StageSpec),
]


def _known(loc: Loc) -> list[str]:
    shape = tuple(None if isinstance(part, int) else part for part in loc)
    return next((_keys(model) for known, model in _KNOWN if known == shape), [])


def _elsewhere() -> dict[str, str]:
    """Keys of sections, for users who wrote one outside its section; the training keys first."""
    places: dict[str, str] = {}
    for section, model in (("train", TrainSpec), ("data", DataSpec), ("student", StudentSpec)):
        for key in _keys(model):
            places.setdefault(key, f"under '{section}:'")
    top = dict.fromkeys(_keys(Recipe), "at the top level")
    return {**places, **dict.fromkeys(_METHOD_KEYS, "under 'method:'"), **top}


def _validate(tree: Node) -> tuple[Recipe | None, list[Problem]]:
    try:
        return Recipe.model_validate(tree.plain()), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
        problems = from_pydantic(tree, errors, known=_known, elsewhere=_elsewhere(), skip=_method_without_name)
        return None, [_with_example(item) for item in problems]


def _method_without_name(error: Mapping[str, Any]) -> bool:
    """The method checks know better what an entry without a name should have been."""
    return error["type"] == "missing" and error["loc"][-1] == "name" and bool({"method", "methods"} & {*error["loc"]})


_SHORT_FORMS = ("data", "task", "student", "mentors", "peers", "method", "methods")


def _with_example(given: Problem) -> Problem:
    """Where a section is missing or of the wrong kind, say what may stand there."""
    path = str(given.path)
    if given.sentence == "is missing":
        key = path.rpartition(".")[2]
        if ".stages." in path and key in _OF_STAGE:
            return replace(given, sentence=_OF_STAGE[key])
        return Problem(given.origin, _EXAMPLES.get(tuple(path.split(".")), "is missing"), None, path)
    wrong_kind = "must be a mapping (key: value)"
    if given.sentence == wrong_kind and path.split(".")[0] in _SHORT_FORMS and not path.endswith("train"):
        return replace(given, sentence="must be a name or a mapping (key: value)")
    if given.sentence == "must be a list" and path == "mentors":
        return replace(given, sentence="must be a list: [resnet20, {name: big, model: wrn_40_2}]")
    return given


# --- what no schema can know ------------------------------------------------------------------------------------------


def _check_task(tree: Node) -> Iterator[Problem]:
    node = tree.child("task")
    if node is None or not isinstance(node.value, dict):
        return
    name = node.child("name")
    wanted = name.value if name is not None and isinstance(name.value, str) else tasks.DEFAULT
    loc: Loc = ("task",) if name is not None and name.origin.path == "task" else ("task", "name")
    if wanted not in tasks.names():
        known = tasks.names()
        yield problem(tree, loc, f"there is no such task{did_you_mean(wanted, known)}; there are {', '.join(known)}")
        return
    try:
        options = tasks.describe(wanted).options
    except UserError as error:  # a plug-in that cannot be loaded
        yield problem(tree, loc, str(error), value=False)
        return
    given = {key: value.plain() for key, value in node.value.items() if key != "name"}
    yield from option_problems(tree, ("task",), options, given, ["name"])


S = TypeVar("S", bound=TrainSpec)


def _section(tree: Node, loc: Loc, model: type[S]) -> S | None:
    """A training section on its own, or None when it is absent or wrong (then the schema has said so)."""
    node = tree.at(*loc)
    if node is None or not isinstance(node.value, dict):
        return None
    try:
        return model.model_validate(node.plain())
    except ValidationError:
        return None


def _training_problems(tree: Node) -> Iterator[Problem]:
    """Check every training section with what it inherits."""
    count = len(tree.items("mentors"))
    own = [_section(tree, ("mentors", index, "train"), MentorTrain) for index in range(count)]
    train, shared = _section(tree, ("train",), TrainSpec), _section(tree, ("mentor_train",), TrainSpec)
    defaults, trained = training_layers(train or TrainSpec(), shared, [*own])
    if train is not None:
        yield from check_training(tree, ("train",), train, frozenset(train.model_fields_set))
    if shared is not None:
        yield from check_training(tree, ("mentor_train",), defaults, frozenset(shared.model_fields_set))
    for index, (given, spec) in enumerate(zip(own, trained, strict=True)):
        if given is not None:
            yield from check_training(tree, ("mentors", index, "train"), spec, frozenset(given.model_fields_set))
    for loc, epochs in stage_epochs(tree):
        of_stage = (train or TrainSpec()).model_copy(update={"epochs": epochs})
        yield from check_training(tree, loc, of_stage, frozenset({"epochs"}))


def _check_labels(tree: Node, recipe: Recipe) -> None:
    problems, by_label = [], dict[str, list[int]]()
    for index, arm in enumerate(recipe.arms()):
        by_label.setdefault(arm.label, []).append(index)
    for label, positions in by_label.items():
        if len(positions) > 1:
            where = " and ".join(f"methods.{index}" for index in positions)
            sentence = f"{where} are both called '{label}'; change an option, or give one a label: NAME"
            problems.append(problem(tree, ("methods", positions[-1]), sentence, value=False))
    raise_if_any(problems)
