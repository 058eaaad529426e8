"""Errors that a user can mend, and the sentence that says how. Imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DiskFull",
    "Diverged",
    "Interrupted",
    "RunStopped",
    "StoppedElsewhere",
    "UserError",
    "did_you_mean",
    "everywhere",
]


class UserError(ValueError):
    """A mistake in what the user asked for: the place, what is wrong, and the remedy in one message.

    The command line prints it without a traceback and exits with 2.
    """


class RunStopped(RuntimeError):
    """Training cannot go on (a loss that is not finite, a full disk); what was made so far is kept.

    The command line prints it without a traceback and exits with 1.

    Attributes:
        everywhere: whether every rank stops for this reason at this place, so that they may go on together with
            something else.
    """

    everywhere: bool = False


class Diverged(RunStopped):
    """A loss or the weights became something else than numbers, and no mentor's answer is the reason.

    Going on from the last checkpoint would repeat it, so nothing says how to. Every rank stops with it.
    """

    everywhere = True


def everywhere(message: str) -> RunStopped:
    """A :class:`RunStopped` for what every rank finds at the same place: what was looked at is everybody's."""
    stopped = RunStopped(message)
    stopped.everywhere = True
    return stopped


class StoppedElsewhere(RunStopped):
    """Another rank stopped and has said why; this one only follows.

    Args:
        message: who stopped, and why.
        exit_code: of the command line, which prints nothing.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DiskFull(RunStopped):
    """No room for a file; what was there before is whole. What comes after would not fit either, so the run ends."""


class Interrupted(RunStopped):
    """A signal (SIGTERM, SIGHUP) asked the run to stop; trainings have written a checkpoint, ``resume`` goes on.

    The command line exits with 75. Ctrl-C is a ``KeyboardInterrupt`` with the same sentence, and 130.
    """

    exit_code = 75


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest of ``choices``, or the empty string when none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
