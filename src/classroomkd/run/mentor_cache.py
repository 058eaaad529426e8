"""A run's stored answers: their keys, filling them ahead, and opening them for a student."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BaseModel, Field, TypeAdapter
from torch import Tensor

from classroomkd import __version__, bank
from classroomkd._files import refuse_links, writing
from classroomkd._stored import read_json
from classroomkd._sums import write_listed
from classroomkd.bank import LOGITS
from classroomkd.bank.locks import may_write
from classroomkd.bank.manifest import MANIFEST, Manifest, differences, nearest
from classroomkd.classroom import Answers, Mentor, Needs
from classroomkd.errors import RunStopped, UserError
from classroomkd.train.padding import pad_batch
from classroomkd.train.watch import OR_SKIP, REMEDY, Watch, sentence, told

if TYPE_CHECKING:
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.context import RunContext
    from classroomkd.run.mentor_record import MentorRecord
    from classroomkd.run.networks import Networks

__all__ = ["asker", "fits_in_slabs", "open_bank", "prepare_answers", "slab_most"]


class Filled(BaseModel):
    """What is kept of a filling beside its answers."""

    mentor: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


_FILLED = TypeAdapter(Filled)

CHECK_MOST = 2 * 2**30  # bytes of a store that are read through before students start
SLAB_MOST = 2**30  # bytes of an epoch's answers that are held in memory on a CPU


def asker(context: RunContext, mentor: Mentor) -> Callable[[Tensor], dict[str, Tensor]]:
    """Augmented pixels ``(B, channels, H, W)`` to a mentor's answers by kind, in the run's precision."""

    @torch.no_grad()
    def ask(pixels: Tensor) -> dict[str, Tensor]:
        inputs = context.inputs(pad_batch(pixels))
        with context.runtime.autocast():
            answers: Answers = mentor(mentor.prepare(inputs, context.inputs.mean, context.inputs.std))
        kinds = {LOGITS: answers.prediction.float(), **answers.features}
        return {kind: x[: len(pixels)] for kind, x in kinds.items()}

    return ask


def _stores(
    networks: Networks,
    bank_plan: BankPlan,
    mentor: Mentor,
    key: Mapping[str, Any],
    notify: Callable[[dict[str, Any]], None],
) -> dict[str, bank.RowStore]:
    """A mentor's stores by kind, made where they are not there yet; only to be read those that cannot be written.

    Where there are none for this question and some for another, what differs is said: as a note, or as the reason why
    nothing can be read.
    """
    context = networks.context
    root = refuse_links(context.cache, "bank")
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    part, count = context.student_part, bank_plan.views.count
    assert count is not None
    share = bank_plan.samples(len(part))
    about = {**key, "views": bank_plan.views.definition, "part": part.digest(), "shape": list(context.data.shape)}
    stores: dict[str, bank.RowStore] = {}
    notes = []
    for kind, codec in bank_plan.codecs(networks, mentor).items():
        own = about | {"stored": codec.definition, "software": "classroomkd " + __version__.rpartition(".")[0]}
        if kind != LOGITS:
            assert mentor.tapped is not None
            own |= {"place": mentor.tapped.places[kind], "as": bank_plan.taps[kind]}
        folder = bank.store_folder(root, mentor.name, own, kind)
        wanted, write = Manifest(own, kind, count, len(part), codec.definition), may_write(folder)
        if not (folder / MANIFEST).exists() and (other := _nearest(root, wanted)) is not None:
            difference, expected = other
            if not write:
                raise UserError(
                    f"bank: {difference}, and {root} cannot be written; fill it where it was made (classroomkd bank "
                    "fill), or give another cache="
                )
            usual = ", as is usual where runs share a cache" if expected else ""
            notes.append((f"{difference}{usual}; they stay, and what is asked now is stored beside them", expected))
        stores[kind] = bank.RowStore.open(
            folder,
            own,
            kind=kind,
            views=count,
            samples=len(part),
            codec=codec,
            write=write,
            first=share.start,
            last=share.stop,
        )
    if notes and context.runtime.is_zero:
        text, expected = notes[0]
        notify({"event": "note", "text": f"bank: {text}", "expected": expected})
    return stores


ANOTHER_RUN = ("data", "part", "shape", "model")  # what differs between runs that share a cache, as it should


def _nearest(root: Path, wanted: Manifest) -> tuple[str, bool] | None:
    """How the store of the same mentor and kind that is nearest to ``wanted`` differs from it, and whether that is as
    expected, since it is of another run's data or network; None without any."""
    near = nearest(wanted, bank.stores(root))
    if near is None:
        return None
    folder, manifest = near
    text = f"the answers of mentor '{wanted.key['mentor']}' in {folder} are stored {differences(wanted, manifest)}"
    return text, any(manifest.key.get(entry) != wanted.key.get(entry) for entry in ANOTHER_RUN)


def prepare_answers(
    networks: Networks,
    bank_plan: BankPlan,
    mentor: Mentor,
    key: Mapping[str, Any],
    notify: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, str], int, float]:
    """Open a mentor's stores, check what is in them, and fill them where the bank is filled ahead.

    Returns:
        Their folders by kind (empty without a bank), samples the mentor answered now, and the seconds that filling
        took, whoever did it.
    """
    context = networks.context
    if bank_plan.choice.spec.kind == "off":
        return {}, 0, 0.0
    stores, forwards = _stores(networks, bank_plan, mentor, key, notify), 0
    folders = {kind: str(store.folder) for kind, store in stores.items()}
    about = refuse_links(context.cache, "mentors") / f"{stores[LOGITS].folder.name}-filled.json"
    seconds = read_json(about, _FILLED, remedy="remove it").seconds if about.exists() else 0.0
    if bank_plan.choice.spec.kind == "views" or bank_plan.ahead:
        started, runtime = time.perf_counter(), context.runtime
        for store in stores.values():
            # A large one is checked as it is read: what is damaged is marked, and asked again by the next start.
            if runtime.is_zero and store.writable and store.nbytes <= CHECK_MOST:
                bank.verify(store.folder, repair=True)
        runtime.barrier()
        for store in stores.values():
            if not store.writable and (missing := store.views * store.samples - store.count()) > 0:
                raise UserError(
                    f"bank: {store.folder} lacks {missing:,} answers and cannot be written; fill it where it was made "
                    "(classroomkd bank fill), or give another cache="
                )
        together = (runtime.reduce, runtime.join) if runtime.world > 1 else (None, None)
        watch = Watch([mentor.name], networks.task_runner.task, runtime.device, *together)

        def on_answers(answers: Mapping[str, Tensor], ids: Tensor) -> None:
            features = {kind: (x,) for kind, x in answers.items() if kind != LOGITS}
            watch(Answers(answers[LOGITS].unsqueeze(0), features), (0,), ids, None)
            # What is to stop a run does so at once; ranks stop together, when all have filled their share.
            if context.recipe.on_bad_mentor == "stop" and runtime.world == 1:
                _tell_of(context, watch, notify)

        forwards = bank.fill(
            stores,
            asker(context, networks.optimized(mentor)),
            context.student_part,
            bank_plan.views,
            batch_size=context.recipe.train.eval_batch_size,
            shard=(runtime.rank, runtime.world),
            size=mentor.size,
            device=runtime.device,
            progress=(lambda state: notify({"event": "filling", **state})) if runtime.is_zero else None,
            on_answers=on_answers,
        )
        _tell_of(context, watch, notify)
        forwards = runtime.total(forwards)  # of all ranks, which all are through then
        if forwards and runtime.is_zero:
            seconds += time.perf_counter() - started
            write_listed(about, json.dumps({"mentor": mentor.name, "seconds": round(seconds, 2)}))
    for store in stores.values():
        store.close()
    if context.runtime.is_zero and (left_out := bank.info(Path(folders[LOGITS])).left_out) is not None:
        form = stores[LOGITS].codec.definition.partition(" ")[0]
        text = f"bank: {form} leaves out {left_out:.1%} of the probability (T = 1) that mentor '{mentor.name}' gives"
        notify({"event": "note", "text": f"{text}, more at a higher temperature"})
    return folders, forwards, round(seconds, 2)


def _tell_of(context: RunContext, watch: Watch, notify: Callable[[dict[str, Any]], None]) -> None:
    """Whether what a mentor has just been asked was answered in numbers.

    Raises:
        RunStopped: it was not, and ``on_bad_mentor`` is ``stop``.
    """
    for name, broken in watch.flush().items():
        notify(told(name, broken))
        if context.recipe.on_bad_mentor == "stop":
            raise RunStopped(f"while its answers were stored, {sentence(name, broken)}. {REMEDY}{OR_SKIP}")


def open_bank(
    networks: Networks, bank_plan: BankPlan, needs: Needs, mentors: Sequence[MentorRecord]
) -> bank.Bank | None:
    """The stored answers that a method can be taught from; None where the bank does not keep what it reads."""
    context, kinds = networks.context, (LOGITS, *needs.features)
    if not bank_plan.choice.keeps(needs) or not all(kind in m.answers for m in mentors for kind in kinds):
        return None
    slabs = bank_plan.choice.spec.kind == "views" and fits_in_slabs(networks, len(mentors))
    # Single rows are read through a map: its pages are the system's cache, which it takes back when it needs to.
    stores = [
        {kind: bank.RowStore.at(folder, write=may_write(folder), mapped=not slabs) for kind, folder in folders.items()}
        for folders in ({kind: Path(m.answers[kind]) for kind in kinds} for m in mentors)
    ]
    pooled = [tap for tap, kind in needs.features.items() if kind == "pooled"]
    ids, device = context.student_part.ids, context.runtime.device
    if slabs:
        return bank.EpochCache(stores, ids, device, pooled, room=_room(device))
    return bank.FillOnMissCache(stores, ids, device, pooled)


def fits_in_slabs(networks: Networks, mentors: int) -> bool:
    """Whether an epoch's answers of so many mentors are held at hand."""
    part, size = networks.context.student_part, networks.task_runner.answer_size
    return 2 * len(part) * mentors * size <= slab_most(networks.context.runtime.device)


def slab_most(device: torch.device) -> int:
    """Bytes of an epoch's answers that are held at hand; more are read batch by batch, which a GPU would wait for."""
    return _room(device) if device.type == "cuda" else SLAB_MOST


def _room(device: torch.device) -> int:
    """Bytes of slabs to hold: a quarter of what a GPU has free; little on a CPU, where reading again is cheap."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept by torch, and free
        return (torch.cuda.mem_get_info(device)[0] + unused) // 4
    return 32 * 2**20
