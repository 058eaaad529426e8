"""What a long run shows: one bar a job, the whole with the time left; plain lines where there is no terminal."""

from __future__ import annotations

import errno
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from classroomkd._terminal import Console
from classroomkd.tasks.metric import Metric

__all__ = ["Watch"]

# Seconds between plain lines: at first, as a share of the time so far, at most. Ten hours are some 300 lines.
EVERY, SHARE, MOST = 5.0, 0.02, 600.0


@contextmanager
def _terminal() -> Iterator[None]:
    """A terminal that was closed takes nothing more (EIO); the work goes on until it is told to stop."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


class Watch:
    """Receives the engine's events; a context manager.

    The whole is the sum of the jobs' ``work``. A job's is done with its epochs or, where the plan says ``answers``,
    with the answers that are stored. What turns out to be done already is no work.

    Args:
        console: where to draw; stderr by default, so that ``--json`` on stdout stays clean.
        quiet: no progress; what the user should read is said all the same.
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
        self._started = self._planned = time.perf_counter()
        self._next = EVERY  # seconds at which a plain line may come
        self._idle = 0.0  # seconds in which work could not be done
        self._finished = 0
        self._work, self._total = 0.0, 0.0
        self._metric = Metric("score")

    def __enter__(self) -> Watch:
        if self.live:
            self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            with _terminal():
                self._progress.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """A line above the bars."""
        with _terminal():
            self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def tell(self, kind: str, text: str) -> None:
        """A sentence that the user should read, ``quiet`` or not: a ``note``, about the ``data``, a ``warning``."""
        self.say(f"{kind}: {text}", "yellow")

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event; unknown ones are ignored."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None and not self.quiet:
            with self._lock, _terminal():
                handler(event)

    def _on_plan(self, event: dict[str, Any]) -> None:
        self._metric = Metric(**event["metric"]) if "metric" in event else self._metric
        self._jobs = {j["job"]: dict(j, done=0.0, skipped=0, began=0.0) for j in event["jobs"]}
        self._total, self._planned = float(sum(j["work"] for j in event["jobs"])), time.perf_counter()
        self._whole = self._progress.add_task("all together", total=1, say=f"0 of {len(self._jobs)}")
        self._show()

    def _on_start(self, event: dict[str, Any]) -> None:
        job = self._jobs.get(event["job"])
        if job is not None:
            job["began"] = time.perf_counter()
            label = f"{job['kind']} {event['job']}"
            self._bars[event["job"]] = self._progress.add_task(label[:44], total=job["epochs"] or 1, say="")

    def _on_val(self, event: dict[str, Any]) -> None:
        """The score on the validation part, shown from now on."""
        if (job := self._jobs.get(event["job"])) is not None and math.isfinite(event["accuracy"]):
            job["val"] = f"val {self._metric.text(event['accuracy'])}"

    def _on_step(self, event: dict[str, Any]) -> None:
        """Between epochs: loss, the last score, and the step's cost over the student alone."""
        name, bar = event["job"], self._bars.get(event["job"])
        if bar is None:
            return
        loss, wait = event.get("loss"), event.get("data_wait") or 0.0
        figures = [f"loss {loss:.3f}"] if isinstance(loss, float) else []
        figures += [self._jobs[name]["val"]] if self._jobs[name].get("val") else []
        figures += [f"relative cost {event['x_floor']:.2f}"] if event.get("x_floor") else []
        figures += [f"data wait {wait:.0%}"] if wait > 0.05 else []
        figures = [f"epoch {event['epoch']:.1f} of {event['epochs']}", *figures]
        self._progress.update(bar, total=event["epochs"], completed=event["epoch"], say="  ".join(figures))
        self._taught(name, float(event["epoch"]))
        self._plain(name, ", ".join(figures))

    def _on_epoch(self, event: dict[str, Any]) -> None:
        bar = self._bars.get(event["job"])
        if bar is not None:
            self._progress.update(bar, completed=event["epoch"])
            self._taught(event["job"], float(event["epoch"]))

    def _on_filling(self, event: dict[str, Any]) -> None:
        name, bar, job = event["job"], self._bars.get(event["job"]), self._jobs.get(event["job"])
        if bar is None or job is None:
            return
        if not job.get("filling"):
            self._progress.reset(bar, total=event["all"])
            job["filling"] = True
            if job.get("answers"):  # some are there, and the mentor may have been trained before
                self._skip(job, max(job["work"] - event["all"], 0))
                self._idle += max(time.perf_counter() - job["began"] - event["seconds"], 0.0)
        share = event["done"] / max(event["all"], 1)
        left = f", {event['left']:.0f} s left" if event.get("left") is not None else ""
        self._progress.update(bar, completed=event["done"], say=f"answers stored {share:.0%}{left}")
        if job.get("answers"):
            self._advance(job, share)
        self._plain(name, f"answers stored {share:.0%} ({event['done']:,} of {event['all']:,})")

    def _on_cached(self, event: dict[str, Any]) -> None:
        self.say(f"  mentor {event['what']}: taken from the cache")

    def _on_note(self, event: dict[str, Any]) -> None:
        self.tell("note", event["text"])

    _on_not_finite = _on_note

    def _on_done(self, event: dict[str, Any]) -> None:
        name = event["job"]
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))
        self._finished += 1
        if (job := self._jobs.get(name)) is not None:
            if event.get("error") or not job["done"]:
                self._skip(job, job["work"] * (1 - job["done"]))
            else:
                self._advance(job, 1.0)
        if self._whole is not None:
            self._progress.update(self._whole, say=f"{self._finished} of {len(self._jobs)}")
        took = f"{time.perf_counter() - self._started:6.0f} s"
        if event.get("error"):
            self.say(f"{took}  {name}: {event['error']}", "red")
        elif event.get("mentor"):
            score = event["mentor"]["accuracy"]
            scored = f"{self._metric.text(score)} on test" if math.isfinite(score) else "has answered"
            self.say(f"{took}  mentor {name}: {scored}")
        elif event.get("entry"):
            self.say(f"{took}  {name}: {self._metric.text(event['entry']['test_last'])} on test{self._left()}")
        elif event.get("answers") is not None:
            self.say(f"{took}  mentor {name}: {event['answers']:,} samples answered now{self._left()}")

    def _taught(self, name: str, epoch: float) -> None:
        """A job has come to an epoch; whole epochs before its first report were done by an earlier attempt."""
        job = self._jobs[name]
        if not job["epochs"]:
            return
        if not job["done"] and (before := math.ceil(epoch) - 1) > 0:
            self._skip(job, job["work"] * before / job["epochs"])
            job["skipped"] = before
        self._advance(job, (epoch - job["skipped"]) / (job["epochs"] - job["skipped"]))

    def _advance(self, job: dict[str, Any], share: float) -> None:
        """So much of a job's work is done."""
        self._work += (share - job["done"]) * job["work"]
        job["done"] = share
        self._show()

    def _skip(self, job: dict[str, Any], work: float) -> None:
        """So much of a job's work needs not be done, or will not be."""
        left = job["work"] - work
        job["done"] = min(job["done"] * job["work"] / left, 1.0) if left > 0 else 1.0
        job["work"] = left
        self._total -= work
        self._show()

    def _show(self) -> None:
        if self._whole is not None:
            done, total = (self._work, self._total) if self._total > 0 else (1.0, 1.0)
            self._progress.update(self._whole, completed=done, total=total)

    def _plain(self, name: str, text: str) -> None:
        """A line about a job where there are no bars, unless the last is too near."""
        took = time.perf_counter() - self._started
        if self.live or took < self._next:
            return
        self._next = took + min(max(EVERY, SHARE * took), MOST)
        self.say(f"{took:6.0f} s  {self._jobs[name]['kind']} {name}: {text}{self._left()}")

    def _left(self) -> str:
        """Time left of the whole, for logs without bars."""
        from classroomkd.report.vocabulary import duration

        spent = time.perf_counter() - self._planned - self._idle
        if self.live or self._whole is None or not 0 < self._work < self._total:
            return ""
        return f"  (about {duration(spent * (self._total - self._work) / self._work)} left)"
