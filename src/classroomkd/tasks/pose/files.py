"""Pose students in their files, and what the verbs do with them."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd._stored import MAPPING, Damaged, parse_json, trusted
from classroomkd.classroom import prediction_of
from classroomkd.data.keypoints.crops import PADDING, Canvas
from classroomkd.errors import UserError
from classroomkd.export.card import made_by, numbers, sizes
from classroomkd.export.graph import Graph, PredictionOnly
from classroomkd.export.student import own_recipe
from classroomkd.models.about import REMEDY
from classroomkd.models.measuring import example
from classroomkd.taps.trace import at_rest
from classroomkd.tasks.files import EvaluateRequest, PredictRequest, Shown, TaskFiles
from classroomkd.tasks.pose.card import compare, lines
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC, coding_of
from classroomkd.tasks.pose.decoded import Decoded
from classroomkd.tasks.pose.written import PoseAnswers, written_coding, written_skeleton

if TYPE_CHECKING:
    from classroomkd.export import Student
    from classroomkd.export.lines import Form
    from classroomkd.export.sample import Sample
    from classroomkd.recipe import Arm
    from classroomkd.run.networks import Networks

__all__ = ["PoseFiles", "Reading"]


class PoseFiles(TaskFiles):
    """Of pose students."""

    pipeline_tag = "keypoint-detection"
    evaluate_options = ("flip_test", "official")
    predict_options = ("boxes", "draw", "flip_test")

    def network(self, model: str, count: int, shape: tuple[int, int, int], trust_code: bool) -> nn.Module:
        """See the base."""
        from classroomkd.models.pose import resolve_pose

        channels, height, width = shape
        network: nn.Module = resolve_pose(model, count, (height, width), trust_code=trust_code, in_channels=channels)
        return network

    @torch.no_grad()
    def head(self, module: nn.Module, model: str, shape: tuple[int, int, int]) -> str | None:
        """See the base: the kind of answer and its shape."""
        with at_rest(module):
            coding = coding_of(module, prediction_of(module(example(module, shape))), shape[1:], model)
        return f"{coding.kind}, {' x '.join(map(str, coding.answer_shape))}"

    def read_answers(self, path: Path, about: Mapping[str, str], size: tuple[int, int]) -> PoseAnswers:
        """See the base: joints, head and crops."""
        missing = [k for k in ("skeleton", "coding") if k not in about]
        if missing:
            raise UserError(f"{path} is not a pose student of this package: its metadata lacks {', '.join(missing)}")
        with trusted(f"{path}: what it says of its crops", REMEDY):
            options = parse_json(about["crop"], MAPPING) if "crop" in about else _own_options(path)
            scale, padding = float(options.get("canvas", 1.0)), float(options.get("padding", PADDING))
            category = operator.index(options.get("category", 1)) if "crop" in about else 1
            if not (0 < scale <= 16 and 0 < padding <= 16):
                raise Damaged(f"does not fit (canvas {scale}, padding {padding})")
        coding = written_coding(path, about)
        flip_test = "crop" in about and options.get("flip_test") is True
        if about.get("output") == "joints":  # of a graph, which answers about one crop alone
            coding, flip_test = Decoded(coding.size, coding.joints), False
        return PoseAnswers(written_skeleton(path, about), coding, Canvas(size, scale), padding, category, flip_test)

    def written_out(self, student: Student) -> dict[str, str]:
        """See the base: how persons were cropped."""
        if student.pose is None or "crop" in student.metadata:
            return {}
        crop = {"padding": student.pose.padding, "canvas": student.pose.canvas.scale}
        return {"crop": json.dumps(crop)}

    def card(self, student: Student, target: Path) -> str:
        """See the base."""
        return _card(student, target)

    def lines(self, student: Student, form: Form) -> str:
        """See the base: they make ``joints``, of a graph that does not decode ``answer``."""
        return lines(student, form)

    def compare(self, student: Student, form: Form, card: str, file: Path, sample: Sample) -> tuple[float, str]:
        """See the base: the same joints."""
        return compare(student, form, card, file, sample)

    def graph(self, student: Student, decode: str | None) -> Graph:
        """See the base: joints, or with ``outside`` the network's own answer."""
        assert student.pose is not None
        network = student.module.to("cpu").eval()
        if decode == "outside":
            return Graph(PredictionOnly(network), "answer", input="crops")
        return Graph(Reading(network, student.pose.coding).eval(), "joints", input="crops")

    def evaluate(self, request: EvaluateRequest) -> Shown:
        """See the base."""
        from classroomkd.tasks.pose.evaluate import score_joints

        return score_joints(request)

    def evaluate_answers(self, path: Path, source: str | None, part: str | None, official: bool) -> Shown:
        """See the base: COCO's results."""
        from classroomkd.tasks.pose.evaluate import score_results

        return score_results(path, source, part, official=official)

    def predict(self, request: PredictRequest) -> list[str]:
        """See the base."""
        from classroomkd.tasks.pose.predict import predict_joints

        return predict_joints(request)

    def ask(self, student: Student, images: Any, *more: Any, **options: Any) -> Tensor:
        """See the base: the joints of everybody in ``boxes`` (P, 4), see :func:`find_joints`."""
        from classroomkd.tasks.pose.asking import find_joints

        return find_joints(student, images, *more, **options)

    def write_prediction_samples(
        self, networks: Networks, out: Path, arms: Sequence[Arm], mentors: Sequence[Mapping[str, Any]]
    ) -> Path | None:
        """See the base: the worst placed persons, and some at random."""
        from classroomkd.tasks.pose.prediction_samples import write_prediction_samples

        return write_prediction_samples(networks, out, arms, mentors)


def _own_options(path: Path) -> dict[str, Any]:
    recipe = own_recipe(path) or {}
    data = recipe.get("data")
    options = data.get("options") if isinstance(data, dict) else None
    return options if isinstance(options, dict) else {}


class Reading(nn.Module):
    """A pose network and what reads its answers: crops (B, C, H, W) to x, y and a score (B, K, 3)."""

    def __init__(self, network: nn.Module, coding: Coding) -> None:
        super().__init__()
        self.network = network
        self.coding = coding

    def forward(self, pixels: Tensor) -> Tensor:
        """x and y in pixels of the crop, a score in 0..1."""
        joints: Tensor = self.coding.decode(prediction_of(self.network(pixels)))
        return joints


def _card(student: Student, target: Path) -> str:
    assert student.pose is not None
    channels, height, width = student.shape
    pose = student.pose
    pairs = ", ".join("–".join(pose.skeleton.joints[i] for i in pair) for pair in pose.skeleton.flip_pairs)
    return f"""# {student.model}, {len(pose.skeleton)} joints of one person

{made_by(student)}

- input: {channels} x {height} x {width} (channels, height, width): one person, whose box was widened to the input's
  aspect and enlarged {pose.padding:g} times, as `crop` in the card of a graph does it
- normalised (a graph of uint8 does it): pixels in 0..1, mean {numbers(student.mean)}, std {numbers(student.std)}
- output: {_answer(pose.coding)}
- joints, in this order: {", ".join(pose.skeleton.joints)}
- swapped in a mirror image: {pairs or "none"}
- {sizes(student)}

{_how(pose.coding)}
"""


def _answer(coding: Coding) -> str:
    shape = " x ".join(str(n) for n in coding.answer_shape)
    if isinstance(coding, SimCC):
        return f"{shape} numbers (SimCC): for each joint {coding.bins[0]} bins over x, then {coding.bins[1]} over y"
    return f"{shape} numbers: a heatmap a joint"


def _how(coding: Coding) -> str:
    """How to decode without this package."""
    if isinstance(coding, SimCC):
        return (
            f"To decode: the highest bin of each axis, divided by {coding.split:g}, is the place in pixels of the crop "
            f"(the first\npixel's centre is 0). softmax({coding.beta:g} · bins) are the probabilities of an axis; the "
            f"score is their sum within {coding.sigmas[0]:.1f}\n(x) or {coding.sigmas[1]:.1f} (y) bins of the highest, "
            "that of the worse axis."
        )
    assert isinstance(coding, Heatmap)
    steps = ", ".join(f"{n:.4f}" for n in coding.spacing)
    refined = {"dark": ", refined by DARK", "quarter": ", moved a quarter towards the higher neighbour"}
    ground = " above the map's median" if coding.loss == "kl" else ""
    return (
        f"To decode: the highest cell{refined.get(coding.decoder, '')}; cells are ({steps}) pixels of the crop apart "
        f"along x and y, the\nfirst cell is at 0. The score is the peak's height{ground}."
    )
