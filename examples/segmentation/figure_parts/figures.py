"""The data source: stick figures on a noisy ground, and for every pixel the part that was painted last.

Figure ``index`` of a seed is always the same. Nothing is stored.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from classroomkd.data.images import MemoryPixels
from classroomkd.data.sources.base import Raw, Request, Source, fingerprint
from classroomkd.data.targets import mask
from classroomkd.errors import UserError

__all__ = ["CLASSES", "IGNORE", "draw", "open_figures"]

CLASSES = ("ground", "legs", "trunk", "arms", "head")
IGNORE = 255  # pixels without a label: those that a view brings in from outside the picture
VERSION = 1
TEST_START = 10_000_000  # index of the first test figure: apart from every training figure


def open_figures(argument: str, request: Request) -> Source:
    """``options``: train (800) and test (300) pictures, seed (0), image_size (48, a multiple of 4).

    Raises:
        UserError: a size or a number of pictures that cannot be drawn.
    """
    options = {"train": 800, "test": 300, "seed": 0, "image_size": request.size or 48, **request.options}
    size, seed = int(options["image_size"]), int(options["seed"])
    if size < 16 or size % 4 or request.size not in (None, size):
        raise UserError(f"data.options.image_size: {size}; give a multiple of 4 from 16 on, and no other data.size")
    parts = {}
    for part, start in (("train", 0), ("test", TEST_START)):
        count = int(options[part])
        if not 20 <= count <= 100_000:
            raise UserError(f"data.options.{part}: {count} pictures; give 20 to 100,000")
        drawn = [draw(seed, start + index, size) for index in range(count)]
        pixels = torch.from_numpy(np.stack([picture for picture, _ in drawn]))
        masks = torch.from_numpy(np.stack([labels for _, labels in drawn]))
        parts[part] = Raw(MemoryPixels(pixels), masks, torch.arange(count), count, mask(IGNORE))
    text = f"figure-parts {VERSION} {seed=} {size=} train={options['train']} test={options['test']}"
    return Source("figure-parts", CLASSES, parts, "crop_flip", fingerprint(text))


def draw(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One picture (3, size, size) and its mask (size, size), places in :data:`CLASSES`."""
    random = np.random.default_rng((seed, index))
    ground = random.uniform(0.2, 0.8, 3)
    picture = np.repeat(ground[:, None], size * size, 1).reshape(3, size, size)
    labels = np.zeros((size, size), np.uint8)
    hip = np.array([random.uniform(0.38, 0.62), random.uniform(0.5, 0.6)])
    lean = random.uniform(-0.3, 0.3)
    neck = hip + 0.26 * np.array([np.sin(lean), -np.cos(lean)])
    parts: list[tuple[int, NDArray[np.float64], NDArray[np.float64], float]] = []
    for side in (-1, 1):
        spread = side * random.uniform(0.05, 0.5)
        foot = hip + 0.32 * np.array([np.sin(spread), np.cos(spread)])
        parts.append((1, hip, foot, 0.05))
    parts.append((2, hip, neck, 0.085))
    for side in (-1, 1):
        raised = side * random.uniform(0.4, 2.6)
        hand = neck + 0.26 * np.array([np.sin(raised), np.cos(raised)])
        parts.append((3, neck, hand, 0.04))
    parts.append((4, neck - [0, 0.08], neck - [0, 0.08], 0.075))
    colours = np.clip(ground + random.choice([-1, 1], (5, 1)) * random.uniform(0.2, 0.4, (5, 3)), 0, 1)
    for part, start, end, radius in parts:
        covered = _near(start, end, size) < radius
        picture[:, covered] = colours[part][:, None]
        labels[covered] = part
    picture = picture + random.normal(0, 0.08, picture.shape)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8), labels


def _near(start: NDArray[np.float64], end: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Distance (size, size) of every pixel's centre from a segment, all in shares of the side."""
    line = (np.arange(size) + 0.5) / size
    pixels = np.stack(np.meshgrid(line, line), -1)
    along = end - start
    share = np.clip(((pixels - start) @ along) / max(float(along @ along), 1e-12), 0, 1)
    distance: NDArray[np.float64] = np.linalg.norm(pixels - start - share[..., None] * along, axis=-1)
    return distance
