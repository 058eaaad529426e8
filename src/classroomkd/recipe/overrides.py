"""``key=value`` on the command line: ``student=resnet8x4 method.tau=8 mentors.0.model=vgg8 seeds=[0,1,2]``.

The value is YAML, but for text, which is taken as it is typed (``data.source=imagefolder:my #2``). Setting a key
replaces what stood there, a whole section included (``data=digits`` forgets the old source's options). ``method.tau``
addresses the first entry of the method; list entries are named by their index or, for mentors and methods, by their
name. ``method`` and ``methods`` replace each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from classroomkd._printable import REPLACED
from classroomkd.errors import did_you_mean
from classroomkd.recipe.nodes import Node, Origin
from classroomkd.recipe.problems import Problem, RecipeError, show
from classroomkd.recipe.short_forms import derived_name, write_out
from classroomkd.recipe.yaml_source import read_yaml

__all__ = ["apply_overrides"]

PLACE = "command line"
_MEANS_YAML = "[{\"'|>&*!"
_REPLACES = {"method": "methods", "methods": "method"}


def apply_overrides(tree: Node, overrides: Sequence[str]) -> list[Problem]:
    """Apply overrides to a recipe's tree in place, in order; returns what is wrong with them."""
    problems: list[Problem] = []
    for text in overrides:
        key, equals, written = text.partition("=")
        key = key.strip()
        origin = Origin(PLACE, key)
        if not equals or not key or any(not part for part in key.split(".")):
            problems.append(
                Problem(Origin(PLACE, ""), f"'{text}' is not an override; write key=value or key.path=value")
            )
            continue
        if (shown := text.encode(errors=REPLACED).decode()) != text:
            sentence = f"'{shown}' holds bytes that are no text (UTF-8); rename what it names, or make a link to it"
            problems.append(Problem(Origin(PLACE, ""), sentence))
            continue
        if not written.strip():
            problems.append(Problem(origin, "no value after '='; write null for nothing"))
            continue
        try:
            node, wrong = _read(written, origin)
            problems += wrong
            _assign(tree, key.split("."), node)
        except RecipeError as error:
            problems += [_for_shells(item) for item in error.problems]
        write_out(tree)
    return problems


def _read(written: str, origin: Origin) -> tuple[Node, list[Problem]]:
    """The value of an override. Text is what was typed: ``#``, ``: ``, ``%`` and the like mean nothing in a path.

    Raises:
        RecipeError: lists, mappings and quotes that are not YAML.
    """
    text = written.strip()
    if text[0] in _MEANS_YAML:
        return read_yaml(written, origin)
    try:
        node, wrong = read_yaml(text, origin)
    except RecipeError:
        return Node(text, origin), []
    # What YAML took for a comment, a list or the key of a mapping belongs to the text.
    plain = not wrong and not isinstance(node.value, str | list | dict) and "#" not in text
    return (node, wrong) if plain else (Node(text, origin), [])


def _for_shells(given: Problem) -> Problem:
    """Brackets and quotes are often lost to the shell, which splits at blanks."""
    if "closed" not in given.sentence:
        return given
    return Problem(given.origin, f"{given.sentence} (in a shell, put single quotes round the whole override)")


def _assign(tree: Node, parts: Sequence[str], node: Node) -> None:
    top = parts[0]
    if len(parts) == 1 and top in _REPLACES and node.value is None:
        tree.value.pop(top, None)  # nothing replaces nothing
        return
    if len(parts) == 1:
        tree.value.pop(_REPLACES.get(top), None)
        tree.value[top] = node
        return
    if top in _REPLACES and top not in tree.value:
        other = _REPLACES[top]
        example = "methods.0." if other == "methods" else "method."
        if other in tree.value:
            sentence = f"this recipe has '{other}', not '{top}'; write {example}{'.'.join(parts[1:])}=… or {top}=…"
            raise RecipeError([Problem(node.origin, sentence)])
    here, rest = _descend(tree, parts, node.origin)
    if isinstance(here.value, list):
        index = _index(here, rest, parts[-2], node.origin)
        here.value[index] = node
    else:
        here.value[rest] = node


def _descend(tree: Node, parts: Sequence[str], origin: Origin) -> tuple[Node, str]:
    """The mapping or list that holds the last part, made where it is missing, and the last part."""
    here, walked = tree, ""
    for part, following in pairwise(parts):
        if isinstance(here.value, list):
            here = here.value[_index(here, part, walked, origin)]
        else:
            if part not in here.value or here.value[part].value is None:
                here.value[part] = Node({}, Origin(origin.place, f"{walked}.{part}" if walked else part))
            here = here.value[part]
        walked = f"{walked}.{part}" if walked else part
        while isinstance(here.value, list) and parts[0] in _REPLACES and _enters_first(here, following):
            here = here.value[0]
        if not isinstance(here.value, dict | list):
            sentence = f"'{walked}' is the single value {show(here.value)}, so it has no '{following}'"
            raise RecipeError([Problem(origin, sentence)])
    return here, parts[-1]


def _enters_first(here: Node, part: str) -> bool:
    """Whether ``part`` is an option of a method's first entry rather than an entry of the list."""
    is_method = bool(here.value) and isinstance(here.value[0].value, dict)
    return is_method and not _is_index(part) and not _named(here, part)


def _is_index(part: str) -> bool:
    return part.lstrip("-").isdigit()


def _names(item: Node) -> set[str]:
    """What an entry of ``mentors``, ``method`` or ``methods`` may be called by."""
    if isinstance(item.value, list):  # an arm of the grid goes by its first entry
        return _names(item.value[0]) if item.value else set()
    given = {text for key in ("name", "label") if (text := item.text(key)) is not None}
    model = item.text("model")
    return {derived_name(model)} if not given and model is not None else given


def _named(here: Node, part: str) -> list[int]:
    return [index for index, item in enumerate(here.value) if part in _names(item)]


def _index(here: Node, part: str, walked: str, origin: Origin) -> int:
    if _is_index(part):
        index = int(part)
        if -len(here.value) <= index < len(here.value):
            return index
        count = len(here.value)
        holds = {0: "is an empty list", 1: "has one entry, 0"}.get(count, f"has {count} entries, counted from 0")
        raise RecipeError([Problem(origin, f"'{walked}' {holds}")])
    indices = _named(here, part)
    if len(indices) == 1:
        return indices[0]
    names = sorted(set().union(*map(_names, here.value))) if here.value else []
    if indices:
        shown = ", ".join(map(str, indices))
        sentence = f"'{walked}' has {len(indices)} entries called '{part}'; use an index ({shown})"
    else:
        listed = f" or a name ({', '.join(names)})" if names else ""
        sentence = f"'{walked}' is a list: '{part}' must be an index{listed}{did_you_mean(part, names)}"
    raise RecipeError([Problem(origin, sentence)])
