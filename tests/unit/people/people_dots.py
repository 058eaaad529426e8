"""Persons on pictures that show a dot at one of their joints and nothing else."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from people_pieces import body
from torch import Tensor

from classroomkd.data import ImageSet, MemoryPixels, Part, make_views
from classroomkd.data.keypoints.crops import Canvas, crop, render
from classroomkd.data.keypoints.people import People, Persons, Picture
from classroomkd.data.skeleton import COCO
from classroomkd.data.targets import KEYPOINTS
from classroomkd.data.views.keypoints import PersonViews

SIZE = (96, 72)
COUNT = 24


def dots(joints: np.ndarray, height: int, width: int, sigma: float = 2.5) -> np.ndarray:
    """(h, w, 3) uint8 with a Gaussian dot at one joint (x, y)."""
    y, x = np.mgrid[:height, :width]
    blob = 255 * np.exp(-((x - joints[0]) ** 2 + (y - joints[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(blob)[..., None], 3, 2).astype(np.uint8)


def centres(pixels: Tensor) -> Tensor:
    """(B, 2) x, y of the mass of each picture (B, 3, H, W), and (B,) how much of it there is."""
    mass = pixels[:, 0].double()
    y, x = torch.arange(mass.shape[1]).double(), torch.arange(mass.shape[2]).double()
    total = mass.sum((1, 2))
    return torch.stack([(mass.sum(1) * x).sum(1), (mass.sum(2) * y).sum(1)], -1) / total[:, None], total


@cache
def image_set(
    joint: int = 9, *, stored: float = 1.0, size: tuple[int, int] = SIZE, sigma: float = 2.5, **options: float
) -> ImageSet:
    """COUNT persons; each picture shows a dot at one of their joints and nothing else."""
    rng = np.random.default_rng(0)
    joints = np.stack([body(40 + 3 * i, 30 + i, 110, rng) for i in range(COUNT)])
    low, high = joints.min(1), joints.max(1)
    regions = np.concatenate([(low + high) / 2, (high - low) * 1.15], 1)
    canvas = Canvas(size, stored)
    origin, step = crop(regions, size)
    made = [render(dots(joints[i, joint], 200, 260, sigma), origin[i], float(step[i]), canvas) for i in range(COUNT)]
    flagged = np.concatenate([joints, np.full((COUNT, 17, 1), 2)], 2)
    persons = Persons.of(np.arange(COUNT), np.zeros((COUNT, 4)), flagged, regions, origin=origin, step=step)
    people = People(
        canvas, tuple(Picture(i, f"{i}.png", 200, 260) for i in range(COUNT)), np.arange(COUNT), persons,
        persons.take(np.zeros(0, int)), np.zeros(0, np.int64), "gt", options,
    )  # fmt: skip
    target = torch.from_numpy(people.to_input(np.arange(COUNT), persons.joints)).float()
    part = Part(
        MemoryPixels(torch.from_numpy(np.stack(made))), target, torch.arange(COUNT), torch.arange(COUNT), KEYPOINTS
    )
    return ImageSet(
        "made", COCO.joints, part, part, part, (0.5,) * 3, (0.5,) * 3, "person", "0", (), COCO, people, size, "AP_gtbox"
    )


def views(images: ImageSet, name: str = "person", seed: int = 0) -> PersonViews:
    assert images.input is not None
    made = make_views(name, view_seed=seed, image_size=images.input, images=images)
    assert isinstance(made, PersonViews)
    return made


def check_dots(pixels: Tensor, target: Tensor, size: tuple[int, int], most: float = 0.15) -> int:
    """The dots (B, 3, H, W) that are wholly inside lie at ``target`` (B, 3); how many these are. What the target says
    is inside is there."""
    place, mass = centres(pixels)
    height, width = size
    edge = torch.ones(height, width, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    whole = (pixels[:, 0][:, edge] == 0).all(1) & (mass > 0)
    x, y = target[:, 0], target[:, 1]
    inside = (x > 1) & (y > 1) & (x < width - 2) & (y < height - 2)
    assert bool((mass[inside] > 0).all())
    away = (place - target[:, :2].double()).norm(dim=1)
    assert not whole.any() or float(away[whole].max()) < most, away[whole].max()
    return int(whole.sum())
