"""Running code that the user names: ``py:package.module:factory``. Imports nothing heavy.

Nothing here runs before the user has said ``--trust-code`` (or ``trust_code=True``): a recipe from somebody else must
not be able to run code by being read.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from classroomkd._compat import import_torchvision, is_known_mismatch
from classroomkd.errors import UserError, did_you_mean

__all__ = ["PREFIX", "call_factory", "load_factory"]

PREFIX = "py:"


def load_factory(spec: str, *, trust_code: bool, what: str = "model") -> Callable[..., Any]:
    """The callable behind ``py:package.module:factory``; the current folder is searched before what is installed.

    Raises:
        UserError: code is not trusted, the form is wrong, the module or the name does not exist, or importing it fails.
    """
    module_name, separator, path = spec.removeprefix(PREFIX).partition(":")
    if not separator or not module_name or not path:
        raise UserError(f"'{spec}' is not of the form py:package.module:factory, for example py:my_nets:small")
    if not trust_code:
        raise UserError(
            f"the {what} '{spec}' runs the code of {module_name}; if you trust it, add --trust-code "
            "(in Python: trust_code=True)"
        )
    with _current_folder_first(), _blame(spec):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise UserError(
                    f"'{spec}': there is no module '{error.name}' in {os.getcwd()} or among the installed packages"
                ) from error
            raise
        except RuntimeError as error:
            if not is_known_mismatch(error):
                raise
            import_torchvision(spec)
            found = importlib.import_module(module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            public = [name for name in dir(found) if not name.startswith("_")]
            raise UserError(f"'{spec}': there is no '{part}' in {module_name}{did_you_mean(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"'{spec}' is a {type(found).__name__}; name a function or a class that makes the {what}")
    return found  # type: ignore[no-any-return]


def call_factory(spec: str, factory: Callable[..., Any], options: dict[str, Any], offered: dict[str, Any]) -> Any:
    """``factory(**options)`` plus those of ``offered`` that its signature has room for.

    Raises:
        UserError: the factory raised; with the file and line.
    """
    try:
        accepted = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # builtins have no signature to read
        accepted = {}  # type: ignore[assignment]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    fitting = {name: value for name, value in offered.items() if open_ended or name in accepted}
    with _current_folder_first(), _blame(spec):
        return factory(**{**fitting, **options})


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """Search the current folder first inside the block, and last from then on (for imports inside functions)."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


@contextlib.contextmanager
def _blame(spec: str) -> Iterator[None]:
    """Say where the user's code failed; the traceback stays reachable as the cause."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1] if frames else None
        place = f" ({last.filename}, line {last.lineno})" if last is not None else ""
        if isinstance(error, SyntaxError) and error.filename:
            place = f" ({error.filename}, line {error.lineno})"
        raise UserError(f"'{spec}' failed: {type(error).__name__}: {error}{place}") from error
