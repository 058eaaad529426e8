"""What a coding is: how a network's answer says where K joints are, and how far it is from a place.

Shapes: answers ``(…, B, K, …)`` where … before B is nothing or M mentors; targets ``(B, K, 3)`` of x, y in input pixels
(UDP: pixel centres at integers) and v. Values that a translation could not fill, because the mentor does not know the
joint, are all ``-inf``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from classroomkd.functional import wide
from classroomkd.functional.constants import constant

__all__ = ["Coding", "Size"]

Size = tuple[int, int]
_BODY = 0.21  # a person's share of its crop: COCO's median (annotated area, crop of box x 1.25; 212 persons)
_SIGMA = 0.079  # COCO's shoulder, where nobody says which joint it is


@dataclass(frozen=True)
class Coding(ABC):
    """How an answer says where joints are.

    Attributes:
        size: (H, W) of the input, pixels.
        joints: K.
    """

    size: Size
    joints: int
    kind: ClassVar[str]
    trailing: ClassVar[int]  # dimensions of an answer after K

    @property
    @abstractmethod
    def answer_shape(self) -> tuple[int, ...]:
        """Of one sample's answer, K first."""

    @property
    def steepest(self) -> float | None:
        """No gradient of a joint's supervised loss on its answer is longer; None = it has no bound."""
        return None

    @abstractmethod
    def ideal(self, target: Tensor) -> Tensor:
        """What a perfect network would answer, ``(B, K, …)``; the same for every v."""

    @abstractmethod
    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """The loss against the truth, ``(…, B, K)``, wherever the joint is; masks are the task's."""

    @abstractmethod
    def log_fit(self, answer: Tensor, target: Tensor, sigmas: Sequence[float] | None = None) -> Tensor:
        """Log of how well an answer fits the truth, ``(…, B, K)`` <= 0; a perfect fit is 0.

        NaN where the answer is not finite, ``-inf`` where it knows nothing of the joint. ``sigmas`` are the skeleton's
        (OKS); a coding that does not score by distance leaves them.
        """

    @abstractmethod
    def distributions(self, answer: Tensor) -> list[Tensor]:
        """The logits a temperature acts on, each ``(…, B, K, bins)``: sharpness is applied, unknown joints are 0."""

    @abstractmethod
    def labels(self, target: Tensor) -> list[Tensor]:
        """The bin that is nearest the truth in each of :meth:`distributions`, each ``(B, K)`` int64."""

    @abstractmethod
    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """How far the student is from each mentor, ``(M, B, K)``, without T²; 0 where a mentor knows nothing."""

    @abstractmethod
    def decode(self, answer: Tensor) -> Tensor:
        """Places and how sure the answer is of them: ``(…, B, K, 3)`` x, y (input px) and a score in [0, 1]."""

    @abstractmethod
    def flipped(self, answer: Tensor, swap: Sequence[int]) -> Tensor:
        """The answer to the mirror image as an answer to the image; ``swap``: joint k is joint ``swap[k]`` there."""

    @abstractmethod
    def mean(self, answers: Sequence[Tensor]) -> Tensor:
        """One answer from several, e.g. to the image and to its mirror image (flip test)."""

    @abstractmethod
    def pooled(self, answers: Tensor, counts: Tensor) -> Tensor:
        """One answer from those of several networks, ``(M, B, K, …)``: :meth:`mean` over who ``counts``, ``(M, B, K)``.

        A joint for which nobody counts is ``-inf`` throughout.
        """

    @torch.no_grad()
    def log_oks(self, answer: Tensor, target: Tensor, sigmas: Sequence[float] | None = None) -> Tensor:
        """-d² / (2 s² k²) of the decoded place, k = 2 sigma: the logarithm of COCO's OKS by joint, ``(…, B, K)``.

        The person's area s² is taken as 0.21 of the crop, COCO's median; no gradient.
        """
        k = constant(tuple(2 * s for s in sigmas or (_SIGMA,) * self.joints), wide(target).dtype, target.device)
        area = _BODY * self.size[0] * self.size[1]
        far = (self.decode(answer)[..., :2] - wide(target[..., :2])).square().sum(-1)
        return far / (-2 * area * k.square())

    def inside(self, target: Tensor) -> Tensor:
        """Which joints are labelled and within the crop, ``(B, K)`` bool."""
        x, y, v = target.unbind(-1)
        return (v > 0) & (x >= 0) & (x <= self.size[1] - 1) & (y >= 0) & (y <= self.size[0] - 1)

    def state(self, answer: Tensor) -> tuple[Tensor, Tensor]:
        """Where nothing is known of a joint, and where its numbers are not finite: ``(…, B, K)`` bool each."""
        top = wide(answer).amax(tuple(range(-self.trailing, 0)))  # NaN wins
        return top == -torch.inf, top.isnan() | (top == torch.inf)

    def plain(self) -> dict[str, Any]:
        """As plain data; :func:`from_plain` reads it."""
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}

    def _judged(self, answer: Tensor, fit: Tensor) -> Tensor:
        unknown, broken = self.state(answer)
        nan = torch.full_like(fit, torch.nan)
        return torch.where(broken, nan, torch.where(unknown, -torch.inf, fit.clamp_max(0)))

    def _blanked(self, answer: Tensor) -> Tensor:
        """The answer with zeros for joints it knows nothing of, float32 at least."""
        unknown = self.state(answer)[0].view(*answer.shape[: -self.trailing], *[1] * self.trailing)
        return torch.where(unknown, 0.0, wide(answer))
