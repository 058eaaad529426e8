"""A clock for the parts of a step, whose calls are timed wherever they happen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["Clock"]


class Clock:
    """Seconds by part of a step; a part that is timed inside another does not count there."""

    def __init__(self, device: torch.device) -> None:
        # With one thread the process's CPU time counts the work, whatever else the machine does.
        on_cpu = device.type == "cpu" and torch.get_num_threads() == 1
        self.name = "CPU time" if on_cpu else "wall time"
        self._now = time.process_time if on_cpu else time.perf_counter
        self._device = device if device.type == "cuda" else None
        self.taken: dict[str, float] = {}
        self._inside = [0.0]

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time what happens inside as ``part``."""
        self._wait()
        start = self._now()
        self._inside.append(0.0)
        try:
            yield
        finally:
            self._wait()
            took = self._now() - start
            self.taken[part] = self.taken.get(part, 0.0) + took - self._inside.pop()
            self._inside[-1] += took

    def _wait(self) -> None:
        if self._device is not None:
            torch.cuda.synchronize(self._device)

    @contextmanager
    def watching(self, part: str, owner: Any, name: str) -> Iterator[None]:
        """Time every call of ``owner.name`` as ``part``."""
        inner = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self(part):
                return inner(*args, **kwargs)

        own = name in vars(owner)
        setattr(owner, name, call)
        try:
            yield
        finally:
            setattr(owner, name, inner) if own else delattr(owner, name)
