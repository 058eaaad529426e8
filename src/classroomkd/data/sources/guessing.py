"""Which source was meant by a name that there is not: a folder typed without a source, or another word for one. Imports
no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from classroomkd.errors import did_you_mean

__all__ = ["source_meant"]

_OTHER_WORDS = {
    **dict.fromkeys(("coco", "coco_keypoints", "lsp", "lspet", "aic", "crowdpose", "halpe"), "coco-keypoints"),
    **dict.fromkeys(("dir", "folder", "folders", "imagenet", "image-folder", "photos"), "imagefolder"),
    **dict.fromkeys(("fashion", "fmnist", "fashionmnist"), "fashion-mnist"),
    **dict.fromkeys(("cifar", "cifar-10"), "cifar10"),
    "cifar-100": "cifar100",
    "python": "py",
}
_VARIABLE = "CLASSROOMKD_DATA"


def source_meant(text: str, names: Iterable[str]) -> str:
    """`` (did you mean 'imagefolder:photos'?)`` for what ``text`` may stand for, or the empty string."""
    name, colon, argument = text.partition(":")
    word = _OTHER_WORDS.get(name.strip().lower())
    if word is not None and colon:  # a name says more than the folder behind it
        return f" (did you mean '{word}{colon}{argument}'?)"
    if source := next((found for path in (text, argument) if path.strip() and (found := _by_content(path))), ""):
        return f" (did you mean '{source}'?)"
    if word is not None:
        return f" (did you mean '{word}{colon}{argument}'?)"
    return did_you_mean(name, names)


def _by_content(text: str) -> str:
    """The source that reads the folder or file of this path, or the empty string where there is none."""
    roots = [Path(), *([Path(os.environ[_VARIABLE])] if os.environ.get(_VARIABLE) else [])]
    path = next((place for root in roots if os.path.exists(place := root / os.path.expanduser(text.strip()))), None)
    if path is None:
        return ""
    if not path.is_dir():
        return f"coco-keypoints:{text}" if path.suffix == ".json" else ""
    try:
        if any(path.glob("annotations/*.json")) or any(path.glob("*.json")):
            return f"coco-keypoints:{text}"
        if any(path.glob("annot/*.json")):
            return f"mpii:{text}"
        if any(path.glob("*-idx3-ubyte*")):
            return f"fashion-mnist:{text}"
        if _flat(path):
            return f"images:{text}"
    except OSError:
        return ""
    return f"imagefolder:{text}"


def _flat(folder: Path) -> bool:
    """Whether pictures lie in a folder itself, and no folders: then none can be their classes."""
    from classroomkd.data.sources.walking import folders_in, images_in  # needs numpy, which a right name does not

    return bool(images_in(folder)) and not folders_in(folder)
