"""What joints are called: one spelling for matching, whatever a file writes, and which joints are left and right.

Files write ``left_shoulder``, ``L_Shoulder``, ``left shoulder``, ``leftShoulder``, ``shoulder_left``, ``shoulder.L``,
``lshoulder`` or ``RShoulder``. Names are shown as the file has them, and matched by :func:`standard_name`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

__all__ = ["mirror_pairs", "numbered", "one_sided", "part_of", "side_of", "standard_name"]

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_SHORT = {
    "sho": "shoulder", "should": "shoulder", "elb": "elbow", "wri": "wrist", "kne": "knee", "ank": "ankle",
    "pelv": "pelvis", "thrx": "thorax", "headtop": "head_top", "upperneck": "upper_neck",
}  # fmt: skip
_PARTS = {
    "eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "hand", "foot", "heel", "toe", "big", "small",
    "thumb", "finger", "collar", "clavicle", "paw", "mouth", "leg", "arm", "eyebrow", "palm", *_SHORT,
}  # fmt: skip
_LIKELY = 4  # joints that differ by their number alone, before they are taken for a row of places


@cache
def standard_name(joint: str) -> str:
    """The name for matching: lower case, words joined by ``_``, a side in front as ``left_`` or ``right_``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", joint.strip())
    tokens = [_SHORT.get(token, token) for token in re.split(r"[\W_]+", words.lower()) if token]
    sides = [place for place, token in enumerate(tokens) if token in _SIDES]
    if len(sides) == 1 and len(tokens) > 1:
        side = _SIDES[tokens.pop(sides[0])]
        return "_".join([side, *tokens])
    if not sides:
        for place, token in enumerate(tokens):
            if token == "rear" and len(tokens) > 1:
                continue  # behind, and not the right ear
            if (parted := _glued(token)) is not None:
                side, part = parted
                return "_".join([side, *tokens[:place], _SHORT.get(part, part), *tokens[place + 1 :]])
    return "_".join(tokens) or joint


def _glued(token: str) -> tuple[str, str] | None:
    """Side and part of a word that holds both."""
    for written, side in _SIDES.items():
        before, after = token.removeprefix(written), token.removesuffix(written)
        if before != token and (before in _PARTS or (len(written) > 1 and len(before) > 2)):
            return side, before
        if len(written) > 1 and after != token and after in _PARTS:
            return side, after
    return None


def side_of(joint: str) -> str | None:
    """``left`` or ``right``, or None."""
    side, _, part = standard_name(joint).partition("_")
    return side if part and side in ("left", "right") else None


def part_of(joint: str) -> str:
    """The standard name without its side."""
    return standard_name(joint).removeprefix("left_").removeprefix("right_")


def mirror_pairs(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Places (left, right) of joints that their names say to be the two sides of one part."""
    names = [standard_name(joint) for joint in joints]
    place = {name: k for k, name in enumerate(names)}
    found = [
        (k, place["right_" + name.removeprefix("left_")])
        for k, name in enumerate(names)
        if name.startswith("left_") and "right_" + name.removeprefix("left_") in place
    ]
    taken = {k for pair in found for k in pair}
    # `lpaw1` and `rpaw1`: a letter in front is a side where both are there.
    found += [
        (k, place["r" + name[1:]])
        for k, name in enumerate(names)
        if name[:1] == "l" and len(name) > 1 and "r" + name[1:] in place and not {k, place["r" + name[1:]]} & taken
    ]
    return tuple(sorted(found))


def one_sided(joints: Sequence[str], paired: set[int]) -> list[str]:
    """Joints that are called left or right and are in no pair."""
    return [joint for k, joint in enumerate(joints) if k not in paired and side_of(joint) is not None]


def numbered(joints: Sequence[str], paired: set[int]) -> list[str]:
    """Joints in no pair that differ from others by their number alone, so that their names say no side."""
    stems = {k: re.sub(r"\d+", "", standard_name(joint)) for k, joint in enumerate(joints) if k not in paired}
    stems = {k: stem for k, stem in stems.items() if stem != standard_name(joints[k])}
    count = Counter(stems.values())
    return [joints[k] for k, stem in stems.items() if count[stem] >= _LIKELY]
