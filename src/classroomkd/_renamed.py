"""Old names of public attributes: read, set and overridden for one more version, with a word about the new name."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["OldName", "adopt_old_names", "warn_old_name"]


def warn_old_name(old: str, new: str, stacklevel: int = 3) -> None:
    """Say that ``old`` is called ``new``."""
    text = f"{old} is called {new} now; the old name goes with the next version"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)


class OldName:
    """A class attribute that stands for another: ``topics = OldName("unit_labels")``.

    Reading or setting it warns and reads or sets ``new``. A base class whose subclasses may still override the old
    name calls :func:`adopt_old_names` in its ``__init_subclass__``.
    """

    def __init__(self, new: str) -> None:
        self.new, self.old = new, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def warn(self, owner: type) -> None:
        """Say which name is meant."""
        warn_old_name(f"{owner.__name__}.{self.old}", self.new, stacklevel=4)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        self.warn(owner)
        return getattr(instance, self.new)

    def __set__(self, instance: Any, value: Any) -> None:
        self.warn(type(instance))
        setattr(instance, self.new, value)


def adopt_old_names(cls: type) -> None:
    """Give what a new class defines under an old name to the new one, with a warning."""
    names = {name: value for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, OldName)}
    for name, old in names.items():
        own = vars(cls)
        if name in own and not isinstance(own[name], OldName) and old.new not in own:
            old.warn(cls)
            setattr(cls, old.new, own[name])
