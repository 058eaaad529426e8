"""What a long run shows: one bar a job, the whole with the time left; plain lines where there is no terminal."""

from __future__ import annotations

import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Watch"]


class Watch:
    """Receives the engine's events; a context manager.

    Args:
        console: where to draw; stderr by default, so that ``--json`` on stdout stays clean.
        quiet: draw nothing.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self.live = self.console.is_terminal and not quiet
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[say]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._jobs: dict[str, dict[str, Any]] = {}
        self._bars: dict[str, TaskID] = {}
        self._whole: TaskID | None = None
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._finished = 0
        self._work = 0.0

    def __enter__(self) -> Watch:
        if self.live:
            self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self._progress.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """A line above the bars."""
        if not self.quiet:
            self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event; unknown ones are ignored."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None and not self.quiet:
            with self._lock:
                handler(event)

    def _on_plan(self, event: dict[str, Any]) -> None:
        self._jobs = {j["job"]: dict(j, done=0.0) for j in event["jobs"]}
        total = sum(j["work"] for j in event["jobs"]) or 1
        self._whole = self._progress.add_task("all together", total=total, say=f"0 of {len(self._jobs)}")

    def _on_start(self, event: dict[str, Any]) -> None:
        job = self._jobs.get(event["job"])
        if job is not None:
            label = f"{job['kind']} {event['job']}"
            self._bars[event["job"]] = self._progress.add_task(label[:44], total=job["epochs"] or 1, say="")

    def _on_step(self, event: dict[str, Any]) -> None:
        """Between epochs: loss and the step's cost over the student alone."""
        bar = self._bars.get(event["job"])
        if bar is not None:
            floor = f"  x floor {event['x_floor']:.2f}" if event.get("x_floor") else ""
            wait = f"  data wait {event['data_wait']:.0%}" if event.get("data_wait", 0) > 0.05 else ""
            loss = event.get("loss")
            said = f"loss {loss:.3f}" if isinstance(loss, float) else ""
            self._progress.update(bar, completed=event["epoch"], say=f"{said}{floor}{wait}")
            self._advance(event["job"], float(event["epoch"]))

    def _on_epoch(self, event: dict[str, Any]) -> None:
        bar = self._bars.get(event["job"])
        if bar is not None:
            self._progress.update(bar, completed=event["epoch"])
            self._advance(event["job"], float(event["epoch"]))

    def _advance(self, name: str, epoch: float) -> None:
        job = self._jobs[name]
        gain = (epoch - job["done"]) / max(job["epochs"], 1) * job["work"]
        job["done"] = epoch
        self._work += gain
        if self._whole is not None:
            self._progress.update(self._whole, completed=self._work)

    def _on_filling(self, event: dict[str, Any]) -> None:
        bar = self._bars.get(event["job"])
        if bar is not None:
            left = f", {event['left']:.0f} s left" if event.get("left") is not None else ""
            self._progress.update(bar, say=f"answers stored {event['done'] / max(event['all'], 1):.0%}{left}")

    def _on_cached(self, event: dict[str, Any]) -> None:
        self.say(f"  mentor {event['what']}: taken from the cache")

    def _on_done(self, event: dict[str, Any]) -> None:
        name = event["job"]
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))
        self._finished += 1
        if name in self._jobs:
            self._advance(name, float(max(self._jobs[name]["epochs"], 0)))
        if self._whole is not None:
            self._progress.update(self._whole, say=f"{self._finished} of {len(self._jobs)}")
        took = f"{time.perf_counter() - self._started:6.0f} s"
        if event.get("error"):
            self.say(f"{took}  {name}: {event['error']}", "red")
        elif event.get("mentor"):
            self.say(f"{took}  mentor {name}: {event['mentor']['accuracy']:.1%} on test")
        elif event.get("entry"):
            left = self._left()
            self.say(f"{took}  {name}: {event['entry']['test_last']:.1%} on test{left}")

    def _left(self) -> str:
        """Time left, for logs without bars."""
        if self.live or self._whole is None:
            return ""
        total = self._progress.tasks[self._whole].total or 1
        spent = time.perf_counter() - self._started
        if self._work <= 0 or self._work >= total:
            return ""
        return f"  (about {spent * (total - self._work) / self._work:.0f} s left)"
