"""A second image shines through: mixup (Zhang et al. 2018, arXiv 1710.09412), with the partner and the ratio in the
view's key.

``pixels = share · image + (1 − share) · partner``, after zero padding, crop and mirror of each. With α = 1, the common
choice for small images, the ratio λ ~ Beta(α, α) is uniform in 0..1. The ratio and the partner follow from integers
alone, and so do the pixels: they are the same on every device.

Deviation: mixup's label has two hot classes, λ and 1 − λ. Methods here have one class for a sample, so the ratio is
folded to the larger share, ``share = max(λ, 1 − λ)`` in 0.5..1, and the label is that of the image which has it: the
sample's own. The smaller share's class is in the mentors' answers only, who see the mixed image; that is how "function
matching" uses mixup (Beyer et al. 2022, arXiv 2106.05237). What is drawn is the same but for the name of the first
image: the pair (a, b) at λ is the pair (b, a) at 1 − λ.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from classroomkd.data import rng
from classroomkd.data.views.base import Views
from classroomkd.data.views.crop_flip import CropFlip
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.data.images import Part

__all__ = ["WHOLE", "Mixup"]

_CROP, _PARTNER, _PARTNER_CROP, _SHARE = 51, 52, 53, 54
WHOLE = 2**16  # a share of 1


class Mixup(Views):
    """Crops and mirror images of a sample and of a partner from the same part, mixed; unbounded, view 0 is the
    untouched image.

    Args:
        part: where partners are drawn from, every sample of it equally likely, the sample itself among them; None:
            :meth:`over` must come first.
    """

    mixes = True

    def __init__(self, name: str, *, view_seed: int, image_size: tuple[int, int], part: Part | None = None) -> None:
        super().__init__(name, view_seed, image_size)
        self.part = part
        self._crop = CropFlip("crop_flip", view_seed=view_seed, image_size=image_size, pad=4, flip=True)
        self._partners: Tensor | None = None
        partners = "" if part is None else f" part={part.digest()}"
        self.definition = (
            f"{name} alpha=1 folded label=own view_seed={view_seed}{partners} code=1 of [{self._crop.definition}]"
        )

    def over(self, part: Part) -> Views:
        """See ``Views.over``: partners are drawn from ``part``."""
        return Mixup(self.name, view_seed=self.view_seed, image_size=self.image_size, part=part)

    def prefetch(self, ids: Tensor, views: Tensor) -> Views:
        """See ``Views.prefetch``: the partners' pixels are fetched."""
        ready = copy.copy(self)
        ready._partners = self._fetched(ids, views)
        return ready

    def pairs(self, ids: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """The partners' places (B,) in the part and the sample's own share (B,) of ``WHOLE``, both int64, for ``ids``
        and ``views`` (B,).

        Raises:
            UserError: without a part.
        """
        if self.part is None:
            raise UserError(
                f"the views '{self.name}' mix a sample with others of its part; say which: views.over(images.train)"
            )
        key = rng.tensor_keys(self.view_seed, ids, views)
        place = rng.draw(key, _PARTNER, len(self.part))
        share = WHOLE // 2 + rng.draw(key, _SHARE, WHOLE // 2 + 1)
        return place, torch.where(views == self.identity, WHOLE, share)

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``."""
        others = self._fetched(ids, views) if self._partners is None else self._partners
        assert others.shape == pixels.shape, (tuple(others.shape), tuple(pixels.shape))
        ids, views = ids.to(pixels.device), views.to(pixels.device)
        key = rng.tensor_keys(self.view_seed, ids, views)
        own = torch.where(views == self.identity, self._crop.identity, rng.draw(key, _CROP, self._crop.count))
        mine = self._crop.apply(pixels, ids, own).int()
        theirs = rng.draw(key, _PARTNER_CROP, self._crop.count)
        other = self._crop.apply(others.to(pixels.device), ids, theirs).int()
        share = self.pairs(ids, views)[1].int().view(-1, 1, 1, 1)
        return (((mine - other) * share + other * WHOLE + WHOLE // 2) >> 16).to(torch.uint8)

    def _fetched(self, ids: Tensor, views: Tensor) -> Tensor:
        """The partners' pixels (B, C, H, W) uint8, where the part keeps them."""
        place, _ = self.pairs(ids, views)
        assert self.part is not None
        return self.part.pixels.fetch(self.part.rows[place.to(self.part.rows.device)])
