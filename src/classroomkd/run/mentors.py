"""Mentors as a run has them: loaded or trained once, scored, and their answers stored."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd import models
from classroomkd._files import refuse_links
from classroomkd._sums import SUMS, unlisted
from classroomkd.classroom import Mentor
from classroomkd.errors import UserError
from classroomkd.recipe.sections import TRAINED
from classroomkd.run.answers_file import load_answers, save_answers
from classroomkd.run.fingerprint import content_key, network_fingerprint
from classroomkd.run.mentor_cache import prepare_answers
from classroomkd.run.mentor_record import MentorRecord, load_weights, other_rule
from classroomkd.run.mentor_training import train_mentor
from classroomkd.run.networks import Networks
from classroomkd.train import scoring as ev
from classroomkd.train.loop import Notify
from classroomkd.train.scoring import Score

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.context import RunContext

__all__ = ["prepare_mentor"]


def prepare_mentor(
    networks: Networks, bank_plan: BankPlan, index: int, notify: Notify, teachers: Sequence[MentorRecord] = ()
) -> MentorRecord:
    """Load or train mentor ``index``, score it, and store its answers when the run uses a bank.

    ``teachers`` are the mentors of its ``taught_by``, made ready before.
    """
    context, runner = networks.context, networks.task_runner
    spec, started = context.recipe.mentors[index], time.perf_counter()
    networks.mentor(spec.name)
    _tell(networks, spec.name, notify)
    weights, samples, note = _weights(networks, index, teachers, notify)
    mean, std, size = load_weights(networks, spec)
    _tell(networks, spec.name, notify)
    module = networks.mentor(spec.name)
    own_code = spec.name in context.given or spec.model.startswith("py:")
    fingerprint = network_fingerprint(context, module, own_code)
    mentor = networks.wrap(spec, module, mean, std, size)
    folder = refuse_links(context.cache, "mentors")
    key = content_key(
        mentor=fingerprint,
        model=spec.model,
        mean=mean,
        std=std,
        size=size,
        data=context.data.fingerprint,
        val=context.data.val.digest(),
        inputs=[context.data.mean, context.data.std],
        precision=context.runtime.precision,
        **runner.lineage(spec, mentor),
    )

    def score(part: Part, file: str) -> Score:
        logits = _logits(context, mentor, part, folder / file, notify)
        if part is context.data.val and (sentence := runner.task.doubt(logits)) is not None:
            notify({"event": "note", "text": f"mentor '{spec.name}' {sentence}"})
        if runner.by_vote(part):  # scored when all mentors have answered
            return Score(math.nan, math.nan, [], len(part))
        return runner.score(logits, part.target.to(logits.device), part.ids)

    val_file, test_file = f"{key}-val.npy", f"{key}-{context.data.test.digest()}.npy"
    val, test = score(context.data.val, val_file), score(context.data.test, test_file)
    about = {
        "mentor": spec.name,
        "model": spec.model,
        "weights": fingerprint,
        "preprocessing": {"mean": mean, "std": std, "size": size, "inputs": [context.data.mean, context.data.std]},
        "data": context.data.fingerprint,
        "precision": f"{context.runtime.precision}, weights {context.mentor_precision}",
        "known": None,
        **runner.lineage(spec, mentor),
    }
    answers, forwards, answer_seconds = prepare_answers(networks, bank_plan, mentor, about, notify)
    networks.park()
    return MentorRecord(
        name=spec.name,
        model=spec.model,
        weights=weights,
        mean=mean,
        std=std,
        size=size,
        accuracy=test.accuracy,
        val_accuracy=val.accuracy,
        per_class=test.per_class,
        parameters=models.parameters(module),
        multiply_adds=models.multiply_adds(module, (context.data.shape[0], *(size or context.data.shape[1:]))),
        samples=samples,
        note=note,
        seconds=round(time.perf_counter() - started, 2),
        val_logits=str(folder / val_file),
        test_logits=str(folder / test_file),
        answers=answers,
        forwards=forwards,
        answer_seconds=answer_seconds,
        fingerprint=fingerprint,
    )


def _tell(networks: Networks, name: str, notify: Notify) -> None:
    """What is to be said of a mentor's weights; a sentence that has been said is not shown again."""
    for text in networks.remarks(name):
        notify({"event": "note", "text": text})


def _weights(
    networks: Networks, index: int, teachers: Sequence[MentorRecord], notify: Notify
) -> tuple[str, int | None, str]:
    """Where mentor ``index`` has its weights from, trained where it has none: (file, labels seen, note)."""
    spec = networks.context.recipe.mentors[index]
    path, samples, note = "", None, ""
    if not networks.has_weights(spec):
        trained, samples, note = train_mentor(networks, index, teachers, notify)
        path = str(trained)
    elif spec.checkpoint is not None and spec.taken_as_is:
        path = spec.checkpoint
        if (Path(path).parent / SUMS).exists() and (sentence := unlisted(Path(path))) is not None:
            notify({"event": "note", "text": f"mentor '{spec.name}': {sentence}"})
        if (sentence := other_rule(networks.context, path)) is not None:
            notify({"event": "note", "text": f"mentor '{spec.name}': {sentence}"})
    elif spec.name not in networks.context.given:
        note = "as its factory gave it" if spec.weights == TRAINED else "with its published weights"
    return path, samples, "; ".join(filter(None, [spec.note, note]))


def _logits(context: RunContext, mentor: Mentor, part: Part, path: Path, notify: Notify) -> Tensor:
    """A mentor's float32 logits ``(N, C)`` on the un-augmented images of a part; from the file when it is there."""
    zero = context.runtime.is_zero
    context.runtime.barrier()
    there, stored = path.exists(), _stored(path, len(part))
    context.runtime.barrier()
    if not context.runtime.any(stored is None):
        assert stored is not None
        return stored.to(context.runtime.device)
    if there and zero:
        notify({"event": "note", "text": f"{path} is damaged; mentor '{mentor.name}' is asked again"})
    with context.runtime.autocast():
        logits, _ = ev.answers(mentor, part, context.inputs, context.recipe.train.eval_batch_size, context.base_views)
    if zero:
        save_answers(path, logits.to("cpu").numpy())
    context.runtime.barrier()
    return logits


def _stored(path: Path, rows: int) -> Tensor | None:
    """Stored logits ``(rows, …)``; None where there are none, or the file is damaged."""
    try:
        return torch.from_numpy(load_answers(path, rows))
    except UserError:
        return None
