"""Signals that ask a run to stop: noted while a step is done and obeyed after it; elsewhere obeyed at once.

``SIGTERM`` (batch systems, ``kill``), ``SIGHUP`` (a terminal that closes) and ``SIGINT`` (Ctrl-C) are listened to only
while a run is on, only in the main thread, and only where nobody else does: a handler of somebody's own and a signal
that is ignored (``nohup``) are left as they are.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from classroomkd.errors import Interrupted

__all__ = ["SIGNALS", "Asked", "asked", "check", "impatient", "listening", "patient", "told"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME = 1.0  # seconds in which further signals are the same wish: a terminal, a launcher and a parent all pass it on


class Asked(BaseException):
    """A signal, on its way out of whatever was going on; no ``except Exception`` holds it up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class _State:
    number: int | None = None  # of the first signal that was heard
    since: float = 0.0
    patience: int = 0
    over: bool = False  # nothing is left that could be stopped


_state = _State()


def asked() -> int | None:
    """The signal that was heard since listening began, or None."""
    return _state.number


def check() -> None:
    """Stop here if a signal was heard and nobody is patient: before a piece of work is begun."""
    if _state.number is not None and not _state.patience:
        raise Asked(_state.number)


@contextmanager
def patient() -> Iterator[None]:
    """Inside, a first signal is only noted; whoever works there asks :func:`asked`. A second one still ends it."""
    _state.patience += 1
    try:
        yield
    finally:
        _state.patience -= 1


@contextmanager
def impatient(now: bool = True) -> Iterator[None]:
    """Inside, a signal is obeyed at once again; ``now`` False: nothing changes."""
    before, _state.patience = _state.patience, 0 if now else _state.patience
    try:
        yield
    finally:
        _state.patience = before


@contextmanager
def listening(numbers: Sequence[int] = SIGNALS) -> Iterator[None]:
    """Listen to these signals inside; afterwards their handlers are what they were. Inside another one it does nothing.

    Raises:
        Interrupted: a signal was heard and obeyed.
        KeyboardInterrupt: the same for ``SIGINT``, with the same sentence.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        free = {signal.SIG_DFL, signal.default_int_handler}
        before = {n: own for n in numbers if (own := signal.getsignal(n)) in free}
    if not before:
        yield
        return
    _state.number, _state.over = None, False
    try:
        for number in before:
            signal.signal(number, _heard)
        yield
    except Asked as wish:
        raise told(wish.number) from None
    finally:
        _state.over = True
        for number, own in before.items():
            signal.signal(number, own)
        _state.number = None


def told(number: int | None, where: str = "") -> BaseException:
    """What is raised for a signal; None: another process of the run has heard one.

    Args:
        number: of the signal.
        where: what had been done, for the sentence.
    """
    if number == signal.SIGINT:
        return KeyboardInterrupt(f"interrupted{where}")
    by = "with the run's other processes" if number is None else f"by {signal.Signals(number).name}"
    return Interrupted(f"stopped {by}{where}")


def _heard(number: int, frame: object) -> None:
    now, first = time.monotonic(), _state.number is None
    if _state.over or (not first and now - _state.since < SAME):
        return
    if first:
        _state.number, _state.since = number, now
    if not (first and _state.patience):
        raise Asked(number)
