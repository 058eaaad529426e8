"""Whether the disk has room for all answers that a run is going to store, of all its mentors together."""

from __future__ import annotations

from pathlib import Path

import torch

from classroomkd import bank, methods
from classroomkd.bank import LOGITS
from classroomkd.bank.extend import check_space as check_bytes
from classroomkd.engine.setup import Setup
from classroomkd.errors import UserError
from classroomkd.recipe.schema import MentorSpec

__all__ = ["check_space"]


def check_space(setup: Setup) -> None:
    """Before anything is trained or made: what all mentors' stores still take must be free.

    A store counts as there when it is of the same mentor, data, samples, views and form: whether its mentor's weights
    are the same is not known yet.

    Raises:
        UserError: too little space.
    """
    asked = setup.ahead or any(methods.compose(arm.parts).needs.mentors > 0 for arm in setup.recipe.arms())
    if setup.bank.spec.kind == "off" or not asked:
        return
    k, shards = setup.shard
    share = range(*(i * len(setup.student_part) // shards for i in (k, k + 1)))
    root, views, need = setup.cache / "bank", setup.views.count or 0, 0
    held = _held(setup, root)
    for mentor in setup.recipe.mentors:
        for kind, codec in _codecs(setup, mentor).items():
            there = max((_inside(m, share) for m in held if _same(m, mentor.name, kind, codec)), default=0)
            need += (len(share) - there) * views * (codec.row_bytes + 4)
    if need:
        check_bytes(root if root.is_dir() else setup.cache, need)


def _codecs(setup: Setup, mentor: MentorSpec) -> dict[str, bank.Codec]:
    """The forms of a mentor's answers by kind; its network is built only where its activations are stored."""
    top = setup.bank.spec.top
    logits = bank.TopK(len(setup.classes), top) if top else bank.Dense(setup.subject.answer_shape)
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
