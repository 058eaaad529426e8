"""Writes docs/reference.md from the recipe's JSON schema and the methods' options, and the schema itself as
recipes/recipe.schema.json: python docs/make_reference.py."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from classroomkd import methods
from classroomkd._pieces import model_of
from classroomkd.classroom.schedule import SCHEDULES
from classroomkd.methods.pieces import DIVERGENCES, WEIGHTINGS
from classroomkd.recipe import json_schema
from classroomkd.tasks import TASKS, offering

PAGE = Path(__file__).with_name("reference.md")
SCHEMA_FILE = Path(__file__).resolve().parents[1] / "recipes" / "recipe.schema.json"

HEAD = """\
# Every key of a recipe

Written by `python docs/make_reference.py` from the schema that recipes are checked against; change it there, not here.
`classroomkd list schema` prints the same schema as JSON, for editors (`recipes/recipe.schema.json`). How the parts fit:
[recipes](recipes.md).
"""

OTHERWISE = {"name": "What tables and folders call it; the model's name when left out."}  # keys without a description

# part of the schema -> (heading, one line)
PARTS: dict[str, tuple[str, str]] = {
    "": ("Top level", "`data` and `student` are needed, and one of `method` and `methods`."),
    "TaskSpec": ("task", "A text is short for `{name: TEXT}`; options stand beside the name."),
    "DataSpec": ("data", "A text is short for `{source: TEXT}`. What the keys do: [data](data.md)."),
    "LabelsSpec": ("labels", "Of `data`. At least one of the keys."),
    "StudentSpec": ("student", "A text is short for `{model: TEXT}`."),
    "MentorSpec": ("mentors", "A list; a text is short for `{model: TEXT}`, and the name is then the model's."),
    "PeerSpec": ("peers", "A list; a text is short for `{model: TEXT}`, and the name is then the model's."),
    "PeerTrain": ("peers, train", "What differs from `train`; all other keys are the student's."),
    "StageSpec": (
        "stages",
        "Of an entry of `method` or `methods`, in place of a method: a list. See [recipes](recipes.md#stages).",
    ),
    "TaughtBy": ("taught_by", "A text or a list of texts is short for `{mentors: [...]}`."),
    "TrainSpec": ("train and mentor_train", "Keys that `mentor_train` does not give are those of `train`."),
    "MentorTrain": (
        "mentors, train",
        "Every key of `train`, and the following. Keys that are not given are those of `mentor_train`.",
    ),
}

MEANINGS = {"TaskSpec": {"name": f"{' or '.join(f'`{name}`' for name in TASKS)}."}}  # part -> instead of OTHERWISE

SPELLED = {  # values that the schema spells out in every form, in words
    ("DataSpec", "shard"): "text `k/n` or `null`",
    ("MentorSpec", "taught_by"): "`null` or text or list of text or mapping, see [taught_by](#taught_by)",
    ("StageSpec", "method"): "what `method` may be, see [methods](#methods)",
    ("StageSpec", "trainees"): "`null` or `all`, text or list of text",
    ("TaughtBy", "mentors"): "text or list of text",
    ("TaughtBy", "method"): "`null` or what `method` may be, see [methods](#methods)",
}

DEFAULTS = (
    "Where a default names a task, it is the one there: "
    "`4`, pose `1` is 1 under `task: pose` and 4 elsewhere. What counts, in "
    "this order: the option as it is written; what `strength: matched` sets; the default of the task; the default."
)
# What every method takes beside its own options.
COMMON = {
    "strength": "`matched`: every mentors' term is divided by what its weights sum to over the mentors.",
    "schedule": "Factor of the mentors' terms by time, see [schedule](#schedule). `dkd` and `dtkd` bring `warmup`, "
    "`dwpose` `decay`.",
}
PIECES = (
    (
        "schedule",
        SCHEDULES,
        "Of every method: a name, or `{NAME: {OPTION: VALUE}}`. Time counts from 0, from step to step.",
    ),
    ("weighting", WEIGHTINGS, "Of `weighted`: how much each mentor counts."),
    ("divergence", DIVERGENCES, "Of `weighted`, and of the methods that have this option: how far the student is."),
)


def kind(schema: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        return f"mapping, see [{PARTS[schema['$ref'].rpartition('/')[2]][0]}](#{_anchor(schema['$ref'])})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    words = {"null": "`null`", "string": "text", "boolean": "`true` or `false`", "object": "mapping"}
    if schema.get("type") == "array":
        items = schema.get("items")
        if "prefixItems" in schema:
            return f"[{', '.join(kind(item) for item in schema['prefixItems'])}]"
        return f"list of {kind(items)}" if items else "list"
    if schema.get("type") in ("integer", "number"):
        return ("whole number" if schema["type"] == "integer" else "number") + _bounds(schema)
    if "pattern" in schema:
        return f"text `{_readable(schema['pattern'])}`"
    return words.get(str(schema.get("type")), "anything")


def _readable(pattern: str) -> str:
    """A pattern of choices as one reads it."""
    plain = pattern.removeprefix("^").removesuffix("$").replace("[1-9][0-9]*", "V").replace("(:[0-9]+)?", "[:N]")
    plain = plain.replace("(,top=V)?", "[,top=K]")
    return plain.removeprefix("(").removesuffix(")").replace("|", "\\|")


def _bounds(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f" {', '.join(said)}" if said else ""


def _anchor(reference: str) -> str:
    heading = PARTS[reference.rpartition("/")[2]][0]
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def default(schema: dict[str, Any]) -> str:
    """The default as it is written in YAML, or a dash where the key is needed."""
    if "default" not in schema:
        return "`{}`" if schema.get("type") == "object" else "–"
    value = schema["default"]
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == "":
        return "`''`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(
    properties: dict[str, dict[str, Any]],
    meanings: dict[str, str],
    part: str = "",
    elsewhere: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """A row a key; ``elsewhere`` has, by task and key, defaults that differ there."""

    def written(key: str, schema: dict[str, Any]) -> str:
        others = [f"{task} {default({'default': own[key]})}" for task, own in (elsewhere or {}).items() if key in own]
        return ", ".join([default(schema), *others])

    rows = [
        f"| `{key}` | {SPELLED.get((part, key)) or kind(schema)} | {written(key, schema)} | {meanings.get(key, '')} |"
        for key, schema in properties.items()
    ]
    return ["| key | value | default | meaning |", "|---|---|---|---|", *rows]


def _described(properties: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        key: schema.get("description", OTHERWISE.get(key, "")).replace("``", "`") for key, schema in properties.items()
    }


TOP = {  # what the schema says by shape, in words
    "schema": "`1`",
    "task": "text or mapping, see [task](#task)",
    "data": "text or mapping, see [data](#data)",
    "student": "text or mapping, see [student](#student)",
    "mentors": "list of text or mapping, see [mentors](#mentors)",
    "method": "text, mapping or list, see [methods](#methods)",
    "methods": "list of what `method` may be",
    "seeds": "whole number ≥ 0 or list of them",
    "train": "mapping, see [train and mentor_train](#train-and-mentor_train)",
    "mentor_train": "mapping, see [train and mentor_train](#train-and-mentor_train)",
}
TOP_DEFAULTS = {
    "task": "`classification`",
    "mentors": "`[]`",
    "seeds": "`[0]`",
    "name": "the file's name",
    "train": "its keys' own",
}


def _top(properties: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, schema in properties.items():
        value, given = TOP.get(key) or kind(schema), TOP_DEFAULTS.get(key) or default(schema)
        lines.append(f"| `{key}` | {value} | {given} | {_described({key: schema})[key]} |")
    return lines


def _arguments(doc: str) -> dict[str, str]:
    """The ``Args:`` of a docstring by name."""
    _, _, part = inspect.cleandoc(doc).partition("Args:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in part.splitlines():
        start = re.match(r"^    (\w+(?:, \w+)*): (.*)$", line)  # "alpha, beta: factors of the two."
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.startswith("        ") and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return {key: text.replace("``", "`") for key, text in found.items()}


def _tasks() -> list[str]:
    """The options of every task that has some."""
    lines = []
    for name, row in TASKS.items():
        model = row.description.options
        properties = model.model_json_schema().get("properties", {})
        if properties:
            page = f" → [{name}]({name}.md)" if PAGE.with_name(f"{name}.md").is_file() else ""
            lines += [f"### task: {name}", "", f"Beside `name: {name}`.{page}", ""]
            lines += [*_table(properties, _described(properties)), ""]
    return lines


def _methods() -> list[str]:
    lines = ["## methods", "", "An entry is a name, or `{name: NAME, label: TEXT}` with options beside them.", ""]
    lines += [DEFAULTS, ""]
    properties = methods.options_model("average").model_json_schema()["properties"]
    lines += ["Every method takes:", "", *_table({key: properties[key] for key in COMMON}, COMMON), ""]
    for name, entry in methods.METHODS.items():
        page = f"[{name}](methods/{name}.md)"
        schema = methods.options_model(name).model_json_schema()
        own = {key: option for key, option in schema["properties"].items() if key not in COMMON}
        lines += [f"### {name}", "", f"{entry.summary[:1].upper()}{entry.summary[1:]}. → {page}", ""]
        lines += [*_options(own, methods.method_class(name), _elsewhere(name, offering(entry.asks))), ""]
    return lines


def _elsewhere(name: str, tasks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By task, a method's defaults that are not its constructor's."""
    usual = methods.defaults(name)
    return {task: {k: v for k, v in methods.defaults(name, task).items() if v != usual[k]} for task in tasks}


def _options(
    properties: dict[str, dict[str, Any]], cls: type, elsewhere: Mapping[str, Mapping[str, Any]] | None = None
) -> list[str]:
    if not properties:
        return ["No options of its own."]
    return _table(properties, _arguments(cls.__doc__ or ""), elsewhere=elsewhere)


def _pieces() -> list[str]:
    """The tables of what methods are put together from."""
    lines = []
    for heading, table, remark in PIECES:
        lines += [f"## {heading}", "", remark, ""]
        for name, cls in table.items():
            says, properties = _first_line(cls), model_of(cls).model_json_schema().get("properties", {})
            lines += [f"### {heading}: {name}", "", says, "", *_options(properties, cls), ""]
    return lines


def _first_line(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0].replace("``", "`")


def reference() -> str:
    """The text of docs/reference.md."""
    schema = json_schema()
    parts = {"": schema, **schema["$defs"]}
    lines = [HEAD]
    for part, (heading, remark) in PARTS.items():
        properties = dict(parts[part]["properties"])
        if part == "MentorTrain":
            properties = {
                key: value for key, value in properties.items() if key not in parts["TrainSpec"]["properties"]
            }
        meanings = _described(properties) | MEANINGS.get(part, {})
        table = _top(properties) if part == "" else _table(properties, meanings, part)
        lines += [f"## {heading}", "", remark, "", *table, ""]
        lines += _tasks() if part == "TaskSpec" else []
    return "\n".join([*lines, *_methods(), *_pieces()]).rstrip() + "\n"


def schema_text() -> str:
    """The text of recipes/recipe.schema.json, which ``classroomkd list schema`` prints, too."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text())
    PAGE.write_text(reference())
