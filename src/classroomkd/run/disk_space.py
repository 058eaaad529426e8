"""Whether the disk has room for what a run is going to keep: all mentors' answers, students and checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from classroomkd import bank, methods
from classroomkd._files import amount
from classroomkd.bank import LOGITS
from classroomkd.bank.allocate import check_space as check_bytes
from classroomkd.errors import UserError
from classroomkd.recipe.schema import MentorSpec
from classroomkd.run.setup import Setup
from classroomkd.run.workers import cores

__all__ = ["check_space"]


def check_space(setup: Setup, out: Path | None = None) -> None:
    """Before anything is trained or made: what all mentors' stores, and a run's students and checkpoints, still take
    must be free.

    A store counts as there when it is of the same mentor, data, samples, views and form: whether its mentor's weights
    are the same is not known yet. Of a student its weights and the optimiser's count, not what a method keeps.

    Args:
        setup: of the run.
        out: the run folder; None: no student is taught.

    Raises:
        UserError: too little space.
    """
    root = setup.cache / "bank"
    if need := _answers(setup, root):
        check_bytes(root if root.is_dir() else setup.cache, need)
    if out is None:
        return
    students, place = _students(setup, out), _existing(out)
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


def _students(setup: Setup, out: Path) -> int:
    """Bytes of what the unfinished students will leave, and of the checkpoints that are written over as they train."""
    train, seeds = setup.recipe.train, setup.recipe.seeds
    left = sum(
        not (out / arm.slug / f"seed{seed}" / "entry.json").exists() for arm in setup.recipe.arms() for seed in seeds
    )
    with torch.random.fork_rng(devices=[]):
        student = setup.build(setup.recipe.student.model, "student", 0)
    one = sum(int(value.nbytes) for value in student.state_dict().values())
    files = one * (1 + (len(setup.data.val) > 0) + (train.ema is not None))
    moments = one * {"sgd": 1, "adamw": 2}[train.optimizer]
    at_once = min(left, setup.recipe.workers if isinstance(setup.recipe.workers, int) else cores())
    return 2 * files * left + 2 * (files + moments) * at_once  # files and a last checkpoint; an old and a new one


def _answers(setup: Setup, root: Path) -> int:
    """Bytes that the mentors' stores still take."""
    asked = setup.ahead or any(methods.compose(arm.parts).needs.mentors > 0 for arm in setup.recipe.arms())
    if setup.bank.spec.kind == "off" or not asked:
        return 0
    k, shards = setup.shard
    share = range(*(i * len(setup.student_part) // shards for i in (k, k + 1)))
    views, need = setup.views.count or 0, 0
    held = _held(setup, root)
    for mentor in setup.recipe.mentors:
        for kind, codec in _codecs(setup, mentor).items():
            there = max((_inside(m, share) for m in held if _same(m, mentor.name, kind, codec)), default=0)
            need += (len(share) - there) * views * (codec.row_bytes + 4)
    return need


def _codecs(setup: Setup, mentor: MentorSpec) -> dict[str, bank.Codec]:
    """The forms of a mentor's answers by kind; its network is built only where its activations are stored."""
    top = setup.bank.spec.top
    logits = bank.TopK(len(setup.classes), top) if top else bank.Dense(setup.task_runner.answer_shape)
    found: dict[str, bank.Codec] = {LOGITS: logits}
    if setup.taps:
        with torch.random.fork_rng(devices=[]):
            blank = setup.blank_mentor(mentor)
            example = blank.prepare(setup.blank(), setup.inputs.mean, setup.inputs.std)
            found |= {tap: bank.Dense(shape) for tap, shape in blank.read(setup.taps, example).items()}
    return found


def _held(setup: Setup, root: Path) -> list[bank.Manifest]:
    """What the stores of this data, these samples and views say of themselves."""
    wanted = {"views": setup.views.definition, "part": setup.student_part.digest(), "data": setup.data.fingerprint}
    found = []
    for folder in bank.stores(root):
        try:
            manifest = bank.Manifest.read(folder)
            bank.codec(manifest.codec)
        except UserError:
            continue  # it is not asked for
        if all(manifest.key.get(name) == value for name, value in wanted.items()):
            found.append(manifest)
    return found


def _same(manifest: bank.Manifest, mentor: str, kind: str, codec: bank.Codec) -> bool:
    stored = (manifest.key.get("mentor"), manifest.kind, bank.codec(manifest.codec).row_bytes)
    return stored == (mentor, kind, codec.row_bytes)


def _inside(manifest: bank.Manifest, share: range) -> int:
    """How many positions of the share have their files."""
    return sum(max(min(p.last, share.stop) - max(p.first, share.start), 0) for p in manifest.parts)
