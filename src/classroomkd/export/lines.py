"""Lines of Python that stand in a model card and run: a picture's pixels, and an exported file asked about them.

They need Pillow, NumPy and what the file's format needs, and not this package. The check of an export carries them out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd.errors import RunStopped

if TYPE_CHECKING:
    from classroomkd.export.student import Student

__all__ = ["PHOTO", "Form", "block", "carry_out", "classes_of_file", "pixels_of_picture", "quoted"]

PHOTO = "photo.jpg"  # what stands for a picture


@dataclass(frozen=True)
class Form:
    """How a student is exported.

    Attributes:
        target: the file; its ending is the format.
        decode: of persons, ``inside`` or ``outside``; None: not said.
        raw: whether the graph takes normalised floats.
        with_resize: whether the graph takes pictures of any size.
    """

    target: Path
    decode: str | None = None
    raw: bool = False
    with_resize: bool = False

    @property
    def name(self) -> str:
        """The file's name as a Python string."""
        return quoted(self.target.name)


def quoted(text: str) -> str:
    """A text between double quotes, as Python reads it."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


_FIT = {
    "crop": """\
    short = min(image.size)
    image = image.resize([int(SIZE * side / short) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (round((side - SIZE) / 2) for side in image.size)
    image = image.crop((left, top, left + SIZE, top + SIZE))
""",
    "letterbox": """\
    image = ImageOps.pad(image, (SIZE, SIZE), Image.Resampling.BILINEAR)
""",
    "stretch": """\
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
""",
    "pad": """\
    short, long = min(image.size), max(image.size)
    if short > SIZE:
        sides = [(2 * SIZE * side + short) // (2 * short) for side in image.size]
        image = image.resize(sides, Image.Resampling.BILINEAR, reducing_gap=3.0)
    else:
        image = image.resize([side * max(1, SIZE // long) for side in image.size], Image.Resampling.NEAREST)
    left, top = (int((side - SIZE) / 2) for side in image.size)
    image = image.crop((left, top, left + SIZE, top + SIZE))
""",
}
"""By ``data.resize``: from Pillow's ``image`` to SIZE x SIZE."""


def pixels_of_picture(student: Student, *, whole: bool = False) -> str:
    """``pixels(path)``: a picture as the student takes it, (C, H, W) uint8; ``whole``: as large as it is."""
    channels, height, width = student.shape
    side = None if whole else student.side
    resize = student.resize
    draft = "    image.draft(None, (2 * SIZE, 2 * SIZE))\n" if side and resize == "pad" else ""
    shape = f"({channels}, height, width)" if whole else f"({channels}, {height}, {width})"
    return f"""\
{f"SIZE = {side}{chr(10)}" if side else ""}

def pixels(path):
    \"\"\"A picture as the network takes it: {shape} uint8.\"\"\"
    image = Image.open(path)
{draft}    image = ImageOps.exif_transpose(image).convert("RGB")  # one with transparency: lay it on black first
{_FIT[resize] if side else ""}    return np.asarray(image).transpose(2, 0, 1)
"""


def classes_of_file(form: Form) -> str:
    """``classes`` out of an exported file's own metadata, where there is a ``session`` or ``about``."""
    about = "session.get_modelmeta().custom_metadata_map" if form.target.suffix == ".onnx" else "about"
    return f'classes = json.loads({about}["classes"])'


def block(lines: str) -> str:
    """Lines as a block of Markdown."""
    return f"```python\n{lines.strip()}\n```"


def carry_out(card: str, name: str, places: Mapping[str, Any]) -> dict[str, Any]:
    """Run the first block of a card and return what it has made.

    Args:
        card: the text.
        name: of the exported file in the block.
        places: what stands in the block for something else, and the values that take its place.

    Raises:
        RunStopped: there is no block, or it fails.
    """
    found = re.search(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    if found is None:
        raise RunStopped(f"the card of {name} has no lines to run; nothing was written")
    code = found[1]
    for text, value in places.items():
        if text not in code:
            raise RunStopped(f"the card of {name} does not say {text}; nothing was written")
        code = code.replace(text, repr(value))
    scope: dict[str, Any] = {"__name__": "card"}
    try:
        exec(compile(code, f"the card of {name}", "exec"), scope)
    except Exception as error:  # of whatever runtime
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise RunStopped(
            f"the lines of the card of {name} fail: {type(error).__name__}: {first}; nothing was written"
        ) from error
    return scope
