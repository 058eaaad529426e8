"""One rank of ``test_ranks.py``: trains every method on its share and writes the student it ends with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from classroomkd import data, methods, tasks
from classroomkd.classroom import Classroom
from classroomkd.engine import Fit, Inputs, Runtime
from classroomkd.recipe import TrainSpec


def net(seed: int) -> nn.Module:
    """No batch statistics: those are each rank's own by design."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10)).double()


def cases() -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    for name in methods.names():
        rules = methods.entries()[name].rules
        found += [(name, {"rule": rule}) for rule in rules] or [(name, {})]
    return found


class Doubled(Inputs):
    """Inputs in float64, where the order of sums hardly shows."""

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().__call__(pixels).double()


def main(out: Path) -> None:
    runtime = Runtime("cpu", "fp32", 1)
    images = data.load({"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}})
    views = data.make_views("crop", view_seed=0, image_size=(32, 32))
    for name, options in cases():
        room = Classroom(net(0), [net(1), net(2)] if name != "none" else [], methods.create(name, **options))
        object.__setattr__(room, "_task", tasks.create("classification"))
        spec = TrainSpec(epochs=2, batch_size=24, lr=0.05, log_every=2, drop_last=True, channels_last=False)
        fit = Fit(
            runtime, room, images.train, None, views, Doubled(images.mean, images.std, runtime.device, False), spec,
            images.classes, 0, out / f"log-{runtime.rank}", measure=False,
        )  # fmt: skip
        fit.run()
        if runtime.is_zero:
            label = "-".join([name, *options.values()])
            save_file(dict(room.student.state_dict()), out / f"{label}-{runtime.world}.safetensors")
        runtime.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
