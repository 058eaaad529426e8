"""Labels that training does not see: ``data.labels: {share: …}``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from classroomkd.data import split
from classroomkd.data.images import Part
from classroomkd.data.subsets import strata
from classroomkd.data.targets import KEYPOINTS, UNLABELLED
from classroomkd.errors import UserError

__all__ = ["hide_labels", "labels_note", "to_score", "unlabelled"]


def hide_labels(part: Part, share: float, *, seed: int) -> Part:
    """The part with the labels of ``share`` of each class (or of all persons), at least one where ``share`` is above 0;
    the other samples have none, as of :func:`unlabelled`.

    Which keep theirs follows from ``seed`` and the ids, so a larger share contains a smaller one.

    Raises:
        UserError: no sample has a label that could be hidden.
    """
    if not bool(part.labelled.any()):
        raise UserError(f"data.labels.share = {share:g}: no training image has a label; leave it out")
    known = part.labelled.cpu().nonzero().flatten().numpy()
    target, ids = (value[known] for value in strata(part))
    per_class = np.bincount(target).astype(np.int64)
    wanted = np.floor(per_class * share + 0.5).astype(np.int64)
    counts = np.minimum(np.maximum(wanted, int(share > 0)), per_class)
    kept = torch.from_numpy(known[split.take(target, ids, counts, seed=seed, purpose="labels")])
    hidden = unlabelled(part).target.clone()
    kept = kept.to(hidden.device)
    hidden[kept] = part.target[kept]
    return replace(part, target=hidden)


def unlabelled(part: Part) -> Part:
    """The part without any label: -1 as the class, or as v of all joints of a person, whose places are 0."""
    target = torch.full_like(part.target, UNLABELLED)
    if part.target_kind == KEYPOINTS:
        target[..., :2] = 0
    return replace(part, target=target)


def labels_note(train: Part, samples: str = "images") -> str | None:
    """A sentence about how many training ``samples`` have a label; None where all have."""
    total, count = len(train), int(train.labelled.sum())
    if count in (0, total):
        return None if count else f"none of {total} training {samples} has a label"
    return f"{count} of {total} training {samples} have a label; the others train without one"


def to_score(part: Part, name: str, notes: list[str]) -> Part:
    """Of a part that something is measured on what has a label, where some has; what is left out is a note."""
    total, count = len(part), int(part.labelled.sum())
    if count in (0, total):
        return part
    notes.append(f"{total - count} of {total} images of the {name} part have no label and are left out")
    return part.subset(part.labelled.nonzero().flatten())
