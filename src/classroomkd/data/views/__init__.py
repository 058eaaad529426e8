"""Replayable augmentation: ``pixels = f(view seed, sample id, view id)``, batched, on the pixels' device, bit for bit
the same alone or in any batch; one file a space.

Finite spaces are enumerated (``crop_flip``, ``crop``, ``flip``, ``none``). ``resized_crop``, ``randaugment`` and
``mixup`` are unbounded; their view 0 is the untouched image. Views of persons, which move the joints with the pixels,
are in ``classroomkd.data.views.keypoints``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from classroomkd.data.spec import IMAGE_VIEWS, PERSON_VIEWS
from classroomkd.data.views.base import Views
from classroomkd.data.views.crop_flip import CropFlip
from classroomkd.data.views.fixed import FixedViews
from classroomkd.data.views.mixup import Mixup
from classroomkd.data.views.randaugment import RandAugment
from classroomkd.data.views.resized_crop import ResizedCrop
from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.data.images import ImageSet

__all__ = ["CropFlip", "FixedViews", "Mixup", "RandAugment", "ResizedCrop", "Views", "make_views", "view_names"]

_TABLE: dict[str, Callable[..., Views]] = {
    "crop_flip": partial(CropFlip, pad=4, flip=True),
    "crop": partial(CropFlip, pad=4, flip=False),
    "flip": partial(CropFlip, pad=0, flip=True),
    "none": partial(CropFlip, pad=0, flip=False),
    "resized_crop": ResizedCrop,
    "randaugment": RandAugment,
    "mixup": Mixup,
}
assert tuple(_TABLE) == IMAGE_VIEWS


def view_names(task: str = "classification") -> tuple[str, ...]:
    """The names ``make_views`` knows for ``task``."""
    return PERSON_VIEWS if task == "pose" else IMAGE_VIEWS


def make_views(name: str, *, view_seed: int, image_size: tuple[int, int], people: ImageSet | None = None) -> Views:
    """The view space ``name`` for images of ``image_size`` (H, W), or for the persons of the image set ``people``.

    Raises:
        UserError: for an unknown name, and for views of images where persons are asked for (or the reverse).
    """
    persons = people is not None and people.people is not None
    names = PERSON_VIEWS if persons else IMAGE_VIEWS
    if name not in names:
        of = " of persons" if persons else ""
        raise UserError(
            f"data.views: there is no view space{of} '{name}'{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    if people is not None and people.people is not None:
        from classroomkd.data.views.keypoints import person_views

        return person_views(name, people, view_seed=view_seed, image_size=image_size)
    return _TABLE[name](name, view_seed=view_seed, image_size=image_size)
