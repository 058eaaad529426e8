"""``classroomkd evaluate RESULTS.json``: OKS-AP of a file of answers in COCO's results format, whoever wrote it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from classroomkd import data as data_
from classroomkd.errors import UserError
from classroomkd.tasks.pose.judging import truth_of
from classroomkd.tasks.pose.official import official_ap
from classroomkd.tasks.pose.oks import by_visibility, keypoint_ap
from classroomkd.tasks.pose.results import read_results

__all__ = ["score_results"]

_SIZE = [16, 16]  # nobody looks at the crops


def score_results(
    path: Path, source: str | None, part: str, unreadable: str, *, official: bool, trust_code: bool
) -> tuple[dict[str, Any], Callable[[], None]]:
    """The scores as plain data, and what prints them. Whose boxes the answers are about, such a file does not say.

    Args:
        path: the results.
        source: the data with the truth, at the ids that the results name.
        part: test, val, train or all.
        unreadable: images that cannot be decoded: refuse or skip.
        official: pycocotools' figures, too.
        trust_code: whether ``py:`` data may run.

    Raises:
        UserError: no data, classes instead of people, an id that two pictures have, and what ``read_results`` and
            ``data.load`` raise.
    """
    if source is None:
        raise UserError(f"{path} is a file of results; say what they are scored on: --data coco-keypoints:DIR")
    spec: dict[str, Any] = {"source": source, "unreadable": unreadable, "size": _SIZE}
    if source.partition(":")[0] in ("coco-keypoints", "mpii"):
        spec["options"] = {"memory_gib": 0}
    images = data_.load(spec, task="pose", trust_code=trust_code)
    for note in images.notes:
        print(note, file=sys.stderr)
    people, skeleton = images.people, images.skeleton
    assert people is not None
    assert skeleton is not None
    parts = [images.train, images.val, images.test] if part == "all" else [getattr(images, part)]
    ids = np.concatenate([one.ids.cpu().numpy() for one in parts])
    truth = truth_of(people, ids, bare=part in ("test", "all"))
    assert truth.images is not None
    names = np.array([picture.id for picture in people.pictures], np.int64)[np.argsort(people.numbers)][truth.images]
    if len(np.unique(names)) < len(names):
        raise UserError(f"{source}: two pictures have the same id; score the parts one by one, with --part")
    found = read_results(path, set(names.tolist()), len(skeleton))
    order = np.argsort(names)
    found = replace(found, image=truth.images[order[np.searchsorted(names[order], found.image)]])
    figures = keypoint_ap(truth, found, skeleton.sigmas)
    hidden = {name: table["AP"] for name, table in by_visibility(truth, found, skeleton.sigmas).items()}
    said = {
        "results": str(path),
        "data": images.name,
        "part": part,
        "answers": len(found.score),
        "images": len(truth.images),
        "metric": "AP",
        "metrics": figures | hidden,
        **({"official": official_ap(truth, found, skeleton.sigmas)} if official else {}),
    }
    return said, lambda: _show(said)


def _show(said: dict[str, Any]) -> None:
    figures, theirs = said["metrics"], said.get("official", {})
    print(
        f"{said['results']}: AP {figures['AP']:.2%} on {said['data']} {said['part']} ({said['answers']:,} answers, "
        f"{said['images']:,} images)"
    )
    table = Table("metric", "value", *(["pycocotools"] if theirs else []))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}", *([f"{theirs[name]:.4f}" if name in theirs else "–"] if theirs else []))
    Console().print(table)
    if theirs:
        apart = max(abs(figures[name] - value) for name, value in theirs.items())
        print(f"largest difference to pycocotools: {apart:.1e}")
