"""``classroomkd predict`` of a pose student: where the joints of every person are; COCO's results, rows, pictures."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classroomkd._files import atomic_write, refuse_links
from classroomkd.classroom import prediction_of
from classroomkd.data.keypoints.annotation_file import AnnotationFile, boxed
from classroomkd.data.keypoints.checks import usable
from classroomkd.data.keypoints.crops import crop
from classroomkd.data.keypoints.files import cut_all
from classroomkd.data.keypoints.people import Floats, People, Persons
from classroomkd.data.views.keypoints import PersonViews
from classroomkd.errors import UserError
from classroomkd.tasks.files import PredictRequest
from classroomkd.tasks.pose.boxes import Boxes, boxes_in, whole_images
from classroomkd.tasks.pose.judging import answered
from classroomkd.tasks.pose.truth import Found
from classroomkd.tasks.pose.written import PoseAnswers
from classroomkd.train.inputs import Inputs

__all__ = ["predict_joints"]


def predict_joints(asked: PredictRequest) -> list[str]:
    """Write the joints of every person; what was left out, and why.

    Persons are cropped, answers decoded, scored and (of a detector's boxes) thinned out as ``evaluate`` does.

    Raises:
        UserError: nobody is left, or boxes that do not fit the images.
    """
    pose = asked.student.pose
    assert pose is not None
    root = asked.images if asked.images.is_dir() else asked.images.parent
    if asked.draw is not None:
        _check_apart(asked.draw, asked.images, root)
    boxes = boxes_in(asked.boxes, asked.files, root) if asked.boxes else whole_images(asked.files, root)
    skipped = boxes.skipped
    people, answers = _look(asked, pose, boxes, skipped)
    if not len(people):
        raise UserError(f"no person in {asked.images} could be looked at: {'; '.join(skipped[:3])}")
    found = answered(people, people.ids, answers, pose.skeleton)
    ids = np.array([picture.id for picture in people.pictures], np.int64)[np.argsort(people.numbers)]
    found = replace(found, image=ids[found.image])
    names = {picture.id: picture.file for picture in people.pictures}
    with atomic_write(asked.out, "w") if asked.out is not None else nullcontext(sys.stdout) as file:
        _write(file, asked, found, names, boxes.category, root)
    if asked.draw is not None:
        skipped += _draw(asked.draw, boxes, found, pose)
    if asked.out is not None:
        count = len(np.unique(found.image))
        print(f"{len(found.image):,} persons on {count:,} images -> {asked.out}", file=sys.stderr)
    return skipped


def _check_apart(folder: Path, images: Path, root: Path) -> None:
    """Drawn pictures must not replace images, nor be looked at the next time.

    Raises:
        UserError: they would.
    """
    drawn, here = folder.resolve(), root.resolve()
    if drawn == here or (images.is_dir() and drawn.is_relative_to(here)):
        raise UserError(f"--draw {folder} lies in {root}, where the images are; give a folder elsewhere")


def _look(asked: PredictRequest, pose: PoseAnswers, boxes: Boxes, skipped: list[str]) -> tuple[People, Floats]:
    """Whoever could be cropped, and the decoded answers (n, K, 3) in pixels of their crops."""
    region = boxed(boxes.box, boxes.pictures, boxes.picture)
    persons = Persons.detected(boxes.picture, boxes.box, boxes.score, region, len(pose.skeleton))
    if not boxes.detected:
        persons = replace(persons, annotation=persons.place)
    names = [boxes.pictures[place].file for place in boxes.picture]
    listing = AnnotationFile(boxes.where, boxes.pictures, persons, boxes.store, "")
    rows = np.flatnonzero(usable(listing, region, names, learn=False, notes=skipped))
    origin, step = crop(region[rows], pose.canvas.size, pose.padding)
    views = PersonViews("none", skeleton=pose.skeleton, canvas=pose.canvas, view_seed=0)
    taught = asked.student
    module, inputs = taught.module.to(asked.device), Inputs(taught.mean, taught.std, asked.device)
    said: list[Tensor] = []
    good: list[NDArray[np.int64]] = []
    for start in range(0, len(rows), asked.batch_size):
        chosen = np.arange(start, min(start + asked.batch_size, len(rows)))
        jobs = [(boxes.pictures[boxes.picture[rows[i]]], origin[i], float(step[i])) for i in chosen]
        pixels, bad = cut_all(boxes.store, jobs, pose.canvas)
        skipped += dict.fromkeys(f"{boxes.store.path / jobs[i][0].file}: {reason}" for i, reason in sorted(bad.items()))
        able = np.array([i for i in range(len(jobs)) if i not in bad], np.int64)
        if len(able):
            shown, _ = views.eval_view(pixels[torch.from_numpy(able)], torch.zeros(len(able), len(pose.skeleton), 3))
            said.append(_ask(module, inputs, shown, pose, asked.flip_test))
            good.append(chosen[able])
    left = np.concatenate(good) if good else np.zeros(0, np.int64)
    answers = torch.cat(said).cpu().double().numpy() if said else np.zeros((0, len(pose.skeleton), 3))
    persons = replace(persons.take(rows[left]), origin=origin[left], step=step[left])
    return _people(boxes, pose, persons), answers


@torch.no_grad()
def _ask(module: torch.nn.Module, inputs: Inputs, shown: Tensor, pose: PoseAnswers, flip: bool) -> Tensor:
    """Decoded answers to crops (B, 3, H, W) uint8."""
    answer = prediction_of(module(inputs(shown))).float()
    if flip:
        mirrored = prediction_of(module(inputs(shown.flip(-1)))).float()
        answer = pose.coding.mean([answer, pose.coding.flipped(mirrored, pose.skeleton.swap)])
    return pose.coding.decode(answer)


def _people(boxes: Boxes, pose: PoseAnswers, persons: Persons) -> People:
    """The persons as an image set has them, so that they are scored alike."""
    return People(
        canvas=pose.canvas, pictures=boxes.pictures, ids=np.arange(len(persons)), persons=persons,
        others=persons.take(np.zeros(len(persons), bool)), bare=np.zeros(0, np.int64),
        boxes="detector" if boxes.detected else "gt",
    )  # fmt: skip


def _write(
    file: IO[str], asked: PredictRequest, found: Found, names: dict[int, str], category: int, root: Path
) -> None:
    """COCO's results with file names (.json; .jsonl: one a line), or rows of x, y and score by joint."""
    numbers = found.joints.reshape(len(found.joints), -1)
    if asked.lines or (asked.out is not None and asked.out.suffix == ".json"):
        entries = [
            json.dumps({"image_id": i, "category_id": category, "keypoints": k, "score": s, "file_name": names[i]})
            for i, k, s in zip(found.image.tolist(), numbers.tolist(), found.score.tolist(), strict=True)
        ]
        file.write("\n".join(entries) + "\n" if asked.lines else "[\n" + ",\n".join(entries) + "\n]\n")
        return
    writer = csv.writer(file, lineterminator="\n")
    columns = [f"{joint}_{what}" for joint in asked.student.classes for what in ("x", "y", "score")]
    writer.writerow(["file", "score", *columns])
    for image, row, score in zip(found.image.tolist(), numbers.tolist(), found.score.tolist(), strict=True):
        writer.writerow([str(root / names[image]), round(score, 6), *(round(value, 3) for value in row)])


def _draw(folder: Path, boxes: Boxes, found: Found, pose: PoseAnswers) -> list[str]:
    """Every picture with somebody found in it, with skeletons; those that could not be drawn."""
    from classroomkd.export.drawing import save_drawn

    failed = []
    for picture in boxes.pictures:
        mine = found.joints[found.image == picture.id]
        if len(mine):
            name = Path(picture.file)
            inside = name if name.suffix.lower() in (".jpg", ".jpeg") else name.with_name(f"{name.name}.jpg")
            target = refuse_links(folder, *inside.parts)
            try:
                save_drawn(boxes.store.picture(picture), mine, pose.skeleton, target)
            except OSError as error:
                failed.append(f"{target}: {error}")
    return failed
