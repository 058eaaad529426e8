"""Source ``digits``: the 1,797 handwritten digits that come with scikit-learn (UCI ML hand-written digits, test
part)."""

from __future__ import annotations

import importlib

import numpy as np

from classroomkd.data.sources.base import Request, Source, fingerprint, memory
from classroomkd.errors import UserError

__all__ = ["open_digits"]


def open_digits(argument: str, request: Request) -> Source:
    """8 x 8 images of 17 grey levels, scaled to 0..255."""
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise UserError('data: digits needs scikit-learn: pip install "classroomkd[digits]"') from error
    bunch = datasets.load_digits()
    images = ((bunch.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
    target = bunch.target.astype(np.int64)
    part = memory(images, target, request, "digits")
    return Source(
        "digits",
        tuple(str(digit) for digit in range(10)),
        {"all": part},
        "crop",
        fingerprint(f"digits size={request.size}", images, target),
    )
