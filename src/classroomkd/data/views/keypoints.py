"""Views of persons: one affine warp of a canvas to the input, and the joints moved with it.

A view turns, scales and mirrors the input around its centre, or around one half of the body. Which ones follows from
integers alone: hashes of (view seed, id, view) look up tables of normal numbers (65,536 quantiles, rounded, with the
sines and cosines of the angles beside them), so a view does not depend on the device, the machine or its batch. Pixels
are interpolated by ``grid_sample``; CPU and GPU may differ by one grey level.

Shapes: B samples, K joints, (H, W) the input's size; canvases are (B, 3, S, S), see ``crops``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

from classroomkd.data import rng
from classroomkd.data.images import ImageSet
from classroomkd.data.keypoints.crops import Canvas, region
from classroomkd.data.skeleton import Skeleton
from classroomkd.data.targets import KEYPOINTS
from classroomkd.data.views.base import Views
from classroomkd.errors import UserError

__all__ = ["PRESETS", "PersonViews", "person_views"]

_TURNS, _TURN, _SCALE, _FLIP, _HALF, _UPPER = 31, 32, 33, 34, 35, 36
_DRAWS = 65536
_MOST_VISIBLE = 8  # the half-body crop needs more labelled joints than this, and more than two in the half
_HALF_PADDING = 1.5
_CLOSEST = 0.25  # a half body is not enlarged further than to this share of the input

PRESETS: dict[str, dict[str, float]] = {
    "person": {"scale": 0.35, "rotation": 45.0, "rotation_p": 0.6, "half_body": 0.3, "flip": 0.5},
    "person_mpii": {"scale": 0.25, "rotation": 30.0, "rotation_p": 0.6, "half_body": 0.0, "flip": 0.5},
    "person_flip": {"scale": 0.0, "rotation": 0.0, "rotation_p": 0.0, "half_body": 0.0, "flip": 0.5},
    "none": {"scale": 0.0, "rotation": 0.0, "rotation_p": 0.0, "half_body": 0.0, "flip": 0.0},
}
"""What the common recipes do: COCO's, MPII's; see :class:`PersonViews`."""


@cache
def _normal() -> tuple[float, ...]:
    """``_DRAWS`` equally likely values of a standard normal number."""
    half = [NormalDist().inv_cdf((i + 0.5) / _DRAWS + 0.5) for i in range(_DRAWS // 2)]
    return (*(-value for value in reversed(half)), *half)


@cache
def _table(spread: float, most: float, function: Callable[[float], float]) -> Tensor:
    """``function`` of normal numbers of standard deviation ``spread``, cut at ± ``most``: one number for no spread."""
    numbers = [max(-most, min(value * spread, most)) for value in (_normal() if spread else (0.0,))]
    # Rounded, so that a last bit of some library's logarithm or sine cannot be seen.
    return torch.tensor([round(function(value) * 2**22) / 2**22 for value in numbers], dtype=torch.float32)


def _one_more(value: float) -> float:
    return 1 + value


class PersonViews(Views):
    """``scale``: 1 + a normal number of that standard deviation, cut at ± ``scale``; ``rotation``: likewise in degrees,
    cut at twice that, with probability ``rotation_p``; ``half_body``: with that probability, where more than 8 joints
    are labelled, the upper or the lower body; ``flip``: with that probability, mirrored, and pairs of joints swapped.

    View 0 is the untouched input. Unbounded, but for ``flip`` 0.5 alone (view 1 is the mirror image) and for nothing.
    """

    def __init__(
        self,
        name: str,
        *,
        skeleton: Skeleton,
        canvas: Canvas,
        view_seed: int,
        scale: float = 0.0,
        rotation: float = 0.0,
        rotation_p: float = 0.0,
        half_body: float = 0.0,
        flip: float = 0.0,
    ) -> None:
        self.canvas = canvas
        turns = rotation > 0 and rotation_p > 0
        half_body = half_body if len(skeleton) > _MOST_VISIBLE and skeleton.upper else 0.0
        drawn = scale > 0 or turns or half_body > 0 or flip not in (0.0, 0.5)
        self.rotation_p, self.half_body, self.flip = rotation_p if turns else 0.0, half_body, flip
        angle = math.radians(rotation) if turns else 0.0
        tables = {
            "scale": _table(scale, scale, _one_more),
            "cos": _table(angle, 2 * angle, math.cos),
            "sin": _table(angle, 2 * angle, math.sin),
            "swap": torch.tensor(skeleton.swap),
            "upper": torch.tensor([k in skeleton.upper for k in range(len(skeleton))]),
        }
        count = None if drawn else 2 if flip else 1
        super().__init__(name, view_seed, canvas.size, count=count, target_kind=KEYPOINTS, tables=tables)
        height, width = canvas.size
        drawing = (
            f" scale={scale:g} rotation={rotation:g} rotation_p={rotation_p:g} half_body={half_body:g}"
            f" upper={','.join(map(str, skeleton.upper))} view_seed={view_seed}"
        )
        self.definition = (
            f"{name} flip={flip:g} swap={','.join(map(str, skeleton.swap))} size={height}x{width}"
            f" canvas={canvas.side}x{canvas.scale:g} bilinear{drawing if drawn else ''} code=1"
        )

    @property
    def moves_targets(self) -> bool:
        """See ``Views.moves_targets``: joints do."""
        return True

    def apply(self, pixels: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Persons have joints, which move with the pixels: see :meth:`render`."""
        raise TypeError("views of persons move joints too: call render(pixels, target, ids, views)")

    def render(
        self, pixels: Tensor, target: Tensor, ids: Tensor, views: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Canvases (B, 3, S, S) uint8 and joints (B, K, 3) of the untouched input -> pixels (B, 3, H', W') uint8 of an
        input of ``size`` (the data's when None) and the joints in its pixels.

        At another size the same view is shown: the same centre, and the smallest region of that size's aspect that
        holds the data's. Joints that leave the input keep their coordinates; those without a label stay 0.
        """
        ids, views, target = ids.to(pixels.device), views.to(pixels.device), target.to(pixels.device)
        size = self.image_size if size is None else size
        centre, step, cos, sin, mirrored = self._parameters(target, ids, views)
        zoom, _, _ = region(self.image_size, size)
        across, along = step * zoom * cos, step * zoom * sin
        side = torch.where(mirrored, -1.0, 1.0)
        shown = self._sample(pixels, centre, across, along, side, size)
        away = target[..., :2] - centre[:, None]
        x = (away[..., 0] * cos[:, None] + away[..., 1] * sin[:, None]) / (step * zoom)[:, None] * side[:, None]
        y = (away[..., 1] * cos[:, None] - away[..., 0] * sin[:, None]) / (step * zoom)[:, None]
        moved = torch.stack([x + (size[1] - 1) / 2, y + (size[0] - 1) / 2, target[..., 2]], -1)
        moved = _placed(moved, target)
        swapped = moved.index_select(1, self._table("swap", pixels.device))
        return shown, torch.where(mirrored[:, None, None], swapped, moved)

    def eval_view(self, pixels: Tensor, target: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """The untouched input of ``size``, and the joints in its pixels. At the data's own size and whole canvas scales
        this is a slice."""
        height, width = self.image_size
        if size in (None, self.image_size) and self.canvas.scale == int(self.canvas.scale):
            (x, y), every = self.canvas.offset, int(self.canvas.scale)
            window = pixels[..., y : y + every * (height - 1) + 1 : every, x : x + every * (width - 1) + 1 : every]
            return window.contiguous(), target
        size = self.image_size if size is None else size
        zoom, x0, y0 = region(self.image_size, size)
        one = torch.full((len(pixels),), zoom, device=pixels.device)
        centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=pixels.device).expand(len(pixels), 2)
        shown = self._sample(pixels, centre, one, torch.zeros_like(one), torch.ones_like(one), size)
        moved = torch.stack([(target[..., 0] - x0) / zoom, (target[..., 1] - y0) / zoom, target[..., 2]], -1)
        return shown, _placed(moved, target)

    def _parameters(self, target: Tensor, ids: Tensor, views: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Centre (B, 2) in input pixels, step, cosine, sine and mirror (B,) of every view."""
        height, width = self.image_size
        key = rng.tensor_keys(self.view_seed, ids, views)
        touched = views != self.identity

        def happens(stream: int, probability: float) -> Tensor:
            return touched & (rng.draw(key, stream, 2**20) < round(probability * 2**20))

        def look_up(stream: int, *names: str) -> list[Tensor]:
            tables = [self._table(name, target.device) for name in names]
            place = rng.draw(key, stream, len(tables[0]))
            return [table[place] for table in tables]

        mirrored = touched if self.count == 2 else happens(_FLIP, self.flip)
        (step,) = look_up(_SCALE, "scale")
        cos, sin = look_up(_TURN, "cos", "sin")
        turned = happens(_TURNS, self.rotation_p)
        step = torch.where(touched, step, 1.0)
        cos, sin = torch.where(turned, cos, 1.0), torch.where(turned, sin, 0.0)
        centre = torch.stack([torch.full_like(step, (width - 1) / 2), torch.full_like(step, (height - 1) / 2)], -1)
        if self.half_body:
            upper = rng.draw(key, _UPPER, 2) == 1
            middle, share, able = self._half(target, upper, self._table("upper", target.device))
            able = able & happens(_HALF, self.half_body)
            centre = torch.where(able[:, None], middle, centre)
            step = torch.where(able, step * share, step)
        return centre, step, cos, sin, mirrored

    def _half(self, target: Tensor, wanted: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centre (B, 2), share of the input (B,) and whether there is enough to see (B,), of one half of each body:
        the upper where ``wanted``, unless only the other has more than two labelled joints."""
        height, width = self.image_size
        labelled = target[..., 2] > 0
        halves = torch.stack([labelled & ~upper, labelled & upper])  # lower, upper
        counts = halves.sum(-1)
        chosen = torch.where(wanted, counts[1] > 2, counts[0] <= 2)
        half = torch.where(chosen[:, None], halves[1], halves[0])
        number = half.sum(-1)
        # Whole numbers (1/64 pixel) add up to the same sum in any order.
        places = torch.where(half[..., None], (target[..., :2] * 64).round(), 0.0).long()
        middle = places.sum(1).float() / (64 * number.clamp(min=1))[:, None]
        low = torch.where(half[..., None], target[..., :2], torch.inf).amin(1)
        high = torch.where(half[..., None], target[..., :2], -torch.inf).amax(1)
        spread = torch.where(number[:, None] > 0, high - low, 0.0)
        share = _HALF_PADDING * torch.maximum(spread[:, 0] / (width - 1), spread[:, 1] / (height - 1))
        return middle, share.clamp(min=_CLOSEST), (labelled.sum(-1) > _MOST_VISIBLE) & (number > 2)

    def _sample(
        self, pixels: Tensor, centre: Tensor, across: Tensor, along: Tensor, side: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Canvases (B, 3, S, S) at a grid of ``size``: around ``centre`` (B, 2), in input pixels, with steps of
        (across, along) (B,) to the right and (-along, across) downwards; ``side`` (B,) is -1 where it runs left."""
        assert tuple(pixels.shape[-2:]) == (self.canvas.side, self.canvas.side), (tuple(pixels.shape), self.canvas)
        height, width = size
        right = torch.arange(width, device=pixels.device, dtype=torch.float32) - (width - 1) / 2
        down = torch.arange(height, device=pixels.device, dtype=torch.float32)[:, None] - (height - 1) / 2
        right = side[:, None, None] * right
        column = centre[:, 0, None, None] + (across[:, None, None] * right - along[:, None, None] * down)
        row = centre[:, 1, None, None] + (along[:, None, None] * right + across[:, None, None] * down)
        x, y = self.canvas.offset
        last = (self.canvas.side - 1) / 2
        grid = torch.stack([(column * self.canvas.scale + x) / last, (row * self.canvas.scale + y) / last], -1) - 1
        sampled = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        return sampled.round_().clamp_(0, 255).to(torch.uint8)


def _placed(moved: Tensor, target: Tensor) -> Tensor:
    """Joints (B, K, 3) that a view has moved; those without a label stay at 0, and the mark of a person without joints
    (v = -1) stays."""
    v = target[..., 2:]
    nowhere = torch.cat([torch.zeros_like(target[..., :2]), v.clamp_max(0)], -1)
    return torch.where(v > 0, moved, nowhere)


def person_views(name: str, images: ImageSet, *, view_seed: int, image_size: tuple[int, int]) -> PersonViews:
    """The view space ``name`` (a key of ``PRESETS``) of the persons of ``images``, changed by its
    ``data.options``.

    Raises:
        UserError: for options that do not fit.
    """
    assert images.people is not None
    assert images.skeleton is not None
    assert image_size == images.people.size, (image_size, images.people.size)
    options: Mapping[str, float] = images.people.view_options
    if options and name == "none":
        raise UserError(
            f"data.options.{next(iter(options))}: data.views is none, so there is nothing to set; take another space"
            " of views or leave it out"
        )
    return PersonViews(
        name,
        skeleton=images.skeleton,
        canvas=images.people.canvas,
        view_seed=view_seed,
        **PRESETS[name] | dict(options),
    )
