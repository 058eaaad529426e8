"""What is not finite in a training: a mentor's answers are told or end it, a loss or the weights end it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from classroomkd.classroom.trainees import is_own_loss
from classroomkd.errors import Diverged, everywhere
from classroomkd.train.watch import OR_SKIP, REMEDY, Found, Watch, sentence, told

if TYPE_CHECKING:
    from classroomkd.recipe import TrainSpec
    from classroomkd.train.progress import Progress

__all__ = ["NotFinite", "advice"]


def advice(spec: TrainSpec, section: str = "train") -> str:
    """What may help a training that diverged and is not what it does already, with the keys of its section."""
    keys = [f"a lower {section}.lr"]
    keys += [f"{section}.clip=5"] if spec.clip is None else []
    keys += ["train.precision=fp32"] if spec.precision != "fp32" else []
    return f"Try {' or '.join(keys)}"


@dataclass(frozen=True)
class NotFinite:
    """The sentences of one training, which all ranks find at the same place.

    Args:
        progress: where the training stands.
        watch: what was seen of mentors' answers; None where there are no mentors.
        folder: of the training's checkpoints, or None.
        notify: called with progress events.
        on_bad_mentor: what to do where a mentor's answer is not finite: leave it out, or stop.
        advice: what to try where a training diverged.
        peers: names of what is trained beside the student.
    """

    progress: Progress
    watch: Watch | None
    folder: Path | None
    notify: Callable[[dict[str, Any]], None]
    on_bad_mentor: Literal["skip", "stop"]
    advice: str = ""
    peers: Collection[str] = ()

    def mentors(self, found: Found) -> None:
        """Mentors whose answers were not finite since the last flush: a note, or the end."""
        for name, one in found.items():
            self.notify(told(name, one))
        if found and self.on_bad_mentor == "stop":
            raise everywhere(self._sentence(_named(found), REMEDY + OR_SKIP))

    def terms(self, bad: list[str]) -> None:
        """Loss terms that were not finite, or the weights: the end. None: nothing happens.

        Raises:
            Diverged: and no mentor's answer is the reason.
        """
        if not bad:
            return
        # One trainee's answers are the others' targets: who is broken is told by its own loss.
        first = next(filter(is_own_loss, bad), bad[0])
        whose = f" of peer '{owner}'" if (owner := first.partition(".")[0]) in self.peers else ""
        why = f"the term '{first}'{whose} is not finite"
        if self.watch is not None and self.watch.total:  # then it is not the learning rate
            raise everywhere(self._sentence(f"{why}, and {_named(self.watch.total)}", REMEDY))
        raise Diverged(self._sentence(why, self.advice))

    def _sentence(self, why: str, remedy: str) -> str:
        kept = ""
        if self.folder is not None and (path := self.folder / "checkpoints" / "last.pt").exists():
            kept = f"; the last good checkpoint is kept at {path}"
        return (
            f"training stopped at epoch {self.progress.position:.2f}, step {self.progress.step}: {why}{kept}. {remedy}"
        )


def _named(found: Found) -> str:
    return "; ".join(sentence(name, one) for name, one in found.items())
