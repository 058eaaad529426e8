"""The clock of a training: seconds spent, attempts before included, and how long batches were waited for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

__all__ = ["Timer"]

T = TypeVar("T")


class Timer:
    """Runs from when it is made.

    Args:
        before: seconds that were spent on this training already.

    Attributes:
        saved: when the state was last kept, by ``time.perf_counter``.
        spent: :attr:`seconds` when it was last read by :meth:`note`.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._started = self._interval = self.saved = time.perf_counter()
        self._started -= before
        self._waited = self.spent = 0.0

    @property
    def seconds(self) -> float:
        """Spent on this training so far."""
        return time.perf_counter() - self._started

    def note(self) -> None:
        """Note the time for a checkpoint and the end; the clock goes on."""
        self.spent = self.seconds

    def waiting(self, source: Iterable[T]) -> Iterator[T]:
        """What ``source`` gives; the time it takes to give it is counted."""
        asked = time.perf_counter()
        for item in source:
            self._waited += time.perf_counter() - asked
            yield item
            asked = time.perf_counter()

    def share_waited(self) -> float:
        """The share of the time since the last call that went into :meth:`waiting`."""
        now = time.perf_counter()
        share = self._waited / max(now - self._interval, 1e-9)
        self._interval, self._waited = now, 0.0
        return share

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where a checkpoint was written."""
        self.spent = state["seconds"]
        self._started = time.perf_counter() - self.spent
