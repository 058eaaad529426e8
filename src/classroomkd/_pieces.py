"""Pieces of methods (divergences, weightings, schedules): built from a name or a mapping, as a recipe writes them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["checked", "make", "model_of", "named"]

T = TypeVar("T")


@cache
def model_of(cls: Any) -> type[BaseModel]:
    """A pydantic model of a class's options, made from its constructor's arguments and their hints."""
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {}
    if cls.__init__ is not object.__init__:
        hints = get_type_hints(cls.__init__, include_extras=True)
        for key, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
            if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                fields[key] = (hints[key], ... if parameter.default is inspect.Parameter.empty else parameter.default)
    model: type[BaseModel] = create_model(f"{cls.__name__}_options", __config__=ConfigDict(extra="forbid"), **fields)
    return model


def checked(what: str, model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    """The given options, validated.

    Raises:
        UserError: unknown options and values out of range, all in one message that begins with ``what``.
    """
    from pydantic import ValidationError

    try:
        valid = model(**options)
    except ValidationError as error:
        known = list(model.model_fields)
        lines = []
        for problem in error.errors():
            key = ".".join(str(p) for p in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"unknown option '{key}'{did_you_mean(key, known)}; options: {', '.join(known) or 'none'}")
            elif problem["type"] == "missing":
                lines.append(f"'{key}' is missing")
            else:
                lines.append(f"{key} = {problem['input']!r}: {problem['msg']}")
        raise UserError(f"{what}: " + "; ".join(lines)) from error
    return {key: getattr(valid, key) for key in valid.model_fields_set}


def make(kind: str, table: Mapping[str, type[T]], value: str | Mapping[str, Any]) -> T:
    """Build a piece.

    Args:
        kind: what it is, for messages: ``divergence``.
        table: classes by name.
        value: ``dist``, ``{dist: {beta: 2}}`` or ``{name: dist, beta: 2}``.

    Raises:
        UserError: an unknown name or option, a value out of range.
    """
    name, options = named(kind, value)
    if name not in table:
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, table)}; there are {', '.join(table)}")
    return table[name](**checked(f"{kind} '{name}'", model_of(table[name]), options))  # type: ignore[arg-type]


def named(kind: str, value: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a piece and its options; see :func:`make`.

    Raises:
        UserError: more than one, or none.
    """
    if isinstance(value, str):
        return value, {}
    if len(value) == 1 and "name" not in value:
        ((name, inner),) = value.items()
        if inner is not None and not isinstance(inner, Mapping):
            raise UserError(
                f"{kind} '{name}': its options are a mapping, not {inner!r}; write {{{name}: {{OPTION: {inner!r}}}}}"
            )
        return name, dict(inner or {})
    options = dict(value)
    name = options.pop("name", "")
    if not name:
        given = ", ".join(map(str, value)) or "nothing"
        raise UserError(f"{kind}: one at a time, got {given}; write {{NAME: {{OPTION: VALUE}}}}")
    return name, options
