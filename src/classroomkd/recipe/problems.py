"""What is wrong with a recipe, said so that the user knows what to type: pydantic's findings and ours in one form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from classroomkd.errors import UserError, did_you_mean
from classroomkd.recipe.nodes import Loc, Node, Origin

__all__ = ["Problem", "RecipeError", "from_pydantic", "option_problems", "problem", "raise_if_any", "show"]


_MOST_LINES = 30  # one screen


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what was written there (already formatted, or None) and the sentence that mends it."""

    origin: Origin
    sentence: str
    value: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        path = self.origin.path if self.path is None else self.path
        what = path if self.value is None else f"{path} = {self.value}"
        return f"{self.origin}: {what}: {self.sentence}" if what else f"{self.origin}: {self.sentence}"


class RecipeError(UserError):
    """Everything that is wrong with a recipe, in one message; ``problems`` has them one by one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        ordered = sorted(dict.fromkeys(problems), key=lambda p: (p.origin.line is None, p.origin.line or 0))
        self.problems = tuple(ordered)
        if len(ordered) == 1:
            message = str(ordered[0])
        else:
            lines = "\n".join(f"  {item}" for item in ordered[:_MOST_LINES])
            if len(ordered) > _MOST_LINES:
                lines += f"\n  … and {len(ordered) - _MOST_LINES} more"
            message = f"the recipe has {len(ordered)} mistakes; nothing was started.\n{lines}"
        super().__init__(message)


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Raise all problems as one :class:`RecipeError`."""
    if problems:
        raise RecipeError(problems)


def show(value: Any) -> str:
    """A value as the user would write it in YAML, at most about 60 characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
        return text if len(text) <= 60 else f"a mapping of {len(value)} keys"
    if isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in value) + "]"
        return text if len(text) <= 60 else f"a list of {len(value)}"
    return str(value)


def problem(tree: Node, loc: Loc, sentence: str, *, value: bool = True) -> Problem:
    """A problem at ``loc`` of the tree; where the place does not exist, the nearest one above it is named."""
    node, rest = tree.find(loc)
    shown = show(node.plain()) if value and not rest and node.origin.path else None
    path = node.origin.path
    if rest:
        path = ".".join([path, *map(str, rest)] if path else map(str, rest))
    return Problem(node.origin, sentence, shown, path)


# --- pydantic ---------------------------------------------------------------------------------------------------------

# What a value must be, by pydantic's error type. Several for one value (a union) are joined by "or".
_MUST_BE = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "none_required": "null",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "some text",
}

# Texts of a given form, by the last part of their place.
_FORMS = {
    "bank": "auto, off, exact or views=V (V views a sample, for example views=8), with ,top=K for K logits a sample",
    "device": "auto, cpu, cuda, cuda:N or mps",
}

# What people coming from other tools call our keys.
_OTHER_NAMES = {
    "teacher": "mentors",
    "teachers": "mentors",
    "mentor": "mentors",
    "peer": "peers",
    "dataset": "data",
    "model": "student",
    "seed": "seeds",
    "epoch": "epochs",
    "learning_rate": "lr",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "scheduler": "schedule",
    "lr_schedule": "schedule",
    "optimiser": "optimizer",
    "opt": "optimizer",
    "warmup": "warmup_epochs",
    "grad_clip": "clip",
    "amp": "precision",
    "temperature": "tau",
    "tau": "temperature",
    "t": "tau",
    "ckpt": "weights",
    "init": "weights",
    "subset": "samples",
    "noise": "label_noise",
    "image_size": "size",
    "augmentation": "views",
    "transform": "views",
}


# Keys that other tools have, and the value that says the same here.
_WRITTEN = {
    "pretrained": ("weights", "weights: pretrained (its library's published weights) or weights: FILE"),
    "trained": ("weights", "weights: trained"),
}


def from_pydantic(
    tree: Node,
    errors: Iterable[Mapping[str, Any]],
    *,
    prefix: Loc = (),
    known: Callable[[Loc], Sequence[str]],
    elsewhere: Mapping[str, str] | None = None,
    skip: Callable[[Mapping[str, Any]], bool] = lambda error: False,
) -> list[Problem]:
    """Pydantic's errors as problems.

    Args:
        tree: the recipe's nodes.
        errors: ``ValidationError.errors()``.
        prefix: where in the tree the validated mapping stands.
        known: the keys that are right in the mapping at a location.
        skip: errors that somebody else reports.
        elsewhere: key -> where it belongs (``under 'train:'``), for keys that exist but in another section.
    """
    errors = list(errors)
    misspelt = set[Loc]()  # the right key of a misspelt one is not missing as well
    for error in errors:
        inside = tuple(error["loc"][:-1])
        if error["type"] == "extra_forbidden":
            near = get_close_matches(str(error["loc"][-1]), known(prefix + inside), n=1, cutoff=0.5)
            misspelt |= {(*inside, key) for key in near}
    places = [tuple(error["loc"]) for error in errors]
    grouped: dict[Loc, list[Mapping[str, Any]]] = {}
    for error in errors:
        own = tuple(error["loc"])
        if skip(error) or (error["type"] == "missing" and own in misspelt):
            continue
        if error["type"] == "too_short" and any(place[: len(own)] == own != place for place in places):
            continue  # only short of the entries that are wrong
        loc = prefix + own
        if error["type"] not in ("missing", "extra_forbidden"):
            # A union adds its member's name to the location; the members' findings belong together.
            rest = tree.find(loc)[1]
            loc = loc[: len(loc) - len(rest)]
        grouped.setdefault(loc, []).append(error)
    return [_translate(tree, loc, alike, known, elsewhere or {}) for loc, alike in grouped.items()]


def option_problems(
    tree: Node, loc: Loc, model: type[BaseModel], given: Mapping[str, Any], beside: Sequence[str]
) -> list[Problem]:
    """What ``model`` says of the options ``given`` at ``loc``, where the keys ``beside`` may stand too."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        known = [*beside, *model.model_fields]
        return from_pydantic(tree, error.errors(include_url=False), prefix=loc, known=lambda _: known)
    return []


def _translate(
    tree: Node,
    loc: Loc,
    errors: Sequence[Mapping[str, Any]],
    known: Callable[[Loc], Sequence[str]],
    elsewhere: Mapping[str, str],
) -> Problem:
    first = errors[0]
    if first["type"] == "missing":
        return problem(tree, loc, "is missing")
    if first["type"] == "extra_forbidden":
        return problem(tree, loc, _unknown_key(str(loc[-1]), known(loc[:-1]), elsewhere), value=False)
    wanted: list[str] = []
    sentences: list[str] = []
    for error in errors:
        context = {key: _plain(value) for key, value in (error.get("ctx") or {}).items()}
        if error["type"] == "string_pattern_mismatch" and loc[-1] in _FORMS:
            wanted.append(_FORMS[str(loc[-1])])
        elif error["type"] in _MUST_BE:
            wanted.append(_MUST_BE[error["type"]].format_map(context))
        else:
            sentences.append(context["error"] if error["type"] == "value_error" else str(error["msg"]).lower())
    if "a number" in wanted:  # a whole number is one
        wanted = [phrase for phrase in wanted if phrase != "a whole number"]
    if wanted:
        value = first["input"]
        literal = [w.strip("'\" ") for e in errors if e["type"] == "literal_error" for w in _options(e)]
        hint = did_you_mean(value, literal) if isinstance(value, str) and len(literal) > 1 else ""
        sentences.insert(0, f"must be {' or '.join(dict.fromkeys(wanted))}{hint}{_slip(value, wanted)}")
    return problem(tree, loc, "; ".join(sentences))


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _options(error: Mapping[str, Any]) -> list[str]:
    return str(error["ctx"]["expected"]).replace(" or ", ", ").split(", ")


def _slip(value: Any, wanted: Sequence[str]) -> str:
    """The usual slips of the pen, by what was written."""
    if "a list" in wanted and isinstance(value, int | float):
        return f" (write [{value}])"
    if not isinstance(value, str):
        return ""
    text = value.strip().lower()
    if "true or false" in wanted:
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text)
        if meant:
            return f" (write {meant})"
    if text == "none":
        return " (nothing is written null)"
    if text.replace(".", "", 1).replace("-", "", 1).isdigit():
        return " (without quotes)"
    if "a list" in wanted and "," in text:
        return f" (write [{value.strip()}])"
    return ""


_OPTIONS = {
    "out": "--out DIR", "resume": "--resume", "dry_run": "--dry-run", "full": "--full", "quiet": "--quiet",
    "trust_code": "--trust-code", "json": "--json",
}  # fmt: skip


def _unknown_key(key: str, known: Sequence[str], elsewhere: Mapping[str, str]) -> str:
    if ":" in key.strip(":"):
        return f"a space is missing after ':'; write {key.replace(':', ': ', 1)}"
    key_meant, written = _WRITTEN.get(key.lower(), ("", ""))
    if key_meant in known:
        return f"unknown key; write {written}"
    if written:
        return f"unknown key here; under 'student:' or a mentor, write {written}"
    option = _OPTIONS.get(key.lower().replace("-", "_"))
    if option and "mentors" in known:
        return f"unknown key; on the command line that is the option {option}"
    other = _OTHER_NAMES.get(key.lower(), "")
    if other in known:
        return f"unknown key; here it is called '{other}'"
    if key in elsewhere:
        return f"unknown key here; it belongs {elsewhere[key]}"
    if other in elsewhere:
        return f"unknown key here; it is called '{other}' and belongs {elsewhere[other]}"
    closest = next(iter(get_close_matches(key, [*known, *elsewhere], n=1, cutoff=0.7)), None)
    if closest is not None and closest not in known:
        return f"unknown key here; perhaps '{closest}', which belongs {elsewhere[closest]}"
    return f"unknown key{did_you_mean(key, known) or '; known: ' + (', '.join(known) or 'none')}"
