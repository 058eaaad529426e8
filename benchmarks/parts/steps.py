"""Row 1: the step with a warm bank over the student alone, the same settings: resnet8x4, mobilenetv2, 1000 classes.

Everything a training does in a step is inside: batch and augmentation, lookup, lesson, loss, record, backward, update.
An epoch's slab is read (and checked) at its beginning; a step bears its share of that.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

from peers.rounds import measure

from parts.figures import Figure, Found, Plan, ratios
from parts.setting import images, slab_bank, stores, timed, training

__all__ = ["rows"]

# figure, student, classes, images, steps a turn, rounds
CASES = (
    ("warm_over_alone_resnet8x4", "resnet8x4", 100, 50_000, 1, 21),
    ("warm_over_alone_mobilenetv2", "mobilenetv2", 100, 50_000, 3, 41),
    ("warm_over_alone_1000_classes", "mobilenetv2", 1000, 8_000, 3, 21),
)


def rows(plan: Plan) -> Found:
    """See the module."""
    return Found({case[0]: _case(plan, *case[1:]) for case in CASES})


def _case(plan: Plan, student: str, classes: int, samples: int, repeat: int, rounds: int) -> Figure:
    samples = plan.size(samples, 512)
    part = images(samples, classes)
    made = stores(plan.folder / f"slabs-{classes}", samples, classes, 2)
    warm = training(student, part, 2, classes, bank=slab_bank(made, part))
    alone, again = (training(student, part, 2, classes) for _ in range(2))
    cases = {"alone": alone, "warm": warm, "again": again}
    took = measure({name: partial(run.some, repeat) for name, run in cases.items()}, plan.turns(rounds))
    clocks = (time.process_time, time.perf_counter)
    opening = [statistics.median(timed(warm.open, clock) for _ in range(4)) for clock in clocks]
    extra = tuple(seconds * repeat / len(warm.batches) for seconds in opening)
    figure = ratios(took["warm"], took["alone"], took["again"], (extra[0], extra[1]))
    share = extra[0] / statistics.median(t[0] for t in took["warm"])
    slab = f"reading the slab, {1000 * opening[0]:.0f} ms an epoch, is {share:.2%} of a step"
    figure.note = f"{samples:,} images; {slab}"
    for store in made:
        store["logits"].close()
    return figure
