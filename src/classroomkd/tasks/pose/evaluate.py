"""``classroomkd evaluate`` of a pose student, and of a file of answers in COCO's results format, whoever wrote it.

Metrics go by their names, some by joint; pycocotools' figures stand beside ours on request.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from classroomkd._terminal import Console
from classroomkd.data import make_views
from classroomkd.data.images import ImageSet
from classroomkd.data.keypoints import checks
from classroomkd.data.keypoints.annotation_file import AnnotationFile, PersonSource
from classroomkd.data.keypoints.crops import PADDING
from classroomkd.data.keypoints.people import People, join
from classroomkd.data.sources.base import Request
from classroomkd.data.sources.table import open_source
from classroomkd.errors import UserError
from classroomkd.tasks.files import EvaluateRequest, Shown, placed
from classroomkd.tasks.pose.judging import answered, as_truth, check_scored, judge, truth_of
from classroomkd.tasks.pose.official import official_ap
from classroomkd.tasks.pose.oks import by_visibility, keypoint_ap
from classroomkd.tasks.pose.predict import own_flip_test
from classroomkd.tasks.pose.reading import read_answers, sum_up
from classroomkd.tasks.pose.results import only_category, read_results
from classroomkd.tasks.pose.spec import BY_JOINT, PoseSpec
from classroomkd.tasks.pose.task import Pose
from classroomkd.tasks.pose.truth import Truth
from classroomkd.tasks.pose.written import PoseAnswers
from classroomkd.train.scoring import Score, as_json

__all__ = ["score_joints", "score_results"]


def score_joints(request: EvaluateRequest) -> Shown:
    """The scores as plain data, and what prints them.

    Raises:
        UserError: data without the student's joints or of another size, ground-truth and detector's boxes in one
            score, and what loading the data and the official scorer raise.
    """
    student, pose = request.student, request.student.pose
    assert pose is not None
    images = request.load(size=list(pose.canvas.size), options=_crop_options(request, pose))
    for note in images.notes:
        print(note, file=sys.stderr)
    places = _places(images, pose)
    if images.shape != student.shape:
        got, wanted = ("x".join(map(str, shape)) for shape in (images.shape, student.shape))
        raise UserError(f"the data '{images.name}' is cropped to {got}, the student takes {wanted}; set data.size")
    flip = request.flip_test if request.flip_test is not None else own_flip_test(request.path, pose)
    pose = replace(pose, coding=replace(pose.coding, joints=len(places)), skeleton=images.skeleton)
    ids = torch.cat([part.ids for part in request.parts(images)])
    people, metric = _people(images, ids, request.part)
    batches = ((answer[:, places], target) for answer, target in _answers(request, images, flip))
    decoded, loss, _ = sum_up(batches, pose.coding, Pose(pose.coding, pose.skeleton))
    test = bool(len(people.bare))
    check_scored(metric, people, pose.skeleton, {request.part: ids.cpu()})
    value, by_joint, figures = judge(people, pose.skeleton, ids, decoded, metric=metric, test=test)
    result = {
        **request.described(images),
        "boxes": people.boxes,
        "flip_test": flip,
        "metric": metric,
        **as_json(Score(value, loss, by_joint, len(ids), figures)),
        "by_joint": next((name for name in (metric, *BY_JOINT) if name.startswith("PCK") and name in figures), None),
    }
    keys = ids.cpu().numpy()
    if request.official:
        answers = answered(people, keys, decoded.cpu().double().numpy(), pose.skeleton)
        result["official"] = official_ap(truth_of(people, keys, bare=test), answers, pose.skeleton.sigmas)
    labels = people.of(keys).joints[..., 2]
    return result, lambda: _show(result, pose.skeleton.joints, labels)


def _crop_options(request: EvaluateRequest, pose: PoseAnswers) -> dict[str, float]:
    """How other data than the run's own are cropped: as the student's were."""
    if request.source is None or request.source.startswith("py:"):
        return {}
    crop = {"padding": (pose.padding, PADDING), "canvas": (pose.canvas.scale, 1.0)}
    return {key: value for key, (value, usual) in crop.items() if value != usual}


def _places(images: ImageSet, pose: PoseAnswers) -> list[int]:
    """For each of the data's joints, its place in the student's answer; by name."""
    if images.people is not None and images.skeleton is None:
        raise UserError(
            f"nobody of the data '{images.name}' has joints: there is nothing to score; `classroomkd predict` says "
            "where the student finds them"
        )
    if images.skeleton is None or images.people is None:
        raise UserError(f"the student finds joints, the data '{images.name}' has classes; give it persons with joints")
    places = images.skeleton.places(pose.skeleton)
    missing = [joint for joint, place in zip(images.skeleton.joints, places, strict=True) if place is None]
    if missing:
        raise UserError(
            f"the student does not find {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}, which the data "
            f"'{images.name}' has; it finds {', '.join(pose.skeleton.joints)}"
        )
    return [place for place in places if place is not None]


def _answers(request: EvaluateRequest, images: ImageSet, flip: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """The student's answers (B, …) and targets (B, K, 3), batch by batch, on crops without augmentation."""
    pose = request.student.pose
    assert pose is not None
    assert images.people is not None
    images = replace(images, people=replace(images.people, view_options={}))  # which are about augmentation
    views = make_views("none", view_seed=0, image_size=pose.canvas.size, images=images)
    module, inputs = placed(request.student, request.device)
    for part in request.parts(images):
        yield from read_answers(module, part, inputs, pose.coding, pose.skeleton, flip=flip, views=views)


def _people(images: ImageSet, ids: Tensor, part: str) -> tuple[People, str]:
    """The people as this part is scored, and the metric that counts, by the name that says whose boxes."""
    assert images.people is not None
    detected = images.people.of(ids.cpu().numpy()).detector
    if detected.any() and not detected.all():
        raise UserError(
            f"the test part of '{images.name}' has a detector's boxes, the others have the annotations': score them "
            "one by one, with --part"
        )
    boxes = "detector" if detected.any() else "gt"
    bare = images.people.bare if part in ("test", "all") else np.zeros(0, np.int64)
    metric = f"AP_{'detector' if detected.any() else 'gtbox'}" if images.metric.startswith("AP_") else images.metric
    return replace(images.people, boxes=boxes, bare=bare), metric


def _show(result: Mapping[str, Any], joints: tuple[str, ...], labels: np.ndarray[Any, Any]) -> None:
    of_file = result["boxes"] == "gt"
    boxes = ("the annotations' boxes" if of_file else "a detector's boxes") + (
        ", flip test" if result["flip_test"] else ""
    )
    print(
        f"{result['student']}: {result['metric']} {_percent(result['accuracy'])} on {result['data']} {result['part']} ("
        f"{result['samples']:,} persons, {boxes}), loss {result['loss']:.4f}"
    )
    kind = f"AP_{'gtbox' if of_file else 'detector'}"
    official = {(kind if key == "AP" else f"{kind}:{key}"): value for key, value in result.get("official", {}).items()}
    _show_figures(result["metrics"], official)
    if result["by_joint"] is None:
        return
    rows = _table("joint", result["by_joint"], "labelled", "hidden")
    for place, (joint, share) in enumerate(zip(joints, result["per_class"], strict=True)):
        own = labels[:, place]
        rows.add_row(joint, "–" if share is None else f"{share:.1%}", f"{(own > 0).sum():,}", f"{(own == 1).sum():,}")
    Console().print(rows)


def _show_figures(figures: Mapping[str, float], official: Mapping[str, float]) -> None:
    """Figures by name, beside pycocotools' where there are any."""
    table = _table("metric", "value", *(["pycocotools"] if official else []))
    for name, value in figures.items():
        table.add_row(name, _number(value), *([_number(official.get(name))] if official else []))
    Console().print(table)
    if official:
        apart = max(abs(figures[name] - value) for name, value in official.items())
        print(f"largest difference to pycocotools: {apart:.1e}")


def _table(*names: str) -> Table:
    """Names on the left, numbers on the right."""
    table = Table(*names)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _percent(value: float) -> str:
    """A score, or a dash where there was nobody to judge."""
    return f"{value:.2%}" if value >= 0 else "–"


def _number(value: float | None) -> str:
    """A figure with four places; COCO's -1 says that there was nobody to judge."""
    return "" if value is None else "–" if value < 0 or value != value else f"{value:.4f}"


def score_results(path: Path, source: str | None, part: str | None, *, official: bool) -> Shown:
    """Of a file of answers the scores as plain data, and what prints them.

    Read as pycocotools reads them: every picture that the annotations list was looked at, its people are all to be
    found. Whose boxes the answers are about, such a file does not say.

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
    request = Request(reads=PoseSpec.reads, task=PoseSpec.name)
    try:
        opened = open_source(source, request)
    except UserError as error:
        # Of several categories the one that the answers are about.
        if "data.options.category" not in str(error) or (category := only_category(path)) is None:
            raise
        opened = open_source(source, replace(request, options={"category": category}))
    assert isinstance(opened, PersonSource)
    part, listings = _part(opened, source, part)
    notes = list(opened.notes)
    truth = _annotated(listings, source, notes)
    assert truth.images is not None
    for note in notes:
        print(note, file=sys.stderr)
    sigmas = opened.skeleton.sigmas
    answers = read_results(path, set(truth.images.tolist()), len(opened.skeleton), opened.category)
    figures = keypoint_ap(truth, answers, sigmas)
    figures |= {name: table["AP"] for name, table in by_visibility(truth, answers, sigmas).items()}
    theirs = official_ap(truth, answers, sigmas) if official else {}
    result = {
        "results": str(path),
        "data": opened.name,
        "part": part,
        "answers": len(answers.score),
        "images": len(truth.images),
        "metric": "AP",
        "metrics": figures,
        **({"official": theirs} if official else {}),
    }

    def show() -> None:
        print(
            f"{path}: AP {_percent(figures['AP'])} on {opened.name} {part} ({result['answers']:,} answers, "
            f"{result['images']:,} images)"
        )
        _show_figures(figures, theirs)

    return result, show


def _part(opened: PersonSource, source: str, part: str | None) -> tuple[str, list[AnnotationFile]]:
    """The files that count, and what they are called together."""
    if part == "all" or (part is None and "test" not in opened.parts):
        return "all", list(opened.parts.values())
    part = part or "test"
    if part not in opened.parts:
        there = ", ".join(f"{name} ({listing.where})" for name, listing in opened.parts.items())
        raise UserError(f"--part {part}: {source} has no such file; there is {there}")
    return part, [opened.parts[part]]


def _annotated(listings: list[AnnotationFile], source: str, notes: list[str]) -> Truth:
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
