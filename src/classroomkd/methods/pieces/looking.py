"""What a method has that looks at samples before the first step: how many it has seen, which its state says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from classroomkd.classroom import Method

__all__ = ["LooksFirst"]


class LooksFirst(Method):
    """A method with ``Needs(prepare=…)``; its constructor calls :meth:`count`, its ``prepare`` fills ``pictures``.

    Attributes:
        pictures: that it has looked at, a scalar; 0: it has not looked yet, and a state that says so leaves it so.
    """

    pictures: Tensor

    def count(self) -> None:
        """Begin to count."""
        self.register_buffer("pictures", torch.zeros((), dtype=torch.int64))

    def prepare_blank(self) -> None:
        """See the base; a state that is taken and put back says so, too."""
        super().prepare_blank()
        self.pictures.fill_(1)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        if f"{prefix}pictures" in state:
            self.prepared = bool(self.pictures > 0)
