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

from classroomkd._renamed import warn_old_name
from classroomkd.data.spec import IMAGE_VIEWS, PERSON_VIEWS, SPATIAL_VIEWS
from classroomkd.data.targets import CLASS
from classroomkd.data.views.base import Views
from classroomkd.data.views.crop_flip import CropFlip
from classroomkd.data.views.fixed import FixedViews
from classroomkd.data.views.mixup import Mixup
from classroomkd.data.views.randaugment import RandAugment
from classroomkd.data.views.resized_crop import ResizedCrop
from classroomkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from classroomkd.data.images import ImageSet

__all__ = ["CropFlip", "FixedViews", "Mixup", "RandAugment", "ResizedCrop", "Views", "make_views"]

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
_ARTICLE = {"mask": "a mask", "image": "an image"}


def make_views(
    name: str,
    *,
    view_seed: int,
    image_size: tuple[int, int],
    images: ImageSet | None = None,
    people: ImageSet | None = None,
) -> Views:
    """The view space ``name`` for images of ``image_size`` (H, W) and the kind of targets that ``images`` has: classes
    (None), the joints of persons, masks, images. ``people`` is the old name of ``images``.

    Raises:
        UserError: for an unknown name, and for views that do not move such targets.
    """
    if people is not None:
        warn_old_name("make_views(people=…)", "images")
        images = people
    persons = images is not None and images.people is not None
    kind = CLASS if images is None else images.target_kind
    names = PERSON_VIEWS if persons else IMAGE_VIEWS
    if name not in names:
        of = " of persons" if persons else ""
        raise UserError(
            f"data.views: there is no view space{of} '{name}'{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    if images is not None and persons:
        from classroomkd.data.views.keypoints import person_views

        return person_views(name, images, view_seed=view_seed, image_size=image_size)
    if kind.spatial and name not in SPATIAL_VIEWS[kind.name]:
        raise UserError(
            f"data.views: '{name}' cannot move a target that is {_ARTICLE[kind.name]} with the pixels; there are"
            f" {', '.join(SPATIAL_VIEWS[kind.name])}"
        )
    moving = {"target_kind": kind} if kind.spatial else {}
    return _TABLE[name](name, view_seed=view_seed, image_size=image_size, **moving)
