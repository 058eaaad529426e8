"""YAML text into nodes: safe, with line numbers, and errors in one sentence.

The scalars are those of YAML 1.2's core schema: only ``true`` and ``false`` are booleans (``bank: off`` is the word),
``1e-3`` is a number, a date is text. No tag constructs anything; a key that appears twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from classroomkd.recipe.nodes import Node, Origin
from classroomkd.recipe.problems import Problem, RecipeError

__all__ = ["read_yaml"]

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_PLAIN_TAGS = {_NULL, _BOOL, _INT, _FLOAT, *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))}
_MOST_NODES = 20_000  # aliases of aliases can make a short text enormous


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2; only its composer is used."""


_Loader.yaml_implicit_resolvers = {}  # not YAML 1.1's, where ``off`` is false and ``1e-3`` is text
_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)

_SCALARS: dict[str, Callable[[str], Any]] = {
    _NULL: lambda text: None,
    _BOOL: lambda text: text.lower() == "true",
    _INT: int,
    _FLOAT: lambda text: float(re.sub(r"\.(inf|nan)", r"\1", text.lower())),
}

# PyYAML's words -> ours; the first that matches is used. The line is added by the caller.
_SENTENCES: list[tuple[str, str]] = [
    (r"character '\\t'", "a tab stands where YAML allows only spaces; indent with spaces"),
    (r"mapping values are not allowed", "a ':' too many in this line, or it is indented deeper than the line above it; "
     "text that contains ': ' needs quotes"),
    (r"expected ',' or '\]'", "a '[' is not closed, or a comma is missing"),
    (r"expected ',' or '\}'", "a '{' is not closed, or a comma is missing"),
    (r"expected <block end>", "this line is indented differently from its neighbours"),
    (r"could not find expected ':'", "a key without ':'; write 'key: value'"),
    (r"found unexpected end of stream", "a quote is opened and never closed"),
    (r"found undefined alias|while scanning an (?:alias|anchor)",
     "an alias (*name) without its anchor (&name); text that starts with '*' needs quotes"),
    (r"expected a single document", "one recipe a file; remove the second '---'"),
    (r"found duplicate anchor", "an anchor (&name) is defined twice"),
    (r"special characters are not allowed", "an invisible control character; retype this line"),
    (r"sequence entries are not allowed", "a '-' where no list can begin; text that starts with '-' needs quotes"),
    (r"expected the node content", "a value is missing here, or a character too many"),
    (r"chomping or indentation|a comment or a line break", "'|' and '>' begin text of several lines; else use quotes"),
    (r"while (?:parsing|scanning) a tag", "'!' begins a tag, which recipes do not have; put the text in quotes"),
    (r"cannot start any token", "this character cannot start a value; put the text in quotes"),
]  # fmt: skip


def read_yaml(text: str, where: str | Origin) -> tuple[Node, list[Problem]]:
    """A text as a tree, with the problems (repeated keys, tags) that do not stop the reading.

    Args:
        text: a whole file, or the value of a ``key=value`` override.
        where: the file's place, or the override's origin, whose lines do not count.

    Raises:
        RecipeError: text that is not YAML.
    """
    lines = isinstance(where, str)
    origin = Origin(where, "") if isinstance(where, str) else where
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise RecipeError([_syntax(error, text, origin, lines)]) from error
    build = _Build(lines)
    return (Node(None, origin) if root is None else build.node(root, origin)), build.problems


def _syntax(error: yaml.YAMLError, text: str, origin: Origin, lines: bool) -> Problem:
    words, mark = str(error), getattr(error, "problem_mark", None)
    context = getattr(error, "context_mark", None)
    sentence = next((ours for theirs, ours in _SENTENCES if re.search(theirs, words)), None)
    if sentence is None:
        sentence = f"not readable as YAML: {getattr(error, 'problem', None) or words.splitlines()[0]}"
    # What is missing (a bracket, a quote, a colon) is missed further down; the line that began it is the one to mend.
    begun = re.search("is not closed|never closed|without ':'", sentence)
    blamed = context if begun else mark
    line = blamed.line + 1 if lines and blamed is not None else None
    if line is not None and line > 1 and "a ':' too many" in sentence:
        above = text.splitlines()[line - 2]
        if re.match(r"\s*[\w-]+:\S", above):
            line, sentence = line - 1, f"a space is missing after ':'; write {above.strip().replace(':', ': ', 1)}"
    return Problem(Origin(origin.place, origin.path, line), sentence)


class _Build:
    """Composed YAML nodes into ours, collecting what is wrong on the way."""

    def __init__(self, lines: bool) -> None:
        self.lines, self.problems, self.count = lines, list[Problem](), 0
        self.above: list[int] = []

    def _line(self, node: yaml.Node) -> int | None:
        return node.start_mark.line + 1 if self.lines else None

    def node(self, raw: yaml.Node, origin: Origin) -> Node:
        self.count += 1
        if self.count > _MOST_NODES or id(raw) in self.above:
            raise RecipeError([Problem(origin, "aliases (*name) that contain themselves, or far too many of them")])
        if raw.tag not in _PLAIN_TAGS:
            tag = raw.tag.replace("tag:yaml.org,2002:", "!!")
            self.problems.append(Problem(origin, f"the tag {tag} is not accepted; recipes hold plain values only"))
            return Node(None, origin)
        self.above.append(id(raw))
        try:
            return Node(self._value(raw, origin), origin)
        finally:
            self.above.pop()

    def _value(self, raw: yaml.Node, origin: Origin) -> Any:
        if isinstance(raw, yaml.SequenceNode):
            return [self.node(item, origin.child(index, self._line(item))) for index, item in enumerate(raw.value)]
        if isinstance(raw, yaml.MappingNode):
            return self._mapping(raw, origin)
        return _SCALARS.get(raw.tag, str)(raw.value)

    def _mapping(self, raw: yaml.MappingNode, origin: Origin) -> dict[str, Node]:
        mapping: dict[str, Node] = {}
        for key, item in raw.value:
            here = origin.child(str(key.value), self._line(key))
            if not isinstance(key, yaml.ScalarNode):
                bare = Origin(origin.place, origin.path, self._line(key))
                self.problems.append(Problem(bare, "a key must be a word, not a list or mapping"))
            elif key.value in mapping:
                earlier = mapping[key.value].origin.line
                where = f" (first in line {earlier})" if earlier else ""
                self.problems.append(Problem(here, f"this key is given twice{where}; keep one"))
            else:
                mapping[key.value] = self.node(item, here)
        return mapping
