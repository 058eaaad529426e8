"""Row 4: how many questions ``exact`` asks the mentors, of those that online training asks: a count.

The views are those that ``classroomkd.data.views`` picks in 240 epochs, and in five trainings; the stores and the
bank are the real ones; the mentor is one matrix. Expected from 162 equally likely views: 0.522 and 0.135.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classroomkd.bank import LOGITS, Dense, FillOnMissCache, RowStore
from classroomkd.data import make_views
from parts.figures import Figure, Found, Plan
from parts.setting import SIDE, images

__all__ = ["asked", "rows"]

CLASSES = 2


def asked(plan: Plan, samples: int, epochs: int, trainings: int, batch: int = 500) -> list[float]:
    """After each training, mentor forwards done so far over epochs times samples times trainings."""
    part = images(samples, CLASSES)
    space = make_views("crop_flip", view_seed=0, image_size=(SIDE, SIDE))
    assert space.count == 162
    store = RowStore.open(
        plan.folder / f"exact-{samples}-{epochs}",
        {"mentor": "counted"},
        kind=LOGITS,
        views=space.count,
        samples=samples,
        codec=Dense((CLASSES,)),
        write=True,
    )
    bank = FillOnMissCache([{LOGITS: store}], part.ids, torch.device("cpu"))
    forwards, shares = 0, []
    for seed in range(trainings):
        for epoch in range(epochs):
            for start in range(0, samples, batch):
                ids = part.ids[start : start + batch]
                views = space.pick(seed, ids, epoch)

                def answer(mentor: int, rows: Tensor, ids: Tensor = ids, views: Tensor = views) -> dict[str, Tensor]:
                    nonlocal forwards
                    forwards += len(rows)
                    return {LOGITS: torch.stack([ids[rows] % 128, views[rows]], 1).float()}

                bank.stage(ids, views, answer)
                said = bank.lookup(ids, views)[0]
                assert bool((said == torch.stack([ids % 128, views], 1)).all()), "another sample's or view's answer"
        shares.append(forwards / (epochs * samples * (seed + 1)))
    assert bank.asked == [forwards]
    assert store.count() == forwards
    store.close()
    return shares


def rows(plan: Plan) -> Found:
    """See the module."""
    samples = plan.size(1000, 100)
    shares = asked(plan, samples, 240, 5)
    later = shares[4] * 5 - shares[3] * 4
    note = f"a count over {samples:,} samples, no noise"
    return Found(
        {
            "exact_forwards_240_epochs": Figure([shares[0]], note=note),
            "exact_forwards_five_trainings": Figure([shares[4]], note=f"{note}; the fifth alone asks {later:.3f}"),
        }
    )
