"""An exported ONNX file read back as a student, from what its own metadata say; onnxruntime answers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classroomkd._compat import installed
from classroomkd.errors import UserError

__all__ = ["OnnxNetwork", "open_onnx"]


class OnnxNetwork(nn.Module):
    """The graph of an ONNX file: its first output to a batch.

    A graph of uint8 pixels is given what is in 0..255; see :func:`open_onnx`.
    """

    def __init__(self, session: Any, taken: str, output: str, pixels: bool) -> None:
        super().__init__()
        self.session, self.taken, self.output, self.pixels = session, taken, output, pixels

    def forward(self, inputs: Tensor) -> Tensor:
        """Answers (B, …) on the device of the inputs."""
        values = inputs.detach().cpu()
        values = values.round().clamp(0, 255).to(torch.uint8) if self.pixels else values.float()
        (answer,) = self.session.run([self.output], {self.taken: values.contiguous().numpy()})
        return torch.from_numpy(answer).to(inputs.device)


def open_onnx(path: Path) -> tuple[OnnxNetwork, dict[str, str], bool]:
    """A file's network, its metadata, and whether it normalises itself: its inputs are then pixels in 0..255.

    Raises:
        UserError: onnxruntime is not installed, it is no such file, or not one of this package's.
    """
    if not installed("onnxruntime"):
        raise UserError(f'{path} needs onnxruntime, not installed here: pip install "classroomkd[onnx]"')
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as ONNX: {first}; export it again, or take another copy") from error
    about: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
    if "output" not in about or "model" not in about:
        raise UserError(f"{path} is not an ONNX file of this package: its metadata lack what it is; export it again")
    taken = session.get_inputs()[0]
    if about["output"] not in {found.name for found in session.get_outputs()}:
        raise UserError(f"{path} has no output '{about['output']}', which its metadata name; export it again")
    pixels = taken.type == "tensor(uint8)"
    return OnnxNetwork(session, taken.name, about["output"], pixels).eval(), about, pixels
