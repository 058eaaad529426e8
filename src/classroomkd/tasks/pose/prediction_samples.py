"""Persons of the test part with what everybody says about them, kept in the run folder for the page: ``gallery.json``.

The file is whole in itself (crops as JPEG data URIs, below 1.5 MB) and never required. Shapes: N persons of the test
part, B kept ones, K joints, (H, W) the input's size; places are input pixels, pixel centres at whole numbers.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classroomkd import models
from classroomkd._sums import write_listed
from classroomkd.errors import UserError
from classroomkd.report import load_summary, result_rows
from classroomkd.report.headline import main_arm
from classroomkd.run.answers_file import load_answers
from classroomkd.run.finished import LAST, PEERS, seed_folder
from classroomkd.tasks.pose.judging import allowed
from classroomkd.tasks.pose.oks import oks
from classroomkd.tasks.pose.pck import box_side
from classroomkd.tasks.pose.spec import BY_JOINT

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.recipe import Arm
    from classroomkd.run.networks import Networks
    from classroomkd.tasks.pose.runner import PoseRunner

__all__ = ["NAME", "write_prediction_samples"]

NAME = "gallery.json"
RANDOM, WORST, DRAWN_WITH = 12, 12, 0
LIMIT = 900_000  # bytes of all crops together, before base64 makes four of three
TRIES = ((85, 0), (75, 0), (75, 320), (60, 224), (50, 160), (40, 96))  # JPEG quality, longer side (0: as it is)
Floats = NDArray[np.float64]


def write_prediction_samples(
    networks: Networks, out: Path, arms: Sequence[Arm], mentors: Sequence[Mapping[str, Any]]
) -> Path | None:
    """Choose persons of the test part and write what each student and mentor says about them.

    Kept are the 12 persons that the headline's arm (as the page chooses it, its first finished seed) places worst, by
    the mean distance of labelled joints in shares of the box's longer side, and 12 drawn from the others. Every arm is
    shown by the same seed. Costs one forward of the test part; rank 0 does it, the others return at once.

    Args:
        networks: of the run; nothing is written for a task without persons.
        out: the run folder, with ``summary.json`` and the students' files.
        arms: of the recipe.
        mentors: the records of the run's mentors; one whose answers are gone is left out.

    Returns:
        The file, or None where there was nothing to write.

    Raises:
        UserError: a student's file that cannot be read, a folder that cannot be written.
        RunStopped: the disk is full.
    """
    context = networks.context
    if context.data.people is None or not context.runtime.is_zero or len(context.data.test) == 0:
        return None
    headline, seeds = _headline(out), context.recipe.seeds
    file_of = partial(_student_file, out, exported=context.recipe.export)
    first = next((s for arm in arms if arm.label == headline for s in seeds if file_of(arm, s).exists()), None)
    if headline is None or first is None:
        return None
    files = {arm.label: file_of(arm, first) for arm in arms}
    answers = _Answers(networks)
    of_all = answers.student(files[headline], context.data.test)
    error = answers.error(context.data.test, of_all)
    places, worst = _choose(error)
    part = context.data.test.subset(torch.from_numpy(places))
    who: list[dict[str, str]] = []
    joints: list[Floats] = []
    for label, file in files.items():
        if label == headline or file.exists():
            who.append({"kind": "student", "name": label})
            joints.append(of_all[places] if label == headline else answers.student(file, part))
    for record in mentors:
        if (stored := answers.mentor(str(record["val_logits"]), places)) is not None:
            who.append({"kind": "mentor", "name": str(record["name"])})
            joints.append(stored)
    described = answers.described(part, joints)
    persons = [
        {"chosen": "worst" if n < worst else "random", "error": _number(error[place])}
        | {key: values[n] for key, values in described.items()}
        for n, place in enumerate(places)
    ]
    runner = answers.task_runner
    content = {
        "schema": 1,
        "task": context.recipe.task.name,
        "metric": runner.metric,
        "right_by": answers.allowed(part)[0],
        "size": list(runner.size),
        "skeleton": runner.skeleton.plain(),
        "seed": first,
        "headline": headline,
        "test": len(context.data.test),
        "drawn_with": DRAWN_WITH,
        "flip_test": runner.options.flip_test,
        "who": who,
        "persons": persons,
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    write_listed(out / NAME, text)
    return out / NAME


def _student_file(out: Path, arm: Arm, seed: int, exported: str) -> Path:
    """The last weights of an arm's student, or of the peer that is exported where the arm trains it."""
    peer = seed_folder(out, arm, seed) / PEERS / f"{exported}.safetensors"
    return peer if exported in arm.peers else seed_folder(out, arm, seed) / LAST


def _headline(out: Path) -> str | None:
    """The arm that the page is about."""
    summary = load_summary(out)
    row = main_arm(result_rows(summary), summary)
    return None if row is None else str(row["arm"])


def _choose(error: Floats) -> tuple[NDArray[np.int64], int]:
    """Places of the kept persons, the worst first (and how many of these), then those drawn from the others."""
    known = np.flatnonzero(np.isfinite(error))
    worst = known[np.argsort(-error[known], kind="stable")][:WORST]
    rest = np.setdiff1d(np.arange(len(error)), worst)
    drawn = np.random.default_rng(DRAWN_WITH).permutation(rest)[:RANDOM]
    return np.concatenate([worst, np.sort(drawn)]).astype(np.int64), len(worst)


class _Answers:
    """Joints (B, K, 3) of students and mentors, NaN where a mentor does not know one, and how far off they are."""

    def __init__(self, networks: Networks) -> None:
        self.networks, self.context = networks, networks.context
        self.task_runner: PoseRunner = networks.task_runner  # type: ignore[assignment]  # pose's

    def student(self, file: Path, part: Part) -> Floats:
        """A student's joints on a part."""
        peers = {spec.name: spec for spec in self.context.recipe.peers} if file.parent.name == PEERS else {}
        network = self.networks.peer(peers[file.stem], 0) if peers else self.networks.blank_student()
        models.load_checkpoint(network, file, what="student")
        context = self.context
        with context.runtime.autocast():  # as they were scored: PoseRunner.evaluate
            batches = self.task_runner.answers(network, part, context.inputs, context.recipe.train.eval_batch_size)
            return np.concatenate([self._decoded(answer) for answer, _ in batches])

    def mentor(self, val_answers: str, places: NDArray[np.int64]) -> Floats | None:
        """A mentor's joints at ``places`` of the test part, from the file of its score; None when it is gone."""
        val = Path(val_answers)
        file = val.with_name(val.name.removesuffix("val.npy") + f"{self.context.data.test.digest()}.npy")
        try:
            stored = load_answers(file, len(self.context.data.test))
        except UserError:
            return None
        return self._decoded(torch.from_numpy(stored[places]).to(self.context.runtime.device))

    def error(self, part: Part, joints: Floats) -> Floats:
        """Mean distance (B,) of labelled joints, in shares of the box's longer side."""
        far, labelled = self._far(part, joints)
        count = np.maximum(labelled.sum(1), 1)
        mean = np.where(labelled, far, 0.0).sum(1) / count / box_side(self.task_runner.people.of(_ids(part)).box)
        return np.where(labelled.any(1), mean, np.nan)

    def allowed(self, part: Part) -> tuple[str, Floats]:
        """What says which joints are right, and up to which distance (B,), image pixels; NaN where nothing does."""
        known = self.task_runner.people.of(_ids(part))
        for name in (self.task_runner.metric, *BY_JOINT):
            distance = allowed(name, known, self.task_runner.skeleton)
            if np.isfinite(distance).any():
                return name, distance
        return BY_JOINT[-1], np.full(len(known), np.nan)

    def described(self, part: Part, answers: Sequence[Floats]) -> dict[str, list[Any]]:
        """What the file says of each person: picture, crop, truth, and ``answers`` in the order given."""
        people, ids = self.task_runner.people, _ids(part)
        pixels, target = self.context.base_views.eval_view(*part.batch(torch.arange(len(part)))[:2])
        truth = target.cpu().double().numpy()
        truth = np.where(truth[..., 2:] > 0, truth, 0.0)  # also of a person without joints, whose v is -1
        known, (_, distance) = people.of(ids), self.allowed(part)
        by_person: list[list[dict[str, Any]]] = [[] for _ in range(len(part))]
        for joints in answers:
            far, labelled = self._far(part, joints)
            right = np.where(labelled, far, np.inf) <= distance[:, None]
            seen = known.joints.copy()
            seen[..., 2] = np.where(labelled, seen[..., 2], 0)
            xy = people.to_image(ids, np.nan_to_num(joints))[..., :2]
            similar = oks(xy, seen, known.area, self.task_runner.skeleton.sigmas)
            for b, records in enumerate(by_person):
                records.append({
                    "joints": [None if np.isnan(joint).any() else _rounded(joint) for joint in joints[b]],
                    "oks": _number(similar[b]),
                    "right": int(right[b].sum()) if np.isfinite(distance[b]) else None,
                    "of": int(labelled[b].sum()),
                })  # fmt: skip
        return {
            "id": [int(i) for i in ids],
            "image": people.file(ids),
            "crop": _crops(pixels.cpu().numpy()),
            "truth": [[_rounded(joint) for joint in person] for person in truth],
            "found": by_person,
        }

    def _far(self, part: Part, joints: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Distances (B, K) to the truth in image pixels, and which joints are labelled and answered."""
        people, ids = self.task_runner.people, _ids(part)
        truth = people.of(ids).joints
        far = np.linalg.norm(people.to_image(ids, joints)[..., :2] - truth[..., :2], axis=-1)
        return far, (truth[..., 2] > 0) & np.isfinite(far)

    def _decoded(self, answer: Tensor) -> Floats:
        coding = self.task_runner.coding
        unknown, broken = coding.state(answer)
        joints = coding.decode(answer).masked_fill((unknown | broken).unsqueeze(-1), torch.nan)
        decoded: Floats = joints.float().cpu().double().numpy()
        return decoded


def _ids(part: Part) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = part.ids.cpu().numpy()
    return ids


def _crops(pixels: NDArray[np.uint8]) -> list[str]:
    """Pixels (B, C, H, W) as JPEG data URIs, as good as the limit for all together allows."""
    from PIL import Image

    pictures = [Image.fromarray(one[0] if len(one) == 1 else np.moveaxis(one, 0, -1)) for one in pixels]
    files: list[bytes] = []
    for quality, longest in TRIES:
        files = []
        for picture in pictures:
            small = picture.copy()
            if longest:
                small.thumbnail((longest, longest))
            file = io.BytesIO()
            small.save(file, "JPEG", quality=quality, subsampling=0 if quality > 80 else 2)
            files.append(file.getvalue())
        if sum(map(len, files)) <= LIMIT:
            break
    return ["data:image/jpeg;base64," + base64.b64encode(one).decode() for one in files]


def _rounded(joint: Floats) -> list[float]:
    return [round(float(number), 2) for number in joint]


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
