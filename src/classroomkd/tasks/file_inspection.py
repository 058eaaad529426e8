"""What is in a file or a run: a student's, anybody's weights, an ONNX graph, the students of a run folder."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classroomkd._compat import install_extra
from classroomkd.errors import UserError
from classroomkd.export.student import find_student, own_run
from classroomkd.models.about import described, preprocessing
from classroomkd.models.checkpoints import read_checkpoint
from classroomkd.report import load_summary
from classroomkd.tasks.inspection import inspect_network

__all__ = ["ENDINGS", "inspect_path"]

ENDINGS = (".safetensors", ".pth", ".pt", ".onnx")
_ABOUT = ("task", "model", "method", "seed", "data", "epochs")  # metadata of a student that are one short text


def inspect_path(path: Path, trust_code: bool, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """What ``path`` holds, as plain data: of a run folder its ``students`` too, then the student that is shipped.

    Args:
        path: a file, a seed's folder or a run folder.
        trust_code: whether a ``py:`` network may be built.
        say: is told which student is taken of several.

    Raises:
        UserError: it is gone, damaged, or none of these.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    if path.is_file():
        return _file(path, trust_code)
    run = {"students": _students(path)} if (path / "summary.json").exists() else {}
    return {**run, **_file(find_student(path, say=say), trust_code)}


def _students(run: Path) -> list[dict[str, Any]]:
    """A row a student: arm, seed, and its scores."""
    summary = load_summary(run)
    return [
        {"arm": entry.method, "seed": entry.seed, "metric": summary.metric, "test": entry.test_last}
        for entry in summary.entries
    ]


def _file(path: Path, trust_code: bool) -> dict[str, Any]:
    if path.suffix == ".onnx":
        return _graph(path)
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: what ends in {path.suffix or 'nothing'} is not looked into; {', '.join(ENDINGS)} are")
    tensors, about = read_checkpoint(path, what="file")
    found = {"file": str(path), "bytes": path.stat().st_size}
    # A mentor that a run has trained says less of itself than a student does.
    if (
        not {"model", "classes", "preprocessing"} <= about.keys()
        or preprocessing(path, about["preprocessing"]).shape is None
    ):
        return {**found, "kind": "weights", **_weights(tensors), **({"metadata": about} if about else {})}
    known = described(path, about)
    run = own_run(path)
    student = {
        **found,
        "kind": "student",
        **{key: about[key] for key in _ABOUT if about.get(key)},
        "classes": list(known.classes),
        "shape": list(known.shape),
        "mean": list(known.mean),
        "std": list(known.std),
        "size": known.size,
        "resize": known.resize,
        "run": None if run is None else str(run),
    }
    model = about["model"]
    if model.startswith("given:") or (model.startswith("py:") and not trust_code):
        return student  # only whoever has the code can build it
    shape = "x".join(map(str, known.shape))
    return {**student, "network": _network(model, about.get("task"), len(known.classes), shape, trust_code)}


def _network(model: str, task: str | None, count: int, shape: str, trust_code: bool) -> dict[str, Any]:
    from classroomkd import tasks

    name = task or tasks.DEFAULT
    return inspect_network(model, name, {tasks.describe(name).counted: count}, shape, trust_code)


def _weights(content: dict[str, Any]) -> dict[str, Any]:
    """Names and shapes of the tensors in a file of weights, wrappers looked into."""
    found: dict[str, list[int]] = {}

    def walk(value: Any, name: str) -> None:
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            found[name] = list(value.shape)
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))

    walk(content, "")
    return {
        "numbers": sum(math.prod(shape) for shape in found.values()),
        "tensors": [{"name": name, "shape": shape} for name, shape in found.items()],
    }


def _graph(path: Path) -> dict[str, Any]:
    """Inputs, outputs and metadata of an ONNX file."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(f"{path}: reading it needs onnxruntime: {install_extra('onnx')}") from error
    try:
        session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes, of many names
        raise UserError(f"{path} is no ONNX file that onnxruntime reads: {str(error).splitlines()[0]}") from error

    def ports(given: Any) -> list[dict[str, Any]]:
        return [{"name": port.name, "type": port.type, "shape": list(port.shape)} for port in given]

    about = dict(session.get_modelmeta().custom_metadata_map)
    return {
        "file": str(path), "bytes": path.stat().st_size, "kind": "onnx",
        "inputs": ports(session.get_inputs()), "outputs": ports(session.get_outputs()), "metadata": about,
    }  # fmt: skip
