"""Methods: how the mentors teach. The table is lazy; ``create`` builds one by name and checks its options."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_type_hints

from classroomkd.errors import UserError, did_you_mean
from classroomkd.methods.table import METHODS, MethodEntry, entries

if TYPE_CHECKING:
    from pydantic import BaseModel

    from classroomkd.classroom.method import Method

__all__ = ["METHODS", "MethodEntry", "compose", "create", "entries", "method_class", "names", "options_model"]


def names() -> list[str]:
    """Every method's name, plug-ins included."""
    return list(entries())


def method_class(name: str) -> type[Method]:
    """The class behind a name.

    Raises:
        UserError: unknown name, or a plug-in that cannot be imported.
    """
    table = entries()
    if name not in table:
        raise UserError(f"unknown method '{name}'{did_you_mean(name, table)}; known: {', '.join(table)}")
    module, _, attribute = table[name].target.partition(":")
    try:
        found: type[Method] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"method '{name}' is listed as {table[name].target} but cannot be loaded: {error}") from error
    return found


def options_model(name: str) -> type[BaseModel]:
    """A pydantic model of a method's options, made from its constructor's keyword arguments and their hints."""
    from pydantic import ConfigDict, create_model

    cls = method_class(name)
    hints = get_type_hints(cls.__init__, include_extras=True)
    fields: dict[str, Any] = {
        key: (hints[key], parameter.default if parameter.default is not inspect.Parameter.empty else ...)
        for key, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }
    model: type[BaseModel] = create_model(f"{name}_options", __config__=ConfigDict(extra="forbid"), **fields)
    return model


def create(name: str, **options: Any) -> Method:
    """Build a method by name.

    Args:
        name: a row of the table.
        options: its constructor's keyword arguments.

    Raises:
        UserError: an unknown name, an unknown option, or a value out of range; all problems in one message.
    """
    from pydantic import ValidationError

    model = options_model(name)
    try:
        checked = model(**options)
    except ValidationError as error:
        known = list(model.model_fields)
        lines = []
        for problem in error.errors():
            key = ".".join(str(p) for p in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"unknown option '{key}'{did_you_mean(key, known)}; options: {', '.join(known) or 'none'}")
            else:
                lines.append(f"{key} = {problem['input']!r}: {problem['msg']}")
        raise UserError(f"method '{name}': " + "; ".join(lines)) from error
    return method_class(name)(**{key: getattr(checked, key) for key in checked.model_fields_set})


def compose(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> Method:
    """One method, or several as one: ``[("classroomkd", {"tau": 12}), ...]``; the first brings the supervised term."""
    built = [create(name, **options) for name, options in parts]
    if len(built) == 1:
        return built[0]
    from classroomkd.classroom.method import Composition

    return Composition(built, [name for name, _ in parts])
