"""Mentors as a run has them: loaded or trained once, kept by content, scored, and their answers stored."""

from __future__ import annotations

import fcntl
import json
import time
import zlib
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
from classroomkd.models.about import preprocessing
from classroomkd.run import assistants
from classroomkd.run.answers_file import save_answers
from classroomkd.run.fingerprint import network_fingerprint
from classroomkd.run.kept import kept_logits, load_kept
from classroomkd.run.mentor_cache import prepare_answers
from classroomkd.run.mentor_data import mentor_part
from classroomkd.run.mentor_record import MentorRecord
from classroomkd.run.setup import Setup, content_key
from classroomkd.train import scoring as ev
from classroomkd.train.loop import Notify, Training

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.recipe.schema import MentorSpec

__all__ = ["is_trained", "load_mentor", "prepare_mentor", "ready_mentor"]

LOCK = ".lock"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer, also between processes; the lock goes with the process."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / LOCK) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def prepare_mentor(setup: Setup, index: int, notify: Notify, teachers: Sequence[MentorRecord] = ()) -> MentorRecord:
    """Load or train mentor ``index``, score it, and store its answers when the run uses a bank.

    ``teachers`` are the mentors of its ``taught_by``, made ready before.
    """
    spec = setup.recipe.mentors[index]
    role = f"mentors.{index} ({spec.name})"
    started = time.perf_counter()
    seed = (zlib.crc32(spec.name.encode()) + (spec.train.seed if spec.train else 0)) % 2**31
    module = setup.build_mentor(spec.name, spec.name if setup.given and spec.name in setup.given else role, seed)
    handed = bool(setup.given and spec.name in setup.given)
    mean, std, size, samples, note = None, None, None, None, spec.note or ""
    weights, what = "", ""
    theirs = handed or spec.model.startswith("py:")
    if handed:
        what = network_fingerprint(setup, module, theirs)
    elif spec.checkpoint is not None:
        weights = str(spec.checkpoint)
        mean, std, size = _loaded(setup, spec, module)
        what = network_fingerprint(setup, module, theirs)
    elif setup.task_runner.comes_trained(spec.model):
        what, note = (
            network_fingerprint(setup, module, theirs),
            "; ".join(x for x in (note, "with its published weights") if x),
        )
        known = getattr(module, "preprocessing", None)
        mean, std = (list(known["mean"]), list(known["std"])) if known else (None, None)
    else:
        path, samples, made = _trained(setup, index, module, seed, teachers, notify)
        note = "; ".join(x for x in (note, made) if x)
        weights, what = str(path), network_fingerprint(setup, module, theirs)
    if spec.mean is not None:
        mean, std = list(spec.mean), list(spec.std or setup.data.std)
    if spec.shape is not None:
        size = list(spec.shape)
    mentor = setup.wrap_mentor(spec, module, mean, std, size)
    folder = refuse_links(setup.cache, "mentors")
    key = content_key(
        mentor=what,
        model=spec.model,
        mean=mean,
        std=std,
        size=size,
        data=setup.data.fingerprint,
        val=setup.data.val.digest(),
        inputs=[setup.data.mean, setup.data.std],
        precision=setup.runtime.precision,
        **setup.task_runner.lineage(spec, mentor),
    )
    scores = []
    for part, kept in ((setup.data.val, f"{key}-val.npy"), (setup.data.test, f"{key}-{setup.data.test.digest()}.npy")):
        logits = _logits(setup, mentor, part, folder / kept, notify)
        scores.append(setup.task_runner.score(logits, part.target.to(logits.device), part.ids))
    val, test = scores
    about = {
        "mentor": spec.name,
        "model": spec.model,
        "weights": what,
        "preprocessing": {"mean": mean, "std": std, "size": size, "inputs": [setup.data.mean, setup.data.std]},
        "data": setup.data.fingerprint,
        "precision": f"{setup.runtime.precision}, weights {setup.mentor_precision}",
        "known": spec.classes,
        **{k: v for k, v in setup.task_runner.lineage(spec, mentor).items() if k != "known"},
    }
    answers, forwards, answer_seconds = prepare_answers(setup, mentor, about, notify)
    shape = (setup.data.shape[0], *(size or setup.data.shape[1:]))
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


def _loaded(
    setup: Setup, spec: MentorSpec, module: nn.Module
) -> tuple[list[float] | None, list[float] | None, list[int] | None]:
    """Load a mentor's checkpoint; returns the mean, std and size that it or its library says of itself."""
    mean, std, size = None, None, None
    metadata = models.load_checkpoint(module, str(spec.checkpoint), what=f"mentor '{spec.name}'")
    written = preprocessing(str(spec.checkpoint), metadata["preprocessing"]) if "preprocessing" in metadata else None
    known = None if written is None else written.model_dump(exclude_none=True)
    known = known or models.preprocessing(spec.model)
    if known is not None:
        mean, std = list(known["mean"]), list(known["std"])
    if "preprocessing" in metadata and spec.shape is None and known is not None and "shape" in known:
        own = [int(n) for n in known["shape"][1:]]  # a student of ours says which size it was taught at
        size = own if own != list(setup.data.shape[1:]) else None
    return mean, std, size


def is_trained(setup: Setup, spec: MentorSpec) -> bool:
    """Whether a mentor has weights before the run does anything."""
    handed = bool(setup.given and spec.name in setup.given)
    return handed or spec.checkpoint is not None or setup.task_runner.comes_trained(spec.model)


def ready_mentor(setup: Setup, spec: MentorSpec) -> Mentor:
    """A mentor that :func:`is_trained`, as a run would have it, without scoring or storing anything."""
    module = setup.build_mentor(spec.name, seed=0)
    mean, std, size = _loaded(setup, spec, module) if spec.checkpoint is not None else (None, None, None)
    if spec.checkpoint is None and (known := getattr(module, "preprocessing", None)):
        mean, std = list(known["mean"]), list(known["std"])
    if spec.mean is not None:
        mean, std = list(spec.mean), list(spec.std or setup.data.std)
    return setup.wrap_mentor(spec, module, mean, std, spec.shape or size)


def _trained(
    setup: Setup, index: int, module: nn.Module, seed: int, teachers: Sequence[MentorRecord], notify: Notify
) -> tuple[Path, int, str]:
    """Train a mentor by its recipe section, or take it from the cache; returns (weights, labels seen, note)."""
    spec, train = setup.recipe.mentors[index], setup.mentor_train(index)
    part, note = mentor_part(setup, index)
    note = "; ".join(x for x in (note, assistants.told(spec)) if x)
    key = content_key(
        version=1,
        model=spec.model,
        classes=setup.classes,
        train=train.model_dump(mode="json", exclude={"checkpoint_minutes"}),  # it changes no weight
        data=setup.data.fingerprint,
        parts=[part.digest(), setup.data.val.digest()],
        shape=setup.data.shape,
        mean=setup.data.mean,
        views=setup.base_views.definition,
        seed=seed,
        code=network_fingerprint(setup, module, True) if spec.model.startswith("py:") else "",
        **assistants.lineage(spec, teachers, setup.task_runner.taught_by()),
        **_own_form(setup, spec),
    )
    folder = refuse_links(setup.cache, "mentors", key)
    refuse_links_below(folder)
    path = folder / "mentor.safetensors"
    zero = setup.runtime.is_zero
    # What nobody here can write needs no lock: it is there, or it is not.
    closed = not (may_write(folder) and may_write(folder / LOCK))
    with _locked(folder) if zero and not closed else nullcontext():
        # Rank 0 holds the lock for all; everybody looks between two barriers and so sees the same.
        setup.runtime.barrier()
        found, wrong = path.exists(), load_kept(module, path, spec.name)
        setup.runtime.barrier()
        if not setup.runtime.any(wrong is not None):
            notify({"event": "cached", "what": spec.name})
            return path, len(part), note
        if closed:
            raise UserError(
                f"mentor '{spec.name}' is not in {setup.cache}, which cannot be written: train it where it can, or "
                "give another cache="
            )
        if zero and (found or (folder / "mentor.json").exists()):
            again = (folder / "checkpoints" / "last.pt").exists()
            how = (
                "it is made again from its last checkpoint" if again else "there is no checkpoint: it is trained again"
            )
            notify({"event": "note", "text": f"mentor '{spec.name}': {wrong or f'{path} is damaged'}; {how}"})
        classroom = assistants.classroom_of(setup, index, module, teachers, part, train, seed)
        fit = Training(
            setup.runtime,
            classroom,
            part,
            None,
            setup.base_views,
            setup.inputs,
            train,
            setup.classes,
            seed,
            folder=folder,
            notify=notify,
            measure=False,
            on_bad_mentor=setup.recipe.on_bad_mentor,
            evaluate_fn=setup.task_runner.evaluate,
            extra_sizes=setup.extra_sizes(classroom),
            size=spec.shape if setup.data.people is not None else None,
        )
        fit.run(resume=True)
        about = {
            "model": spec.model,
            "classes": json.dumps(list(setup.classes)),
            "preprocessing": json.dumps({"mean": setup.data.mean, "std": setup.data.std}),
            "classroomkd": __version__,
            **setup.task_runner.about(),
        }
        if zero:
            models.save_checkpoint(module, path, about)
            atomic_write_text(folder / "mentor.json", json.dumps({"name": spec.name, "note": note, **about}, indent=1))
            write_sums(folder, [path.name, "mentor.json"])
        setup.runtime.barrier()
        # As it comes back from its file: each rank has running statistics of its own, and another memory format would
        # change the last bits of what it answers.
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        models.load_checkpoint(module, path, what=f"mentor '{spec.name}'")
    return path, len(part), note


def _logits(setup: Setup, mentor: Mentor, part: Part, path: Path, notify: Notify) -> Tensor:
    """A mentor's float32 logits ``(N, C)`` on the un-augmented images of a part; from the file when it is there."""
    zero = setup.runtime.is_zero
    setup.runtime.barrier()
    there, kept = path.exists(), kept_logits(path, len(part))
    setup.runtime.barrier()
    if not setup.runtime.any(kept is None):
        assert kept is not None
        return kept.to(setup.runtime.device)
    if there and zero:
        notify({"event": "note", "text": f"{path} is damaged; mentor '{mentor.name}' is asked again"})
    with setup.runtime.autocast():
        logits, _ = ev.answers(mentor, part, setup.inputs, setup.recipe.train.eval_batch_size, setup.base_views)
    if zero:
        save_answers(path, logits.to("cpu").numpy())
    setup.runtime.barrier()
    return logits


def _own_form(setup: Setup, spec: MentorSpec) -> dict[str, Any]:
    """What a pose mentor's own training depends on beside the data: its input size and what is said of its head."""
    if setup.data.people is None:
        return {}
    return {**({"size": spec.shape} if spec.shape else {}), **({"head": spec.head} if spec.head else {})}


def load_mentor(setup: Setup, record: MentorRecord) -> Mentor:
    """The network of a prepared mentor, on the training device."""
    if setup.given and record.name in setup.given:
        module = setup.given[record.name]
    else:
        module = setup.build_mentor(record.name)
        if record.weights:
            models.load_checkpoint(module, record.weights, what=f"mentor '{record.name}'")
    spec = next(m for m in setup.recipe.mentors if m.name == record.name)
    return setup.wrap_mentor(spec, module, record.mean, record.std, record.size)
