"""The ten figures from pycocotools itself, for ``--official`` and as the oracle of our own."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classroomkd._compat import installed
from classroomkd.errors import UserError
from classroomkd.tasks.pose.oks import FIGURES
from classroomkd.tasks.pose.results import as_entries
from classroomkd.tasks.pose.truth import Predictions, Truth, check_together

__all__ = ["official_ap", "official_json"]


def official_ap(truth: Truth, answers: Predictions, sigmas: Sequence[float]) -> dict[str, float]:
    """pycocotools' figures of the same people and answers; see :func:`classroomkd.tasks.pose.oks.keypoint_ap`.

    Annotations are numbered from 1: pycocotools counts whoever matches annotation 0 as a false alarm.

    Raises:
        UserError: pycocotools is not installed, or the arrays do not belong together.
    """
    assert truth.images is not None
    assert truth.crowd is not None
    check_together(truth, answers, sigmas)
    people = zip(truth.image, truth.joints, truth.area, truth.box, truth.crowd, strict=True)
    dataset = {
        "images": [{"id": i} for i in truth.images.tolist()],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": n, "image_id": int(image), "category_id": 1, "keypoints": joints.ravel().tolist(),
                "num_keypoints": int((joints[:, 2] > 0).sum()), "area": float(area), "bbox": box.tolist(),
                "iscrowd": int(crowd),
            }
            for n, (image, joints, area, box, crowd) in enumerate(people, 1)
        ],
    }  # fmt: skip
    return _run(dataset, as_entries(answers), sigmas, None if answers.area is None else answers.area.tolist())


def official_json(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]], sigmas: Sequence[float] | None = None
) -> dict[str, float]:
    """pycocotools' figures of an annotation file and a results file, both as parsed JSON; they are not changed.

    Args:
        dataset: ``images``, ``annotations``, ``categories``.
        results: a list of ``image_id``, ``category_id``, ``keypoints``, ``score``.
        sigmas: (K,) of the skeleton; None: COCO's, as pycocotools has them.

    Raises:
        UserError: pycocotools is not installed.
    """
    whole = {**dataset, "annotations": [dict(a) for a in dataset["annotations"]]}
    return _run(whole, [dict(r) for r in results], sigmas, None)


def _run(
    dataset: dict[str, Any],
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None,
    areas: Sequence[float] | None,
) -> dict[str, float]:
    if not installed("pycocotools"):
        raise UserError(
            'official scores need pycocotools, which is not installed: pip install "pycocotools>=2.0.9", or leave '
            "--official out (our own figures are the same)"
        )
    if not dataset["images"]:
        raise UserError("official scores need at least one image in the annotations")
    coco, evaluation = (importlib.import_module(f"pycocotools.{name}") for name in ("coco", "cocoeval"))
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        truth = coco.COCO()
        truth.dataset = dataset
        truth.createIndex()
        answers = truth.loadRes(results) if results else coco.COCO()  # loadRes stumbles over an empty list
        if areas is not None:
            for answer, area in zip(answers.dataset["annotations"], areas, strict=True):
                answer["area"] = area
        run = evaluation.COCOeval(truth, answers, "keypoints")
        if sigmas is not None:
            run.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(FIGURES, map(float, run.stats), strict=True))
