"""Mentors with the weights they have: of a checkpoint, of the run's own training, or of a published network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroomkd import models
from classroomkd.classroom import Mentor
from classroomkd.models.about import preprocessing

if TYPE_CHECKING:
    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.mentor_record import MentorRecord
    from classroomkd.run.networks import Networks

__all__ = ["load_checkpoint", "load_mentor", "ready_mentor"]


def load_checkpoint(
    networks: Networks, spec: MentorSpec
) -> tuple[list[float] | None, list[float] | None, list[int] | None]:
    """Load a mentor's checkpoint; returns the mean, std and size that it or its library says of itself."""
    mean, std, size = None, None, None
    metadata = networks.load(spec.name, str(spec.checkpoint))
    written = preprocessing(str(spec.checkpoint), metadata["preprocessing"]) if "preprocessing" in metadata else None
    known = None if written is None else written.model_dump(exclude_none=True)
    known = known or models.preprocessing(spec.model)
    if known is not None:
        mean, std = list(known["mean"]), list(known["std"])
    if "preprocessing" in metadata and spec.shape is None and known is not None and "shape" in known:
        own = [int(n) for n in known["shape"][1:]]  # a student of ours says which size it was taught at
        size = own if own != list(networks.context.data.shape[1:]) else None
    return mean, std, size


def ready_mentor(networks: Networks, spec: MentorSpec) -> Mentor:
    """A mentor that has weights, as a run would have it, without scoring or storing anything."""
    mean, std, size = load_checkpoint(networks, spec) if spec.checkpoint is not None else (None, None, None)
    module = networks.mentor(spec.name)
    if spec.checkpoint is None and (known := getattr(module, "preprocessing", None)):
        mean, std = list(known["mean"]), list(known["std"])
    if spec.mean is not None:
        mean, std = list(spec.mean), list(spec.std or networks.context.data.std)
    return networks.wrap(spec, module, mean, std, spec.shape or size)


def load_mentor(networks: Networks, record: MentorRecord) -> Mentor:
    """The mentor of a record, on the training device."""
    module = networks.with_weights(record.name, record.weights)
    return networks.wrap(networks.context.mentor(record.name), module, record.mean, record.std, record.size)
