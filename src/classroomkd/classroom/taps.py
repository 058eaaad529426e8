"""Taps: reading named places inside any network without editing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError, did_you_mean

__all__ = ["TapReader", "prediction_of", "tap_names"]


def prediction_of(output: Any) -> Tensor:
    """The prediction in whatever a network returned: a tensor, an object with ``.logits``, a dict, or a tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for key in ("logits", "prediction", "out"):
            if key in output:
                return prediction_of(output[key])
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, Sequence) and not isinstance(output, str) and output:
        return prediction_of(output[0])
    raise UserError(f"a network returned {type(output).__name__}; expected a tensor, a tuple or .logits")


def tap_names(module: nn.Module) -> list[str]:
    """Names a tap can have: every named submodule."""
    return [name for name, _ in module.named_modules() if name]


class TapReader(nn.Module):
    """Runs a network and returns its prediction together with the activations at its taps.

    Hooks are registered here, once, before any compilation (a hook registered after the first compiled call never
    fires). Values are copied as they pass, since a later in-place activation would overwrite them. Deep copies, of the
    reader or of its network alone, read their own taps.

    Args:
        module: any network.
        taps: submodule names to read.

    Raises:
        UserError: a tap that does not exist, with the nearest name that does.
    """

    def __init__(self, module: nn.Module, taps: Sequence[str] = ()) -> None:
        super().__init__()
        self.module = module
        self.taps = tuple(taps)
        self._caught: dict[str, Tensor] | None = None  # None unless a forward pass of this reader is under way
        known = dict(module.named_modules())
        for tap in self.taps:
            if tap not in known or not tap:
                near = did_you_mean(tap, list(known))
                raise UserError(
                    f"no tap '{tap}' in {type(module).__name__}{near}; `classroomkd inspect` lists every tap of a model"
                )
            # A bound method and not a closure: a deep copy binds it to the copied reader.
            known[tap].register_forward_hook(partial(self._catch, tap))

    def _catch(self, tap: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._caught is not None:
            self._caught[tap] = prediction_of(output).clone()

    def __getstate__(self) -> dict[str, Any]:
        """Without what an interrupted pass left behind: tensors with a graph cannot be copied."""
        return {**self.__dict__, "_caught": None}

    def forward(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``(prediction, {tap: activation})`` for a batch of inputs."""
        self._caught = {}
        prediction = prediction_of(self.module(inputs))
        caught, self._caught = self._caught, None
        if torch.compiler.is_compiling():
            return prediction, caught
        missing = [tap for tap in self.taps if tap not in caught]
        if missing:
            raise UserError(f"tap '{missing[0]}' exists but did not run in this forward pass; choose another")
        return prediction, caught
