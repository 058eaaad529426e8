"""Semantic segmentation of drawn figures: a task and a data source that classroomkd finds as plug-ins.

Importing this loads no torch: the row and the entry name what is loaded when it is needed.
"""

from __future__ import annotations

from classroomkd.data.sources.table import Entry
from classroomkd.tasks import TaskRow

__all__ = ["ENTRY", "ROW"]

ROW = TaskRow(
    name="segmentation",
    summary="which part of a figure each cell of a coarse grid shows",
    spec="figure_parts.spec:SegmentationSpec",
    task="figure_parts.task:Segmentation",
    runner="figure_parts.runner:SegmentationRunner",
    files="figure_parts.files:SegmentationFiles",
)

ENTRY = Entry(
    {"masks": "figure_parts.figures:open_figures"},
    "drawn figures with a mask of their parts, made on the spot",
    options={"train": (int,), "test": (int,), "seed": (int,), "image_size": (int,)},
)
