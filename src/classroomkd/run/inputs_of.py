"""How the images look that a mentor was trained on: mean, std and size, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from classroomkd import models
from classroomkd.models.about import preprocessing
from classroomkd.models.checkpoints import read_metadata

if TYPE_CHECKING:
    from torch import nn

    from classroomkd.recipe.schema import MentorSpec
    from classroomkd.run.context import RunContext

__all__ = ["InputsOf", "inputs_of"]


class InputsOf(NamedTuple):
    """Mean and std by channel, and (H, W), each None where they are the student's; and who says the first two."""

    mean: list[float] | None
    std: list[float] | None
    size: list[int] | None
    source: str


def inputs_of(context: RunContext, spec: MentorSpec, module: nn.Module, has_weights: bool) -> InputsOf:
    """What the recipe says holds, then what the checkpoint or the library says; a mentor that the run trains sees what
    the student sees.

    Raises:
        UserError: a checkpoint of ours whose metadata are of another form.
    """
    mean, std, size, source = None, None, None, "data"
    known: Any = None
    if spec.taken_as_is and spec.checkpoint is not None:
        metadata = read_metadata(spec.checkpoint)
        if "preprocessing" in metadata:
            known = preprocessing(spec.checkpoint, metadata["preprocessing"]).model_dump(exclude_none=True)
            source = "checkpoint"
            if "shape" in known:
                own = [int(n) for n in known["shape"][1:]]  # a student of ours says which size it was taught at
                size = own if own != list(context.data.shape[1:]) else None
        elif (known := models.preprocessing(spec.model)) is not None:
            source = "library"
    elif has_weights and spec.name not in context.given:
        own_words = getattr(module, "preprocessing", None)
        known = own_words if isinstance(own_words, Mapping) else models.preprocessing(spec.model)
        source = "library" if known else "data"
    if known:
        mean, std = list(known["mean"]), list(known["std"])
    if spec.mean is not None:
        mean, std, source = list(spec.mean), list(spec.std or context.data.std), "recipe"
    return InputsOf(mean, std, size if spec.shape is None else list(spec.shape), source)
