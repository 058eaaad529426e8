"""Row 11: peak memory of a warm training over the student alone, with 8 and with 32 views. Each is its own process.

    python benchmarks/parts/memory.py alone|8|32 FOLDER IMAGES     # what a child does: four epochs, cut short

The figure is the largest resident size that the system saw (VmHWM). The stores are those of 50,000 images, six mentors
and 100 classes: a view of them, a slab, is 60 MB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parts.figures import Figure, Found, Plan, Skipped

__all__ = ["rows"]

CLASSES, EPOCHS, STEPS = 100, 4, 6
KINDS = ("alone", "8", "32")


def peak() -> float:
    """This process's largest resident size so far, MB (10^6 bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def child(kind: str, folder: Path, samples: int) -> float:
    """Train, and say how much memory that took."""
    from parts.setting import images, slab_bank, training

    views = 8 if kind == "alone" else int(kind)
    part = images(samples, CLASSES)
    bank = None if kind == "alone" else slab_bank(_opened(folder / f"views-{kind}"), part)
    run = training("mobilenetv2", part, views, CLASSES, bank=bank, length=STEPS)
    run.some(EPOCHS * STEPS)
    return peak()


def _opened(folder: Path) -> list[dict[str, object]]:
    from classroomkd.bank import RowStore

    return [{"logits": RowStore.at(path)} for path in sorted(folder.iterdir())]


def rows(plan: Plan) -> Found:
    """See the module."""
    if not Path("/proc/self/status").exists():
        raise Skipped("only Linux says how much memory a process took at most")
    from parts.setting import fixed_views, stores

    samples = plan.size(50_000, 1000)
    for views in (8, 32):
        shown = [fixed_views(views).slot(0, epoch) for epoch in range(EPOCHS + 1)]
        for store in stores(plan.folder / f"views-{views}", samples, CLASSES, views, sorted(set(shown))):
            store["logits"].close()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(1 if plan.quick else 3):
        for kind in KINDS:
            command = [sys.executable, __file__, kind, str(plan.folder), str(samples)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[kind].append(float(done.stdout.split()[-1]))
    alone, few, many = (found[kind] for kind in KINDS)
    over = [max(a, b) - c for a, b, c in zip(few, many, alone, strict=True)]
    note = f"the student alone {sorted(alone)[len(alone) // 2]:.0f} MB; the larger of V = 8 and 32"
    return Found(
        {
            "memory_warm_over_alone_mb": Figure(over, note=note),
            "memory_32_over_8_views_mb": Figure([b - a for a, b in zip(few, many, strict=True)]),
        }
    )


if __name__ == "__main__":
    print(child(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
