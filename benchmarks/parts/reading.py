"""Row 9: reading a batch of 64 from the bank: warm over one file per sample, and cold with read-ahead.

One file per sample is what torchdistill's cache does: ``torch.save`` and ``torch.load`` of one sample's answers. Cold:
the system is told to drop the stores' pages, an epoch's slab is announced (as a training does an epoch ahead), then
read, checked and gathered from; the figure is the wall time per batch of 64, slab included. Every round reads two
slabs so, and A/A is one over the other: how far the disk and the system agree with themselves.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peers.rounds import measure

from classroomkd.bank import EpochCache, RowStore
from parts.figures import Figure, Found, Plan, ratios
from parts.setting import SIX, images, slab_bank, stores, timed

__all__ = ["rows"]

B, C, FILES, REPEAT = 64, 100, 2048, 200
AHEAD = 1.0  # seconds between announcing a slab and reading it; a training leaves a whole epoch


def _files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(FILES):
        torch.save(torch.randn(len(SIX), C).half(), folder / f"{i}.pt")


def _device_reads() -> int:
    """Bytes that this process had the disk read so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _drop(made: Sequence[Mapping[str, RowStore]]) -> None:
    """Have the system forget the stores' pages."""
    for found in made:
        for path in found["logits"].folder.glob("*.bin"):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def _cold(bank: EpochCache, view: int) -> tuple[float, float, int]:
    """Wall and CPU seconds of an announced slab whose pages the system had dropped; bytes asked of the disk."""
    _drop(bank.stores)
    before = _device_reads()
    for found in bank.stores:
        found["logits"].read_ahead(view)
    time.sleep(AHEAD)
    wall, cpu = time.perf_counter(), time.process_time()
    bank.begin(view)
    return time.perf_counter() - wall, time.process_time() - cpu, _device_reads() - before


def rows(plan: Plan) -> Found:
    """See the module."""
    samples = plan.size(50_000, 2048)
    part = images(samples, C)
    made = stores(plan.folder / f"slabs-{C}", samples, C, 2)
    bank = slab_bank(made, part)
    bank.begin(0)
    _files(plan.folder / "files")
    ids, views = torch.randint(samples, (REPEAT, B)), torch.zeros(B, dtype=torch.int64)
    names = torch.randint(FILES, (REPEAT, B)).tolist()
    turn = 0

    def read() -> None:
        for row in ids:
            bank.lookup(row, views)

    def load() -> None:
        nonlocal turn
        turn += 1
        rows = [torch.load(plan.folder / "files" / f"{i}.pt", weights_only=True) for i in names[turn % REPEAT]]
        torch.stack(rows, 1).float()

    took = measure({"files": load, "again": load, "bank": read}, plan.turns(21))
    warm = ratios([(a / REPEAT, b / REPEAT) for a, b in took["bank"]], took["files"], took["again"])
    found = Found({"bank_read_over_files": warm})
    lookup = [timed(read, clock) / REPEAT for clock in (time.perf_counter, time.process_time)]
    reads = [_cold(bank, (i + 1) % 2) for i in range(2 * plan.turns(21))]
    batches, slab = samples / B, samples * len(SIX) * 2 * C
    cold = [1000 * (wall / batches + lookup[0]) for wall, _, _ in reads]
    work = [1000 * (cpu / batches + lookup[1]) for _, cpu, _ in reads]
    # Each of the two views is the base in every second round.
    pairs = [cold[i : i + 2][:: 1 if i % 4 else -1] for i in range(0, len(cold), 2)]
    read_share = sum(device for _, _, device in reads) / (slab * len(reads))
    if bank.slabs.shape[1] == 1 and read_share < 0.9:
        found.missing["bank_cold_ms_per_64"] = (
            f"the pages could not be dropped: the disk was asked for {read_share:.0%} of what was read"
        )
    else:
        note = (
            f"announced {AHEAD:.0f} s ahead; the disk delivered {read_share:.2f} of the slab's {slab / 1e6:.0f} MB; "
            f"CPU time {statistics.median(work):.2g} ms, of which looking up {1000 * lookup[1]:.2g} ms"
        )
        found.figures["bank_cold_ms_per_64"] = Figure(
            [base for base, _ in pairs], again=[other / base for base, other in pairs], note=note
        )
    for store in made:
        store["logits"].close()
    return found
