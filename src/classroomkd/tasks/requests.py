"""What the verbs ask of a task about a student's file: to score it, and to predict with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import data, tasks
from classroomkd._files import atomic_write
from classroomkd._printable import data_stream
from classroomkd.data.decode import DecodeError
from classroomkd.data.sources.table import HANDED
from classroomkd.data.spec import PARTS
from classroomkd.errors import UserError
from classroomkd.export.pictures import fitted
from classroomkd.recipe.versions import renewed_data
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import answers

if TYPE_CHECKING:
    from classroomkd.data import ImageSet, Part
    from classroomkd.export import Student

__all__ = ["EvaluateRequest", "PredictRequest", "note_padding", "placed"]


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be scored.

    Attributes:
        student: who.
        path: of its file.
        source: the data, where it is not the run's own.
        recipe: the run's, where the student lies in a run folder.
        part: test, val, train or all.
        unreadable: refuse or skip.
        device: where.
        trust_code: whether ``py:`` names may run.
        flip_test, official: options that not every task takes; None: not said.
        run: the folder of the run that the student lies in.
    """

    student: Student
    path: Path
    source: str | None
    recipe: dict[str, Any] | None
    part: str
    unreadable: str
    device: torch.device
    trust_code: bool
    flip_test: bool | None = None
    official: bool = False
    run: Path | None = None

    def load(self, **options: Any) -> ImageSet:
        """The data: the run's own, or the source that was given, with ``options`` (``size``) beside it.

        Raises:
            UserError: neither is there; the run's own data have changed since, so that a score of them would not be
                the run's; and what loading raises.
        """
        scored = None if self.source is None else self.part  # the run's own are split as they were
        return self._loaded(scored, **options)

    def load_all(self) -> ImageSet:
        """The same at the student's size, with a training part even where the data have one part alone."""
        return self._loaded(None, size=self.student.side)

    def _loaded(self, scored: str | None, **options: Any) -> ImageSet:
        section = self._section(options)
        try:
            images = data.load(section, task=self.student.task, trust_code=self.trust_code, scored=scored)
        except UserError as error:
            if self.source is None:
                raise
            raise UserError(str(error).replace("set data.unreadable: skip", "add --unreadable skip")) from error
        if self.source is not None:
            note_padding(self.student)
        self._check(images)
        return images

    def parts(self, images: ImageSet) -> list[Part]:
        """What is to be scored of them, where there is something: all that has a label.

        Raises:
            UserError: there is nothing.
        """
        parts = [part for name in self._part_names if len(part := getattr(images, name))]
        if not parts:
            raise UserError(f"the part {self.part} of '{images.name}' is empty: there is nothing to score")
        known = [part.labelled for part in parts]
        if not any(bool(labelled.any()) for labelled in known):
            raise UserError(
                f"no image of the part {self.part} of '{images.name}' has a label: there is nothing to score; "
                "`classroomkd predict` says what the student takes them for"
            )
        return [
            part if bool(labelled.all()) else part.subset(labelled.nonzero().flatten())
            for part, labelled in zip(parts, known, strict=True)
            if bool(labelled.any())
        ]

    def answers(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """The student's answers (N, …) to these parts, float32, and the targets (N, …)."""
        module, inputs = placed(self.student, self.device)
        pairs = [answers(module, part, inputs) for part in self.parts(images)]
        return torch.cat([answer for answer, _ in pairs]), torch.cat([target for _, target in pairs])

    def described(self, images: ImageSet) -> dict[str, Any]:
        """What a result as plain data begins with."""
        return {"student": str(self.path), "data": images.name, "part": self.part}

    @property
    def _part_names(self) -> tuple[str, ...]:
        return ("train", "val", "test") if self.part == "all" else (self.part,)

    def _section(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe's ``data:``."""
        if self.source is not None:
            resize = {"resize": self.student.resize} if tasks.describe(self.student.task).resizes else {}
            return {"source": self.source, "unreadable": self.unreadable, **resize, **options}
        if self.recipe is None:
            raise UserError(
                f"{self.path} lies in no run folder; say which data to score it on: --data imagefolder:DIR (pose: "
                "coco-keypoints:DIR)"
            )
        own = renewed_data(self.recipe)
        # A run writes its version before the data, and the seeds behind them.
        if not isinstance(own, dict) or ("schema" in self.recipe and "seeds" not in self.recipe):
            wrong = "is cut off" if isinstance(own, dict) else "has no data"
            raise UserError(f"{self.run}/recipe.yaml is damaged (it {wrong}); put it back, or name the data: --data")
        if any(own.get(key) == HANDED for key in ("source", *PARTS)):
            raise UserError(
                f"{self.run} was made with data that were handed over in Python; say which to score it on: --data "
                "imagefolder:DIR (pose: coco-keypoints:DIR), or call ck.load_student there"
            )
        return {str(k): v for k, v in own.items() if v is not None}

    def _check(self, images: ImageSet) -> None:
        """Refuse a run's own data where they have changed; of others, print whether they are the run's."""
        from classroomkd.run.folder import stored_data

        stored = None if self.run is None else stored_data(self.run)
        if stored is None:
            return
        same = stored.fingerprint == images.fingerprint
        if self.source is not None:
            which = "the images" if same else "other images than those"
            taught = ", those it was taught with among them" if same and self.part in ("train", "all") else ""
            print(f"note: these are {which} of the student's run{taught}", file=sys.stderr)
            return
        if not same or any(stored.parts.get(name) != getattr(images, name).digest() for name in self._part_names):
            raise UserError(
                f"{self.run} was made with other images or another split of '{images.name}' than there are now, so a "
                "score of these would not be the run's; put them back, or say that others are meant: --data SOURCE"
            )


@dataclass(frozen=True)
class PredictRequest:
    """What is to be predicted, and where to.

    Attributes:
        student: who does it.
        images: as typed: a file or a folder.
        files: the images.
        out: None for standard output.
        lines: JSON lines and not CSV, where ``out`` does not say.
        device: where.
        batch_size: images or persons at once.
        top, boxes, draw, flip_test: options that not every task takes; None: not said.
        student_path: of the student's file.
    """

    student: Student
    images: Path
    files: list[Path]
    out: Path | None
    lines: bool
    device: torch.device
    batch_size: int
    top: int | None = None
    boxes: Path | None = None
    draw: Path | None = None
    flip_test: bool | None = None
    student_path: Path | None = None

    def read(self, skipped: list[str]) -> Iterator[tuple[list[Path], Tensor]]:
        """Batch by batch the files that can be read, and their pixels (B, C, H, W) uint8 as the student takes them.

        Names of the others, and why, are added to ``skipped``.

        Raises:
            UserError: there is none; at once, before anything is written.
        """
        note_padding(self.student)
        batches = self._batches(skipped)
        first = next(batches, None)
        if first is None:
            raise UserError(f"no image in {self.images} could be read: {'; '.join(skipped[:3])}")
        return chain([first], batches)

    def _batches(self, skipped: list[str]) -> Iterator[tuple[list[Path], Tensor]]:
        for start in range(0, len(self.files), self.batch_size):
            names, pixels = [], []
            for file in self.files[start : start + self.batch_size]:
                try:
                    pixels.append(torch.from_numpy(fitted(self.student, file)))
                except DecodeError as error:
                    skipped.append(f"{file}: {error}")
                    continue
                names.append(file)
            if names:
                yield names, torch.stack(pixels)

    def open_out(self) -> AbstractContextManager[IO[str]]:
        """The file, which is written whole or not at all, or standard output."""
        return nullcontext(data_stream()) if self.out is None else atomic_write(self.out, "w")


def note_padding(student: Student) -> None:
    """Say on stderr where a student's file does not name its rule, and so means that of versions which had no other."""
    if "resize" not in json.loads(student.metadata.get("preprocessing", "{}")) and tasks.describe(student.task).resizes:
        print(
            "note: the student's file does not say how pictures are brought to its size, so it is of a version that "
            "padded them: resize: pad",
            file=sys.stderr,
        )


def placed(student: Student, device: torch.device) -> tuple[nn.Module, Inputs]:
    """A student's network on a device, and what makes its inputs there."""
    return student.module.to(device), Inputs(student.mean, student.std, device)
