"""Data: labelled images, or persons with joints, from any source as one kind of object, and replayable augmentation.

``load`` gives an ``ImageSet``; ``make_views`` a space of views. Names are loaded on first use: the table of sources
(``describe_sources``) is readable without torch.
"""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

from classroomkd.errors import UserError

_LAZY = {
    "DataSettings": "spec",
    "DataSpec": "spec",  # the old name of DataSettings
    "DatasetPixels": "sources.dataset_pixels",
    "FilePixels": "file_pixels",
    "FixedViews": "views",
    "ImageSet": "images",
    "MemoryPixels": "images",
    "Part": "images",
    "People": "keypoints.people",
    "Pixels": "images",
    "Views": "views",
    "describe_sources": "sources.table",
    "from_dataset": "loading",
    "load": "classroomkd.tasks.data",  # which data set that is, the task says
    "make_views": "views",
    "source_names": "sources.table",
    "subset": "subsets",
    "view_names": "classroomkd.tasks.data",
}
_MODULES = ("puppets",)

__all__ = [*_LAZY, *_MODULES, "pack", "unpack"]


def pack(*_: Any, **__: Any) -> NoReturn:
    """Gone, as is ``unpack``: hand an ``ImageSet`` to a process as it is, after :meth:`ImageSet.share`."""
    raise UserError("data.pack and data.unpack are gone: give the ImageSet itself to a process, after its share()")


unpack = pack


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        home = _LAZY[name]
        return getattr(importlib.import_module(home if home.startswith("classroomkd.") else f"{__name__}.{home}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
