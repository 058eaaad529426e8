"""Row 10: crop, flip and normalise a batch of 128 from memory at once, over PIL and torchvision image by image.

The peer is the usual CIFAR pipeline: an array of images, ``Image.fromarray``, pad-4 random crop, random flip, tensor,
normalise, collated by a DataLoader without workers (workers move the work, they do not lessen it). Samples per
CPU-second.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from peers.rounds import measure
from torch.utils.data import DataLoader, Dataset

from classroomkd._compat import import_torchvision, installed
from classroomkd.data import make_views
from classroomkd.train.inputs import Batches, Inputs
from parts.figures import Figure, Found, Plan, Skipped
from parts.setting import MEAN, SIDE, STD, images

__all__ = ["rows"]

B = 128


def rows(plan: Plan) -> Found:
    """See the module."""
    if not installed("torchvision"):
        raise Skipped("torchvision, whose transforms are the peer, is not installed")
    import_torchvision("the peer")
    from PIL import Image
    from torchvision import transforms

    samples = plan.size(20_000, 1024)
    part = images(samples, 100)
    arrays = part.pixels.fetch(part.rows).permute(0, 2, 3, 1).contiguous().numpy()
    usual = transforms.Compose(
        [
            transforms.RandomCrop(SIDE, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    class Usual(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return samples

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return usual(Image.fromarray(arrays[index])), int(part.target[index])

    batches = Batches(part, make_views("crop_flip", view_seed=0, image_size=(SIDE, SIDE)), B, 0)
    inputs = Inputs(MEAN, STD, torch.device("cpu"))

    def ours() -> Iterator[object]:
        epoch = 0
        while True:
            for batch in batches.epoch(epoch):
                yield inputs(batch["pixels"])
            epoch += 1

    def theirs() -> Iterator[object]:
        while True:
            yield from DataLoader(Usual(), batch_size=B, shuffle=True, num_workers=0, drop_last=True)

    mine, peer = ours(), theirs()

    def several(source: Iterator[object], count: int) -> None:
        for _ in range(count):
            next(source)

    cases = {
        "peer": lambda: several(peer, 2),
        "again": lambda: several(peer, 2),
        "ours": lambda: several(mine, 20),
    }
    took = measure(cases, plan.turns(21))
    cpu, wall = (
        [10 * a[clock] / b[clock] for a, b in zip(took["peer"], took["ours"], strict=True)] for clock in (0, 1)
    )
    again = [a[0] / b[0] for a, b in zip(took["again"], took["peer"], strict=True)]
    rate = 20 * B / sorted(t[0] for t in took["ours"])[len(took["ours"]) // 2]
    return Found({"at_least_crops_over_pil": Figure(cpu, wall, again, f"{rate:,.0f} samples per CPU-second")})
