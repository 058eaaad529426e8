from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from classroomkd.data import FilePixels, FixedViews, MemoryPixels, Part, load, make_views
from classroomkd.data.views.base import Views
from classroomkd.data.views.mixup import WHOLE, Mixup
from classroomkd.errors import UserError
from classroomkd.train.inputs import Batches

SIDE = 12


def flat_part(levels: Tensor) -> Part:
    """Images of one level each, so that a mixed pixel tells who is in it; the middle is never padding."""
    index = torch.arange(len(levels))
    pixels = levels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).contiguous()
    return Part(MemoryPixels(pixels), index % 5, index * 10 + 3, index)


def mixup(part: Part | None = None, view_seed: int = 0) -> Mixup:
    made: Views = make_views("mixup", view_seed=view_seed, image_size=(SIDE, SIDE))
    made = made if part is None else made.over(part)
    assert isinstance(made, Mixup)
    return made


def middle(pixels: Tensor) -> Tensor:
    return pixels[:, 0, SIDE // 2, SIDE // 2].double()


def test_pixels_are_the_shares_of_the_sample_and_its_partner() -> None:
    levels = torch.arange(200) + 30
    part = flat_part(levels)
    pixels, target, ids = part.batch(torch.arange(200))
    space = mixup(part)
    picked = space.pick(0, ids, 4)
    place, share = space.pairs(ids, picked)
    own = share.double() / WHOLE
    shown, label = space.render(pixels, target, ids, picked)
    assert (middle(shown) - (own * levels + (1 - own) * levels[place])).abs().max() <= 0.501
    # Whose share is larger says what it is: the label is the sample's own.
    assert label is target
    assert (own >= 0.5).all()
    assert ((middle(shown) - levels).abs() <= (middle(shown) - levels[place]).abs() + 1.01).all()


def test_the_larger_share_is_uniform_and_every_sample_as_likely_a_partner() -> None:
    part = flat_part(torch.arange(100))
    ids = torch.arange(20_000)
    place, share = mixup(part).pairs(ids, torch.ones_like(ids))
    assert int(share.min()) >= WHOLE // 2
    assert int(share.max()) <= WHOLE
    counts = torch.histc(share.double() / WHOLE, 20, 0.5, 1.0)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 44  # 19 degrees of freedom: beyond p = 0.001
    partners = torch.bincount(place, minlength=100)
    assert len(partners) == 100
    assert float(((partners - 200) ** 2 / 200).sum()) < 149  # 99 degrees of freedom
    assert abs(float(torch.corrcoef(torch.stack([place.double(), share.double()]))[0, 1])) < 0.03


def test_sample_and_partner_are_cropped_and_mirrored_each_by_itself() -> None:
    ramp = (torch.arange(SIDE) * 20).to(torch.uint8).expand(2, 3, SIDE, SIDE).contiguous()
    part = Part(MemoryPixels(ramp), torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    pixels, _, _ = part.batch(torch.zeros(400, dtype=torch.int64))
    ids = torch.arange(400)
    middles = mixup(part).apply(pixels, ids, torch.ones_like(ids))[:, 0, SIDE // 2].int()
    rising = (middles.diff(dim=1) > 0).any(1)
    falling = (middles.diff(dim=1) < 0).any(1)
    assert (rising & falling).any()  # one of the two is mirrored
    assert len(middles.unique(dim=0)) > 300


def test_partners_come_from_the_part_and_nowhere_else() -> None:
    whole = flat_part(torch.cat([torch.full((40,), 250), torch.full((40,), 100)]))
    dark = whole.subset(torch.arange(40, 80))
    pixels, _, ids = dark.batch(torch.arange(40))
    assert (middle(mixup(dark).apply(pixels, ids, torch.ones_like(ids))) == 100).all()
    assert (middle(mixup(whole).apply(pixels, ids, torch.ones_like(ids))) > 100).any()
    fixed = FixedViews(mixup(), 3).over(dark)
    for slot in range(3):
        assert (middle(fixed.apply(pixels, ids, torch.full_like(ids, slot))) == 100).all()


def test_without_a_part_it_says_what_to_do() -> None:
    pixels, ids = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), torch.arange(2)
    with pytest.raises(UserError, match=r"say which: views\.over\(images\.train\)"):
        mixup().apply(pixels, ids, ids)
    assert torch.equal(mixup().eval_view(pixels, ids)[0], pixels)  # scores are of plain images


def test_the_definition_knows_the_part() -> None:
    part = flat_part(torch.arange(10))
    made: list[Views] = [mixup(), mixup(part), mixup(part, 1), mixup(part.subset(torch.arange(9)))]
    made += [FixedViews(space, 2) for space in made]
    assert len({one.definition for one in made}) == len(made)
    assert part.digest() in mixup(part).definition
    assert FixedViews(mixup(), 2).over(part).definition == FixedViews(mixup(part), 2).definition


def test_what_is_ready_fetches_nothing_more() -> None:
    part = flat_part(torch.arange(50))
    pixels, _, ids = part.batch(torch.arange(50))
    space, picked = mixup(part), torch.full_like(ids, 7)
    wanted, ready = space.apply(pixels, ids, picked), space.prefetch(ids, picked)
    part.pixels.images.zero_()  # type: ignore[attr-defined]
    assert torch.equal(ready.apply(pixels, ids, picked), wanted)
    assert not torch.equal(space.apply(pixels, ids, picked), wanted)
    assert ready.definition == space.definition


def batches(part: Part, space: Views, **more: Any) -> Iterator[dict[str, Tensor]]:
    for epoch in (0, 1):
        yield from Batches(part, space, 8, seed=1, **more).epoch(epoch)


@pytest.mark.parametrize("name", ["randaugment", "mixup"])
@pytest.mark.parametrize("fixed", [None, 2])
def test_training_sees_the_same_from_memory_from_files_and_on_ranks(
    tmp_path: Path, name: str, fixed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    for i in range(40):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(tmp_path / f"{i % 2}" / f"{i}.png")
    source = {"source": f"imagefolder:{tmp_path}", "size": 36}
    held, filed = (load({**source, "options": {"memory_gib": gib}}).train for gib in (1, 0))
    assert isinstance(held.pixels, MemoryPixels)
    assert isinstance(filed.pixels, FilePixels)
    space = make_views(name, view_seed=3, image_size=(36, 36))
    space = space if fixed is None else FixedViews(space, fixed)
    decoded, decode = [], FilePixels.fetch

    def fetch(self: FilePixels, index: Tensor) -> Tensor:
        import threading

        decoded.append(threading.current_thread().name)
        return decode(self, index)

    monkeypatch.setattr(FilePixels, "fetch", fetch)
    both = [batches(held, space, rank=rank, world=2) for rank in (0, 1)]
    for one, other, *ranks in zip(batches(held, space), batches(filed, space), *both, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert all(torch.equal(one[key], torch.cat([rank[key] for rank in ranks])) for key in one)
        bound, index = space.over(held), one["ids"].argsort()
        places = torch.stack([(held.ids == i).nonzero()[0, 0] for i in one["ids"][index]])
        pixels, target, ids = held.batch(places)
        shown, label = bound.render(pixels, target, ids, one["views"][index])
        assert torch.equal(shown, one["pixels"][index])
        assert torch.equal(label, one["target"][index])
    assert decoded
    assert all(thread.startswith("batch") for thread in decoded)  # partners, too, are decoded ahead
