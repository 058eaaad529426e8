"""What happened in training, accumulated on the device and read every few steps: no host sync in the step.

Shapes: M mentors, B samples, U units, K topics (classes, keypoints).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from classroomkd.classroom import Lesson
from classroomkd.classroom.trainees import who_gave
from classroomkd.train.watch import Watch

__all__ = ["Record"]


class Record:
    """Accumulates losses, terms, finite flags and who taught what.

    Args:
        mentors: number of mentors.
        topics: number of topics K.
        device: where lessons live.
        reduce: sums a tensor over ranks; None on one. Ranks flush at the same steps.
        rank: this one.
        watch: counts mentors' answers that are not finite; None where nobody does.
        names: the mentors'.
    """

    def __init__(
        self,
        mentors: int,
        topics: int,
        device: torch.device,
        reduce: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
        watch: Watch | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.rank, self.watch, self.mentor_names = rank, watch, tuple(names)
        self.pairs: list[tuple[str, str]] = []  # who learns, who teaches; where several networks are trained
        self.given: Tensor | None = None  # what the one adds to the other's loss, summed over the steps
        self._over_ranks: Callable[[Tensor], Tensor] = reduce or (lambda tensor: tensor)
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.bad: Tensor | None = None
        self.steps = 0
        self.mentors, self.topics = mentors, topics
        self.taught = torch.zeros(3, mentors, topics, device=device)  # active, weight, temperature while active
        self.count = torch.zeros(topics, device=device)
        self.idle = torch.zeros((), device=device)  # units on which no mentor was active
        self.total = torch.zeros(3, mentors, topics, dtype=torch.float64)
        self.total_count = torch.zeros(topics, dtype=torch.float64)
        self.has_mentors = False
        self.outliers: Tensor | None = None  # samples that counted less; None where nobody looks for such
        self.total_outliers = 0

    @torch.no_grad()
    def add(self, lesson: Lesson) -> None:
        """Take in one lesson; everything stays on the device."""
        terms = lesson.outcome
        assert terms is not None
        values = torch.stack([lesson.loss.detach(), *(v.detach().reshape(()) for v in terms.values.values())]).float()
        if self.sums is None or self.bad is None or len(self.names) != len(values) - 1:
            self.names = list(terms.values)
            self.sums = torch.zeros_like(values)
            self.bad = torch.zeros_like(values, dtype=torch.bool)
        self.sums += values
        self.bad |= ~values.isfinite()
        self.steps += 1
        if lesson.peers:
            self._add_pairs(who_gave(terms, self.mentor_names, lesson.peers))
        if terms.active is None or terms.weight is None or terms.temperature is None:
            return
        self.has_mentors = True
        if lesson.sample_weight is not None:
            found = (lesson.sample_weight < 1).sum()
            self.outliers = found if self.outliers is None else self.outliers + found
        topic = lesson.task.unit_labels(lesson.agreed).flatten()  # without a label: what mentors take it for
        active = terms.active.flatten(1).to(self.taught.dtype)
        weight, temperature = terms.weight.flatten(1).float(), terms.temperature.flatten(1).float()
        self.taught.index_add_(2, topic, torch.stack([active, weight, active * temperature]))
        self.count.index_add_(0, topic, torch.ones_like(topic, dtype=self.count.dtype))
        self.idle += (active.sum(0) == 0).sum()

    def _add_pairs(self, given: Mapping[tuple[str, str], Tensor]) -> None:
        values = torch.stack([value.detach().reshape(()) for value in given.values()]).float() if given else None
        if values is None:
            return
        if self.given is None or self.pairs != list(given):
            self.pairs, self.given = list(given), torch.zeros_like(values)
        self.given += values

    def is_bad(self) -> Tensor | None:
        """Whether any loss so far was not finite, as a float scalar on the device (for the fused optimisers)."""
        return None if self.bad is None else self.bad.any().float()

    def flush(self) -> dict[str, Any]:
        """Read and clear the interval; the one place where the device is waited for.

        Returns:
            ``{"loss", "terms", "mentors", "bad", "not_finite", "given"}``: means over the interval; ``bad`` names terms
            that were not finite, ``not_finite`` the mentors whose answers were not, ``given`` has by who learns and who
            teaches what the one adds to the other's loss.
        """
        if self.sums is None or self.bad is None or self.steps == 0:
            return {"loss": None, "terms": {}, "mentors": None, "bad": [], "not_finite": {}, "given": {}}
        steps = self._over_ranks(torch.tensor(float(self.steps), device=self.sums.device))
        values = (self._over_ranks(self.sums) / steps).tolist()
        bad = self.bad_terms()
        out: dict[str, Any] = {
            "loss": values[0],
            "terms": dict(zip(self.names, values[1:], strict=True)),
            "mentors": self._interval() if self.has_mentors else None,
            "bad": bad,
            "not_finite": self.watch.flush() if self.watch is not None else {},
            "given": {},
        }
        if self.given is not None:
            for (learner, teacher), value in zip(
                self.pairs, _listed(self._over_ranks(self.given) / steps), strict=True
            ):
                out["given"].setdefault(learner, {})[teacher] = value
            self.given.zero_()
        self.sums.zero_()
        self.steps = 0
        return out

    def bad_terms(self) -> list[str]:
        """Names of the terms that were not finite on any rank; waits for the device."""
        if self.bad is None:
            return []
        flags = self._over_ranks(self.bad.float()).tolist()
        bad = [name for name, flag in zip(self.names, flags[1:], strict=True) if flag]
        return ["loss"] if flags[0] and not bad else bad

    def _interval(self) -> dict[str, Any]:
        taught = self._over_ranks(self.taught).to("cpu", torch.float64)
        count = self._over_ranks(self.count).to("cpu", torch.float64)
        idle = float(self._over_ranks(self.idle))
        self.total += taught
        self.total_count += count
        units = float(count.sum())
        active, weight, temperature = taught.sum(2)
        out = {
            "active": _listed(active / units),
            "weight": _listed(weight / units),
            "temperature": _listed(temperature / active),
            "none_active": idle / units,
        }
        if self.outliers is not None:
            out["outliers"] = round(float(self._over_ranks(self.outliers.float())))
            self.total_outliers += out["outliers"]
            self.outliers = None
        self.taught.zero_()
        self.count.zero_()
        self.idle.zero_()
        return out

    def teaching(self, mentors: Sequence[str], topics: Sequence[str]) -> dict[str, Any]:
        """Who taught what over the whole training: shares and means by mentor and topic, ``[M][K]``."""
        out: dict[str, Any] = {"classes": list(topics), "count": _listed(self.total_count)}
        if self.has_mentors:
            active, weight, temperature = self.total
            out |= {
                "mentors": list(mentors),
                "active": _listed(active / self.total_count),
                "weight": _listed(weight / self.total_count),
                "temperature": _listed(temperature / active),
            }
        return out | ({"outliers": self.total_outliers} if self.total_outliers else {})

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the totals, and the running interval summed over ranks, all of which must call."""
        open_ = {"taught": self.taught, "count": self.count, "idle": self.idle}
        if self.sums is not None:
            open_["sums"] = self.sums
        if self.outliers is not None:
            open_["outliers"] = self.outliers
        if self.given is not None:
            open_["given"] = self.given
        interval: dict[str, Any] = {key: self._over_ranks(value).to("cpu") for key, value in open_.items()}
        interval |= {"names": list(self.names), "steps": self.steps}
        if self.given is not None:
            interval["pairs"] = [list(pair) for pair in self.pairs]
        totals = {"total": self.total, "count": self.total_count, "has_mentors": self.has_mentors}
        if self.total_outliers:
            totals["outliers"] = self.total_outliers
        not_finite = self.watch.state_dict() if self.watch is not None else {}
        return {**totals, "interval": interval, "not_finite": not_finite}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's totals, and its interval on the first rank: the others' shares are in its sums."""
        self.total, self.total_count = state["total"], state["count"]
        self.has_mentors, self.total_outliers = bool(state["has_mentors"]), int(state.get("outliers", 0))
        if self.watch is not None:
            self.watch.load_state_dict(state.get("not_finite", {}))
        interval = state.get("interval")  # older checkpoints stood where there is none
        if interval is None:
            return
        device, share = self.taught.device, float(self.rank == 0)
        self.names, self.steps = list(interval["names"]), int(interval["steps"])
        self.taught, self.count, self.idle = (interval[k].to(device) * share for k in ("taught", "count", "idle"))
        if "outliers" in interval:
            self.outliers = interval["outliers"].to(device) * int(share)
        if "given" in interval:
            self.given = interval["given"].to(device) * share
            self.pairs = [(str(learner), str(teacher)) for learner, teacher in interval["pairs"]]
        if "sums" in interval:
            self.sums = interval["sums"].to(device) * share
            self.bad = torch.zeros_like(self.sums, dtype=torch.bool)


def _listed(x: Tensor) -> Any:
    """Nested lists with None for what is undefined (0/0), rounded to what a reader can use."""

    def clean(v: Any) -> Any:
        if isinstance(v, list):
            return [clean(i) for i in v]
        return round(v, 6) if math.isfinite(v) else None

    return clean(x.tolist())
