"""``classroomkd evaluate RESULTS.json``: OKS-AP of a file of answers in COCO's results format, whoever wrote it.

Read as pycocotools reads them: every picture that the annotations list was looked at, its people are all to be found.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from classroomkd._terminal import Console
from classroomkd.data.keypoints import checks
from classroomkd.data.keypoints.annotation_file import AnnotationFile, PersonSource
from classroomkd.data.keypoints.people import join
from classroomkd.data.sources.base import Request
from classroomkd.data.sources.table import open_source
from classroomkd.errors import UserError
from classroomkd.tasks.files import Shown
from classroomkd.tasks.pose.judging import as_truth
from classroomkd.tasks.pose.official import official_ap
from classroomkd.tasks.pose.oks import by_visibility, keypoint_ap
from classroomkd.tasks.pose.results import read_results
from classroomkd.tasks.pose.spec import PoseSpec
from classroomkd.tasks.pose.truth import Truth

__all__ = ["score_results"]


def score_results(path: Path, source: str | None, part: str | None, *, official: bool) -> Shown:
    """The scores as plain data, and what prints them. Whose boxes the answers are about, such a file does not say.

    Args:
        path: the results.
        source: the annotations, ``coco-keypoints:DIR`` or ``coco-keypoints:FILE.json@IMAGES``.
        part: which of its files: test, val, train or all; None: test, or the only one.
        official: pycocotools' figures, too.

    Raises:
        UserError: no such data or part, an id that two pictures have, and what ``read_results`` and the source raise.
    """
    if source is None or source.partition(":")[0] != "coco-keypoints":
        raise UserError(
            f"{path} is a file of results; say which annotations they are scored against: --data coco-keypoints:DIR "
            "(or coco-keypoints:FILE.json@IMAGES)"
        )
    opened = open_source(source, Request(reads=PoseSpec.reads, task=PoseSpec.name))
    assert isinstance(opened, PersonSource)
    part, listings = _chosen(opened, source, part)
    notes = list(opened.notes)
    truth = _truth(listings, source, notes)
    assert truth.images is not None
    for note in notes:
        print(note, file=sys.stderr)
    found = read_results(path, set(truth.images.tolist()), len(opened.skeleton), opened.category)
    sigmas = opened.skeleton.sigmas
    figures = keypoint_ap(truth, found, sigmas)
    hidden = {name: table["AP"] for name, table in by_visibility(truth, found, sigmas).items()}
    said = {
        "results": str(path),
        "data": opened.name,
        "part": part,
        "answers": len(found.score),
        "images": len(truth.images),
        "metric": "AP",
        "metrics": figures | hidden,
        **({"official": official_ap(truth, found, sigmas)} if official else {}),
    }
    return said, lambda: _show(said)


def _chosen(opened: PersonSource, source: str, part: str | None) -> tuple[str, list[AnnotationFile]]:
    """The files that count, and what they are called together."""
    if part == "all" or (part is None and "test" not in opened.parts):
        return "all", list(opened.parts.values())
    part = part or "test"
    if part not in opened.parts:
        there = ", ".join(f"{name} ({listing.where})" for name, listing in opened.parts.items())
        raise UserError(f"--part {part}: {source} has no such file; there is {there}")
    return part, [opened.parts[part]]


def _truth(listings: list[AnnotationFile], source: str, notes: list[str]) -> Truth:
    """Everything that is annotated, by the pictures' own ids."""
    for listing in listings:
        checks.check_flags(listing)
        checks.sanitize(listing, notes)
    numbers = [np.array([picture.id for picture in listing.pictures], np.int64) for listing in listings]
    every = np.concatenate(numbers)
    if len(np.unique(every)) < len(every):
        raise UserError(f"{source}: two pictures have the same id; score the files one by one, with --part")
    starts = np.cumsum([0, *(len(own) for own in numbers)])
    people = [
        replace(listing.persons, picture=listing.persons.picture + start)
        for listing, start in zip(listings, starts, strict=False)
    ]
    return as_truth(join(*people), every, every)


def _show(said: dict[str, Any]) -> None:
    figures, theirs = said["metrics"], said.get("official", {})
    print(
        f"{said['results']}: AP {figures['AP']:.2%} on {said['data']} {said['part']} ({said['answers']:,} answers, "
        f"{said['images']:,} images)"
    )
    table = Table("metric", "value", *(["pycocotools"] if theirs else []))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}", *([f"{theirs[name]:.4f}" if name in theirs else "–"] if theirs else []))
    Console().print(table)
    if theirs:
        apart = max(abs(figures[name] - value) for name, value in theirs.items())
        print(f"largest difference to pycocotools: {apart:.1e}")
