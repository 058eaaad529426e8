"""A student as a graph: an ONNX file, or one of ``torch.export``, for any batch size.

It takes uint8 pixels at the student's size and normalises them itself; ``raw``: normalised floats.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import tasks
from classroomkd._compat import installed
from classroomkd._renamed import warn_old_name
from classroomkd.classroom import prediction_of
from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.export.lines import Form
    from classroomkd.export.student import Student

__all__ = ["METADATA", "RAW", "Graph", "Made", "PredictionOnly", "onnx_file", "program_file"]

RAW = "pixels"  # the input of a bare graph
METADATA = "classroomkd.json"  # in a file of torch.export
_NEEDED = ("onnx", "onnxscript")


@dataclass(frozen=True)
class Made:
    """An exported file before it is written.

    Attributes:
        content: its bytes.
        input: name of what goes in; empty for a file of weights.
        outputs: names of what comes out.
        opset: of ONNX.
    """

    content: bytes
    input: str = ""
    outputs: tuple[str, ...] = ()
    opset: int | None = None


@dataclass(frozen=True)
class Graph:
    """What becomes a graph.

    Attributes:
        module: normalised pixels (B, C, H, W) to one output, in eval mode on the CPU.
        output: its name.
        input: what uint8 pixels (B, C, H, W) are called.
        probabilities: whether the softmax of the output is a second one, ``probabilities``.
    """

    module: nn.Module
    output: str
    input: str = "images"
    probabilities: bool = False


class PredictionOnly(nn.Module):
    """The prediction alone, whatever else a network returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """The prediction alone."""
        return prediction_of(self.network(pixels))


class _Whole(nn.Module):
    """A graph with the normalisation before it: uint8 pixels in; the output, and where asked for its softmax, out."""

    scale: Tensor
    shift: Tensor

    def __init__(self, graph: Graph, student: Student) -> None:
        super().__init__()
        self.module, self.probabilities = graph.module, graph.probabilities
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (student.mean, student.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """See the class."""
        answer: Tensor = self.module(images.float() * self.scale + self.shift)
        return (answer, answer.float().softmax(-1)) if self.probabilities else answer


def onnx_file(student: Student, form: Form) -> Made:
    """ONNX. The file's metadata are the student's: classes, mean and std, a pose student's joints and head.

    Raises:
        UserError: packages that are missing, a network that cannot be traced, or options that mean nothing for it.
    """
    missing = [name for name in _NEEDED if not installed(name)]
    if missing:
        raise UserError(
            f"export to {form.target.name} needs {' and '.join(missing)}, not installed here: "
            'pip install "classroomkd[onnx]"'
        )
    module, example, names = _parts(student, form)
    try:
        proto = _traced(module, example, *names)
    except Exception as error:  # the tracer's and the converter's own kinds, for whatever a network does
        raise UserError(_untraceable(student, "ONNX", error)) from error
    if form.with_resize:
        from classroomkd.export.resizing import prepend_resize

        prepend_resize(proto, student, names[0])
    for key, value in _about(student, form, names).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return Made(proto.SerializeToString(), names[0], names[1], int(proto.opset_import[0].version))


def program_file(student: Student, form: Form) -> Made:
    """A program of ``torch.export``, with the student's metadata in it as ``classroomkd.json``.

    Raises:
        UserError: a network that cannot be traced, or options that mean nothing for it.
    """
    if form.with_resize:
        raise UserError("--with-resize is for ONNX: name the target *.onnx, or resize as the card's lines do")
    module, example, names = _parts(student, form)
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's remarks about its own future
            program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            about = json.dumps(_about(student, form, names))
            torch.export.save(program, file, extra_files={METADATA: about})
    except Exception as error:  # as above
        raise UserError(_untraceable(student, "a program of torch.export", error)) from error
    return Made(file.getvalue(), *names)


def _parts(student: Student, form: Form) -> tuple[nn.Module, Tensor, tuple[str, tuple[str, ...]]]:
    """What is traced, with what, and the names of what goes in and comes out."""
    graph: Graph = tasks.find_row(student.task).open_files().graph(student, form.decode)
    example = torch.randint(0, 256, (2, *student.shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    if form.raw:
        if form.with_resize:
            raise UserError("--raw takes normalised floats, which are not resized; leave out --with-resize or --raw")
        return graph.module, example / 255, (RAW, (graph.output,))
    outputs = (graph.output, "probabilities") if graph.probabilities else (graph.output,)
    return _Whole(graph, student).eval(), example, (graph.input, outputs)


def _about(student: Student, form: Form, names: tuple[str, tuple[str, ...]]) -> dict[str, str]:
    """The metadata of a file: the student's, and what its graph takes and gives."""
    more: dict[str, str] = tasks.find_row(student.task).open_files().written_out(student)
    sizes = {"sizes": "any"} if form.with_resize else {}
    return {**student.metadata, **more, "input": names[0], "output": names[1][0], **sizes}


def _untraceable(student: Student, what: str, error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{student.model} cannot be written as {what}: {type(error).__name__}: {first.strip()}"


def _traced(module: nn.Module, example: Tensor, taken: str, given: Sequence[str]) -> Any:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks about its own future
        program: Any = torch.onnx.export(
            module,
            (example,),
            input_names=[taken],
            output_names=list(given),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for node in proto.graph.node:  # where in whose files each operator came from
        del node.metadata_props[:]
    return proto


def __getattr__(name: str) -> Any:
    if name == "Prediction":
        warn_old_name("classroomkd.export.graph.Prediction", "PredictionOnly")
        return PredictionOnly
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
