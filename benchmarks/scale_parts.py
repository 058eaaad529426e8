"""What ``scale.py`` measures with the bank's real code on made-up shards: filling by several machines, bringing the
shares together, the error of keeping k logits, and what a row costs. Everything here is synthetic.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from classroomkd.bank import LOGITS, Codec, Dense, FillOnMissCache, RowStore, TopK, fill, merge, verify
from classroomkd.bank import codec as codec_of
from classroomkd.data.images import MemoryPixels, Part
from classroomkd.data.views import FixedViews, Views, make_views

SIDE = 8
KEY = {"mentor": "made-up", "weights": "0" * 64, "data": "made-up"}


def form(classes: int, k: int | None) -> Codec:
    """All logits, or the k largest."""
    return Dense((classes,)) if k is None else TopK(classes, k)


# Filling by several machines


def made_up(samples: int) -> Part:
    """Images of noise; ids are not positions."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, 3, SIDE, SIDE), dtype=torch.uint8, generator=draw)
    index = torch.arange(samples)
    return Part(MemoryPixels(images), index % 10, index * 3 + 1, index)


def space(views: int) -> Views:
    return FixedViews(make_views("crop_flip", view_seed=0, image_size=(SIDE, SIDE)), views)


def mentor(classes: int) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """A mentor whose logits depend on the pixels of one sample alone; in float64, so that no batch size shows."""
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(3 * SIDE * SIDE, classes, generator=draw, dtype=torch.float64)

    def ask(pixels: Tensor) -> Mapping[str, Tensor]:
        flat = pixels.flatten(1).double()
        flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)
        logits = 2.0 * flat @ weights / flat.shape[1] ** 0.5
        return {LOGITS: logits.scatter_add(1, logits.argmax(1, keepdim=True), torch.full((len(flat), 1), 6.0).double())}

    return ask


class Stopped(Exception):
    """A machine that was stopped."""


def simulate(root: Path, *, samples: int, machines: int, views: int, classes: int, k: int | None) -> dict[str, Any]:
    """``machines`` folders are filled a share each, one of them stopped half way and started again, then merged.

    Returns:
        Counts, bytes of the real files, and whether the merged store holds what one machine alone would have stored.
    """
    part, views_of, said, codec = made_up(samples), space(views), mentor(classes), form(classes, k)
    asked = 0

    def store(folder: Path, first: int = 0, last: int | None = None) -> RowStore:
        return RowStore.open(
            folder, KEY, kind=LOGITS, views=views, samples=samples, codec=codec, write=True, first=first, last=last
        )

    def counting(pixels: Tensor) -> Mapping[str, Tensor]:
        nonlocal asked
        if asked == stop:
            raise Stopped
        asked += len(pixels)
        return said(pixels)

    folders, stop, batch = [root / f"machine-{k}" for k in range(machines)], -1, 64
    for m, folder in enumerate(folders):
        first, last = (i * samples // machines for i in (m, m + 1))
        stop = asked + batch * max((last - first) * views // batch // 2, 1) if m == 1 else -1
        for _ in range(2):
            with store(folder, first, last) as own:
                try:
                    fill({LOGITS: own}, counting, part, views_of, batch_size=batch)
                except Stopped:
                    stop = -1
    together = root / "together"
    merge(folders, together)
    with store(root / "alone") as alone, RowStore.at(together) as found:
        fill({LOGITS: alone}, said, part, views_of, batch_size=batch)
        index = torch.arange(samples)
        pairs = [[s.read(torch.full_like(index, v), index) for s in (alone, found)] for v in range(views)]
        same = all(bool(a_ok.all() and b_ok.all()) and torch.equal(a, b) for (a, a_ok), (b, b_ok) in pairs)
        spans = [(span.first, span.last, span.rows) for span in found.manifest.parts]
        by_range = all(
            torch.equal(ranged(together / rows, codec, view, at - first, last - first), pairs[view][1][0][at])
            for first, last, rows in spans
            for view in range(views)
            for at in (first, last - 1)
        )
    checked = verify(together)
    return {
        "samples": samples,
        "machines": machines,
        "views": views,
        "form": codec.definition,
        "asked": asked,
        "rows": checked.good,
        "damaged": checked.damaged,
        "parts": len(spans),
        "row_bytes": sum(path.stat().st_size for path in together.glob("rows-*")),
        "word_bytes": sum(path.stat().st_size for path in together.glob("sums-*")),
        "manifest_bytes": (together / "manifest.json").stat().st_size,
        "same_as_one_machine": same,
        "read_by_address": by_range,
    }


def ranged(file: Path, codec: Codec, view: int, place: int, length: int) -> Tensor:
    """One row by its address in a part's file: what a ranged read of an object would bring."""
    with file.open("rb") as content:
        content.seek((view * length + place) * codec.row_bytes)
        row = bytearray(content.read(codec.row_bytes))
    return codec.decode(torch.frombuffer(row, dtype=torch.uint8)[None])[0]


# What keeping k logits changes


@dataclass(frozen=True)
class Spread:
    """How made-up logits are spread: N(0, background²) everywhere, the group of 20 classes around the right one raised
    by ``group`` * |N(0, 1)| each, and the right one by N(top, 3²)."""

    name: str
    background: float
    group: float
    top: float


SPREADS = (Spread("sure", 2.0, 2.0, 13.5), Spread("middling", 2.0, 2.0, 10.5), Spread("unsure", 2.0, 2.0, 8.0))


def logits_of(spread: Spread, samples: int, classes: int, draw: torch.Generator) -> Tensor:
    """(samples, classes) float32."""
    logits = spread.background * torch.randn(samples, classes, generator=draw)
    right = torch.randint(0, classes, (samples, 1), generator=draw)
    near = torch.arange(classes) // 20 == right // 20
    logits += near * spread.group * torch.randn(samples, classes, generator=draw).abs()
    return logits.scatter_add(1, right, spread.top + 3.0 * torch.randn(samples, 1, generator=draw))


def compared(given: Tensor, kept: Tensor, students: Mapping[str, Tensor], temperature: float) -> dict[str, float]:
    """KL(given ‖ kept) in nats, and for each student the cosine between the gradients of T² KL(mentor ‖ student) to its
    logits with what was given and what was kept, (B, C) all; means over samples, and the worst hundredth."""
    p, q = ((x.double() / temperature).log_softmax(1) for x in (given, kept))
    kl = (p.exp() * (p - q)).sum(1)
    found = {"kl": kl.mean().item(), "kl_99": kl.quantile(0.99).item()}
    for name, logits in students.items():
        own = (logits.double() / temperature).softmax(1)
        cosine = torch.cosine_similarity(own - p.exp(), own - q.exp(), dim=1)
        found |= {f"cosine_{name}": cosine.mean().item(), f"cosine_{name}_01": cosine.quantile(0.01).item()}
    return {key: float(f"{value:.5g}") for key, value in found.items()}


def error_of_top_k(samples: int, classes: int, kept: list[int | None]) -> list[dict[str, Any]]:
    """For each spread and form: row bytes and the error at T = 1 and 4, through the real encoder and decoder.

    Two made-up students: ``new``, whose logits are N(0, 0.5²), and ``late``, 0.8 of the mentor's logits and N(0, 1).
    """
    rows = []
    for spread in SPREADS:
        draw = torch.Generator().manual_seed(0)
        given = logits_of(spread, samples, classes, draw)
        noise = torch.randn(given.shape, generator=draw)
        students = {"new": 0.5 * noise, "late": 0.8 * given + noise}
        p = given.softmax(1)
        about = {
            "spread": spread.name,
            "top_probability": p.amax(1).mean().item(),
            "entropy": -(p * p.clamp_min(1e-30).log()).sum(1).mean().item(),
        }
        for k in kept:
            codec = form(classes, k)
            back = codec.decode(codec.encode(given)).float()
            found = {f"T={t}": compared(given, back, students, t) for t in (1, 4)}
            rows.append({**about, "form": codec.definition, "bytes": codec.row_bytes + 4, **found})
    return rows


# What a row costs


def row_costs(root: Path, codec: Codec, samples: int = 4096, rounds: int = 7) -> dict[str, Any]:
    """CPU microseconds a row, [median, quartiles] over rounds: storing 256 at a time, reading 64 anywhere, reading a
    view in one piece. One thread; the files are in the system's cache."""
    classes = codec.shape[0]
    values = torch.randn(samples, classes, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(1))
    zero, out = torch.zeros(samples, dtype=torch.int64), torch.empty(samples, classes, dtype=torch.float16)
    store = RowStore.open(
        root / codec.definition.replace(" ", "-"),
        KEY,
        kind=LOGITS,
        views=1,
        samples=samples,
        codec=codec,
        write=True,
        mapped=True,
    )

    def put() -> None:
        for index in torch.arange(samples).split(256):
            store.write(zero[: len(index)], index, values[index])

    def get() -> None:
        for index in order.split(64):
            store.read(zero[: len(index)], index)

    with store:
        return {
            "form": codec.definition,
            "store": _micro(put, samples, rounds),
            "read": _micro(get, samples, rounds),
            "slab": _micro(lambda: store.slab(0, out), samples, rounds),
        }


def _micro(work: Callable[[], Any], rows: int, rounds: int) -> list[float]:
    work()
    took = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        took.append(1e6 * (time.process_time() - start) / rows)
    low, middle, high = statistics.quantiles(took, n=4)
    return [round(middle, 2), round(low, 2), round(high, 2)]


# What a sample costs in a process's memory, asked or not


def memory_a_sample(root: Path, few: int = 2_000_000, many: int = 8_000_000) -> dict[str, float]:
    """Bytes of peak memory for each sample of the data, whatever a row holds: the slope between two sizes, each in a
    process of its own."""
    found = {}
    for what in ("fill", "read"):
        peaks = []
        for samples in (few, many):
            command = [sys.executable, __file__, what, str(samples), str(root / f"{what}-{samples}")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(int(done.stdout))
        found[what] = round((peaks[1] - peaks[0]) / (many - few), 1)
    return found


class _One:
    count, name = 1, "one"


def _peak(what: str, samples: int, folder: Path) -> int:
    """Peak resident bytes after one step over a store whose rows are all there."""
    codec = codec_of("top-1 of 1000")
    store = RowStore.open(folder, KEY, kind=LOGITS, views=1, samples=samples, codec=codec, write=True)
    word = torch.ones(1 << 16, dtype=torch.int32).numpy().tobytes()
    with (folder / "sums-00000.bin").open("r+b") as file:
        for start in range(0, 4 * samples, len(word)):
            file.write(word[: 4 * samples - start])
    if what == "fill":  # only lengths are looked at, since nothing is missing
        done = fill({LOGITS: store}, lambda pixels: {}, cast(Part, range(samples)), cast(Views, _One()), batch_size=1)
        assert done == 0
    else:
        FillOnMissCache([{LOGITS: store}], torch.arange(samples), torch.device("cpu"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(_peak(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
