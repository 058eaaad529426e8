"""Which answer is which person: COCO's greedy matching, at all thresholds and sizes at once. Does not import torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from classroomkd.tasks.pose.truth import Floats, Ints

__all__ = ["AREAS", "MAX_FOUND", "THRESHOLDS", "Pairs", "match"]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = np.array([[0, 1e5**2], [32**2, 96**2], [96**2, 1e5**2]])  # px², both ends belong: all, medium, large
MAX_FOUND = 20  # answers an image
_CELLS = 1 << 22  # of a block of images: thresholds x sizes x images x people

Mask = NDArray[np.bool_]


class Pairs(NamedTuple):
    """Every answer with every person of its image.

    Attributes:
        similar: (P,) OKS: for each answer in turn, that with each person of its image.
        of_image: (N,) places of the answers' images, ascending, the best answer of an image first.
        starts: (I,) first person of an image.
        counts: (I,) people of an image.
        ignored: (A, people), for each range of areas.
        crowd: (people,).
    """

    similar: Floats
    of_image: Ints
    starts: Ints
    counts: Ints
    ignored: Mask
    crowd: Mask


def match(pairs: Pairs) -> tuple[Mask, Mask]:
    """Give every answer, best first, the free person of its image it is most similar to.

    A person is taken once, a crowd any number of times. People who count come before ignored ones, however similar
    these are; of equally similar people the last one listed wins (both as in the COCO API's loop).

    Returns:
        ``matched`` and ``void``, both (A, T, N): the answer has a person; and that person is an ignored one.
    """
    lanes = (len(AREAS), len(THRESHOLDS))
    matched, void = (np.zeros((*lanes, len(pairs.of_image)), bool) for _ in range(2))
    images = np.unique(pairs.of_image)
    images = images[pairs.counts[images] > 0]
    # Blocks of images with about as many people, so that padding to the fullest image at most doubles the work.
    size = np.ceil(np.log2(pairs.counts[images])).astype(np.int64)
    for power in np.unique(size):
        block = max(1, _CELLS // (lanes[0] * lanes[1] << int(power)))
        alike = images[size == power]
        for some in np.split(alike, range(block, len(alike), block)):
            _block(pairs, some, matched, void)
    return matched, void


def _block(pairs: Pairs, images: Ints, matched: Mask, void: Mask) -> None:
    """Some images side by side: their best answers choose, then their second best, … Fills ``matched``, ``void``."""
    begin = np.searchsorted(pairs.of_image, images)
    answers = np.searchsorted(pairs.of_image, images, side="right") - begin
    people = pairs.counts[images][:, None]
    first_pair = (np.cumsum(pairs.counts[pairs.of_image]) - pairs.counts[pairs.of_image])[begin]
    # People in reverse, so that argmax, which takes the first of equals, takes the last one listed.
    place = people - 1 - np.arange(people.max())
    real, place = place >= 0, np.maximum(place, 0)
    person = pairs.starts[images][:, None] + place
    counts = ~pairs.ignored[:, None, person]  # (A, 1, I, G)
    many, least = pairs.crowd[person], np.minimum(THRESHOLDS, 1 - 1e-10)[:, None, None]
    taken = np.zeros((len(AREAS), len(THRESHOLDS), *person.shape), bool)
    for rank in range(int(answers.max())):
        here = np.flatnonzero(answers > rank)
        pair = first_pair[here, None] + rank * people[here] + place[here]
        similar = np.where(real[here], pairs.similar[pair], -1.0)
        free = (similar >= least) & (~taken[:, :, here] | many[here])  # (A, T, I, G)
        first = free & counts[:, :, here]
        free = np.where(first.any(-1, keepdims=True), first, free)
        chosen = np.where(free, similar, -1.0).argmax(-1)[..., None]
        hit = free.any(-1)
        taken[:, :, here] |= hit[..., None] & (chosen == np.arange(person.shape[1]))
        matched[:, :, begin[here] + rank] = hit
        regular = np.take_along_axis(np.broadcast_to(counts[:, :, here], free.shape), chosen, -1)[..., 0]
        void[:, :, begin[here] + rank] = hit & ~regular
