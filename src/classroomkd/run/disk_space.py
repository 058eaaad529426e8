"""Whether the disk has room for what a run is going to keep: all mentors' answers, students and checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from classroomkd import bank
from classroomkd._files import amount
from classroomkd.bank.allocate import check_space as check_bytes
from classroomkd.errors import UserError
from classroomkd.run.bank_choice import BankPlan
from classroomkd.run.context import RunContext
from classroomkd.run.finished import ENTRY, seed_folder
from classroomkd.run.networks import Networks
from classroomkd.run.workers import cores

__all__ = ["check_space"]


def check_space(networks: Networks, bank_plan: BankPlan, out: Path | None = None) -> None:
    """Before anything is trained or made: what all mentors' stores, and a run's students and checkpoints, still take
    must be free.

    A store counts as there when it is of the same mentor, data, samples, views and form: whether its mentor's weights
    are the same is not known yet. Of a student its weights and the optimiser's count, not what a method keeps.

    Args:
        networks: of the run.
        bank_plan: what is stored of the mentors' answers.
        out: the run folder; None: no student is taught.

    Raises:
        UserError: too little space.
    """
    cache = networks.context.cache
    root = cache / "bank"
    if need := _answers(networks, bank_plan, root):
        check_bytes(root if root.is_dir() else cache, need)
    if out is None:
        return
    students, place = _students(networks, out), _existing(out)
    together = need if place.stat().st_dev == _existing(root).stat().st_dev else 0
    free = shutil.disk_usage(place).free
    if students + together > free:
        answers = f", the mentors' answers {amount(together)} of the same disk" if together else ""
        raise UserError(
            f"the students and their checkpoints take {amount(students)}{answers}; {place} has {amount(free)} free. "
            "Make room, or choose another --out"
        )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.resolve().parents) if place.exists())


def _students(networks: Networks, out: Path) -> int:
    """Bytes of what the unfinished students will leave, and of the checkpoints that are written over as they train."""
    context = networks.context
    train, seeds = context.recipe.train, context.recipe.seeds
    left = sum(
        not (seed_folder(out, training, seed) / ENTRY).exists()
        for training in context.recipe.trainings()
        for seed in seeds
    )
    one = sum(int(value.nbytes) for value in networks.blank_student().state_dict().values())
    files = one * (1 + (len(context.data.val) > 0) + (train.ema is not None))
    moments = one * {"sgd": 1, "adamw": 2}[train.optimizer]
    at_once = min(left, context.recipe.workers if isinstance(context.recipe.workers, int) else cores())
    # Files and a last checkpoint; those that are kept as it trains, and the next.
    return 2 * files * left + (train.keep_checkpoints + 1) * (files + moments) * at_once


def _answers(networks: Networks, bank_plan: BankPlan, root: Path) -> int:
    """Bytes that the mentors' stores still take."""
    context = networks.context
    used = bank_plan.ahead or bool(context.banked)
    if bank_plan.choice.spec.kind == "off" or not used:
        return 0
    share = bank_plan.samples(len(context.student_part))
    need, views, held = 0, bank_plan.views.count or 0, _held(context, bank_plan, root)
    with torch.random.fork_rng(devices=[]):
        for mentor in map(networks.blank_mentor, context.recipe.mentors):
            for kind, codec in bank_plan.codecs(networks, mentor).items():
                there = max((_inside(m, share) for m in held if _same(m, mentor.name, kind, codec)), default=0)
                need += (len(share) - there) * views * (codec.row_bytes + 4)
    return need


def _held(context: RunContext, bank_plan: BankPlan, root: Path) -> list[bank.Manifest]:
    """What the stores of this data, these samples and views say of themselves."""
    wanted = {
        "views": bank_plan.views.definition,
        "part": context.student_part.digest(),
        "data": context.data.fingerprint,
    }
    manifests = []
    for folder in bank.stores(root):
        try:
            manifest = bank.Manifest.read(folder)
            bank.codec(manifest.codec)
        except UserError:
            continue  # it is not asked for
        if all(manifest.key.get(name) == value for name, value in wanted.items()):
            manifests.append(manifest)
    return manifests


def _same(manifest: bank.Manifest, mentor: str, kind: str, codec: bank.Codec) -> bool:
    stored = (manifest.key.get("mentor"), manifest.kind, bank.codec(manifest.codec).row_bytes)
    return stored == (mentor, kind, codec.row_bytes)


def _inside(manifest: bank.Manifest, share: range) -> int:
    """How many positions of the share have their files."""
    return sum(max(min(p.last, share.stop) - max(p.first, share.start), 0) for p in manifest.parts)
