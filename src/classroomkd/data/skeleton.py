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
from typing import Any

from classroomkd.errors import UserError, did_you_mean

__all__ = ["COCO", "LSP", "MPII", "SKELETONS", "Skeleton", "from_category", "union"]

_SIGMA = {joint: tenfold / 10 for joint, tenfold in {  # quotients, as the COCO API has them: equal to the last bit
    "nose": 0.26, "eye": 0.25, "ear": 0.35, "shoulder": 0.79, "elbow": 0.72, "wrist": 0.62, "hip": 1.07, "knee": 0.87,
    "ankle": 0.89, "neck": 0.79, "upper_neck": 0.79, "head_top": 0.79, "pelvis": 1.07, "thorax": 1.07,
}.items()}  # fmt: skip
_LOWER = {"hip", "knee", "ankle", "pelvis"}


def _part(joint: str) -> str:
    """A joint's name without its side."""
    return joint.removeprefix("left_").removeprefix("right_")


@dataclass(frozen=True)
class Skeleton:
    """K joints in an order.

    Attributes:
        name: how messages call it.
        joints: K names; a side is a prefix, ``left_`` or ``right_``.
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

    @property
    def swap(self) -> tuple[int, ...]:
        """K places: joint k of a mirror image is joint ``swap[k]`` of the picture."""
        order = list(range(len(self.joints)))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return tuple(order)

    def places(self, other: Skeleton, names: Mapping[str, str] | None = None) -> tuple[int | None, ...]:
        """For each of this skeleton's joints, its place in ``other``, or None where ``other`` has no such joint.

        Joints are matched by name; ``names`` says which of ``other``'s joints stands for one of this skeleton's.

        Raises:
            UserError: ``names`` has a joint that one of the two does not have.
        """
        wanted = {joint: joint for joint in self.joints} | dict(names or {})
        for mine, theirs in (names or {}).items():
            for joint, skeleton in ((mine, self), (theirs, other)):
                if joint not in skeleton.joints:
                    raise UserError(
                        f"skeleton '{skeleton.name}' has no joint '{joint}'{did_you_mean(joint, skeleton.joints)}; it "
                        f"has {', '.join(skeleton.joints)}"
                    )
        return tuple(other.joints.index(wanted[j]) if wanted[j] in other.joints else None for j in self.joints)

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
        tuple(_SIGMA[_part(joint)] for joint in joints),
        _mirrored(joints),
        tuple(i for i, joint in enumerate(joints) if _part(joint) not in _LOWER),
    )


def _mirrored(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    place = {joint: i for i, joint in enumerate(joints)}
    return tuple(
        (i, place[other])
        for i, joint in enumerate(joints)
        if joint.startswith("left_") and (other := "right_" + _part(joint)) in place
    )


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


def from_category(category: Mapping[str, Any]) -> Skeleton:
    """The skeleton of a COCO category: ``keypoints`` and ``skeleton`` (1-based pairs), and, where it has them,
    ``flip_pairs`` (0-based), ``sigmas`` and ``upper_body`` (0-based places).

    What is missing is that of the known skeleton with the same joints, else follows from the joints' names.

    Raises:
        UserError: no keypoints, or blocks that do not fit them.
    """
    name, joints = str(category.get("name", "category")), [str(j) for j in category.get("keypoints", ())]
    if not joints:
        raise UserError(f"category '{name}' has no list of keypoints, so its skeleton is unknown")
    known = next((s for s in SKELETONS.values() if list(s.joints) == joints), None)
    try:
        links = _pairs([(a - 1, b - 1) for a, b in category.get("skeleton") or ()])
        sigmas = [float(s) for s in category.get("sigmas") or ()]
        pairs = None if category.get("flip_pairs") is None else _pairs(category["flip_pairs"])
        upper = None if category.get("upper_body") is None else tuple(operator.index(p) for p in category["upper_body"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"category '{name}': skeleton is a list of pairs of places from 1, flip_pairs of pairs from 0, upper_body"
            f" a list of places, sigmas of numbers: {error}"
        ) from error
    return Skeleton(
        known.name if known else name,
        tuple(joints),
        links or (known.links if known else ()),
        tuple(sigmas) or (known.sigmas if known else tuple(_SIGMA.get(_part(j), 0.79 / 10) for j in joints)),
        _mirrored(joints) if pairs is None else pairs,
        tuple(i for i, j in enumerate(joints) if _part(j) not in _LOWER) if upper is None else upper,
    )


def union(first: Skeleton, *others: Skeleton) -> Skeleton:
    """Every joint of all of them, the first skeleton's in its order and then what the others add; matched by name."""
    joints, links, sigmas = list(first.joints), list(first.links), list(first.sigmas)
    upper = [first.joints[i] for i in first.upper]
    for other in others:
        for joint, sigma in zip(other.joints, other.sigmas, strict=True):
            if joint not in joints:
                joints.append(joint)
                sigmas.append(sigma)
        upper += [other.joints[i] for i in other.upper if other.joints[i] not in upper]
        for a, b in other.links:
            pair = (joints.index(other.joints[a]), joints.index(other.joints[b]))
            if pair not in links and pair[::-1] not in links:
                links.append(pair)
    pairs = {
        tuple(sorted((joints.index(s.joints[a]), joints.index(s.joints[b]))))
        for s in (first, *others)
        for a, b in s.flip_pairs
    }
    name = "+".join(dict.fromkeys(s.name for s in (first, *others)))
    return Skeleton(
        name, tuple(joints), tuple(links), tuple(sigmas), tuple(sorted((a, b) for a, b in pairs)),
        tuple(sorted(joints.index(j) for j in upper)),
    )  # fmt: skip
