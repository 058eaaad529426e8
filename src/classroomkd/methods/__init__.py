"""Methods: how the mentors teach. The table is lazy; ``create`` builds one by name and checks its options."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from classroomkd._pieces import checked, model_of
from classroomkd.errors import UserError, did_you_mean
from classroomkd.methods.table import METHODS, MethodEntry, entries

if TYPE_CHECKING:
    from pydantic import BaseModel

    from classroomkd.classroom.method import Method

__all__ = [
    "METHODS",
    "MethodEntry",
    "compose",
    "create",
    "defaults",
    "entries",
    "filled",
    "lasting",
    "method_class",
    "names",
    "options_model",
    "raised",
    "renewed",
    "since",
]


# What every method takes beside its own options; applied by the base class.
COMMON: dict[str, Any] = {
    "strength": (Literal["native", "matched"], "native"),
    "schedule": (str | Mapping[str, Any], "constant"),
}


def names() -> list[str]:
    """Every method's name, plug-ins included."""
    return list(entries())


def raised(parts: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """By name, the versions of an arm's methods (``(name, options)``) that are above 1; a key that is made of this is
    what it was before methods had versions."""
    table = entries()
    return {name: table[name].version for name, _ in parts if name in table and table[name].version > 1}


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
        cls: type[Method] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"method '{name}' is listed as {table[name].target} but cannot be loaded: {error}") from error
    return cls


@cache
def options_model(name: str) -> type[BaseModel]:
    """A pydantic model of a method's options: its constructor's keyword arguments and what every method takes."""
    from pydantic import create_model

    own = model_of(method_class(name))  # type: ignore[arg-type]
    fields: dict[str, Any] = {key: (field.annotation, field) for key, field in own.model_fields.items()}
    model: type[BaseModel] = create_model(f"{name}_options", __config__=own.model_config, **COMMON, **fields)
    return model


def renewed(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options of earlier versions under today's names, and what was read as what, one sentence each."""
    return method_class(name).renewed(options)


def filled(name: str, options: Mapping[str, Any], task: str | None = None) -> dict[str, Any]:
    """Options with the defaults written out; what every method takes stays out unless given.

    What counts, in this order: the option as it is given; what ``strength: matched`` sets; the method's default on the
    task (:meth:`Method.defaults_on`); its constructor's default.
    """
    options, _ = renewed(name, options)
    whole = options_model(name).model_validate({**_between(name, options, task), **options}).model_dump()
    return {key: value for key, value in whole.items() if key not in COMMON or key in options}


def lasting(name: str, options: Mapping[str, Any], task: str | None = None) -> dict[str, Any]:
    """Options as a key of what is kept holds them: those that came later (:attr:`Method.later`) only where they are not
    at their default, so that what was made before is found."""
    usual = defaults(name, task)
    return {k: v for k, v in options.items() if k not in method_class(name).later or v != usual[k]}


def since(name: str) -> int:
    """The version of a method since which its options, said in full, mean what they mean today."""
    return method_class(name).since or entries()[name].version


def defaults(name: str, task: str | None = None, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The default of every option that has one, of a method on a task (None: not known), beside other ``options``."""
    fields = options_model(name).model_fields
    own = {key: field.default for key, field in fields.items() if not field.is_required()}
    return {**own, **_on_task(name, options or {}, task)}


def _on_task(name: str, options: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    """The method's own defaults on a task; one inherited from a class with more options leaves those out."""
    known = options_model(name).model_fields
    return {key: value for key, value in method_class(name).defaults_on(task, options).items() if key in known}


def _between(name: str, options: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    """What stands between the options given and the constructor's defaults."""
    matched = method_class(name).matched if options.get("strength") == "matched" else {}
    return {**_on_task(name, options, task), **matched}


def create(name: str, *, task: str | None = None, **options: Any) -> Method:
    """Build a method by name.

    Args:
        name: a row of the table.
        task: the name of the task it is for, which may have defaults of its own; None = the constructor's defaults.
        options: its constructor's keyword arguments, and what every method takes: ``strength`` (``native`` or
            ``matched``) and ``schedule``.

    Raises:
        UserError: an unknown name, an unknown option, or a value out of range; all problems in one message.
    """
    options, read = renewed(name, options)
    for sentence in read:
        warnings.warn(f"method '{name}': {sentence}; the old form goes", DeprecationWarning, stacklevel=2)
    given = checked(f"method '{name}'", options_model(name), options)
    common = {key: given.pop(key) for key in COMMON if key in given}
    method = method_class(name)(**{**_between(name, {**given, **common}, task), **given})
    if common and not method.teaches:
        raise UserError(
            f"method '{name}': {' and '.join(common)} acts on mentors' terms, and it has none; leave it out"
        )
    method.strength = common.get("strength", "native")
    if "schedule" in common:
        from classroomkd.classroom.schedule import make_schedule

        method.schedule = make_schedule(common["schedule"])
    return method


def compose(parts: Sequence[tuple[str, Mapping[str, Any]]], task: str | None = None, peers: int = 0) -> Method:
    """One method, or several as one: ``[("classroomkd", {"tau": 12}), ...]``; the first brings the supervised term.

    Args:
        parts: names and options.
        task: as in :func:`create`.
        peers: how many are trained beside the student. Methods that take none teach each trainee by itself.
    """
    built = [create(name, task=task, **options) for name, options in parts]
    method = built[0]
    if len(built) > 1:
        from classroomkd.classroom.composition import Composition

        method = Composition(built, [name for name, _ in parts])
    if peers and not method.needs.takes_peers:
        from classroomkd.methods.pieces.apart import Apart

        return Apart(method)
    return method
