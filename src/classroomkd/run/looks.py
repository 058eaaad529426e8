"""What a dry run finds out of the mentors, and how long it may take for that."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import torch

from classroomkd import data
from classroomkd.errors import UserError
from classroomkd.run.mentor_record import other_rule, ready_mentor
from classroomkd.run.mentor_training import in_cache
from classroomkd.train import scoring

if TYPE_CHECKING:
    from classroomkd.classroom import Batch, Mentor
    from classroomkd.data import Part
    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.networks import Networks

__all__ = ["Budget", "first_of", "look_at", "of_weights"]

FEW, MORE = 8, 64  # samples that say how long a sample takes, and that say it better where there is time


@dataclass(frozen=True)
class Budget:
    """Seconds that may be spent on measuring.

    Args:
        end: of the monotonic clock; inf where everything is to be measured.
    """

    end: float = inf

    @classmethod
    def of(cls, seconds: float | None) -> Budget:
        """So many seconds from now; None: no end."""
        return cls() if seconds is None else cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that are left; 0 where none are."""
        return max(self.end - time.monotonic(), 0.0)


def first_of(batch: Batch, count: int) -> dict[str, Any]:
    """The first samples of a batch."""
    return {key: value[:count] if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def look_at(networks: Networks, spec: MentorSpec, seconds: float) -> dict[str, Any]:
    """What is known of a mentor before a run, and its score on the validation part where it has weights.

    Args:
        networks: of the run.
        spec: of the mentor.
        seconds: that asking it may take; of a slow one only a part of the samples is scored.

    Returns:
        ``Networks.describe``, and ``cached`` (trained by an earlier run), ``seconds_a_sample`` of a forward pass (None
        where there was no time), ``val`` (None where it has no weights yet, or cannot be scored), ``val_samples`` that
        were scored, ``val_of`` so many, and ``near_chance``.
    """
    context, ready = networks.context, networks.has_weights(spec)
    found: dict[str, Any] = {**networks.describe(spec.name), "cached": not ready and in_cache(networks, spec.name)}
    found |= {"seconds_a_sample": None, "val": None, "val_samples": 0, "val_of": len(context.data.val)}
    found["near_chance"] = False
    if seconds <= 0 or not len(context.data.val):
        return found
    mentor = ready_mentor(networks, spec) if ready else networks.blank_mentor(spec)
    _ask(networks, mentor, _some(networks, FEW))
    each = _seconds(networks, mentor, FEW)
    if 3 * MORE * each < seconds:
        each = min(_seconds(networks, mentor, MORE) for _ in range(3))
    found["seconds_a_sample"] = each
    if ready and not networks.task_runner.by_vote(context.data.val):
        part = _some(networks, max(int(seconds / max(each, 1e-9)), FEW))
        runner, answers = networks.task_runner, _ask(networks, mentor, part)
        try:
            score = runner.score(answers, part.target.to(answers.device), part.ids).value
        except UserError:  # too few of them for this metric
            return found
        limit, _ = runner.chance()
        found |= {"val": score, "val_samples": len(part)}
        found["near_chance"] = runner.measure.rank(score) <= runner.measure.rank(limit)
    return found


def of_weights(networks: Networks) -> list[str]:
    """What a run is going to say of the weights that its networks have or start from, a sentence each."""
    mentors = networks.context.recipe.mentors
    said = [text for name in ("student", *(spec.name for spec in mentors)) for text in networks.remarks(name)]
    files = {spec.name: spec.checkpoint for spec in mentors if spec.checkpoint is not None and spec.taken_as_is}
    asked = {name: other_rule(networks.context, file) for name, file in files.items()}
    return [*said, *(f"mentor '{name}': {text}" for name, text in asked.items() if text)]


def _seconds(networks: Networks, mentor: Mentor, count: int) -> float:
    """What one of so many samples takes."""
    part = _some(networks, count)
    began = time.perf_counter()
    _ask(networks, mentor, part)
    return (time.perf_counter() - began) / len(part)


def _some(networks: Networks, count: int) -> Part:
    """A stratified choice of the validation part; all of it where there are not more."""
    part: Part = networks.context.data.val
    return part if count >= len(part) else data.subset(part, count, seed=networks.context.recipe.data.split_seed)


@torch.no_grad()
def _ask(networks: Networks, mentor: Mentor, part: Part) -> torch.Tensor:
    context = networks.context
    with context.runtime.autocast():
        size = context.recipe.train.eval_batch_size
        answers, _ = scoring.answers(mentor, part, context.inputs, size, context.base_views)
    context.runtime.synchronize()
    return answers
