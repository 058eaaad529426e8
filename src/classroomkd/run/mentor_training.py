"""Mentors that the run trains: once for all runs of a cache, which knows them by all that their weights depend on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classroomkd import __version__, models
from classroomkd._files import may_write, open_lock, refuse_links, refuse_links_below, writing
from classroomkd._locks import hold
from classroomkd._sums import damage, is_listed, write_listed
from classroomkd.errors import UserError
from classroomkd.recipe.training import LATER, TrainSpec
from classroomkd.run import assistants
from classroomkd.run.fingerprint import content_key, network_fingerprint
from classroomkd.run.finished import made_again
from classroomkd.run.mentor_data import mentor_part
from classroomkd.run.mentor_watch import with_scores
from classroomkd.run.networks import Networks, mentor_seed
from classroomkd.train.loop import Notify, Training

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.context import RunContext
    from classroomkd.run.mentor_record import MentorRecord

__all__ = ["in_cache", "train_mentor"]

LOCK = ".lock"


@contextmanager
def _locked(folder: Path, name: str, notify: Notify) -> Iterator[None]:
    """One writer, also between processes; the lock goes with the process. Who is waited for is said."""

    def wait(holder: str) -> None:
        text = f"mentor '{name}': waiting for {holder or 'another process'}, which trains it"
        notify({"event": "note", "text": text})

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / LOCK) as file, hold(file, wait):
        yield


def train_mentor(
    networks: Networks, index: int, teachers: Sequence[MentorRecord], notify: Notify
) -> tuple[Path, int, str]:
    """Train a mentor by its recipe section, or take it from the cache; returns (weights, labels seen, note)."""
    context, spec = networks.context, networks.context.recipe.mentors[index]
    module = networks.untrained(spec.name)
    part, note = mentor_part(context, index)
    note = "; ".join(filter(None, [note, assistants.described(spec)]))
    key = _key(networks, index, module, part, teachers)
    folder = refuse_links(context.cache, "mentors", key)
    refuse_links_below(folder)
    path = folder / "mentor.safetensors"
    zero = context.runtime.is_zero
    # What nobody here can write needs no lock: it is there, or it is not.
    closed = not (may_write(folder) and may_write(folder / LOCK))
    with _locked(folder, spec.name, notify) if zero and not closed else nullcontext():
        # Rank 0 holds the lock for all; everybody looks between two barriers and so sees the same.
        context.runtime.barrier()
        there, wrong = path.exists(), _load_trained(module, path, spec.name)
        context.runtime.barrier()
        if not context.runtime.any(wrong is not None):
            notify({"event": "cached", "what": spec.name})
        elif closed:
            raise UserError(
                f"mentor '{spec.name}' is not in {context.cache}, which cannot be written: train it where it can, or "
                "give another cache="
            )
        else:
            if zero and (there or (folder / "mentor.json").exists()):
                how = made_again(folder)
                notify({"event": "note", "text": f"mentor '{spec.name}': {wrong or f'{path} is damaged'}; {how}"})
            _train(networks, index, module, part, teachers, folder, notify)
            _save(networks, spec, module, path, note)
    networks.loaded(spec.name, str(path))
    return path, len(part), note


def in_cache(networks: Networks, name: str) -> bool:
    """Whether an earlier run has trained a mentor; of an assistant that is known only once its teachers are."""
    context = networks.context
    index = [spec.name for spec in context.recipe.mentors].index(name)
    if context.recipe.mentors[index].taught_by is not None:
        return False
    key = _key(networks, index, networks.mentor(name), mentor_part(context, index)[0], ())
    return (context.cache / "mentors" / key / "mentor.safetensors").exists()


def _save(networks: Networks, spec: MentorSpec, module: nn.Module, path: Path, note: str) -> None:
    """Write a trained mentor, and go on with what was written."""
    context = networks.context
    about = {
        "model": spec.model,
        "classes": json.dumps(list(context.classes)),
        "preprocessing": json.dumps(context.preprocessing),
        "classroomkd": __version__,
        **networks.task_runner.about(),
    }
    if context.runtime.is_zero:
        models.save_checkpoint(module, path, about, listed=True)
        description = {"name": spec.name, "note": note, **about}
        write_listed(path.with_name("mentor.json"), json.dumps(description, indent=1))
    context.runtime.barrier()
    # As it comes back from its file: each rank has running statistics of its own, and another memory format would
    # change the last bits of what it answers.
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    models.load_checkpoint(module, path, what=f"mentor '{spec.name}'")


def _load_trained(module: nn.Module, path: Path, name: str) -> str | None:
    """Load a mentor's weights from the cache; None, or what is wrong with them, and then the network is as it was."""
    about = path.with_name("mentor.json")
    for file in [path, about] if is_listed(about) else [path]:
        if (wrong := damage(file)) is not None:
            return f"{file} {wrong}"
    try:
        models.load_checkpoint(module, path, what=f"mentor '{name}'")
    except UserError as error:
        return str(error).partition("\n")[0]
    return None


def _key(networks: Networks, index: int, module: nn.Module, part: Part, teachers: Sequence[MentorRecord]) -> str:
    """What a mentor's weights depend on."""
    context, runner = networks.context, networks.task_runner
    spec, train = context.recipe.mentors[index], context.mentor_train(index)
    return content_key(
        version=1,
        model=spec.model,
        classes=context.classes,
        train=_of_weight(train),
        data=context.data.fingerprint,
        parts=[part.digest(), context.data.val.digest()],
        shape=context.data.shape,
        mean=context.data.mean,
        views=context.base_views.definition,
        seed=mentor_seed(spec),
        code=network_fingerprint(context, module, True) if spec.model.startswith("py:") else "",
        **({"start": network_fingerprint(context, module, True), "head": spec.reset_head} if spec.weights else {}),
        **assistants.lineage(spec, teachers, runner.taught_by(), context.recipe.task.name),
        **_own_form(context, spec),
    )


def _of_weight(train: TrainSpec) -> dict[str, Any]:
    """What of a training section the weights depend on; keys that came later only where they change something."""
    usual = {key for key in LATER if getattr(train, key) == TrainSpec.model_fields[key].default}
    return train.model_dump(mode="json", exclude={"checkpoint_minutes", "keep_checkpoints", *usual})


def _train(
    networks: Networks,
    index: int,
    module: nn.Module,
    part: Part,
    teachers: Sequence[MentorRecord],
    folder: Path,
    notify: Notify,
) -> None:
    """Train a mentor's network, from its last checkpoint where there is one."""
    context, spec = networks.context, networks.context.recipe.mentors[index]
    classroom = assistants.classroom_of(networks, index, module, teachers, part)
    training = Training(
        context.runtime,
        classroom,
        part,
        None,
        context.base_views,
        context.inputs,
        context.mentor_train(index),
        context.classes,
        mentor_seed(spec),
        folder=folder,
        notify=with_scores(networks, spec, module, notify),
        measure=False,
        section=f"mentors.{spec.name}.train",
        on_bad_mentor=context.recipe.on_bad_mentor,
        evaluate_fn=networks.task_runner.evaluate,
        extra_sizes=context.extra_sizes(classroom),
        size=spec.shape if context.data.people is not None else None,
    )
    training.run(resume=True)


def _own_form(context: RunContext, spec: MentorSpec) -> dict[str, Any]:
    """What a pose mentor's own training depends on beside the data: its input size and what is said of its head."""
    if context.data.people is None:
        return {}
    return {**({"size": spec.shape} if spec.shape else {}), **({"head": spec.head} if spec.head else {})}
