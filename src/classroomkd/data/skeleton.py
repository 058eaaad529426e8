"""Skeletons: which joints a person has, which of them swap in a mirror, how forgiving a score is about each.

Sources: COCO keypoints (order, links, sigmas: the COCO API); MPII (order and mirror pairs: the MPII annotation, joints
0 to 15); LSP (order: the authors' ``README``). MPII and LSP publish no sigmas: those of the COCO joint at the same
place are used, and 0.107 (COCO's hip) for the trunk. Does not import torch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from classroomkd.data.joint_names import mirror_pairs, part_of, standard_name
from classroomkd.errors import UserError, did_you_mean

__all__ = ["COCO", "LSP", "MPII", "SKELETONS", "Skeleton", "from_category", "union"]

_SIGMAS = {joint: tenfold / 10 for joint, tenfold in {  # quotients, as the COCO API has them: equal to the last bit
    "nose": 0.26, "eye": 0.25, "ear": 0.35, "shoulder": 0.79, "elbow": 0.72, "wrist": 0.62, "hip": 1.07, "knee": 0.87,
    "ankle": 0.89, "neck": 0.79, "upper_neck": 0.79, "head_top": 0.79, "pelvis": 1.07, "thorax": 1.07,
}.items()}  # fmt: skip
"""By part, without its side."""
_UNKNOWN_SIGMA = 0.079
"""Of a joint that nobody published a sigma for: COCO's shoulder."""
_LOWER = {"hip", "knee", "ankle", "pelvis"}


@dataclass(frozen=True)
class Skeleton:
    """K joints in an order.

    Attributes:
        name: how messages call it.
        joints: K names, as whoever made the skeleton writes them.
        links: pairs of places that are drawn as limbs.
        sigmas: K, of the OKS (one per joint, as COCO publishes them: the OKS kernel's variance is (2 sigma)²).
        flip_pairs: pairs of places that swap in a mirror image.
        upper: places of the upper body, for the half-body crop.
    """

    name: str
    joints: tuple[str, ...]
    links: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    upper: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.joints)
        places = [p for pair in (*self.links, *self.flip_pairs) for p in pair] + list(self.upper)
        if len(set(self.joints)) < count or count == 0:
            raise UserError(f"skeleton '{self.name}': joints must be different names, got {list(self.joints)}")
        if len(self.sigmas) != count or not all(0 < sigma < math.inf for sigma in self.sigmas):
            raise UserError(
                f"skeleton '{self.name}': {count} joints need {count} sigmas above 0, got {list(self.sigmas)}"
            )
        if any(not 0 <= p < count for p in places):
            raise UserError(f"skeleton '{self.name}': links, flip_pairs and upper count joints from 0 to {count - 1}")
        swapped = [p for pair in self.flip_pairs for p in pair]
        if len(set(swapped)) < len(swapped):
            raise UserError(f"skeleton '{self.name}': a joint is in two flip_pairs: {list(self.flip_pairs)}")

    def __len__(self) -> int:
        return len(self.joints)

    @cached_property
    def standard(self) -> tuple[str, ...]:
        """K names for matching: lower case, a side is a prefix, ``left_`` or ``right_``."""
        return tuple(standard_name(joint) for joint in self.joints)

    def find(self, joint: str) -> int | None:
        """The place of a joint of that name, however its side is written; None where there is none."""
        if joint in self.joints:
            return self.joints.index(joint)
        name = standard_name(joint)
        return self.standard.index(name) if self.standard.count(name) == 1 else None

    @property
    def swap(self) -> tuple[int, ...]:
        """K places: joint k of a mirror image is joint ``swap[k]`` of the picture."""
        order = list(range(len(self.joints)))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return tuple(order)

    def places(self, other: Skeleton, names: Mapping[str, str] | None = None) -> tuple[int | None, ...]:
        """For each of this skeleton's joints, its place in ``other``, or None where ``other`` has no such joint.

        Joints are matched by name, however sides are written; ``names`` says which of ``other``'s joints stands for one
        of this skeleton's.

        Raises:
            UserError: ``names`` has a joint that one of the two does not have.
        """
        for mine, theirs in (names or {}).items():
            for joint, skeleton in ((mine, self), (theirs, other)):
                if skeleton.find(joint) is None:
                    raise UserError(
                        f"skeleton '{skeleton.name}' has no joint '{joint}'{did_you_mean(joint, skeleton.joints)}; it "
                        f"has {', '.join(skeleton.joints)}"
                    )
        wanted = list(self.joints)
        for mine, theirs in (names or {}).items():
            place = self.find(mine)
            assert place is not None
            wanted[place] = theirs
        return tuple(other.find(joint) for joint in wanted)

    def plain(self) -> dict[str, Any]:
        """As plain data; :meth:`from_plain` reads it."""
        return {
            "name": self.name, "joints": list(self.joints), "links": [list(p) for p in self.links],
            "sigmas": list(self.sigmas), "flip_pairs": [list(p) for p in self.flip_pairs], "upper": list(self.upper),
        }  # fmt: skip

    @staticmethod
    def from_plain(value: Mapping[str, Any]) -> Skeleton:
        """The skeleton that :meth:`plain` wrote."""
        return Skeleton(
            str(value["name"]), tuple(value["joints"]), _pairs(value["links"]), tuple(map(float, value["sigmas"])),
            _pairs(value["flip_pairs"]), tuple(map(int, value["upper"])),
        )  # fmt: skip


def _pairs(value: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((operator.index(a), operator.index(b)) for a, b in value)


def _make(name: str, joints: Sequence[str], links: Sequence[tuple[str, str]]) -> Skeleton:
    place = {joint: i for i, joint in enumerate(joints)}
    return Skeleton(
        name,
        tuple(joints),
        tuple((place[a], place[b]) for a, b in links),
        tuple(_SIGMAS[part_of(joint)] for joint in joints),
        mirror_pairs(joints),
        _upper(joints),
    )


def _upper(joints: Sequence[str]) -> tuple[int, ...]:
    """Places of the joints above the hips, by their names."""
    return tuple(i for i, joint in enumerate(joints) if part_of(joint) not in _LOWER)


_LIMBS = [
    *((f"{s}_{a}", f"{s}_{b}") for s in ("left", "right")
      for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))),
]  # fmt: skip

COCO = _make(
    "coco",
    ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
     "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
     "right_ankle"),
    [*_LIMBS, ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
     ("right_shoulder", "right_hip"), ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"),
     ("right_eye", "right_ear")],
)  # fmt: skip
MPII = _make(
    "mpii",
    ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck",
     "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    [*_LIMBS, ("pelvis", "thorax"), ("thorax", "upper_neck"), ("upper_neck", "head_top"), ("pelvis", "left_hip"),
     ("pelvis", "right_hip"), ("thorax", "left_shoulder"), ("thorax", "right_shoulder")],
)  # fmt: skip
LSP = _make(
    "lsp",
    ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
     "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top"),
    [*_LIMBS, ("neck", "head_top"), ("neck", "left_shoulder"), ("neck", "right_shoulder"),
     ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_hip", "right_hip")],
)  # fmt: skip
SKELETONS: dict[str, Skeleton] = {s.name: s for s in (COCO, MPII, LSP)}


def from_category(category: Mapping[str, Any], notes: list[str] | None = None) -> Skeleton:
    """The skeleton of a COCO category: ``keypoints`` and ``skeleton`` (1-based pairs), and, where it has them,
    ``flip_pairs`` (0-based) or ``flip_idx`` (for each joint its place in a mirror image), ``sigmas`` and ``upper_body``
    (0-based places).

    What is missing is that of the known skeleton with the same joints, else follows from the joints' names. ``notes``
    takes what had to be guessed or left out.

    Raises:
        UserError: no keypoints, or blocks that do not fit them.
    """
    name, joints = str(category.get("name", "category")), [str(j) for j in category.get("keypoints", ())]
    if not joints:
        raise UserError(f"category '{name}' has no list of keypoints, so its skeleton is unknown")
    notes = [] if notes is None else notes
    standard = tuple(standard_name(joint) for joint in joints)
    known = next((skeleton for skeleton in SKELETONS.values() if skeleton.standard == standard), None)
    try:
        links = _links(category.get("skeleton") or (), joints, notes)
        sigmas = [float(s) for s in category.get("sigmas") or ()]
        pairs = _given_pairs(category, joints)
        upper = None if category.get("upper_body") is None else tuple(operator.index(p) for p in category["upper_body"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"category '{name}': skeleton is a list of pairs of places from 1, flip_pairs of pairs from 0, flip_idx the"
            f" place of every joint in a mirror image, upper_body a list of places, sigmas of numbers: {error}"
        ) from error
    unknown = [joint for joint in joints if part_of(joint) not in _SIGMAS]
    if not sigmas and known is None and unknown:
        notes.append(
            f"no sigmas are known for {', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''} ({len(unknown)} of"
            f" {len(joints)} joints): OKS takes {_UNKNOWN_SIGMA:g}, COCO's shoulder; the category's"
            " 'sigmas' give others"
        )
    return Skeleton(
        known.name if known else name,
        tuple(joints),
        links or (known.links if known else ()),
        tuple(sigmas) or (known.sigmas if known else tuple(_SIGMAS.get(part_of(j), _UNKNOWN_SIGMA) for j in joints)),
        mirror_pairs(joints) if pairs is None else pairs,
        _upper(joints) if upper is None else upper,
    )


def _links(given: Sequence[Any], joints: Sequence[str], notes: list[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of places from 0, out of pairs that count from 1, or from 0 where a 0 is among them, or of names."""
    pairs = [tuple(joints.index(end) + 1 if isinstance(end, str) else operator.index(end) for end in p) for p in given]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{next(pair for pair in given if len(pair) != 2)} is no pair")
    ends = {end for pair in pairs for end in pair}
    named = any(isinstance(end, str) for pair in given for end in pair)
    base = 0 if 0 in ends and max(ends) < len(joints) and not named else 1
    fitting = [(a - base, b - base) for a, b in pairs if a != b and all(0 <= p - base < len(joints) for p in (a, b))]
    if base == 0:
        notes.append("the skeleton's links count joints from 0 (COCO counts from 1), and are read so")
    if len(fitting) < len(pairs):
        wrong = next(pair for pair in pairs if tuple(end - base for end in pair) not in fitting)
        notes.append(
            f"{len(pairs) - len(fitting)} of the skeleton's {len(pairs)} links are left out: they join no two of the"
            f" {len(joints)} joints, e.g. {list(wrong)}"
        )
    return tuple(fitting)


def _given_pairs(category: Mapping[str, Any], joints: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
    """``flip_pairs``, or those of ``flip_idx``; None where the category has neither."""
    if category.get("flip_pairs") is not None:
        return _pairs([[joints.index(p) if isinstance(p, str) else p for p in pair] for pair in category["flip_pairs"]])
    if category.get("flip_idx") is None:
        return None
    order = [operator.index(place) for place in category["flip_idx"]]
    if sorted(order) != list(range(len(joints))) or any(order[place] != k for k, place in enumerate(order)):
        raise ValueError(f"flip_idx {order} does not name every joint from 0 to {len(joints) - 1} once, in pairs")
    return tuple((k, place) for k, place in enumerate(order) if k < place)


def union(first: Skeleton, *others: Skeleton) -> Skeleton:
    """Every joint of all of them, the first skeleton's in its order and then what the others add; matched by name."""
    joints, links, sigmas = list(first.joints), list(first.links), list(first.sigmas)
    upper, pairs = list(first.upper), {tuple(sorted(pair)) for pair in first.flip_pairs}
    standard = list(first.standard)
    for other in others:
        for joint, name, sigma in zip(other.joints, other.standard, other.sigmas, strict=True):
            if name not in standard:
                joints.append(joint)
                standard.append(name)
                sigmas.append(sigma)
        place = [standard.index(name) for name in other.standard]
        upper += [place[i] for i in other.upper]
        for a, b in ((place[a], place[b]) for a, b in other.links):
            if (a, b) not in links and (b, a) not in links:
                links.append((a, b))
        pairs |= {tuple(sorted((place[a], place[b]))) for a, b in other.flip_pairs}
    name = "+".join(dict.fromkeys(s.name for s in (first, *others)))
    return Skeleton(
        name, tuple(joints), tuple(links), tuple(sigmas), tuple(sorted((a, b) for a, b in pairs)),
        tuple(sorted(set(upper))),
    )  # fmt: skip
