"""One rank of ``test_ranks.py``: trains every method on its share and writes the student it ends with."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from classroomkd import data, methods
from classroomkd.classroom import Classroom
from classroomkd.recipe import TrainSpec
from classroomkd.tasks import offering
from classroomkd.train.inputs import Inputs
from classroomkd.train.loop import Training
from classroomkd.train.runtime import Runtime


def net(seed: int) -> nn.Module:
    """No batch statistics: those are each rank's own by design."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 6, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10),
    ).double()  # fmt: skip


class Spare(nn.Module):
    """A network with a layer that no pass uses, as many published ones have."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.spare = inner, nn.Linear(3, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self.inner(inputs)
        return said


def cases() -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for name in (n for n, entry in methods.entries().items() if "classification" in offering(entry.asks)):
        rules = methods.entries()[name].rules
        # Projectors without batch statistics, for the same reason.
        linear = {"projector": "linear"} if "projector" in methods.options_model(name).model_fields else {}
        found += [(name, {"rule": rule, **linear}) for rule in rules] or [(name, linear)]
    found += [
        ("aekd", {"features": True, "projector": "linear"}),
        ("average", {"feature_weight": 1.0, "projector": "linear"}),
        ("dml", {"order": "gauss_seidel"}),
        ("kdml", {"order": "gauss_seidel"}),
        ("kdml", {"teacher": "frozen"}),
    ]
    return found


class Doubled(Inputs):
    """Inputs in float64, where the order of sums hardly shows."""

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().__call__(pixels).double()


# Samples and ``drop_last``: a last batch of 19 of 24 for both ranks; one of a single sample, of which a rank has none.
LASTS: dict[str, tuple[int, bool | str]] = {"uneven": (67, "auto"), "lone": (49, False)}


# Methods that teach samples without a label, and how many of these there are to one with a label in a batch.
WITHOUT_LABELS: list[tuple[str, dict[str, Any], float | None]] = [
    ("classroomkd", {}, None),
    ("classroomkd", {"rule": "batch"}, 2.0),
    ("camkd", {"unlabelled": "agreement", "feature_weight": 0}, 2.0),
    ("votes", {}, 1.0),
]


def without_labels(runtime: Runtime, images: Any, views: Any, out: Path) -> None:
    """Train on samples of which most have no label, some of them weighed down."""
    part = images.train.subset(torch.arange(67))
    part = replace(part, target=torch.where(part.ids % 3 == 0, part.target, -1))
    for name, options, ratio in WITHOUT_LABELS:
        torch.manual_seed(7)
        room = Classroom(
            net(0), [net(1), net(2)], methods.create(name, **options), image_shape=(3, 32, 32),
            register=(part.ids, part.target), unlabelled=True, outliers=0.995,
        )  # fmt: skip
        room.double()
        spec = TrainSpec(epochs=2, batch_size=24, lr=0.05, log_every=2, channels_last=False, unlabelled_ratio=ratio)
        fit = Training(
            runtime, room, part, None, views, Doubled(images.mean, images.std, runtime.device, False), spec,
            images.classes, 0, out / f"log-{runtime.rank}", measure=False,
        )  # fmt: skip
        fit.run()
        if runtime.is_zero:
            label = "-".join(["unlabelled", name, *(str(v) for v in options.values()), str(ratio)])
            save_file(dict(room.student.state_dict()), out / f"{label}-{runtime.world}.safetensors")
        runtime.barrier()


def main(out: Path, turn: int) -> None:
    """Every case with one of the last batches, in turn 1 with the other."""
    runtime = Runtime("cpu", "fp32", 1)
    images = data.load({"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}})
    views = data.make_views("crop", view_seed=0, image_size=(32, 32))
    if turn == 0:
        without_labels(runtime, images, views, out)
    for (name, options), last in zip(cases(), itertools.islice(itertools.cycle(LASTS), turn, None), strict=False):
        samples, drop = LASTS[last]
        part = images.train.subset(torch.arange(samples))
        torch.manual_seed(7)
        method = methods.create(name, **options)
        peers = {"b": Spare(net(3)), "c": net(4)} if method.needs.takes_peers else {}
        if method.needs.selves:  # a mentor each
            del peers["c"]
        room = Classroom(
            Spare(net(0)) if name == "kd" else net(0), [net(1), net(2)] if name != "none" else [], method,
            image_shape=(3, 32, 32),
            register=(part.ids, part.target), taught=[False, True], peers=peers,
            teachers=list(peers)[len(peers) - method.needs.teachers :],
        )  # fmt: skip
        room.double()
        spec = TrainSpec(epochs=2, batch_size=24, lr=0.05, log_every=2, drop_last=drop, channels_last=False)
        fit = Training(
            runtime, room, part, None, views, Doubled(images.mean, images.std, runtime.device, False), spec,
            images.classes, 0, out / f"log-{runtime.rank}", measure=last == "uneven",
        )  # fmt: skip
        fit.run()
        if runtime.is_zero:
            label = "-".join([last, name, *(str(v) for v in options.values())])
            trainees = {"": room.student, **{f"{name}.": peer for name, peer in room.peers.networks.items()}}
            # Branches share their trunk, and a file holds no tensor twice.
            tensors = {before + k: v.clone() for before, one in trainees.items() for k, v in one.state_dict().items()}
            save_file(tensors, out / f"{label}-{runtime.world}.safetensors")
        runtime.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
