"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719): after zero padding, crop and mirror, N operations at magnitude M.

The operations, each equally likely for each of the N: identity, shear and translation by x and y, rotation, brightness,
posterize, solarize, contrast, colour, sharpness, autocontrast, equalize. Strengths and defaults are torchvision's (M of
0..30); those of geometry and enhancement go either way. Nothing is interpolated and all arithmetic is in integers, so
an image is the same alone and in any batch, on every device and with every version of torch. Enhancements are rounded
where torchvision cuts off: they differ by one grey level, or two where the magnitude is large.

Images of one channel are their own grey: colour leaves them as they are, and every other operation does to the channel
what it does to each of three equal ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.data import rng
from classroomkd.data.targets import CLASS, TargetKind
from classroomkd.data.views.base import Views
from classroomkd.data.views.crop_flip import CropFlip
from classroomkd.errors import UserError

__all__ = ["GROUPING", "OPERATIONS", "STEPS", "RandAugment"]

OPERATIONS = (
    "identity",
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "posterize", "solarize"),
    *("contrast", "color", "sharpness", "autocontrast", "equalize"),
)
STEPS = 30  # the largest magnitude
# Devices on which an operation gets its own rows alone. To know them, one would have to wait for other devices: there
# all rows go through every operation, and each keeps what it needs.
GROUPING = ("cpu",)
_CROP = 41
_ONE = 2**16  # fixed point
_GREY = (19595, 38470, 7471)  # of red, green and blue, of _ONE: ITU-R 601


class RandAugment(Views):
    """``num_ops`` operations at ``magnitude`` of 0..30 on a crop or its mirror image; unbounded, view 0 is the
    untouched image.

    Raises:
        UserError: for numbers that do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        view_seed: int,
        image_size: tuple[int, int],
        num_ops: int = 2,
        magnitude: int = 9,
        target_kind: TargetKind = CLASS,
    ) -> None:
        if num_ops < 1 or not 0 <= magnitude <= STEPS:
            raise UserError(
                f"{name}: num_ops={num_ops}, magnitude={magnitude}; give at least 1 operation and a magnitude of 0 to"
                f" {STEPS}"
            )
        tables = {"places": _places(image_size, magnitude), "levels": _levels(magnitude)}
        super().__init__(name, view_seed, image_size, target_kind=target_kind, tables=tables)
        self.num_ops = num_ops
        self._crop = CropFlip(
            "crop_flip", view_seed=view_seed, image_size=image_size, pad=4, flip=True, target_kind=target_kind
        )
        self.definition = (
            f"{name} num_ops={num_ops} magnitude={magnitude}/{STEPS} view_seed={view_seed} code=1"
            f" of [{self._crop.definition}]"
        )
        change = round(0.9 * magnitude / STEPS * _ONE)
        self._factors = (_ONE + change, _ONE - change)

    def operations(self, ids: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """What is done to ``ids``, ``views`` (B,): the view of ``crop_flip`` (B,), and ``num_ops`` variants
        (num_ops, B), each twice the place in ``OPERATIONS`` and 1 more for the other direction; all int64."""
        key = rng.tensor_keys(self.view_seed, ids, views)
        crop = rng.draw(key, _CROP, self._crop.count)
        turns = torch.arange(self.num_ops, device=ids.device)[:, None]
        variants = rng.below(rng.tensor_keys(self.view_seed, ids, views, turns), 2 * len(OPERATIONS))
        untouched = views == self.identity
        return torch.where(untouched, self._crop.identity, crop), torch.where(untouched, 0, variants)

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.apply``; one channel or three."""
        assert pixels.shape[1] in (1, 3), tuple(pixels.shape)
        crop, variants = self.operations(ids.to(pixels.device), views.to(pixels.device))
        changed = self._crop.apply(pixels, ids, crop)
        for variant in variants:
            changed = self.operate(changed, variant)
        return changed

    def move(self, target: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """See ``Views.move``; masks: the crop and the operations that move pixels."""
        crop, variants = self.operations(ids.to(target.device), views.to(target.device))
        moved = self._crop.move(target, ids, crop)
        table = self._table("places", target.device)
        first, end = _MOVES
        for variant in variants:
            chosen = (variant >= 2 * first) & (variant < 2 * end)
            place = table[(variant - 2 * first).clamp(0, len(table) - 1)]
            shifted = F.pad(moved.flatten(1), [0, 1], value=self.target_kind.fill).gather(1, place).view(moved.shape)
            moved = torch.where(chosen.view(-1, 1, 1), shifted, moved)
        return moved

    def operate(self, pixels: Tensor, variant: Tensor) -> Tensor:
        """One operation on each of ``pixels`` (B, C, H, W) uint8, by its ``variant`` (B,); see :meth:`operations`."""
        result = pixels.clone()
        for (first, end), operation in _GROUPS.items():
            chosen = (variant >= 2 * first) & (variant < 2 * end)
            turn = variant - 2 * first
            if pixels.device.type in GROUPING:
                rows = chosen.nonzero().squeeze(1)
                if len(rows):
                    result.index_copy_(0, rows, operation(self, pixels.index_select(0, rows), turn[rows]))
            else:
                changed = operation(self, pixels, turn.clamp(0, 2 * (end - first) - 1))
                result = torch.where(chosen.view(-1, 1, 1, 1), changed, result)
        return result

    def _moved(self, pixels: Tensor, variant: Tensor) -> Tensor:
        place = self._table("places", pixels.device)[variant].unsqueeze(1).expand(-1, pixels.shape[1], -1)
        return F.pad(pixels.flatten(2), [0, 1]).gather(2, place).view(pixels.shape)

    def _looked_up(self, pixels: Tensor, variant: Tensor) -> Tensor:
        return self._table("levels", pixels.device).take(pixels.int() + 256 * variant.view(-1, 1, 1, 1))

    def _enhanced(self, pixels: Tensor, base: Tensor, variant: Tensor) -> Tensor:
        """Away from ``base`` for variant 0, towards it for 1."""
        more, less = self._factors
        factor = torch.where(variant == 0, more, less).int().view(-1, 1, 1, 1)
        return _clamped(((pixels - base) * factor + base * _ONE + _ONE // 2) >> 16)


_MOVES = (1, 6)  # the operations that move pixels
# The first of OPERATIONS and the one after the last, and what does them.
_GROUPS: dict[tuple[int, int], Callable[[RandAugment, Tensor, Tensor], Tensor]] = {
    _MOVES: RandAugment._moved,
    (6, 9): RandAugment._looked_up,
    (9, 10): lambda views, pixels, variant: views._enhanced(pixels, _mean_grey(pixels), variant),  # contrast
    (10, 11): lambda views, pixels, variant: views._enhanced(pixels, _grey(pixels), variant),  # colour
    (11, 12): lambda views, pixels, variant: views._enhanced(pixels, _smooth(pixels), variant),  # sharpness
    (12, 13): lambda views, pixels, variant: _stretched(pixels),  # autocontrast
    (13, 14): lambda views, pixels, variant: _equalized(pixels),  # equalize
}


def _clamped(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> (B, 1, H, W) int32, 0..255."""
    if pixels.shape[1] == 1:
        return pixels.int()
    red, green, blue = (channel.int() * share for channel, share in zip(pixels.unbind(1), _GREY, strict=True))
    return (((red + green + blue) + _ONE // 2) >> 16).unsqueeze(1)


def _mean_grey(pixels: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> (B, 1, 1, 1) int32, rounded."""
    area = pixels.shape[-2] * pixels.shape[-1]
    return ((2 * _grey(pixels).sum((1, 2, 3)) + area) // (2 * area)).int().view(-1, 1, 1, 1)


def _smooth(pixels: Tensor) -> Tensor:
    """Each pixel five times and its eight neighbours once, over 13; those at the edge as they are: int32."""
    result = pixels.int()
    rows = result[..., :-2, :] + result[..., 1:-1, :] + result[..., 2:, :]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    result[..., 1:-1, 1:-1] = (around + 4 * result[..., 1:-1, 1:-1] + 6) // 13
    return result


def _stretched(pixels: Tensor) -> Tensor:
    """The darkest of each channel becomes 0 and the brightest 255; a channel of one level stays."""
    low, high = (end.int() for end in torch.aminmax(pixels.flatten(2), dim=2, keepdim=True))
    span = high - low
    result = ((pixels.flatten(2) - low) * 510 + span) // (2 * span).clamp_min(1)
    return torch.where(span > 0, result, low).to(torch.uint8).view(pixels.shape)


def _equalized(pixels: Tensor) -> Tensor:
    """Each channel's levels spread so that each is about as frequent, by the rule of Pillow's ``ImageOps.equalize``."""
    flat = pixels.flatten(2).long()
    frequency = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=pixels.device)
    frequency.scatter_add_(2, flat, flat.new_ones(()).expand_as(flat))
    below = frequency.cumsum(2)
    last = frequency.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - last) // 255
    level = (below - frequency + step // 2) // step.clamp_min(1)
    level = torch.where(step > 0, level.clamp_max(255), torch.arange(256, device=pixels.device))
    return level.gather(2, flat).to(torch.uint8).view(pixels.shape)


def _levels(magnitude: int) -> Tensor:
    """(6, 256) uint8: what becomes of each level in brightness (up, down), posterize and solarize (twice each)."""
    level = torch.arange(256)
    change = round(0.9 * magnitude / STEPS * _ONE)
    brightness = [_clamped((level * (_ONE + signed) + _ONE // 2) >> 16) for signed in (change, -change)]
    lost = round(magnitude * 4 / STEPS)  # bits
    posterized = level >> lost << lost
    threshold = math.ceil(255 - 255 * magnitude / STEPS)
    solarized = torch.where(level >= threshold, 255 - level, level)
    return torch.stack([*brightness, *[table.to(torch.uint8) for table in (posterized, solarized) for _ in (0, 1)]])


def _places(image_size: tuple[int, int], magnitude: int) -> Tensor:
    """(10, H·W) int64: for shear and translation by x and y and for rotation, in both directions, the place of every
    result's pixel in the flat image, the nearest; H·W: outside, which is black."""
    height, width = image_size
    part = magnitude / STEPS
    angle = math.radians(30 * part)
    cos, sin = round(math.cos(angle) * _ONE), round(math.sin(angle) * _ONE)
    shear = round(0.3 * part * _ONE)
    right, down = (int(150 / 331 * side * part) for side in (width, height))
    # Twice the pixels' centres, from the corner and, to turn, from the middle; times _ONE.
    y, x = torch.meshgrid(2 * torch.arange(height) + 1, 2 * torch.arange(width) + 1, indexing="ij")
    across, along = x - width, y - height
    looked_at = [  # columns and rows, twice and times _ONE
        (
            (x * _ONE + sign * shear * y, y * _ONE),
            (x * _ONE, y * _ONE + sign * shear * x),
            ((x - 2 * sign * right) * _ONE, y * _ONE),
            (x * _ONE, (y - 2 * sign * down) * _ONE),
            (across * cos - sign * along * sin + width * _ONE, along * cos + sign * across * sin + height * _ONE),
        )
        for sign in (1, -1)
    ]
    tables = []
    for columns, rows in (pair for both in zip(*looked_at, strict=True) for pair in both):
        column, row = columns // (2 * _ONE), rows // (2 * _ONE)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        tables.append(torch.where(inside, row * width + column, height * width).flatten())
    return torch.stack(tables)
