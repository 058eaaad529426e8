"""COCO results files: ``[{image_id, category_id, keypoints, score}]``. Does not import torch."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from classroomkd._files import atomic_write_text
from classroomkd.errors import UserError
from classroomkd.tasks.pose.truth import Floats, Predictions

__all__ = ["as_entries", "only_category", "person_scores", "read_results", "write_results"]


def as_entries(answers: Predictions, category: int = 1) -> list[dict[str, Any]]:
    """Answers as the list of a results file, one person an entry.

    Numbers are whole, so that a score of the file is that of the arrays. A joint's third number is its score, 1 where
    there is none. ``answers.area`` is not in it: readers take the joints' bounding rectangle.
    """
    triples = np.ones((*answers.joints.shape[:2], 3))
    triples[..., : answers.joints.shape[-1]] = answers.joints
    keypoints = triples.reshape(len(triples), 3 * triples.shape[1]).tolist()
    return [
        {"image_id": image, "category_id": category, "keypoints": numbers, "score": score}
        for image, numbers, score in zip(answers.image.tolist(), keypoints, answers.score.tolist(), strict=True)
    ]


def write_results(path: str | os.PathLike[str], answers: Predictions, category: int = 1) -> None:
    """Write :func:`as_entries` as a COCO results file, one person a line, whole or not at all."""
    lines = map(json.dumps, as_entries(answers, category))
    atomic_write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read_results(path: str | os.PathLike[str], images: Collection[int], joints: int, category: int = 1) -> Predictions:
    """Read a COCO results file.

    Where its people have a ``bbox``, their areas are those of the boxes (pycocotools' rule: the first one decides).

    Args:
        path: of the file.
        images: ids of the images that were to be answered.
        joints: K of the skeleton.
        category: the one id that ``category_id`` may be.

    Raises:
        UserError: the file cannot be read or is cut off, is no list of results, or has an unknown image or category, a
            wrong number of joints or a coordinate or score that is not a finite number. The first such entry is named.
    """
    place = os.fspath(path)
    people = _parsed(place)
    for n, person in enumerate(people):
        missing = [k for k in ("image_id", "category_id", "keypoints", "score") if k not in person]
        if missing:
            raise UserError(
                f"{place}: result {n} (from 0) has no {missing[0]}, of image_id, category_id, keypoints, score"
            )
        if person["category_id"] != category:
            raise UserError(
                f"{place}: result {n} (from 0) has category_id {person['category_id']!r}, the annotations' people have "
                f"{category}: write that id"
            )
        keypoints = person["keypoints"]
        if not isinstance(keypoints, list) or len(keypoints) != 3 * joints:
            got = f"{len(keypoints)} numbers" if isinstance(keypoints, list) else type(keypoints).__name__
            raise UserError(
                f"{place}: result {n} (from 0) has {got} as keypoints; the skeleton has {joints} joints, which makes "
                f"{3 * joints} (x, y, score for each)"
            )
    known = set(images)
    strange = list(dict.fromkeys(repr(i) for p in people if not _is_id(i := p["image_id"]) or i not in known))
    if strange:
        listed = ", ".join(strange[:5]) + (", …" if len(strange) > 5 else "")
        raise UserError(
            f"{place} has results for {len(strange)} image(s) that are not among the {len(known)} annotated ones "
            f"({listed}): it belongs to other annotations"
        )
    triples = _numbers(place, "keypoints", [p["keypoints"] for p in people]).reshape(len(people), joints, 3)
    scores = _numbers(place, "score", [p["score"] for p in people]).reshape(-1)
    area = None
    if people and people[0].get("bbox"):
        if not all(isinstance(box := p.get("bbox"), list) and len(box) == 4 for p in people):
            raise UserError(
                f"{place}: some people have a bbox of four numbers and some have not; write it for all or none"
            )
        boxes = _numbers(place, "bbox", [p["bbox"] for p in people])
        area = boxes[:, 2] * boxes[:, 3]
    return Predictions(np.array([p["image_id"] for p in people], np.int64), triples, scores, area)


def only_category(path: str | os.PathLike[str]) -> int | None:
    """The id of the category that all answers of a file are about; None where they are of several, or say none.

    Raises:
        UserError: the file cannot be read.
    """
    ids = {number for person in _parsed(os.fspath(path)) if _is_id(number := person.get("category_id"))}
    return ids.pop() if len(ids) == 1 else None


def person_scores(joint_scores: ArrayLike, box_scores: ArrayLike, threshold: float = 0.2) -> Floats:
    """A person's score (N,): that of the box (N,) times the mean of the joint scores (N, K) above ``threshold``.

    HRNet's rule; 0 for a person without such a joint.
    """
    scores = np.asarray(joint_scores, np.float64)
    sure = scores > threshold
    mean = np.where(sure, scores, 0.0).sum(1) / np.maximum(sure.sum(1), 1)
    return np.asarray(np.asarray(box_scores, np.float64) * mean)


def _parsed(place: str) -> list[dict[str, Any]]:
    try:
        with open(place, encoding="utf-8-sig") as file:  # some editors put a mark in front
            text = file.read()
        people = [json.loads(line) for line in text.splitlines() if line] if _lines(place) else json.loads(text)
    except OSError as error:
        raise UserError(f"cannot read the results file {place}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        where = (
            ("a line" if _lines(place) else f"line {error.lineno}")
            if isinstance(error, json.JSONDecodeError)
            else f"byte {error.start}"
        )
        raise UserError(
            f"{place} is not whole JSON (it stops making sense at {where}): was it cut off while being written? Write "
            "it again"
        ) from error
    if not isinstance(people, list) or not all(isinstance(p, dict) for p in people):
        raise UserError(
            f"{place} is no list of results; COCO's results are [{{image_id, category_id, keypoints, score}}]"
        )
    return people


def _lines(place: str) -> bool:
    """Whether a file has one result a line, as ``predict`` writes ``.jsonl``."""
    return place.endswith(".jsonl")


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _numbers(place: str, name: str, rows: list[Any]) -> Floats:
    """Rows of one length as floats; the first row with something else is named."""
    try:
        table = np.array(rows if rows else np.zeros(0))
        fine = table.dtype.kind in "iuf" and bool(np.isfinite(table).all())
    except ValueError:  # lists within
        fine = False
    bad = None if fine else next((n for n, row in enumerate(rows) if not _finite(row)), None)
    if bad is not None:
        raise UserError(f"{place}: result {bad} (from 0) has {name} with something that is not a finite number")
    return np.array(rows, np.float64)


def _finite(row: object) -> bool:
    """Whether a number, or each of a list of them, is one and fits (a comparison, as integers may be of any length)."""
    values = row if isinstance(row, list) else [row]
    return all(isinstance(v, int | float) and abs(v) < 1e300 for v in values)
