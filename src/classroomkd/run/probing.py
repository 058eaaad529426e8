"""Judging networks by their features: k nearest neighbours, a linear probe, and agreement with those that taught.

Features are what the classifier reads (``@penultimate``), or the answers themselves where no single layer makes them.
Shapes: N samples, D features, C classes.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd.classroom import Mentor
from classroomkd.errors import UserError
from classroomkd.functional import vote

if TYPE_CHECKING:
    from classroomkd.data import ImageSet, Part
    from classroomkd.train.inputs import Inputs

__all__ = ["KEY", "NEIGHBOURS", "Figures", "Probed", "Samples", "probe", "samples_of", "shared_neighbours"]

NEIGHBOURS = 20
MOST = 5000  # samples whose neighbours are compared; more are thinned evenly
PLACE = "@penultimate"
KEY = "probe"  # of a run's summary
Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Seen:
    """What one network makes of samples: features (N, D) and answers (N, C), float32 on the CPU."""

    features: Tensor
    answers: Tensor


@dataclass(frozen=True, eq=False)
class Samples:
    """What networks are probed on.

    Attributes:
        fit: what neighbours and the linear probe are fitted on; None where there are no labels.
        on: what they are scored on; without labels everything there is.
    """

    fit: Part | None
    on: tuple[Part, ...]


@dataclass(frozen=True)
class Probed:
    """What a probe has found; figures by name, fractions in 0..1.

    Attributes:
        fitted, scored: samples; ``fitted`` is 0 without labels.
        students, mentors: the figures of each, in the order given.
        left_out: mentors that could not be judged, and why.
    """

    fitted: int
    scored: int
    students: list[Figures]
    mentors: dict[str, Figures]
    left_out: dict[str, str] = field(default_factory=dict)


def samples_of(images: ImageSet) -> Samples:
    """The training part's labelled samples to fit on and the test part's to score on; all, where none has a label.

    Raises:
        UserError: labels in one of these parts only, or of one class only.
    """
    train, test = (_labelled(part) for part in (images.train, images.test))
    if train is None and test is None:
        return Samples(None, tuple(part for part in (images.train, images.val, images.test) if len(part)))
    if train is None or test is None:
        has, lacks = ("test", "training") if train is None else ("training", "test")
        raise UserError(
            f"the {has} part of '{images.name}' has labels and the {lacks} part has none: a probe is fitted on "
            "labelled training images and scored on labelled test images; give data that have both: imagefolder:DIR"
        )
    if len(train.target.unique()) < 2:
        raise UserError(f"the labels of '{images.name}' are all of one class; a probe needs two at least")
    return Samples(train, (test,))


def _labelled(part: Part) -> Part | None:
    return part.subset(part.labelled.nonzero().flatten()) if bool(part.labelled.any()) else None


def look(network: nn.Module, parts: Sequence[Part], inputs: Inputs, batch_size: int = 256) -> Seen:
    """Features and answers of a network, a student or a :class:`~classroomkd.classroom.Mentor`, to whole parts.

    Raises:
        UserError: answers or features that are not finite.
    """
    asked = network if isinstance(network, Mentor) else Mentor(network, "student")
    batch, _, _ = parts[0].batch(torch.arange(min(2, len(parts[0]))))
    has_place = True
    try:
        asked.read({PLACE: "pooled"}, asked.prepare(inputs(batch), inputs.mean, inputs.std))
    except UserError:
        has_place = False
    features, answers = [], []
    for part, start in ((each, start) for each in parts for start in range(0, len(each), batch_size)):
        pixels, _, _ = part.batch(torch.arange(start, min(start + batch_size, len(part))))
        found = asked(asked.prepare(inputs(pixels), inputs.mean, inputs.std))
        answers.append(found.prediction.float().cpu())
        features.append((found.features[PLACE].flatten(1) if has_place else found.prediction.softmax(-1)).float().cpu())
    seen = Seen(torch.cat(features), torch.cat(answers))
    if not bool(seen.features.isfinite().all()) or not bool((seen.answers < math.inf).all()):
        raise UserError("some of its answers are not finite")
    return seen


def probe(
    students: Sequence[nn.Module],
    mentors: Mapping[str, Mentor],
    samples: Samples,
    inputs: Sequence[Inputs],
    neighbours: int = NEIGHBOURS,
) -> Probed:
    """Judge students, and the mentors beside them, whose answers must be of the students' classes.

    Args:
        students: networks in evaluation mode.
        mentors: by name.
        samples: of :func:`samples_of`.
        inputs: of every student; the first one's for the mentors.
        neighbours: k.

    Raises:
        UserError: scikit-learn is missing where there are labels; a student whose answers are not finite.
    """
    if samples.fit is not None:
        _sklearn()
    seen: dict[str, Seen] = {}
    figures: dict[str, Figures] = {}
    left_out: dict[str, str] = {}
    for name, mentor in mentors.items():
        try:
            seen[name], figures[name] = _one(mentor, samples, inputs[0], neighbours)
        except UserError as error:
            left_out[name] = str(error)
    voted = vote(torch.stack([its.answers for its in seen.values()])) if seen else None
    for name, its in seen.items():
        figures[name] |= _with_vote(its, voted)
    judged = []
    for student, own in zip(students, inputs, strict=True):
        mine, found = _one(student, samples, own, neighbours)
        judged.append({**found, **_with_vote(mine, voted), **_beside(mine, seen, neighbours)})
    return Probed(0 if samples.fit is None else len(samples.fit), sum(map(len, samples.on)), judged, figures, left_out)


def _one(network: nn.Module, samples: Samples, inputs: Inputs, neighbours: int) -> tuple[Seen, Figures]:
    seen = look(network, samples.on, inputs)
    if samples.fit is None:
        return seen, {}
    known = look(network, (samples.fit,), inputs)
    labels, target = samples.fit.target.cpu(), torch.cat([part.target.cpu() for part in samples.on])
    return seen, _fitted(known.features, labels, seen.features, target, neighbours)


def _fitted(known: Tensor, labels: Tensor, features: Tensor, target: Tensor, neighbours: int) -> Figures:
    """Accuracy of k nearest neighbours (cosine, weighted by nearness) and of a linear probe (features standardised)."""
    neighbors, linear, pipeline, scaler = _sklearn()
    knn = neighbors(min(neighbours, len(known)), metric="cosine", weights="distance")
    line = pipeline(scaler(), linear(max_iter=1000))
    x, y, on, truth = (tensor.numpy() for tensor in (known, labels, features, target))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a thousand steps are enough to judge by
        return {
            "k-NN": float(knn.fit(x, y).score(on, truth)),
            "linear classifier": float(line.fit(x, y).score(on, truth)),
        }


def _beside(seen: Seen, others: Mapping[str, Seen], neighbours: int) -> Figures:
    """Agreement with each of the others: of their classes, and of the nearest neighbours in their features."""
    figures: Figures = {}
    for name, other in others.items():
        figures[f"agreement with {name}"] = _alike(seen.answers.argmax(-1), other.answers.argmax(-1))
        figures[f"neighbours shared with {name}"] = shared_neighbours(seen.features, other.features, neighbours)
    return figures


def _with_vote(seen: Seen, voted: Tensor | None) -> Figures:
    return {} if voted is None else {"agreement with the vote": _alike(seen.answers.argmax(-1), voted.argmax(-1))}


def _alike(mine: Tensor, theirs: Tensor) -> float:
    return float((mine == theirs).double().mean())


def shared_neighbours(mine: Tensor, theirs: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """How many of the k nearest neighbours (cosine, a sample is none of its own) two networks have in common.

    Args:
        mine: features (N, D).
        theirs: features (N, D'), of the same samples.
        neighbours: k, at most N − 1.

    Returns:
        A share of k, the mean over samples; by chance it is k / (N − 1).
    """
    if len(mine) > MOST:
        kept = torch.arange(MOST) * len(mine) // MOST
        mine, theirs = mine[kept], theirs[kept]
    k = min(neighbours, len(mine) - 1)
    if k < 1:
        return 1.0
    both = _nearest(mine, k).unsqueeze(2) == _nearest(theirs, k).unsqueeze(1)
    return float(both.any(2).double().mean())


def _nearest(features: Tensor, k: int) -> Tensor:
    """Places (N, k) of the nearest neighbours of every row of ``features`` (N, D), by cosine, itself left out."""
    x = F.normalize(features.double(), dim=1)
    found = []
    for start in range(0, len(x), 1024):
        alike = x[start : start + 1024] @ x.T
        rows = torch.arange(len(alike))
        alike[rows, rows + start] = -2.0
        found.append(alike.topk(k, dim=1).indices)
    return torch.cat(found)


def _sklearn() -> tuple[Any, Any, Any, Any]:
    try:
        modules = [
            importlib.import_module(f"sklearn.{name}")
            for name in ("neighbors", "linear_model", "pipeline", "preprocessing")
        ]
    except ImportError as error:
        raise UserError('a probe needs scikit-learn: pip install "classroomkd[probe]"') from error
    neighbors, linear, pipeline, scaling = modules
    return neighbors.KNeighborsClassifier, linear.LogisticRegression, pipeline.make_pipeline, scaling.StandardScaler
