"""How good a mentor is while the run trains it: for the progress, and of no weight for anything else."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classroomkd import data
from classroomkd.errors import UserError
from classroomkd.taps.taps import remove_readers
from classroomkd.train import scoring, stopping

if TYPE_CHECKING:
    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.networks import Networks
    from classroomkd.train.loop import Notify

__all__ = ["with_scores"]

MOST = 256  # samples of the validation part, a stratified choice
SHARE = 0.02  # of the training's time that may go into it


def with_scores(networks: Networks, spec: MentorSpec, module: nn.Module, notify: Notify) -> Notify:
    """``notify``, which after an epoch is also told ``{"event": "val", "epoch", "accuracy"}``; by the first rank.

    A copy of the network is asked, as the mentor that it is going to be. Not after every epoch where that would take
    more than a small share of the time.
    """
    context = networks.context
    if not context.runtime.is_zero or not len(context.data.val) or networks.task_runner.by_vote(context.data.val):
        return notify
    part = data.subset(context.data.val, min(MOST, len(context.data.val)), seed=context.recipe.data.split_seed)
    began, spent = time.perf_counter(), 0.0

    def tell(event: dict[str, Any]) -> None:
        nonlocal spent
        notify(event)
        start = time.perf_counter()
        if event["event"] != "epoch" or stopping.asked() is not None or spent > SHARE * (start - began):
            return
        try:
            score = _score(networks, spec, module, part)
        except UserError:  # too few of them for this metric
            return
        spent += time.perf_counter() - start
        notify({"event": "val", "epoch": event["epoch"], "accuracy": score})

    return tell


@torch.no_grad()
def _score(networks: Networks, spec: MentorSpec, module: nn.Module, part: Any) -> float:
    context, runner = networks.context, networks.task_runner
    copied = copy.deepcopy(module)
    remove_readers(copied)
    with torch.random.fork_rng([context.runtime.device] if context.runtime.device.type == "cuda" else []):
        mentor = networks.wrap(spec, copied, spec.mean, spec.std, spec.shape)
        with context.runtime.autocast():
            size = context.recipe.train.eval_batch_size
            answers, _ = scoring.answers(mentor, part, context.inputs, size, context.base_views)
    return float(runner.score(answers, part.target.to(answers.device), part.ids).value)
