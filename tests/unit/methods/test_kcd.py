"""kcd: a mentor's channels in the student's order, found once; what it can do nothing for is refused."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classroomkd import data
from classroomkd.classroom import Classroom, Composition, Lesson
from classroomkd.errors import UserError
from classroomkd.methods import compose, create, method_class, names
from classroomkd.methods.kcd import KCD
from classroomkd.recipe import TrainSpec
from classroomkd.train.inputs import Inputs
from classroomkd.train.loop import Training
from classroomkd.train.runtime import Runtime

SIZE, C = (3, 8, 8), 4
INNER = {"name": "fitnet", "projector": "none", "tap": "two", "mentor_tap": "two"}
PERMUTING = ("bipartite", "greedy")


def net(seed: int, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: dict[str, nn.Module] = {
        "one": nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU()),
        "two": nn.Sequential(nn.Conv2d(5, width, 3, 2, 1), nn.BatchNorm2d(width), nn.Tanh()),
        "pool": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)),
        "head": nn.Linear(width, C),
    }
    return nn.Sequential(OrderedDict(layers))


def pictures(batches: int = 3, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, *SIZE, generator=generator), torch.arange(size) % C) for _ in range(batches)]


def room(mentor: nn.Module, student: nn.Module | None = None, **options: Any) -> Classroom:
    method = create("kcd", **{"inner": INNER, "calibration": 24, **options})
    return Classroom(student or net(0), [mentor], method, image_shape=SIZE)


def prepared(mentor: nn.Module, student: nn.Module | None = None, **options: Any) -> Classroom:
    made = room(mentor, student, **options)
    made.prepare(pictures())
    return made


def transform(classroom: Classroom) -> Tensor:
    method = classroom.method
    assert isinstance(method, KCD)
    return next(iter(method.matchings)).transform


def shuffled(mentor: nn.Sequential, order: Tensor) -> nn.Sequential:
    """The same network with the channels of ``two`` in another order."""
    other = copy.deepcopy(mentor)
    convolution, norm, _ = other.two
    with torch.no_grad():
        for tensor in (convolution.weight, convolution.bias, norm.weight, norm.bias, *norm.buffers()):
            if tensor.dim():
                tensor.copy_(tensor[order].clone())
        other.head.weight.copy_(other.head.weight[:, order].clone())
    return other


ORDER = torch.tensor([3, 0, 5, 1, 4, 2])


@pytest.mark.parametrize("match", PERMUTING)
@pytest.mark.parametrize("cost", ["spatial", "class"])
def test_permuting_the_mentors_channels_beforehand_changes_nothing(match: str, cost: str) -> None:
    plain = prepared(net(1), match=match, cost=cost)
    other = prepared(shuffled(net(1), ORDER), match=match, cost=cost)
    assert torch.equal(transform(plain)[:, ORDER], transform(other))
    images, labels = pictures()[0]
    ours, theirs = (made.eval()(images, labels).terms["hints"] for made in (plain, other))
    torch.testing.assert_close(ours, theirs)
    control = [
        prepared(m, match="identity").eval()(images, labels).terms["hints"] for m in (net(1), shuffled(net(1), ORDER))
    ]
    assert (control[0] - control[1]).abs() > 1e-3, "which the loss itself does not forgive"


@pytest.mark.parametrize(
    "given", [{"match": m} for m in (*PERMUTING, "learned")] + [{"match": "learned", "fit": "ridge", "ridge": 1e-9}]
)
def test_a_copy_of_the_mentor_gives_the_identity(given: dict[str, Any]) -> None:
    mentor = net(1)
    made = prepared(mentor, copy.deepcopy(mentor), batch_norm="running", **given)
    torch.testing.assert_close(transform(made), torch.eye(6), rtol=0, atol=1e-4)
    if given["match"] in PERMUTING:
        assert torch.equal(transform(made), torch.eye(6))
        assert made.method.findings()["top10_after"] == 1.0


@pytest.mark.parametrize("match", [*PERMUTING, "identity", "random"])
@pytest.mark.parametrize("width", [6, 13, 4])
def test_rows_sum_to_one(match: str, width: int) -> None:
    """Of a wider mentor each takes the mean of two; of a narrower one two of the student's are left out."""
    sums = transform(prepared(net(1, width), match=match)).sum(1)
    assert sorted(sums.tolist()) == [0.0] * max(0, 6 - width) + [1.0] * min(6, width)


def test_left_out_channels_add_nothing() -> None:
    made = prepared(net(1, 4))
    missing = transform(made).sum(1) == 0
    lesson = made(*pictures()[0])
    (lesson.terms["hints"]).backward()
    weight = made.student.two[0].weight
    bias = made.student.two[1].bias.grad
    assert weight.grad.isfinite().all()
    assert (bias[missing] == 0).all()
    assert (bias[~missing] != 0).all()


def test_the_loss_is_that_of_the_transformed_features() -> None:
    made = prepared(net(1, 13), match="learned", fit="ridge").eval()
    lesson = made(*pictures()[0])
    theirs = lesson.mentors.features["two"][0]
    moved = torch.einsum("st,bthw->bshw", transform(made), theirs)
    expected = (lesson.student.features["two"] - moved).square().mean()
    torch.testing.assert_close(lesson.terms["hints"], expected)
    assert lesson.outcome.coefficients["hints"] == 100


def test_nothing_of_it_is_trained() -> None:
    made = prepared(net(1))
    before = transform(made).clone()
    made(*pictures()[0]).loss.backward()
    assert not transform(made).requires_grad
    assert not list(made.method.parameters())
    assert torch.equal(transform(made), before)


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_the_look_leaves_no_trace(norm: str) -> None:
    """But for what it found: BatchNorm, modes, generators, counts are what they were."""
    made = room(net(1), batch_norm=norm)
    made.train()
    made.student.two.eval()
    state = {key: value.clone() for key, value in made.student.state_dict().items()}
    modes, draws = [m.training for m in made.modules()], torch.random.get_rng_state()
    made.prepare(pictures())
    for key, value in made.student.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert [m.training for m in made.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert made.mentors.forwards == made.mentors.answered == 0
    again = room(net(1), batch_norm=norm)
    again.prepare(pictures())
    assert torch.equal(transform(made), transform(again)), "dropout is off"


def test_batch_norm_acts_as_asked() -> None:
    seen = {}
    for norm in ("batch", "running"):
        made = room(net(1), batch_norm=norm)
        features: list[Tensor] = []
        made.student.one[1].register_forward_hook(lambda _, __, out, into=features: into.append(out))
        made.prepare(pictures(1))
        seen[norm] = features[0].mean((0, 2, 3)).abs().max()
    assert seen["batch"] < 1e-5 < 1e-2 < seen["running"]


def test_it_takes_as_many_pictures_as_it_wants() -> None:
    made = room(net(1), calibration=10)
    made.prepare(iter(pictures(5)))
    assert made.method.pictures == 16
    lone = room(net(1), calibration=2)
    lone.prepare([(x[:1], y[:1]) for x, y in pictures()])
    assert lone.method.pictures == 2
    assert lone(*(value[:1] for value in pictures()[0])).loss.isfinite()


def test_a_step_before_the_look_is_refused_and_a_state_brings_it() -> None:
    made, images = room(net(1)), pictures()[0]
    with pytest.raises(UserError, match=r"classroom\.prepare\(loader\)"):
        made(*images)
    with pytest.raises(UserError, match="no batch"):
        made.prepare([])
    made.load_state_dict(room(net(1)).state_dict())
    with pytest.raises(UserError, match="prepare"):
        made(*images)
    done = prepared(net(1))
    made.load_state_dict(done.state_dict())
    assert made(*images).loss.isfinite()
    assert torch.equal(transform(made), transform(done))


def test_beside_another_method() -> None:
    parts = [("average", {}), ("kcd", {"inner": INNER, "calibration": 24})]
    made = Classroom(net(0), [net(1)], compose(parts), image_shape=SIZE)
    assert isinstance(made.method, Composition)
    with pytest.raises(UserError, match="prepare"):
        made(*pictures()[0])
    made.prepare(pictures())
    alone = prepared(net(1))
    found = made(*pictures()[0])
    torch.testing.assert_close(found.terms["kcd.hints"], alone(*pictures()[0]).terms["hints"])
    assert made.method.findings() == {f"kcd.{key}": value for key, value in alone.method.findings().items()}
    norms = [("kcd", {"inner": INNER}), ("kcd", {"inner": INNER, "batch_norm": "running"})]
    with pytest.raises(UserError, match="one batch_norm"):
        compose(norms)


def test_one_of_two_mentors_beside_another_method() -> None:
    """A part that asks one mentor alone is shown that one's answers in the look, too."""
    given = {"inner": {**INNER, "mentor": 1}, "calibration": 24}
    made = Classroom(net(0), [net(2, 13), net(1)], compose([("average", {}), ("kcd", given)]), image_shape=SIZE)
    made.prepare(pictures())
    (matching,) = made.method.methods[1].matchings
    assert torch.equal(matching.transform, transform(prepared(net(1))))


def test_a_rank_without_samples() -> None:
    made = prepared(net(1, 4))
    matching = next(iter(made.method.matchings))
    assert matching(torch.zeros(0, 4, 4, 4), torch.zeros(0, 6, 4, 4)).shape == (0, 6, 4, 4)


BLIND = [name for name in names() if method_class(name).aligned_with is None]


@pytest.mark.parametrize("name", [*BLIND, "fitnet"])
def test_losses_that_are_blind_to_channels_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"inner: '{name}'.*\{{name: fitnet, projector: none\}}"):
        create("kcd", inner=name)


def test_other_wrong_options() -> None:
    for inner, said in (({"name": "fitnt"}, "fitnet"), ({"name": "fitnet", "projektor": "none"}, "projector")):
        with pytest.raises(UserError, match=said):
            create("kcd", inner=inner)
    with pytest.raises(UserError, match="calibration"):
        create("kcd", calibration=1)
    assert KCD.idle({"match": "greedy", "cost": "class"}) == []
    assert KCD.idle({"match": "random", "cost": "class"}) == ["cost has no effect with match: random"]


def test_a_cost_by_class_needs_classes() -> None:
    for labels, said in ((torch.zeros(9, dtype=torch.int64), "one class"), (torch.rand(9, 5, 3), "have none")):
        method = create("kcd", inner=INNER, cost="class")
        with pytest.raises(UserError, match=f"{said}.*cost: spatial"):
            Classroom(net(0), [net(1)], method, image_shape=SIZE, register=(torch.arange(9), labels))
    one = room(net(1), cost="class")
    with pytest.raises(UserError, match="are of one"):
        one.prepare([(x, torch.zeros_like(y)) for x, y in pictures()])


def test_a_cost_by_maps_needs_maps() -> None:
    inner = {"name": "fitnet", "projector": "none", "tap": "head:input"}
    with pytest.raises(UserError, match="cost: class or other taps"):
        Classroom(net(0), [net(1)], create("kcd", inner=inner), image_shape=SIZE)
    made = Classroom(net(0), [net(1)], create("kcd", inner=inner, cost="class"), image_shape=SIZE)
    made.prepare(pictures())
    assert made(*pictures()[0]).loss.isfinite()


def test_fitnet_without_a_projector() -> None:
    with pytest.raises(UserError, match=r"6x4x4 and 13x4x4.*kcd"):
        Classroom(net(0), [net(1, 13)], create("fitnet", projector="none", tap="two"), image_shape=SIZE)
    made = Classroom(net(0), [net(1)], create("fitnet", projector="none", tap="two"), image_shape=SIZE).eval()
    lesson: Lesson = made(*pictures()[0])
    far = lesson.student.features["two"] - lesson.mentors.features["two"][0]
    torch.testing.assert_close(lesson.terms["hints"], far.square().mean())
    assert not list(made.method.parameters())


class Stop(Exception):
    pass


def training(folder: Path | None, asked: Any = None) -> Training:
    images = data.load({"source": "puppets", "options": {"train": 60, "test": 20, "image_size": 32}})
    runtime, part = Runtime("cpu", "fp32", 1), images.train
    torch.manual_seed(7)
    method = create("kcd", inner=INNER, calibration=40)
    student, mentor = net(0), net(1)
    student.head, mentor.head = nn.Linear(6, 10), nn.Linear(6, 10)
    made = Classroom(student, [mentor], method, image_shape=(3, 32, 32), register=(part.ids, part.target))
    views = data.make_views("crop", view_seed=0, image_size=(32, 32))
    spec = TrainSpec(epochs=3, batch_size=20, lr=0.05, log_every=2, channels_last=False, checkpoint_every=1)
    inputs = Inputs(images.mean, images.std, runtime.device, False)
    extra = {} if asked is None else {"asked": asked}
    return Training(runtime, made, part, None, views, inputs, spec, images.classes, 0, folder, **extra)


def test_a_training_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the look, before the first checkpoint, and behind it."""
    whole = training(tmp_path / "whole")
    result = whole.run()
    assert set(result.findings) == {"top10_before", "top10_after", "top10_chance"}
    log = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert '"look"' in log[0]
    assert "top10_after" in log[0]

    def stop(*_: Any) -> None:
        raise Stop

    def after(steps: int) -> Any:
        usual, taken = Training.step, []

        def step(self: Training, batch: Any) -> None:
            taken.append(1)
            if len(taken) > steps:
                raise Stop
            usual(self, batch)

        return step

    for place, (owner, name, how) in enumerate(
        [(KCD, "prepare", stop), (Training, "step", after(1)), (Training, "step", after(4))]
    ):
        folder = tmp_path / str(place)
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, how)
            killed = training(folder)
            with pytest.raises(Stop):
                killed.run()
        again = training(folder)
        again.run(resume=True)
        for key, value in whole.classroom.state_dict().items():
            assert torch.equal(again.classroom.state_dict()[key], value), key
        assert again.classroom.method.findings() == whole.classroom.method.findings()
        assert (folder / "metrics.jsonl").read_text().count('"look"') == 1


def test_the_pictures_of_the_look_are_spread_over_all(tmp_path: Path) -> None:
    made = training(None)
    made.build(False)
    batches = list(made.batches.spread(25))
    ids = torch.cat([batch["ids"] for batch in batches])
    assert [len(batch["ids"]) for batch in batches] == [13, 12]
    assert torch.equal(ids, ids.sort().values)
    assert (ids.diff() <= 4).all(), "two or three places on, of which a validation part may have some"
    assert ids[0] < 4
    assert ids[-1] > 50, "from the first to the last"
    first = {int(i): v for batch in made.batches.epoch(0) for i, v in zip(batch["ids"], batch["pixels"], strict=True)}
    assert all(torch.equal(v, first[int(i)]) for b in batches for i, v in zip(b["ids"], b["pixels"], strict=True))
    assert len(torch.cat([batch["ids"] for batch in made.batches.spread(1000)])) == len(made.part)
