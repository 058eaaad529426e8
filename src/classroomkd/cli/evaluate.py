"""``classroomkd evaluate``: score a trained student on data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classroomkd.errors import UserError

if TYPE_CHECKING:
    import torch

    from classroomkd.data import ImageSet
    from classroomkd.export import Student

__all__ = ["Question", "StudentPath", "Which", "evaluate"]

# How every verb that takes a student spells it; classroomkd.export.student.find_student checks both.
StudentPath = Annotated[Path, typer.Argument(help="A run folder, a seed's folder, or a student.safetensors.")]
Which = Annotated[str, typer.Option(help="last, best or ema.")]

PARTS = ("test", "val", "train", "all")

# task -> what scores a student: (Question) -> (JSON, printer of the same)
SCORERS = {
    "classification": "classroomkd.cli.evaluate_classes:score_classes",
    "pose": "classroomkd.cli.evaluate_pose:score_joints",
}


@dataclass(frozen=True)
class Question:
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
        flip_test, official: of pose; None: not said.
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

    def check(self, images: ImageSet) -> None:
        """Whether these are the images that the student's run was made with: the run's own must be, of others it is
        said.

        Raises:
            UserError: the run's own data have changed since; a score of them would not be the run's.
        """
        from classroomkd.run.folder import stored_data

        made = None if self.run is None else stored_data(self.run)
        if made is None:
            return
        same = made.fingerprint == images.fingerprint
        if self.source is not None:
            told = (
                "these are the images of the student's run, those it was taught with among them"
                if same and self.part in ("train", "all")
                else "these are the images of the student's run"
                if same
                else "these are other images than those of the student's run"
            )
            print(f"note: {told}", file=sys.stderr)
            return
        parts = ("train", "val", "test") if self.part == "all" else (self.part,)
        if not same or any(made.parts.get(name) != getattr(images, name).digest() for name in parts):
            raise UserError(
                f"{self.run} was made with other images or another split of '{images.name}' than there are now, so a "
                "score of these would not be the run's; put them back, or say that others are meant: --data SOURCE"
            )

    def spec(self, **sizes: Any) -> dict[str, Any]:
        """The data section: the run's own, or the source that was given at the student's size.

        Raises:
            UserError: neither is there.
        """
        if self.source is not None:
            return {"source": self.source, "unreadable": self.unreadable, **sizes}
        if self.recipe is None:
            raise UserError(
                f"{self.path} lies in no run folder; say which data to score it on: --data imagefolder:DIR (pose: "
                "coco-keypoints:DIR)"
            )
        own = self.recipe.get("data")
        if not isinstance(own, dict):
            raise UserError(
                f"{self.run}/recipe.yaml is damaged (it has no data); put it back, or name the data: --data"
            )
        return {str(k): v for k, v in own.items() if v is not None}


def evaluate(
    student: Annotated[
        Path,
        typer.Argument(
            help="A run folder, a seed's folder, or a student.safetensors; pose: also COCO results, FILE.json."
        ),
    ],
    data: Annotated[str | None, typer.Option(help="A data source; the run's own by default.")] = None,
    part: Annotated[
        str | None, typer.Option(help="test, val, train or all; test, or all for other data than the run's own.")
    ] = None,
    unreadable: Annotated[str, typer.Option(help="Images that cannot be decoded: refuse or skip.")] = "refuse",
    which: Which = "last",
    flip_test: Annotated[
        bool | None,
        typer.Option(
            "--flip-test/--no-flip-test",
            help="Pose: the mean of a crop's and its mirror image's answers; the run's own setting by default.",
            show_default=False,
        ),
    ] = None,
    official: Annotated[bool, typer.Option("--official", help="Pose: pycocotools' figures beside ours.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow py: models and data to run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Score a student: accuracy, loss, and accuracy by class; of pose the metrics by name, and by joint."""
    if part is not None and part not in PARTS:
        raise UserError(f"--part {part}: choose one of {', '.join(PARTS)}")
    if student.suffix == ".json":
        from classroomkd.cli.evaluate_results import score_results

        _tell(*score_results(student, data, part, official=official), as_json)
        return
    part = part or ("test" if data is None else "all")
    from classroomkd.cli.by_task import chosen
    from classroomkd.export.student import find_student, load_student, own_recipe, own_run
    from classroomkd.train.runtime import pick_device

    path = find_student(student, which)
    taught = load_student(path, trust_code=trust_code)
    recipe = own_recipe(path) if data is None else None
    where = pick_device(device)
    asked = Question(
        taught, path, data, recipe, part, unreadable, where, trust_code, flip_test, official, own_run(path)
    )
    found, show = chosen(SCORERS, taught)(asked)
    _tell(found, show, as_json)


def _tell(found: Mapping[str, Any], show: Callable[[], None], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show()
