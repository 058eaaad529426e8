"""A student as an ONNX file, for any batch size, compared with torch where onnxruntime is installed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classroomkd import tasks
from classroomkd._compat import installed
from classroomkd._files import atomic_write_bytes
from classroomkd._renamed import warn_old_name
from classroomkd.classroom import prediction_of
from classroomkd.errors import RunStopped, UserError
from classroomkd.export.student import Student

__all__ = ["Exported", "Graph", "PredictionOnly", "export_onnx"]


def __getattr__(name: str) -> Any:
    if name == "Prediction":
        warn_old_name("classroomkd.export.graph.Prediction", "PredictionOnly")
        return PredictionOnly
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


_NEEDED = ("onnx", "onnxscript")
_BATCHES = (1, 2, 5)  # compared; the graph is made from a batch of 2
_NEAR = 1e-3  # of the largest answer
_SAME = 0.98  # share of joints; a peak that is nearly as high as another may be read as either


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        output: name of the graph's one output: ``logits``, ``answer`` (undecoded) or ``joints`` (B, K, 3).
        opset: of ONNX.
        difference: the largest between onnxruntime's and torch's numbers; None where onnxruntime is not installed.
    """

    path: Path
    output: str
    opset: int
    difference: float | None


@dataclass(frozen=True)
class Graph:
    """What becomes a graph.

    Attributes:
        module: normalised pixels (B, C, H, W) to one output, in eval mode on the CPU.
        output: its name.
        readings: whether a row of the output's last dimension is read off an answer as a whole, so that nearly equal
            answers may give a few other rows.
    """

    module: nn.Module
    output: str
    readings: bool = False


class PredictionOnly(nn.Module):
    """The prediction alone, whatever else a network returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """The prediction alone."""
        return prediction_of(self.network(pixels))


def export_onnx(student: Student, target: Path, *, decode: Literal["inside", "outside"] | None = None) -> Exported:
    """Write ``target``: input ``pixels`` (batch, C, H, W) float32, normalised as the student's file says.

    The file's metadata are the student's: classes, mean and std, a pose student's joints and head.

    Args:
        student: of :func:`classroomkd.export.load_student`.
        target: the file.
        decode: of a pose student: ``inside`` (the default): the output is (batch, K, 3), x and y in pixels of the crop
            and a score; ``outside``: the network's own answer.

    Raises:
        UserError: packages that are missing, a network that cannot be traced, ``decode`` for classes.
        RunStopped: onnxruntime's answers are not torch's.
    """
    missing = [name for name in _NEEDED if not installed(name)]
    if missing:
        raise UserError(
            f"export to {target.name} needs {' and '.join(missing)}, not installed here: "
            'pip install "classroomkd[onnx]"'
        )
    graph: Graph = tasks.find_row(student.task).open_files().graph(student, decode)
    try:
        proto = _traced(graph.module, _inputs(student, 2), graph.output)
    except Exception as error:  # the tracer's and the converter's own kinds, for whatever a network does
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{student.model} cannot be written as ONNX: {type(error).__name__}: {first.strip()}"
        ) from error
    for key, value in {**student.metadata, "output": graph.output}.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content = proto.SerializeToString()
    difference = _compared(graph, content, student) if installed("onnxruntime") else None
    atomic_write_bytes(target, content)
    return Exported(target, graph.output, int(proto.opset_import[0].version), difference)


def _inputs(student: Student, batch: int) -> Tensor:
    """Noise in the student's normalised space, always the same."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (student.mean, student.std))
    pixels = torch.rand(batch, *student.shape, generator=torch.Generator().manual_seed(batch))
    return ((pixels - mean) / std).contiguous()


def _traced(module: nn.Module, example: Tensor, output: str) -> Any:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks about its own future
        program: Any = torch.onnx.export(
            module,
            (example,),
            input_names=["pixels"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for node in proto.graph.node:  # where in whose files each operator came from
        del node.metadata_props[:]
    return proto


def _session(content: bytes) -> Callable[[Tensor], Tensor]:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


@torch.no_grad()
def _compared(graph: Graph, content: bytes, student: Student) -> float:
    """The largest difference between both, over several batch sizes."""
    run, worst = _session(content), 0.0
    for batch in _BATCHES:
        pixels = _inputs(student, batch)
        ours, theirs = graph.module(pixels), run(pixels)
        if ours.shape != theirs.shape:
            raise RunStopped(f"the ONNX graph answers {tuple(theirs.shape)} where torch answers {tuple(ours.shape)}")
        apart = (ours - theirs).abs()
        near = apart <= _NEAR * ours.abs().max().clamp_min(1)
        if graph.readings:
            same = near.all(-1)
            agrees, apart = float(same.float().mean()) >= _SAME, apart[same]
        else:
            agrees = bool(near.all())
        if not agrees:
            raise RunStopped(
                f"the ONNX graph answers otherwise than torch: {float((ours - theirs).abs().max()):.3g} apart at a "
                f"batch of {batch}; nothing was written"
            )
        worst = max(worst, float(apart.max()))
    return worst
