"""The last batch of an epoch: what is dropped and said, and how ranks share what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd import data, methods
from classroomkd.classroom import Answers, Classroom, Lesson
from classroomkd.errors import UserError
from classroomkd.recipe import TrainSpec
from classroomkd.run import opening
from classroomkd.tasks.classification.task import Classification
from classroomkd.train.inputs import Batches, Inputs, batch_sizes, shared
from classroomkd.train.loop import Training
from classroomkd.train.runtime import Runtime

ON_THE_BATCH: list[tuple[str, dict[str, Any]]] = [
    ("sp", {}), ("rkd", {}), ("dist", {}), ("aekd", {}), ("amtml", {}), ("mmkd", {}),
    ("classroomkd", {"rule": "batch"}), ("classroomkd", {"rule": "rank"}),
    ("weighted", {"divergence": "dist"}), ("weighted", {"weighting": "gram"}),
]  # fmt: skip
BY_SAMPLE: list[tuple[str, dict[str, Any]]] = [
    ("none", {}), ("kd", {}), ("average", {}), ("ebkd", {}), ("camkd", {}), ("dkd", {}), ("dtkd", {}), ("takd", {}),
    ("fitnet", {}), ("at", {}), ("crd", {}), ("random", {}), ("classroomkd", {"rule": "sample"}), ("weighted", {}),
    ("amtml", {"rule": "reference"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def images() -> Any:
    return data.load({"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}})


def test_what_is_left_out() -> None:
    assert batch_sizes(471, 64, None, False) == ([64] * 7 + [23], 0)
    assert batch_sizes(449, 64, None, False) == ([64] * 7, 1)
    assert batch_sizes(450, 64, None, False) == ([64] * 7 + [2], 0)
    assert batch_sizes(463, 64, None, True) == ([64] * 7, 15)  # below a quarter
    assert batch_sizes(464, 64, None, True) == ([64] * 7 + [16], 0)
    assert batch_sizes(449, 64, False, True) == ([64] * 7 + [1], 0)
    assert batch_sizes(471, 64, True, False) == ([64] * 7, 23)
    assert batch_sizes(448, 64, None, True) == batch_sizes(448, 64, True, False) == ([64] * 7, 0)


@pytest.mark.parametrize(("name", "options"), ON_THE_BATCH, ids=str)
def test_rules_on_the_batch_say_so(name: str, options: dict[str, Any]) -> None:
    assert methods.create(name, **options).needs.whole_batch
    assert methods.compose([("kd", {}), (name, options)]).needs.whole_batch


@pytest.mark.parametrize(("name", "options"), BY_SAMPLE, ids=str)
def test_rules_on_samples_do_not(name: str, options: dict[str, Any]) -> None:
    assert not methods.create(name, **options).needs.whole_batch


def views_of(images: Any) -> Any:
    return data.make_views("crop", view_seed=0, image_size=images.shape[1:])


@pytest.mark.parametrize(
    ("samples", "batch", "world"), [(67, 24, 2), (70, 24, 3), (50, 24, 3), (25, 24, 2), (7, 24, 2)]
)
def test_ranks_share_every_sample(images: Any, samples: int, batch: int, world: int) -> None:
    part = images.train.subset(torch.arange(samples))

    def batches(**more: int) -> list[dict[str, Any]]:
        return list(Batches(part, views_of(images), batch, 3, drop_last=False, **more).epoch(1))

    ranks = [batches(rank=rank, world=world) for rank in range(world)]
    for whole, *theirs in zip(batches(), *ranks, strict=True):
        shares = shared(len(whole["ids"]), world)
        for key in ("ids", "pixels", "views", "target"):
            own = [mine[key][:share] for mine, share in zip(theirs, shares, strict=True)]
            assert torch.equal(torch.cat(own), whole[key])
        assert len({len(mine["ids"]) for mine in theirs}) == 1  # collectives need the same everywhere
        for mine, share in zip(theirs, shares, strict=True):
            ids = mine["ids"]
            assert len(ids) >= 2  # a single sample has no batch statistics
            assert len(ids) in (share, share + 1, share + 2)
            assert mine.get("shares", shares) == shares
            assert ("shares" in mine) == (len(ids) > share or len(set(shares)) > 1)
            if samples >= 2 * batch:
                assert len(set(ids.tolist())) == len(ids)  # filled up with others, not with the same again


def test_batch_sizes_that_ranks_cannot_share_are_refused(images: Any) -> None:
    with pytest.raises(UserError, match=r"batch_size=25 is shared by 2 processes .*batch_size=24 or 26, or start"):
        Batches(images.train, views_of(images), 25, 0, world=2)
    with pytest.raises(UserError, match=r"set train\.batch_size=4, or start"):
        Batches(images.train, views_of(images), 3, 0, world=4)


class Net(nn.Sequential):
    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))


def fit(images: Any, method: str, samples: int, **spec: Any) -> tuple[Any, list[str]]:
    runtime, notes = Runtime("cpu", "fp32", 1), list[str]()
    student, mentor = (ck.models.create("convnet8", 10) for _ in range(2))
    room = Classroom(student, [mentor], method, image_shape=(3, 32, 32))

    def heard(event: dict[str, Any]) -> None:
        if event["event"] == "note":
            notes.append(event["text"])

    result = Training(
        runtime, room, images.train.subset(torch.arange(samples)), None, views_of(images),
        Inputs(images.mean, images.std, runtime.device), TrainSpec(epochs=2, batch_size=16, lr=0.05, **spec),
        images.classes, 0, notify=heard, measure=False,
    ).run()  # fmt: skip
    return result, notes


@pytest.mark.parametrize("method", ["sp", "rkd", "dist", "aekd"])
def test_a_small_last_batch_never_reaches_a_rule_on_the_batch(images: Any, method: str) -> None:
    result, notes = fit(images, method, 51)
    assert (result.steps, result.left_out) == (2 * 3, 3)
    assert notes == [
        "every epoch leaves out 3 of 51 training samples, each time others: too few for a batch of their own; "
        "train.drop_last=false keeps them"
    ]
    assert fit(images, method, 52)[0].steps == 2 * 4  # a quarter of a batch is enough


def test_other_rules_get_it(images: Any) -> None:
    result, notes = fit(images, "kd", 50)
    assert (result.steps, result.left_out, notes) == (2 * 4, 0, [])
    result, notes = fit(images, "kd", 49)
    assert (result.steps, result.left_out) == (2 * 3, 1)
    assert "leaves out 1 of 49" in notes[0]
    result, notes = fit(images, "kd", 50, drop_last=True)
    assert result.left_out == 2
    assert "train.drop_last=true" in notes[0]


def test_a_run_says_what_it_leaves_out(images: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = ck.distill(
        Net(0), [Net(1)], {"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}},
        methods=["dist", "kd"], epochs=1, batch_size=34, out=tmp_path / "run", device="cpu", threads=1,
        check_mentors="off", seeds=(0, 1),
    )  # fmt: skip
    found = {(e["method"], e["seed"]): e.get("left_out") for e in run.summary["entries"]}
    assert found == {("dist", 0): 2, ("dist", 1): 2, ("kd", 0): None, ("kd", 1): None}
    said = [record.message for record in caplog.records if "leaves out" in record.message]
    assert len(said) == 1  # once, not once a training


class Narrow(nn.Module):
    """Normalises over 1x1 maps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"batch_size": 1}, r"train\.batch_size=1 gives student a batch of one .* set train\.batch_size to 2 or more"),
        ({"batch_size": 69, "drop_last": False}, r"train\.drop_last=false gives student a batch of one .* at auto"),
        ({"batch_size": 1, "precision": "auto"}, r"train\.batch_size=1 gives student a batch of one"),
    ],
)
def test_a_batch_of_one_is_refused_before_anything_is_trained(
    tmp_path: Path, train: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "has_bf16", lambda device: True)  # so that auto probes
    network = Narrow()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=says):
        ck.distill(
            network, ["convnet8"], {"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}},
            method="kd", epochs=1, out=tmp_path / "run", device="cpu", threads=1, **train,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_training_part_of_one_sample_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "narrow.py").write_text(
        f"from {__name__} import Narrow\n\n\ndef build(num_classes):\n    return Narrow()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"a training part of one sample gives student .*; give it more"):
        ck.distill(
            {"model": "py:narrow:build", "samples": 1}, ["convnet8"],
            {"source": "puppets", "options": {"train": 80, "test": 20, "image_size": 32}},
            method="kd", epochs=1, out=tmp_path / "run", device="cpu", threads=1, trust_code=True,
        )  # fmt: skip


def test_a_rank_without_samples_adds_nothing() -> None:
    """Its mean is 0 with a gradient of zero, not 0/0; the others' means count by their shares."""
    z = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    whole = Lesson(torch.zeros(2, 3), torch.tensor([1, 2]), Answers(z), Answers(z.detach()[None]), Classification())
    for rank, (shares, factor) in {0: ((1, 0), 2.0), 1: ((1, 0), 0.0)}.items():
        lesson = whole.without_filling(rank, shares)
        mean = lesson.share(lesson.student.prediction.square().mean())
        (gradient,) = torch.autograd.grad(mean, z)
        assert torch.equal(gradient[shares[rank] :], torch.zeros_like(gradient[shares[rank] :]))
        expected = factor * z[:1].square().mean() if factor else torch.zeros(())
        assert float(mean.detach()) == pytest.approx(float(expected.detach()))
        assert lesson.mentors is not None
        assert lesson.mentors.prediction.shape == (1, shares[rank], 10)
