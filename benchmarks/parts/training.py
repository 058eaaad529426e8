"""Row 3: a whole training with the filling of its bank, over the student alone; one run, and five that share the bank.

V/E = 1/30 stands for 8/240: mobilenetv2, 640 images, 30 epochs, one view, the six mentors. Interleaved in
rounds: a tenth of the filling (into a bank of its own, by the engine's fast mentors), three epochs taught from a full
bank, three of the student alone, three more of it (A/A). Filling is in bf16 where the processor computes in it.
"""

from __future__ import annotations

import torch
from peers.rounds import measure
from torch import Tensor

from classroomkd import models
from classroomkd.bank import LOGITS, fill
from classroomkd.classroom import Mentor
from classroomkd.train.inputs import Inputs
from classroomkd.train.optimize import has_bf16, optimize_for_inference
from parts.figures import Figure, Found, Plan
from parts.setting import MEAN, SIDE, SIX, STD, fixed_views, images, slab_bank, stores, training

__all__ = ["rows"]

CLASSES, SHARDS, EPOCHS = 100, 10, 30
RUNS = 5


def rows(plan: Plan) -> Found:
    """See the module."""
    samples, names = 64 * SHARDS, SIX[-1:] if plan.quick else SIX
    part, space = images(samples, CLASSES), fixed_views(1)
    torch.manual_seed(0)
    blank, inputs = torch.zeros(2, 3, SIDE, SIDE), Inputs(MEAN, STD, torch.device("cpu"))
    precision = "bf16" if has_bf16("cpu") else "fp32"
    mentors = [optimize_for_inference(Mentor(models.create(n, CLASSES), n), blank, precision=precision) for n in names]
    full = stores(plan.folder / "training-full", samples, CLASSES, 1, mentors=len(names))
    empty = stores(plan.folder / "training-empty", samples, CLASSES, 1, filled=(), mentors=len(names))
    warm = training("mobilenetv2", part, 1, CLASSES, bank=slab_bank(full, part))
    alone, again = (training("mobilenetv2", part, 1, CLASSES) for _ in range(2))
    length = 1 if plan.quick else EPOCHS // SHARDS * alone.steps
    done = 0

    def filling() -> None:
        nonlocal done
        shard = done % SHARDS
        done += 1
        for mentor, store in zip(mentors, empty, strict=True):
            at = torch.arange(64 * shard, 64 * (shard + 1))
            store[LOGITS].forget(torch.zeros_like(at), at)

            def ask(pixels: Tensor, mentor: Mentor = mentor) -> dict[str, Tensor]:
                return {LOGITS: mentor(inputs(pixels)).prediction}

            asked = fill(store, ask, part, space, batch_size=64, shard=(shard, SHARDS))
            assert asked == 64

    cases = {
        "alone": lambda: alone.some(length),
        "warm": lambda: warm.some(length),
        "fill": filling,
        "again": lambda: again.some(length),
    }
    took = measure(cases, plan.turns(21), warm_up=1)

    def total(clock: int, runs: int) -> list[float]:
        together = zip(took["fill"], took["warm"], took["alone"], strict=True)
        return [(f[clock] / runs + w[clock]) / a[clock] for f, w, a in together]

    base = [a[0] / b[0] for a, b in zip(took["again"], took["alone"], strict=True)]
    steps = [w[0] / a[0] for w, a in zip(took["warm"], took["alone"], strict=True)]
    steps.sort()
    note = f"mentors in {precision}; warm steps alone {steps[len(steps) // 2]:.2f}"
    return Found(
        {
            "training_over_alone_one_run": Figure(total(0, 1), total(1, 1), base, note),
            "training_over_alone_five_runs": Figure(total(0, RUNS), total(1, RUNS), base, note),
        }
    )
