"""``classroomkd evaluate`` of a pose student: the metrics by name, by joint, and by pycocotools on request."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from classroomkd import data as data_
from classroomkd._terminal import Console
from classroomkd.data.images import ImageSet, Part
from classroomkd.data.keypoints.crops import PADDING
from classroomkd.data.keypoints.people import People
from classroomkd.errors import UserError
from classroomkd.tasks.files import EvaluateRequest, Shown
from classroomkd.tasks.pose.judging import answered, judge, truth_of
from classroomkd.tasks.pose.official import official_ap
from classroomkd.tasks.pose.reading import read_answers, sum_up
from classroomkd.tasks.pose.spec import PoseSpec
from classroomkd.tasks.pose.task import Pose
from classroomkd.tasks.pose.written import PoseAnswers
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import Score, as_json

__all__ = ["score_joints"]

_BY_JOINT = ("PCKh@0.5", "PCK@0.2", "PCK@0.2_box", "PCK@0.05_box")  # what judge() tells by joint, the first there is


def score_joints(asked: EvaluateRequest) -> Shown:
    """The scores as plain data, and what prints them.

    Raises:
        UserError: data without the student's joints or of another size, ground-truth and detector's boxes in one
            score, and what ``data.load`` and the official scorer raise.
    """
    taught = asked.student
    assert taught.pose is not None
    images = data_.load(_spec(asked, taught.pose), task=PoseSpec.name, trust_code=asked.trust_code)
    asked.check(images)
    for note in images.notes:
        print(note, file=sys.stderr)
    places = _places(images, taught.pose)
    if images.shape != taught.shape:
        got, wanted = ("x".join(map(str, shape)) for shape in (images.shape, taught.shape))
        raise UserError(f"the data '{images.name}' is cropped to {got}, the student takes {wanted}; set data.size")
    flip = asked.flip_test if asked.flip_test is not None else _own_flip_test(asked.recipe)
    pose = replace(taught.pose, coding=replace(taught.pose.coding, joints=len(places)), skeleton=images.skeleton)
    parts = [images.train, images.val, images.test] if asked.part == "all" else [getattr(images, asked.part)]
    ids = torch.cat([part.ids for part in parts])
    people, metric = _people(images, ids, asked.part)
    task = Pose(pose.coding, pose.skeleton)
    answers = ((said[:, places], target) for said, target in _answers(asked, images, parts, flip))
    decoded, loss = sum_up(answers, pose.coding, task)
    first, by_joint, figures = judge(people, pose.skeleton, ids, decoded, metric=metric, test=bool(len(people.bare)))
    score = Score(first, loss, by_joint, len(ids), figures)
    found = {
        "student": str(asked.path),
        "data": images.name,
        "part": asked.part,
        "boxes": people.boxes,
        "flip_test": flip,
        "metric": metric,
        **as_json(score),
        "by_joint": next((name for name in (metric, *_BY_JOINT) if name in _BY_JOINT and name in figures), None),
    }
    if asked.official:
        found["official"] = _official(people, ids, decoded, pose)
    labels = people.of(ids.cpu().numpy()).joints[..., 2]
    return found, lambda: _show(found, pose.skeleton.joints, labels)


def _spec(asked: EvaluateRequest, pose: PoseAnswers) -> dict[str, Any]:
    """The data section; other data than the run's own are cropped as the student's were."""
    spec = asked.spec(size=list(pose.canvas.size))
    if asked.source is not None and not asked.source.startswith("py:"):
        crop = {"padding": (pose.padding, PADDING), "canvas": (pose.canvas.scale, 1.0)}
        spec["options"] = {key: value for key, (value, usual) in crop.items() if value != usual}
    return spec


def _own_flip_test(recipe: Mapping[str, Any] | None) -> bool:
    task = (recipe or {}).get("task")
    return bool(task.get("flip_test")) if isinstance(task, Mapping) else False


def _places(images: ImageSet, pose: PoseAnswers) -> list[int]:
    """For each of the data's joints, its place in the student's answer; by name."""
    if images.skeleton is None or images.people is None:
        raise UserError(f"the student finds joints, the data '{images.name}' has classes; give it persons with joints")
    found = images.skeleton.places(pose.skeleton)
    missing = [joint for joint, place in zip(images.skeleton.joints, found, strict=True) if place is None]
    if missing:
        raise UserError(
            f"the student does not find {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}, which the data "
            f"'{images.name}' has; it finds {', '.join(pose.skeleton.joints)}"
        )
    return [place for place in found if place is not None]


def _answers(
    asked: EvaluateRequest, images: ImageSet, parts: list[Part], flip: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The student's answers (B, …) and targets (B, K, 3) of some parts, batch by batch."""
    taught = asked.student
    assert taught.pose is not None
    views = data_.make_views("none", view_seed=0, image_size=taught.pose.canvas.size, images=_without_views(images))
    inputs, module = Inputs(taught.mean, taught.std, asked.device), taught.module.to(asked.device)
    for part in parts:
        yield from read_answers(module, part, inputs, taught.pose.coding, taught.pose.skeleton, flip=flip, views=views)


def _without_views(images: ImageSet) -> ImageSet:
    """The data without what its options say about augmentation, which nothing here uses."""
    assert images.people is not None
    return replace(images, people=replace(images.people, view_options={}))


def _people(images: ImageSet, ids: Tensor, part: str) -> tuple[People, str]:
    """The people as this part is scored, and the metric that counts, by the name that says whose boxes."""
    assert images.people is not None
    detected = images.people.of(ids.cpu().numpy()).annotation < 0
    if detected.any() and not detected.all():
        raise UserError(
            f"the test part of '{images.name}' has a detector's boxes, the others have the annotations': score them "
            "one by one, with --part"
        )
    boxes = "detector" if detected.any() else "gt"
    bare = images.people.bare if part in ("test", "all") else np.zeros(0, np.int64)
    metric = f"AP_{'detector' if detected.any() else 'gtbox'}" if images.metric.startswith("AP_") else images.metric
    return replace(images.people, boxes=boxes, bare=bare), metric


def _official(people: People, ids: Tensor, decoded: Tensor, pose: PoseAnswers) -> dict[str, float]:
    """pycocotools' figures of what :func:`judge` scores."""
    keys = ids.cpu().numpy()
    test = bool(len(people.bare))
    found = answered(people, keys, decoded.cpu().double().numpy(), pose.skeleton)
    return official_ap(truth_of(people, keys, bare=test), found, pose.skeleton.sigmas)


def _show(found: Mapping[str, Any], joints: tuple[str, ...], labels: np.ndarray[Any, Any]) -> None:
    whose = "the annotations' boxes" if found["boxes"] == "gt" else "a detector's boxes"
    print(
        f"{found['student']}: {found['metric']} {found['accuracy']:.2%} on {found['data']} {found['part']} ("
        f"{found['samples']:,} persons, {whose}{', flip test' if found['flip_test'] else ''}), loss {found['loss']:.4f}"
    )
    console = Console()
    official = found.get("official", {})
    table = Table("metric", "value", *(["pycocotools"] if official else []))
    for column in table.columns[1:]:
        column.justify = "right"
    kind = f"AP_{'gtbox' if found['boxes'] == 'gt' else 'detector'}"
    for name, value in found["metrics"].items():
        theirs = official.get("AP" if name == kind else name.removeprefix(f"{kind}:"))
        table.add_row(name, _number(value), *([_number(theirs)] if official else []))
    console.print(table)
    if official:
        ours = {key: found["metrics"][kind if key == "AP" else f"{kind}:{key}"] for key in official}
        apart = max(abs(ours[key] - value) for key, value in official.items())
        print(f"largest difference to pycocotools: {apart:.1e}")
    if found["by_joint"] is None:
        return
    rows = Table("joint", found["by_joint"], "labelled", "hidden")
    for column in rows.columns[1:]:
        column.justify = "right"
    for place, (joint, share) in enumerate(zip(joints, found["per_class"], strict=True)):
        own = labels[:, place]
        rows.add_row(joint, "–" if share is None else f"{share:.1%}", f"{(own > 0).sum():,}", f"{(own == 1).sum():,}")
    console.print(rows)


def _number(value: float | None) -> str:
    """A figure with four places; COCO's -1 says that there was nobody to judge."""
    return "" if value is None else "–" if value < 0 or value != value else f"{value:.4f}"
