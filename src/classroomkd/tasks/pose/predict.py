"""``classroomkd predict`` of a pose student: where the joints of every person are; COCO's results, rows, pictures."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classroomkd._files import refuse_links
from classroomkd.classroom import prediction_of
from classroomkd.data.keypoints.annotation_file import AnnotationFile, boxed
from classroomkd.data.keypoints.checks import usable
from classroomkd.data.keypoints.crops import crop
from classroomkd.data.keypoints.files import cut_all
from classroomkd.data.keypoints.people import Floats, People, Persons
from classroomkd.data.views.keypoints import PersonViews
from classroomkd.errors import UserError
from classroomkd.export.student import own_recipe
from classroomkd.tasks.files import PredictRequest, placed
from classroomkd.tasks.pose.boxes import Boxes, boxes_in, whole_images
from classroomkd.tasks.pose.decoded import Decoded
from classroomkd.tasks.pose.judging import answered
from classroomkd.tasks.pose.results import as_entries
from classroomkd.tasks.pose.truth import Predictions
from classroomkd.tasks.pose.written import PoseAnswers
from classroomkd.train.inputs import Inputs

__all__ = ["decoded_crops", "own_flip_test", "predict_joints"]


def predict_joints(request: PredictRequest) -> list[str]:
    """Write the joints of every person; what was left out, and why.

    Persons are cropped, answers decoded, scored and (of a detector's boxes) thinned out as ``evaluate`` does.

    Raises:
        UserError: nobody is left, or boxes that do not fit the images.
    """
    pose = request.student.pose
    assert pose is not None
    root = request.images if request.images.is_dir() else request.images.parent
    if request.draw is not None:
        _check_apart(request.draw, request.images, root)
    if request.boxes:
        boxes = boxes_in(request.boxes, request.files, root, pose.skeleton, pose.category)
    else:
        boxes = whole_images(request.files, root, pose.category)
    skipped = boxes.skipped
    flip = own_flip_test(request.student_path, pose) if request.flip_test is None else request.flip_test
    people, joints = _look(request, pose, boxes, flip, skipped)
    if request.boxes and boxes.store.turned:
        print(
            f"note: {len(boxes.store.turned)} pictures were turned as their EXIF orientation says, e.g."
            f" {min(boxes.store.turned)}: boxes must be those of the turned picture",
            file=sys.stderr,
        )
    if not len(people):
        raise UserError(f"no person in {request.images} could be looked at: {'; '.join(skipped[:3])}")
    answers = answered(people, people.ids, joints, pose.skeleton)
    ids = np.array([picture.id for picture in people.pictures], np.int64)[np.argsort(people.numbers)]
    answers = replace(answers, image=ids[answers.image])
    names = {picture.id: picture.file for picture in people.pictures}
    with request.open_out() as file:
        if request.lines or (request.out is not None and request.out.suffix == ".json"):
            _write_entries(file, answers, names, boxes.category, request.lines)
        else:
            _write_rows(file, answers, names, root, request.student.classes)
    if request.draw is not None:
        skipped += _draw(request.draw, boxes, answers, pose)
    if request.out is not None:
        count = len(np.unique(answers.image))
        print(f"{len(answers.image):,} persons on {count:,} images -> {request.out}", file=sys.stderr)
    return skipped


def own_flip_test(path: Path | None, pose: PoseAnswers) -> bool:
    """Whether the run that a student lies in scores with the flip test; elsewhere, whether its own did."""
    if isinstance(pose.coding, Decoded):  # whose answers have no mean
        return False
    task = None if path is None else (own_recipe(path) or {}).get("task")
    return bool(task.get("flip_test")) if isinstance(task, Mapping) else pose.flip_test


def _check_apart(folder: Path, images: Path, root: Path) -> None:
    """Drawn pictures must not replace images, nor be looked at the next time.

    Raises:
        UserError: they would.
    """
    drawn, here = folder.resolve(), root.resolve()
    if drawn == here or (images.is_dir() and drawn.is_relative_to(here)):
        raise UserError(f"--draw {folder} lies in {root}, where the images are; give a folder elsewhere")


def _look(
    request: PredictRequest, pose: PoseAnswers, boxes: Boxes, flip: bool, skipped: list[str]
) -> tuple[People, Floats]:
    """Whoever could be cropped, and the decoded answers (n, K, 3) in pixels of their crops."""
    region = boxed(boxes.box, boxes.pictures, boxes.picture)
    persons = Persons.detected(boxes.picture, boxes.box, boxes.score, region, len(pose.skeleton))
    if not boxes.detected:
        persons = replace(persons, annotation=persons.place, detector=np.zeros(len(persons), bool))
    names = [boxes.pictures[place].file for place in boxes.picture]
    listing = AnnotationFile(boxes.where, boxes.pictures, persons, boxes.store, "")
    rows = np.flatnonzero(usable(listing, region, names, learn=False, notes=skipped))
    origin, step = crop(region[rows], pose.canvas.size, pose.padding)
    views = PersonViews("none", skeleton=pose.skeleton, canvas=pose.canvas, view_seed=0)
    module, inputs = placed(request.student, request.device)
    decoded: list[Tensor] = []
    seen: list[NDArray[np.int64]] = []
    for start in range(0, len(rows), request.batch_size):
        batch = np.arange(start, min(start + request.batch_size, len(rows)))
        jobs = [(boxes.pictures[boxes.picture[rows[i]]], origin[i], float(step[i])) for i in batch]
        pixels, bad = cut_all(boxes.store, jobs, pose.canvas)
        skipped += dict.fromkeys(f"{boxes.store.path / jobs[i][0].file}: {reason}" for i, reason in sorted(bad.items()))
        good = np.array([i for i in range(len(jobs)) if i not in bad], np.int64)
        if len(good):
            crops, _ = views.eval_view(pixels[torch.from_numpy(good)], torch.zeros(len(good), len(pose.skeleton), 3))
            decoded.append(decoded_crops(module, inputs, crops, pose, flip))
            seen.append(batch[good])
    left = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    joints = torch.cat(decoded).cpu().double().numpy() if decoded else np.zeros((0, len(pose.skeleton), 3))
    persons = replace(persons.take(rows[left]), origin=origin[left], step=step[left])
    people = People(  # as an image set has them, so that they are scored alike
        canvas=pose.canvas, pictures=boxes.pictures, ids=np.arange(len(persons)), persons=persons,
        others=persons.take(np.zeros(len(persons), bool)), bare=np.zeros(0, np.int64),
        boxes="detector" if boxes.detected else "gt",
    )  # fmt: skip
    return people, joints


@torch.no_grad()
def decoded_crops(module: torch.nn.Module, inputs: Inputs, crops: Tensor, pose: PoseAnswers, flip: bool) -> Tensor:
    """Decoded answers (B, K, 3) to crops (B, 3, H, W) uint8."""
    answer = prediction_of(module(inputs(crops))).float()
    if flip:
        mirrored = prediction_of(module(inputs(crops.flip(-1)))).float()
        answer = pose.coding.mean([answer, pose.coding.flipped(mirrored, pose.skeleton.swap)])
    return pose.coding.decode(answer)


def _write_entries(file: IO[str], answers: Predictions, names: dict[int, str], category: int, lines: bool) -> None:
    """COCO's results with file names: a list, or one a line."""
    entries = [
        json.dumps({**entry, "file_name": names[entry["image_id"]]}) for entry in as_entries(answers, category)
    ]  # fmt: skip
    file.write("\n".join(entries) + "\n" if lines else "[\n" + ",\n".join(entries) + "\n]\n")


def _write_rows(
    file: IO[str], answers: Predictions, names: dict[int, str], root: Path, joints: tuple[str, ...]
) -> None:
    """CSV: x, y and score by joint."""
    writer = csv.writer(file, lineterminator="\n")
    columns = [f"{joint}_{what}" for joint in joints for what in ("x", "y", "score")]
    writer.writerow(["file", "score", *columns])
    for image, person, score in zip(answers.image.tolist(), answers.joints, answers.score.tolist(), strict=True):
        numbers = (round(value, 3) for value in person.ravel().tolist())
        writer.writerow([str(root / names[image]), round(score, 6), *numbers])


def _draw(folder: Path, boxes: Boxes, answers: Predictions, pose: PoseAnswers) -> list[str]:
    """Every picture with somebody found in it, with skeletons; those that could not be drawn."""
    from classroomkd.export.drawing import save_drawn

    failed = []
    for picture in boxes.pictures:
        people = answers.joints[answers.image == picture.id]
        if len(people):
            name = Path(picture.file)
            inside = name if name.suffix.lower() in (".jpg", ".jpeg") else name.with_name(f"{name.name}.jpg")
            target = refuse_links(folder, *inside.parts)
            try:
                save_drawn(boxes.store.picture(picture), people, pose.skeleton, target)
            except OSError as error:
                failed.append(f"{target}: {error}")
    return failed
