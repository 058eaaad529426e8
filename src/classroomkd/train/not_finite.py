"""What is not finite in a training: a mentor's answers are told or end it, a loss or the weights end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from classroomkd.errors import RunStopped, everywhere
from classroomkd.train.watch import OR_SKIP, REMEDY, Found, Watch, sentence, told

if TYPE_CHECKING:
    from classroomkd.train.progress import Progress

__all__ = ["NotFinite"]


@dataclass(frozen=True)
class NotFinite:
    """The sentences of one training, which all ranks find at the same place.

    Args:
        progress: where the training stands.
        watch: what was seen of mentors' answers; None where there are no mentors.
        folder: of the training's checkpoints, or None.
        notify: called with progress events.
        on_bad_mentor: what to do where a mentor's answer is not finite: leave it out, or stop.
    """

    progress: Progress
    watch: Watch | None
    folder: Path | None
    notify: Callable[[dict[str, Any]], None]
    on_bad_mentor: Literal["skip", "stop"]

    def mentors(self, found: Found) -> None:
        """Mentors whose answers were not finite since the last flush: a note, or the end."""
        for name, one in found.items():
            self.notify(told(name, one))
        if found and self.on_bad_mentor == "stop":
            raise self._stopped(_named(found), REMEDY + OR_SKIP)

    def terms(self, bad: list[str]) -> None:
        """Loss terms that were not finite, or the weights: the end. None: nothing happens."""
        if not bad:
            return
        why = f"the term '{bad[0]}' is not finite"
        if self.watch is not None and self.watch.total:  # then it is not the learning rate
            raise self._stopped(f"{why}, and {_named(self.watch.total)}", REMEDY)
        raise self._stopped(why, "Try a lower train.lr, train.clip=5, or train.precision=fp32")

    def _stopped(self, why: str, remedy: str) -> RunStopped:
        kept = ""
        if self.folder is not None and (path := self.folder / "checkpoints" / "last.pt").exists():
            kept = f"; the last good checkpoint is kept at {path}"
        return everywhere(
            f"training stopped at epoch {self.progress.position:.2f}, step {self.progress.step}: {why}{kept}. {remedy}"
        )


def _named(found: Found) -> str:
    return "; ".join(sentence(name, one) for name, one in found.items())
