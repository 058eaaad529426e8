"""Mentors' answers that are not finite (NaN or inf): counted where they are given, read when the record is.

Shapes: M mentors, of whom M' were asked; B samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from classroomkd.classroom import Answers, Task
from classroomkd.functional.constants import constant

__all__ = ["NAMED", "OR_SKIP", "REMEDY", "SKIPPED", "Found", "Watch", "added", "sentence", "told"]

NAMED = 10  # sample ids that are kept of a mentor, the lowest
FOLD = 64  # lessons whose flags are held before they are summed up
NOBODY = torch.iinfo(torch.int64).max

REMEDY = (
    "Check its weights, its normalisation (mean, std) and its precision (mentor_precision=fp32), or leave it out "
    "of the recipe"
)
OR_SKIP = "; on_bad_mentor=skip goes on without these answers"
SKIPPED = "summary.json has the count of all; on_bad_mentor=stop ends a run in which it happens"

Found = dict[str, dict[str, Any]]  # by mentor, {"answers": how many, "ids": some of whom}


class Watch:
    """Sees what mentors say to lessons, without waiting for the device.

    Args:
        mentors: names.
        task: which knows what is not finite.
        device: where answers lie.
        reduce, join: sum over ranks, and concatenate; None on one.
    """

    def __init__(
        self,
        mentors: Sequence[str],
        task: Task,
        device: torch.device,
        reduce: Callable[[Tensor], Tensor] | None = None,
        join: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.names, self._task = list(mentors), task
        self._reduce, self._join = reduce, join
        self.total: Found = {}
        self._carried: Found = {}  # of an interval that a checkpoint cut
        self._held: list[tuple[tuple[int, ...], Tensor, Tensor]] = []
        self._count = torch.zeros(len(self.names), dtype=torch.int64, device=device)
        self._ids = torch.full((len(self.names), NAMED), NOBODY, device=device)

    @torch.no_grad()
    def __call__(self, answers: Answers, places: Sequence[int], ids: Tensor, asked: Tensor | None) -> None:
        """Look at answers ``(M', B, …)`` of the mentors at ``places`` to the samples ``ids`` (B,); of those that were
        not asked (``asked`` (M', B), None = everybody was) nothing is looked at."""
        broken = self._task.broken(answers.prediction)
        for features in answers.features.values():
            # A sum is finite exactly where all of it is.
            sums = [x.flatten(1).sum(1, dtype=torch.float32) for x in features]
            broken = broken | ~torch.stack(sums).isfinite()
        if asked is not None:
            broken = broken & asked.to(broken.device)
        self._held.append((tuple(places), broken, ids))
        if len(self._held) >= FOLD:
            self._fold()

    def _fold(self) -> None:
        """Sum up what is held; on the device."""
        for places in dict.fromkeys(places for places, _, _ in self._held):
            held = [(broken, ids) for asked, broken, ids in self._held if asked == places]
            broken = torch.cat([b for b, _ in held], 1)
            ids = torch.cat([i.to(broken.device) for _, i in held])
            rows = constant(places, torch.int64, broken.device)
            self._count.index_add_(0, rows, broken.sum(1))
            some = torch.where(broken, ids, NOBODY)
            self._ids[rows] = _lowest(torch.cat([self._ids[rows], some], 1))
        self._held.clear()

    def clear(self) -> None:
        """Forget what was seen since the last flush (a rehearsal)."""
        self._held.clear()
        self._count.zero_()
        self._ids.fill_(NOBODY)

    def flush(self) -> Found:
        """Read and clear the interval, over all ranks, and add it to ``total``; waits for the device."""
        found = self._interval()
        if found:
            self.total = added(self.total, found)
            self._carried = {}
            self.clear()
        return found

    def state_dict(self) -> dict[str, Found]:
        """What a checkpoint keeps: the total, and the running interval over ranks, all of which must call."""
        return {"total": self.total, "interval": self._interval()}

    def load_state_dict(self, state: Mapping[str, Found]) -> None:
        """Take up what a checkpoint kept, the same on every rank."""
        self.total, self._carried = dict(state.get("total", {})), dict(state.get("interval", {}))

    def _interval(self) -> Found:
        """What was seen since the last flush, over all ranks; the same on each."""
        self._fold()
        counts = self._count if self._reduce is None else self._reduce(self._count)
        known = counts.tolist()
        found: Found = {}
        if any(known):
            ids = self._ids if self._join is None else _lowest(self._join(self._ids.T.contiguous()).T)
            for name, count, some in zip(self.names, known, ids.tolist(), strict=True):
                if count:
                    found[name] = {"answers": count, "ids": [i for i in some if i != NOBODY]}
        return added(self._carried, found)


def _lowest(ids: Tensor) -> Tensor:
    """The lowest different ids of each row, (M, NAMED), filled up with NOBODY."""
    ordered = ids.sort(1).values
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(again, NOBODY).sort(1).values[:, :NAMED]


def added(*several: Mapping[str, Mapping[str, Any]]) -> Found:
    """Counts of several trainings, together."""
    total: Found = {}
    for one in several:
        for name, found in one.items():
            before = total.get(name, {"answers": 0, "ids": []})
            ids = sorted({*before["ids"], *found["ids"]})[:NAMED]
            total[name] = {"answers": before["answers"] + found["answers"], "ids": ids}
    return total


def sentence(mentor: str, found: Mapping[str, Any]) -> str:
    """``mentor 'x' gave 3 answers that are not finite (NaN or inf), to sample(s) 4, 7``."""
    count, ids = found["answers"], found["ids"]
    more = " and others" if len(ids) == NAMED else ""
    given = f"{count:,} answer{'s that are' if count != 1 else ' that is'} not finite (NaN or inf)"
    return f"mentor '{mentor}' gave {given}, to sample{'s' * (len(ids) != 1)} {', '.join(map(str, ids))}{more}"


def told(mentor: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The event that tells of it."""
    return {"event": "not_finite", "mentor": mentor, "text": sentence(mentor, found), **found}
