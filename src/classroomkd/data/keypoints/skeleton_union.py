"""Another skeleton than the annotations': ``data.options.skeleton: coco+mpii`` for a student of both.

Joints that are not annotated have no label (v = 0). Mentors who know them teach them all the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from classroomkd.data.keypoints.annotation_file import PersonSource
from classroomkd.data.skeleton import SKELETONS, Skeleton, union
from classroomkd.errors import UserError, did_you_mean

__all__ = ["named_skeleton", "widened"]


def named_skeleton(text: str) -> Skeleton:
    """The skeleton called ``coco``, or the union of those in ``coco+mpii``.

    Raises:
        UserError: an unknown name.
    """
    names = [name.strip() for name in text.split("+")]
    unknown = [name for name in names if name not in SKELETONS]
    if unknown:
        near = did_you_mean(unknown[0], SKELETONS)
        raise UserError(
            f"data.options.skeleton: there is no skeleton '{unknown[0]}'{near}; there are {', '.join(SKELETONS)}, and "
            "their unions, as in coco+mpii"
        )
    first, *others = (SKELETONS[name] for name in names)
    return union(first, *others)


def widened(source: PersonSource, text: str) -> PersonSource:
    """The source with its joints in another skeleton, matched by name.

    Raises:
        UserError: an unknown skeleton, or one that has none of the source's joints.
    """
    skeleton = named_skeleton(text)
    places = skeleton.places(source.skeleton)
    known = [k for k, place in enumerate(places) if place is not None]
    taken = [place for place in places if place is not None]
    if not known:
        raise UserError(f"data.options.skeleton: '{text}' has none of the joints of '{source.name}'")
    parts = {}
    for name, listing in source.parts.items():
        joints = np.zeros((len(listing.persons), len(skeleton), 3))
        joints[:, known] = listing.persons.joints[:, taken]
        boxes = listing.detected
        detected = None if boxes is None else replace(boxes, joints=np.zeros((len(boxes), len(skeleton), 3)))
        parts[name] = replace(listing, persons=replace(listing.persons, joints=joints), detected=detected)
    without = [skeleton.joints[k] for k in range(len(skeleton)) if k not in known]
    lost = [joint for k, joint in enumerate(source.skeleton.joints) if k not in taken]
    notes = list(source.notes)
    if without:
        notes.append(f"{len(without)} joints have no label here, so only mentors can teach them: {', '.join(without)}")
    if lost:
        notes.append(f"annotated joints that skeleton '{text}' does not have are left out: {', '.join(lost)}")
    return replace(source, skeleton=skeleton, parts=parts, notes=tuple(notes))
