"""What a mentor that the run trains gets to see: what has a label, some classes, some samples, some wrong labels."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from classroomkd.data import rng, split, subset
from classroomkd.data.subsets import strata
from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.run.context import RunContext

__all__ = ["mentor_part"]


def mentor_part(context: RunContext, index: int) -> tuple[Part, str]:
    """The samples (and labels) mentor ``index`` is trained on, and a sentence about what is special.

    ``train.classes`` with ``others`` makes a specialist, ``samples`` a stratified subset, ``label_noise`` replaces
    that fraction of labels by random classes. Samples without a label are for assistants alone, whom mentors teach.

    Raises:
        UserError: a class that the data lack; no sample has a label.
    """
    spec, part, notes = context.recipe.mentors[index].train, context.data.train, []
    if spec is None:
        return part, ""
    place = f"mentors.{index}.train"
    if context.recipe.mentors[index].taught_by is None and not bool(part.labelled.all()):
        total, part = len(part), part.subset(part.labelled.nonzero().flatten())
        notes.append(f"the {len(part)} of {total} samples that have a label")
        if not len(part):
            raise UserError(f"mentors.{index}: no training image has a label to train it on; give it weights: FILE")
    seed = zlib.crc32(context.recipe.mentors[index].name.encode())
    if spec.classes is not None:
        unknown = [c for c in spec.classes if c not in context.classes]
        if unknown:
            near = did_you_mean(unknown[0], context.classes)
            raise UserError(f"{place}.classes: the data has no class '{unknown[0]}'{near}")
        known = np.isin(np.arange(len(context.classes)), [context.classes.index(c) for c in spec.classes])
        target, ids = strata(part, len(context.classes))
        per_class = np.bincount(target, minlength=len(known)).astype(np.int64)
        known = np.pad(known, (0, len(per_class) - len(known)))  # of those without a label nobody knows
        counts = np.where(known, per_class, np.floor(per_class * (spec.others or 0.0)).astype(np.int64))
        keep = split.take(target, ids, counts, seed=seed, purpose="mentor")
        part = part.subset(torch.from_numpy(keep))
        notes.append(f"specialist: {', '.join(spec.classes)}; {spec.others or 0:.0%} of the rest")
    if spec.samples is not None and spec.samples < len(part):
        part = subset(part, spec.samples, seed=seed, purpose="mentor")
        notes.append(f"{spec.samples} samples only")
    if spec.label_noise:
        part = _with_noise(part, spec.label_noise, len(context.classes), seed)
        notes.append(f"{spec.label_noise:.0%} of its labels are wrong")
    return part, "; ".join(notes)


def _with_noise(part: Part, share: float, classes: int, seed: int) -> Part:
    draws = torch.from_numpy(rng.uniform(rng.keys(seed, part.ids.cpu().numpy()), 2))
    shift = 1 + (draws[..., 1] * (classes - 1)).long().clamp_max(classes - 2)
    noisy = torch.where(draws[..., 0] < share, (part.target.cpu() + shift) % classes, part.target.cpu())
    noisy = torch.where(part.labelled.cpu(), noisy, part.target.cpu())
    return replace(part, target=noisy.to(part.target.device))
