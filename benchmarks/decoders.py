"""What a perfect network would lose by its coding: round-trip errors of targets and decoders, and of translations.

    python benchmarks/decoders.py     # seconds

Joints lie evenly in the crop, at least three sigmas of a heatmap's Gaussian from the border; a network that answers
exactly its target is decoded. Errors are in pixels of the crop; OKS with COCO's sigmas, of a person whose box fills the
crop but for its margin of 1.25 and who covers 0.53 of the box. The second table:
such a mentor, translated for a student of another head or input size, decoded in the student's answer space; fit is the
mentor's mean credibility there. Writes ``results/decoders.json``.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch
from torch import Tensor

from classroomkd.data.skeleton import COCO
from classroomkd.functional.heatmaps import cell_sigma
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC
from classroomkd.tasks.pose.translation import Translation, region

HERE = Path(__file__).parent
PERSONS, SIZES = 400, ((256, 192), (128, 96), (64, 64))


def people(size: tuple[int, int]) -> Tensor:
    """Targets (persons, 17, 3), far enough from the border."""
    chance = torch.Generator().manual_seed(0)
    margin = 3 * 4 * cell_sigma(size[0] // 4) + 0.5
    span = torch.tensor([size[1] - 1.0, size[0] - 1.0]) - 2 * margin
    place = torch.rand(PERSONS, 17, 2, generator=chance) * span + margin
    return torch.cat([place, torch.full((PERSONS, 17, 1), 2.0)], -1)


def errors(coding: Coding, answer: Tensor, target: Tensor) -> dict[str, float]:
    """Mean and 95th percentile of the distance, px, and the mean OKS."""
    far = (coding.decode(answer)[..., :2] - target[..., :2]).norm(dim=-1)
    area = 0.53 / 1.25**2 * coding.size[0] * coding.size[1]
    oks = torch.exp(far.square() / (-2 * area * (2 * torch.tensor(COCO.sigmas)).square()))
    return {
        "mean": round(far.mean().item(), 3),
        "p95": round(far.flatten().quantile(0.95).item(), 3),
        "oks": round(oks.mean().item(), 4),
    }


def codings(size: tuple[int, int]) -> dict[str, Coding]:
    """By name: what stands in the table."""
    return {
        "heatmap, rounded centre, argmax": Heatmap(size, 17, rounded=True, decoder="argmax"),
        "heatmap, rounded centre, +0.25": Heatmap(size, 17, rounded=True, decoder="quarter"),
        "heatmap, unrounded, argmax": Heatmap(size, 17, decoder="argmax"),
        "heatmap, unrounded, +0.25": Heatmap(size, 17, decoder="quarter"),
        "heatmap, unrounded, DARK (default)": Heatmap(size, 17),
        "SimCC, split 1, argmax": SimCC(size, 17, split=1.0),
        "SimCC, split 2, argmax (default)": SimCC(size, 17),
        "SimCC, split 3, argmax": SimCC(size, 17, split=3.0),
    }


def translated(theirs: Coding, own: Coding) -> dict[str, object]:
    """A perfect mentor of one coding in a student's."""
    target = people(own.size)
    a, b_x, b_y = region(own.size, theirs.size)
    seen = target * torch.tensor([a, a, 1.0]) + torch.tensor([b_x, b_y, 0.0])
    said = Translation(theirs, own)(theirs.ideal(seen))
    fit = own.log_fit(said, target, COCO.sigmas).exp().mean().item()
    names = {"mentor": name(theirs), "student": name(own)}
    return {**names, **errors(own, said, target), "fit": round(fit, 4)}


def name(coding: Coding) -> str:
    """Head and input size."""
    return f"{coding.kind} {coding.size[0]}x{coding.size[1]}"


def main() -> None:
    """Measure and write."""
    trips = [
        {"size": f"{size[0]}x{size[1]}", "coding": label, **errors(coding, coding.ideal(people(size)), people(size))}
        for size in SIZES
        for label, coding in codings(size).items()
    ]
    heads = (SimCC, Heatmap)
    sizes = [((256, 192), (256, 192)), ((256, 192), (128, 96)), ((128, 96), (256, 192)), ((128, 96), (64, 64))]
    across = [
        translated(theirs(their_size, 17), own(own_size, 17))
        for own in heads
        for theirs in heads
        for their_size, own_size in sizes
        if theirs is not own or their_size != own_size
    ]
    record = {
        "command": "python benchmarks/decoders.py",
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "joints": PERSONS * 17,
        "rows": trips,
        "translations": across,
    }
    (HERE / "results" / "decoders.json").write_text(json.dumps(record, indent=1) + "\n")
    for row in trips + across:
        print("  ".join(str(value) for value in row.values()))


if __name__ == "__main__":
    main()
