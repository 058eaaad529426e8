"""The resize of a student's pictures as nodes of ONNX, before a graph that takes one size.

The arithmetic of sizes is that of ``classroomkd.data.geometry``; the resampling is the runtime's, bilinear and
antialiased in floats, where Pillow rounds between the two directions: pixels may differ by a grey level or two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from classroomkd.errors import UserError

if TYPE_CHECKING:
    from classroomkd.export.student import Student

__all__ = ["prepend_resize"]

_PREFIX = "resize."


class _Nodes:
    """Nodes and constants of ONNX, one after the other."""

    def __init__(self) -> None:
        import onnx

        self.onnx: Any = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, kind: Any) -> str:
        """A constant's name."""
        name = f"{_PREFIX}constant.{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], **options: Any) -> str:
        """A node's output."""
        name = f"{_PREFIX}{kind}.{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **options))
        return name

    def whole(self, *values: int) -> str:
        """Whole numbers."""
        return self.constant(list(values), np.int64)


def prepend_resize(proto: Any, student: Student, name: str) -> None:
    """Let a graph take uint8 pictures (batch, C, height, width) of any one size.

    Args:
        proto: the graph, whose input ``name`` is uint8 (batch, C, n, n); changed in place.
        student: whose rule, ``resize``.
        name: of the input.

    Raises:
        UserError: a rule that no graph follows, or a student without a rule for other sizes.
    """
    if student.side is None or student.pose is not None:
        raise UserError("--with-resize is for students of pictures with one square size; leave it out")
    if student.resize not in _RULES:
        raise UserError(
            f"--with-resize: this student's pictures are brought to their size by resize: {student.resize}, which is "
            "not written as a graph; leave it out, and resize as the card's lines do"
        )
    fitted, made = f"{_PREFIX}fitted", _Nodes()
    _nodes_of(made, name, fitted, student.side, _RULES[student.resize])
    graph = proto.graph
    for node in graph.node:
        for place, taken in enumerate(node.input):
            if taken == name:
                node.input[place] = fitted
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made.nodes, *rest])
    graph.initializer.extend(made.constants)
    (taken,) = (entry for entry in graph.input if entry.name == name)
    for place, side in ((2, "height"), (3, "width")):
        taken.type.tensor_type.shape.dim[place].dim_param = side


def _nodes_of(made: _Nodes, name: str, out: str, side: int, rule: Callable[[_Nodes, str, str, int], str]) -> None:
    """From uint8 (B, C, h, w) to uint8 (B, C, side, side)."""
    floats = made.onnx.TensorProto.FLOAT
    shape = made.add("Shape", [name])
    outer = made.add("Slice", [shape, made.whole(0), made.whole(2)])
    inner = made.add("Slice", [shape, made.whole(2), made.whole(4)])
    sides = rule(made, "sides", inner, side)
    sizes = made.add("Concat", [outer, sides], axis=0)
    resized = made.add(
        "Resize", [made.add("Cast", [name], to=floats), "", "", sizes], mode="linear", antialias=1,
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    low, high = made.constant(0, np.float32), made.constant(255, np.float32)
    rounded = made.add("Clip", [made.add("Round", [resized]), low, high])
    fitted = rule(made, rounded, sides, side)
    made.nodes.append(made.onnx.helper.make_node("Cast", [fitted], [out], name=out, to=made.onnx.TensorProto.UINT8))


def _scaled(made: _Nodes, inner: str, side: int, longest: bool) -> str:
    """Both sides so that the shorter (or the longest) is ``side``: rounded down, or to the nearest."""
    doubles = made.onnx.TensorProto.DOUBLE
    given = made.add("Cast", [inner], to=doubles)
    by = made.add("ReduceMax" if longest else "ReduceMin", [given], keepdims=1)
    exact = made.add("Div", [made.add("Mul", [given, made.constant([side], np.float64)]), by])
    if longest:
        whole = made.add("Max", [made.add("Round", [exact]), made.constant([1], np.float64)])
    else:
        whole = made.add("Floor", [exact])
    return made.add("Cast", [whole], to=made.onnx.TensorProto.INT64)


def _half(made: _Nodes, difference: str) -> str:
    """Half of whole numbers, rounded to the even one as Python does."""
    doubles = made.add("Cast", [difference], to=made.onnx.TensorProto.DOUBLE)
    halved = made.add("Round", [made.add("Mul", [doubles, made.constant([0.5], np.float64)])])
    return made.add("Cast", [halved], to=made.onnx.TensorProto.INT64)


def _crop(made: _Nodes, what: str, sides: str, side: int) -> str:
    if what == "sides":
        return _scaled(made, sides, side, longest=False)
    start = _half(made, made.add("Sub", [sides, made.whole(side)]))
    return made.add("Slice", [what, start, made.add("Add", [start, made.whole(side)]), made.whole(2, 3)])


def _letterbox(made: _Nodes, what: str, sides: str, side: int) -> str:
    if what == "sides":
        return _scaled(made, sides, side, longest=True)
    left = made.add("Sub", [made.whole(side), sides])
    start = _half(made, left)
    pads = made.add("Concat", [start, made.add("Sub", [left, start])], axis=0)
    return made.add("Pad", [what, pads, made.constant(0, np.float32), made.whole(2, 3)])


def _stretch(made: _Nodes, what: str, sides: str, side: int) -> str:
    return made.whole(side, side) if what == "sides" else what


_RULES: dict[str, Callable[[_Nodes, str, str, int], str]] = {
    "crop": _crop,
    "letterbox": _letterbox,
    "stretch": _stretch,
}
"""Each is asked twice: for ``sides``, of a picture's (h, w) those it is resized to; then for what is kept of it."""
