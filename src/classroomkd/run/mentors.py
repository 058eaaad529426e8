"""Mentors as a run has them: loaded or trained once, kept by content, scored, and their answers stored."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import __version__, models
from classroomkd._files import (
    atomic_write_text,
    may_write,
    open_lock,
    refuse_links,
    refuse_links_below,
    writing,
)
from classroomkd._sums import write_sums
from classroomkd.classroom import Mentor
from classroomkd.errors import UserError
from classroomkd.run import assistants
from classroomkd.run.answers_file import save_answers
from classroomkd.run.fingerprint import content_key, network_fingerprint
from classroomkd.run.kept import kept_logits, load_kept
from classroomkd.run.loading import load_checkpoint
from classroomkd.run.mentor_cache import prepare_answers
from classroomkd.run.mentor_data import mentor_part
from classroomkd.run.mentor_record import MentorRecord
from classroomkd.run.networks import Networks, mentor_seed
from classroomkd.train import scoring as ev
from classroomkd.train.loop import Notify, Training

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.context import RunContext

__all__ = ["prepare_mentor"]

LOCK = ".lock"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer, also between processes; the lock goes with the process."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / LOCK) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def prepare_mentor(
    networks: Networks, bank_plan: BankPlan, index: int, notify: Notify, teachers: Sequence[MentorRecord] = ()
) -> MentorRecord:
    """Load or train mentor ``index``, score it, and store its answers when the run uses a bank.

    ``teachers`` are the mentors of its ``taught_by``, made ready before.
    """
    context, runner = networks.context, networks.task_runner
    spec, started = context.recipe.mentors[index], time.perf_counter()
    handed = spec.name in context.given
    module = networks.mentor(spec.name) if networks.has_weights(spec) else networks.untrained(spec.name)
    mean, std, size, samples, note = None, None, None, None, spec.note or ""
    weights, what = "", ""
    theirs = handed or spec.model.startswith("py:")
    if handed:
        what = network_fingerprint(context, module, theirs)
    elif spec.checkpoint is not None:
        weights = str(spec.checkpoint)
        mean, std, size = load_checkpoint(networks, spec)
        what = network_fingerprint(context, module, theirs)
    elif runner.comes_trained(spec.model):
        what, note = (
            network_fingerprint(context, module, theirs),
            "; ".join(x for x in (note, "with its published weights") if x),
        )
        known = getattr(module, "preprocessing", None)
        mean, std = (list(known["mean"]), list(known["std"])) if known else (None, None)
    else:
        path, samples, taught = _trained(networks, index, module, teachers, notify)
        note = "; ".join(x for x in (note, taught) if x)
        weights, what = str(path), network_fingerprint(context, module, theirs)
    if spec.mean is not None:
        mean, std = list(spec.mean), list(spec.std or context.data.std)
    if spec.shape is not None:
        size = list(spec.shape)
    mentor = networks.wrap(spec, module, mean, std, size)
    folder = refuse_links(context.cache, "mentors")
    key = content_key(
        mentor=what,
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
    scores = []
    for part, kept in (
        (context.data.val, f"{key}-val.npy"),
        (context.data.test, f"{key}-{context.data.test.digest()}.npy"),
    ):
        logits = _logits(context, mentor, part, folder / kept, notify)
        scores.append(runner.score(logits, part.target.to(logits.device), part.ids))
    val, test = scores
    about = {
        "mentor": spec.name,
        "model": spec.model,
        "weights": what,
        "preprocessing": {"mean": mean, "std": std, "size": size, "inputs": [context.data.mean, context.data.std]},
        "data": context.data.fingerprint,
        "precision": f"{context.runtime.precision}, weights {context.mentor_precision}",
        "known": spec.classes,
        **{k: v for k, v in runner.lineage(spec, mentor).items() if k != "known"},
    }
    answers, forwards, answer_seconds = prepare_answers(networks, bank_plan, mentor, about, notify)
    shape = (context.data.shape[0], *(size or context.data.shape[1:]))
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
        multiply_adds=models.multiply_adds(module, shape),
        samples=samples,
        note=note,
        seconds=round(time.perf_counter() - started, 2),
        val_logits=str(folder / f"{key}-val.npy"),
        answers=answers,
        forwards=forwards,
        answer_seconds=answer_seconds,
        fingerprint=what,
    )


def _trained(
    networks: Networks, index: int, module: nn.Module, teachers: Sequence[MentorRecord], notify: Notify
) -> tuple[Path, int, str]:
    """Train a mentor by its recipe section, or take it from the cache; returns (weights, labels seen, note)."""
    context, runner = networks.context, networks.task_runner
    spec, train = context.recipe.mentors[index], context.mentor_train(index)
    seed, (part, note) = mentor_seed(spec), mentor_part(context, index)
    note = "; ".join(x for x in (note, assistants.told(spec)) if x)
    key = content_key(
        version=1,
        model=spec.model,
        classes=context.classes,
        train=train.model_dump(mode="json", exclude={"checkpoint_minutes"}),  # it changes no weight
        data=context.data.fingerprint,
        parts=[part.digest(), context.data.val.digest()],
        shape=context.data.shape,
        mean=context.data.mean,
        views=context.base_views.definition,
        seed=seed,
        code=network_fingerprint(context, module, True) if spec.model.startswith("py:") else "",
        **assistants.lineage(spec, teachers, runner.taught_by()),
        **_own_form(context, spec),
    )
    folder = refuse_links(context.cache, "mentors", key)
    refuse_links_below(folder)
    path = folder / "mentor.safetensors"
    zero = context.runtime.is_zero
    # What nobody here can write needs no lock: it is there, or it is not.
    closed = not (may_write(folder) and may_write(folder / LOCK))
    with _locked(folder) if zero and not closed else nullcontext():
        # Rank 0 holds the lock for all; everybody looks between two barriers and so sees the same.
        context.runtime.barrier()
        found, wrong = path.exists(), load_kept(module, path, spec.name)
        context.runtime.barrier()
        if not context.runtime.any(wrong is not None):
            notify({"event": "cached", "what": spec.name})
            networks.loaded(spec.name, str(path))
            return path, len(part), note
        if closed:
            raise UserError(
                f"mentor '{spec.name}' is not in {context.cache}, which cannot be written: train it where it can, or "
                "give another cache="
            )
        if zero and (found or (folder / "mentor.json").exists()):
            again = (folder / "checkpoints" / "last.pt").exists()
            how = (
                "it is made again from its last checkpoint" if again else "there is no checkpoint: it is trained again"
            )
            notify({"event": "note", "text": f"mentor '{spec.name}': {wrong or f'{path} is damaged'}; {how}"})
        classroom = assistants.classroom_of(networks, index, module, teachers, part, train, seed)
        fit = Training(
            context.runtime,
            classroom,
            part,
            None,
            context.base_views,
            context.inputs,
            train,
            context.classes,
            seed,
            folder=folder,
            notify=notify,
            measure=False,
            on_bad_mentor=context.recipe.on_bad_mentor,
            evaluate_fn=runner.evaluate,
            extra_sizes=context.extra_sizes(classroom),
            size=spec.shape if context.data.people is not None else None,
        )
        fit.run(resume=True)
        about = {
            "model": spec.model,
            "classes": json.dumps(list(context.classes)),
            "preprocessing": json.dumps({"mean": context.data.mean, "std": context.data.std}),
            "classroomkd": __version__,
            **runner.about(),
        }
        if zero:
            models.save_checkpoint(module, path, about)
            atomic_write_text(folder / "mentor.json", json.dumps({"name": spec.name, "note": note, **about}, indent=1))
            write_sums(folder, [path.name, "mentor.json"])
        context.runtime.barrier()
        # As it comes back from its file: each rank has running statistics of its own, and another memory format would
        # change the last bits of what it answers.
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        models.load_checkpoint(module, path, what=f"mentor '{spec.name}'")
    networks.loaded(spec.name, str(path))
    return path, len(part), note


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


def _own_form(context: RunContext, spec: MentorSpec) -> dict[str, Any]:
    """What a pose mentor's own training depends on beside the data: its input size and what is said of its head."""
    if context.data.people is None:
        return {}
    return {**({"size": spec.shape} if spec.shape else {}), **({"head": spec.head} if spec.head else {})}
