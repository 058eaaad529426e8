"""Mentors as a run has them: loaded or trained once, scored, and their answers stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from classroomkd import models
from classroomkd._files import refuse_links
from classroomkd._sums import SUMS, unlisted
from classroomkd.classroom import Mentor
from classroomkd.run.answers_file import save_answers
from classroomkd.run.fingerprint import content_key, network_fingerprint
from classroomkd.run.kept import kept_logits
from classroomkd.run.loading import load_checkpoint
from classroomkd.run.mentor_cache import prepare_answers
from classroomkd.run.mentor_record import MentorRecord
from classroomkd.run.mentor_training import train_mentor
from classroomkd.run.networks import Networks
from classroomkd.train import scoring as ev
from classroomkd.train.loop import Notify

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.context import RunContext
    from classroomkd.train.scoring import Score

__all__ = ["prepare_mentor"]


def prepare_mentor(
    networks: Networks, bank_plan: BankPlan, index: int, notify: Notify, teachers: Sequence[MentorRecord] = ()
) -> MentorRecord:
    """Load or train mentor ``index``, score it, and store its answers when the run uses a bank.

    ``teachers`` are the mentors of its ``taught_by``, made ready before.
    """
    context, runner = networks.context, networks.task_runner
    spec, started = context.recipe.mentors[index], time.perf_counter()
    ready = _with_weights(networks, index, teachers, notify)
    mentor = networks.wrap(spec, ready.module, ready.mean, ready.std, ready.size)
    folder = refuse_links(context.cache, "mentors")
    key = content_key(
        mentor=ready.fingerprint,
        model=spec.model,
        mean=ready.mean,
        std=ready.std,
        size=ready.size,
        data=context.data.fingerprint,
        val=context.data.val.digest(),
        inputs=[context.data.mean, context.data.std],
        precision=context.runtime.precision,
        **runner.lineage(spec, mentor),
    )

    def score(part: Part, file: str) -> Score:
        logits = _logits(context, mentor, part, folder / file, notify)
        return runner.score(logits, part.target.to(logits.device), part.ids)

    val = score(context.data.val, f"{key}-val.npy")
    test = score(context.data.test, f"{key}-{context.data.test.digest()}.npy")
    about = {
        "mentor": spec.name,
        "model": spec.model,
        "weights": ready.fingerprint,
        "preprocessing": {
            "mean": ready.mean,
            "std": ready.std,
            "size": ready.size,
            "inputs": [context.data.mean, context.data.std],
        },
        "data": context.data.fingerprint,
        "precision": f"{context.runtime.precision}, weights {context.mentor_precision}",
        "known": spec.classes,
        **{k: v for k, v in runner.lineage(spec, mentor).items() if k != "known"},
    }
    answers, forwards, answer_seconds = prepare_answers(networks, bank_plan, mentor, about, notify)
    networks.park()
    return MentorRecord(
        name=spec.name,
        model=spec.model,
        weights=ready.weights,
        mean=ready.mean,
        std=ready.std,
        size=ready.size,
        accuracy=test.accuracy,
        val_accuracy=val.accuracy,
        per_class=test.per_class,
        parameters=models.parameters(ready.module),
        multiply_adds=models.multiply_adds(
            ready.module, (context.data.shape[0], *(ready.size or context.data.shape[1:]))
        ),
        samples=ready.samples,
        note=ready.note,
        seconds=round(time.perf_counter() - started, 2),
        val_logits=str(folder / f"{key}-val.npy"),
        answers=answers,
        forwards=forwards,
        answer_seconds=answer_seconds,
        fingerprint=ready.fingerprint,
    )


@dataclass(frozen=True)
class _Ready:
    """A mentor's network with its weights, and what is known of it; as in :class:`MentorRecord`."""

    module: nn.Module
    weights: str
    fingerprint: str
    mean: list[float] | None
    std: list[float] | None
    size: list[int] | None
    samples: int | None
    note: str


def _with_weights(networks: Networks, index: int, teachers: Sequence[MentorRecord], notify: Notify) -> _Ready:
    """Load mentor ``index``, or train it; what the recipe says of its preprocessing holds."""
    context = networks.context
    spec = context.recipe.mentors[index]
    handed = spec.name in context.given
    mean, std, size, samples, weights, notes = None, None, None, None, "", [spec.note or ""]
    if handed:
        module = networks.mentor(spec.name)
    elif spec.checkpoint is not None:
        weights = str(spec.checkpoint)
        mean, std, size = load_checkpoint(networks, spec)
        if (Path(weights).parent / SUMS).exists() and (sentence := unlisted(Path(weights))) is not None:
            notify({"event": "note", "text": f"mentor '{spec.name}': {sentence}"})
        module = networks.mentor(spec.name)
    elif networks.has_weights(spec):
        module = networks.mentor(spec.name)
        notes.append("with its published weights")
        known = getattr(module, "preprocessing", None)
        mean, std = (list(known["mean"]), list(known["std"])) if known else (None, None)
    else:
        path, samples, note = train_mentor(networks, index, teachers, notify)
        module, weights = networks.mentor(spec.name), str(path)
        notes.append(note)
    if spec.mean is not None:
        mean, std = list(spec.mean), list(spec.std or context.data.std)
    if spec.shape is not None:
        size = list(spec.shape)
    fingerprint = network_fingerprint(context, module, handed or spec.model.startswith("py:"))
    return _Ready(module, weights, fingerprint, mean, std, size, samples, "; ".join(filter(None, notes)))


def _logits(context: RunContext, mentor: Mentor, part: Part, path: Path, notify: Notify) -> Tensor:
    """A mentor's float32 logits ``(N, C)`` on the un-augmented images of a part; from the file when it is there."""
    zero = context.runtime.is_zero
    context.runtime.barrier()
    there, kept = path.exists(), kept_logits(path, len(part))
    context.runtime.barrier()
    if not context.runtime.any(kept is None):
        assert kept is not None
        return kept.to(context.runtime.device)
    if there and zero:
        notify({"event": "note", "text": f"{path} is damaged; mentor '{mentor.name}' is asked again"})
    with context.runtime.autocast():
        logits, _ = ev.answers(mentor, part, context.inputs, context.recipe.train.eval_batch_size, context.base_views)
    if zero:
        save_answers(path, logits.to("cpu").numpy())
    context.runtime.barrier()
    return logits
