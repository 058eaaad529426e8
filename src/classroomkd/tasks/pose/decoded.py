"""Joints that a graph has read itself: an answer is x, y and a score, (…, B, K, 3), and nothing is left to decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.tasks.pose.base import Coding

__all__ = ["Decoded"]


@dataclass(frozen=True)
class Decoded(Coding):
    """Of an exported graph that decodes itself; it can be scored, and nothing can be taught by it.

    What needs the network's own answers (the flip test, distributions) is a ``UserError``.
    """

    kind: ClassVar[str] = "decoded"
    trailing: ClassVar[int] = 1

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """(K, 3)."""
        return self.joints, 3

    def decode(self, answer: Tensor) -> Tensor:
        """The answer itself."""
        return answer

    def log_fit(self, answer: Tensor, target: Tensor, sigmas: Sequence[float] | None = None) -> Tensor:
        """:meth:`log_oks`."""
        return self.log_oks(answer, target, sigmas)

    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """-log OKS, since the network's own loss cannot be known."""
        return -self.log_oks(answer, target)

    def ideal(self, target: Tensor) -> Tensor:
        """The truth, surely."""
        return torch.cat([target[..., :2], torch.ones_like(target[..., :1])], -1)

    def distributions(self, answer: Tensor) -> list[Tensor]:
        """See the class."""
        self._refuse()

    def labels(self, target: Tensor) -> list[Tensor]:
        """See the class."""
        self._refuse()

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """See the class."""
        self._refuse()

    def flipped(self, answer: Tensor, swap: Sequence[int]) -> Tensor:
        """See the class."""
        self._refuse()

    def mean(self, answers: Sequence[Tensor]) -> Tensor:
        """See the class."""
        self._refuse()

    def pooled(self, answers: Tensor, counts: Tensor) -> Tensor:
        """See the class."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(
            "this graph decodes joints itself, and the flip test needs the network's own answers: leave out "
            "--flip-test (--no-flip-test), or export with --decode outside"
        )
