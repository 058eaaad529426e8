"""A small bank for tests: answers that are a function of (sample, view), and processes that can be killed."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classroomkd.bank import Codec, Dense, RowStore, fill
from classroomkd.data.images import MemoryPixels, Part
from classroomkd.data.views import FixedViews, Views, make_views

CLASSES, SIDE = 6, 8


def present(store: RowStore, views: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Which rows are there, by their checksums alone."""
    return torch.from_numpy(store.table.checksums(views.numpy(), positions.numpy()) != 0)


KEY: dict[str, Any] = {
    "mentor": "resnet20",
    "weights": "a1b2c3d4" * 8,
    "preprocessing": {"mean": [0.5], "std": [0.2]},
    "data": "0d" * 32,
    "views": "crop_flip pad=4 fill=0 flip=1 size=8x8 count=162 code=1",
    "precision": "fp32",
}


def make_part(samples: int) -> Part:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    index = torch.arange(samples)
    return Part(MemoryPixels(images), index % CLASSES, index * 3 + 1, index)


def make_space(views: int) -> Views:
    return FixedViews(make_views("crop_flip", view_seed=7, image_size=(SIDE, SIDE)), views)


def ask(pixels: Tensor) -> Mapping[str, Tensor]:
    """Each sample's answers depend on its own pixels alone, to the bit."""
    flat = pixels.flatten(1).double() / 255
    turn = torch.linspace(-3, 3, flat.shape[1] * CLASSES, dtype=torch.float64).view(flat.shape[1], CLASSES).sin()
    logits = (flat[:, :, None] * turn).sum(1)
    return {"logits": logits.float(), "@stage:-1": flat.view(-1, 3, SIDE, SIDE).float()}


def expected(part: Part, space: Views, view: int) -> Tensor:
    """What the store should hold of a view, (N, CLASSES) float16."""
    pixels, _, ids = part.batch(torch.arange(len(part)))
    return ask(space.apply(pixels, ids, torch.full_like(ids, view)))["logits"].half()


def store_at(folder: Path, samples: int, views: int, *, write: bool = True, **more: Any) -> RowStore:
    key = {**KEY, **more.pop("key", {})}
    codec: Codec = more.pop("codec", None) or Dense((CLASSES,))
    kind = more.pop("kind", "logits")
    return RowStore.open(folder, key, kind=kind, views=views, samples=samples, codec=codec, write=write, **more)


def filled(folder: Path, samples: int = 50, views: int = 3, **more: Any) -> RowStore:
    """A store for writing with every row of its parts."""
    store = store_at(folder, samples, views, **more)
    fill({"logits": store}, ask, make_part(samples), make_space(views), batch_size=16)
    return store


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.bin"))}


def all_places(samples: int, views: int) -> tuple[Tensor, Tensor]:
    return torch.arange(views).repeat_interleave(samples), torch.arange(samples).repeat(views)


def flip_bit(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a process of its own; returns its id. Exit code 0 when it raised nothing."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def slow_fill(folder: Path, samples: int, views: int, pause: float) -> int:
    """Fill with a pause in every forward; what a test kills."""

    def slow(pixels: Tensor) -> Mapping[str, Tensor]:
        time.sleep(pause)
        return ask(pixels)

    with store_at(folder, samples, views) as store:
        return fill({"logits": store}, slow, make_part(samples), make_space(views), batch_size=8)


if __name__ == "__main__":  # FOLDER SAMPLES VIEWS PAUSE: the same as a program
    torch.set_num_threads(1)
    slow_fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
