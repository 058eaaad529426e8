"""A mentor that is ready to teach: what is known of it, and its network with the weights that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from classroomkd.classroom import Calibration, Mentor
from classroomkd.models.about import preprocessing
from classroomkd.models.checkpoints import read_metadata
from classroomkd.run.answers_file import load_answers
from classroomkd.run.inputs_of import inputs_of

if TYPE_CHECKING:
    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.context import RunContext
    from classroomkd.run.networks import Networks

__all__ = ["MentorRecord", "calibration_of", "load_mentor", "load_weights", "other_rule", "ready_mentor"]


@dataclass(frozen=True)
class MentorRecord:
    """A mentor that is ready to teach; plain data, so that worker processes can pass it on."""

    name: str
    model: str
    weights: str  # path of its checkpoint; empty for a module handed in from Python
    mean: list[float] | None
    std: list[float] | None
    size: list[int] | None
    accuracy: float
    val_accuracy: float
    per_class: list[float | None]
    parameters: int
    multiply_adds: int
    samples: int | None
    note: str
    seconds: float
    val_logits: str  # path of its logits on the validation part, (N, C) float32
    answers: dict[str, str]  # by kind (logits, taps), folder of its stored answers; empty without a bank
    forwards: int  # samples it answered to fill them ahead; 0 when they were there
    answer_seconds: float  # what filling them took, whoever did it
    fingerprint: str = ""  # of its tensors and its code
    test_logits: str = ""  # path of its logits on the test part, likewise

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def load_weights(
    networks: Networks, spec: MentorSpec
) -> tuple[list[float] | None, list[float] | None, list[int] | None]:
    """Load a mentor's checkpoint, where it has one; returns the mean, std and (H, W) of its inputs.

    What the recipe says of them holds, then what the checkpoint or the library says; None: as the student's.
    """
    if spec.checkpoint is not None and spec.taken_as_is:
        networks.load(spec.name, spec.checkpoint)
    known = inputs_of(networks.context, spec, networks.mentor(spec.name), networks.has_weights(spec))
    return known.mean, known.std, known.size


def other_rule(context: RunContext, file: str) -> str | None:
    """What to say of a network's file that was made with pictures brought to their size by another rule than the run's.

    None where it does not say, or where the run's pictures had their size already, which is that of the file's. A
    student's file that says its shape and no rule is of a version that padded.
    """
    images = context.data
    if images.resize is None:
        return None
    metadata = read_metadata(file)
    if "preprocessing" not in metadata:
        return None
    known = preprocessing(file, metadata["preprocessing"])
    if not images.resized and (known.shape is None or tuple(known.shape) == tuple(images.shape)):
        return None
    rule = known.resize or ("pad" if known.shape is not None else images.resize)
    if rule == images.resize:
        return None
    return (
        f"learned from pictures of data.resize: {rule}, and is asked here about pictures of data.resize: "
        f"{images.resize}; its answers may be worse than they were"
    )


def ready_mentor(networks: Networks, spec: MentorSpec) -> Mentor:
    """A mentor that has weights, as a run would have it, without scoring or storing anything."""
    mean, std, size = load_weights(networks, spec)
    return networks.wrap(spec, networks.mentor(spec.name), mean, std, size)


def load_mentor(networks: Networks, record: MentorRecord) -> Mentor:
    """The mentor of a record, on the training device."""
    module = networks.with_weights(record.name, record.weights)
    return networks.wrap(networks.context.mentor(record.name), module, record.mean, record.std, record.size)


def calibration_of(networks: Networks, records: Sequence[MentorRecord], more: Sequence[Tensor] = ()) -> Calibration:
    """What the mentors' answers on the validation part say about them; ``more``: answers of others behind them."""
    context, val = networks.context, networks.context.data.val
    stored = [torch.from_numpy(load_answers(record.val_logits, len(val))) for record in records]
    logits = torch.stack([*stored, *more])
    device = context.runtime.device
    return networks.task_runner.calibration(logits.to(device), val.target.to(device))
