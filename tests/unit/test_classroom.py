"""Classroom, mentors, taps and lessons as a user of the library meets them."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import classroomkd as ck
from classroomkd.classroom import TapReader, prediction_of
from classroomkd.errors import UserError


def net(classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, classes)
    )


def batch(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(9)
    return torch.randn(n, 3, 4, 4), torch.randint(4, (n,))


def test_import_is_light() -> None:
    code = "import sys, classroomkd, classroomkd.methods.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names() -> None:
    for name in ck.__all__:
        assert getattr(ck, name) is not None
    with pytest.raises(AttributeError):
        _ = ck.nothing


def test_ten_line_loop_learns() -> None:
    images, target = batch(16)
    classroom = ck.Classroom(net(), mentors=[net(seed=1), net(seed=2)], method=ck.methods.create("classroomkd", tau=12))
    optimizer = torch.optim.SGD(classroom.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        lesson = classroom(images, target)
        lesson.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(lesson.loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert lesson.weight.shape == lesson.temperature.shape == lesson.active.shape == (2, 16)


def test_mentors_are_frozen_unregistered_and_moved() -> None:
    mentor = net(seed=1)
    classroom = ck.Classroom(net(), [mentor], "average")
    before = copy.deepcopy(mentor.state_dict())
    classroom.train()
    classroom(*batch()).loss.backward()
    assert not mentor.training
    assert all(torch.equal(a, before[k]) for k, a in mentor.state_dict().items())  # running statistics too
    assert len(classroom.state_dict()) == len(net().state_dict())
    classroom.double()
    assert next(mentor.parameters()).dtype == torch.float64
    clone = copy.deepcopy(classroom)
    assert clone.mentors is not classroom.mentors


def test_mentor_keeps_its_own_normalisation_and_size() -> None:
    seen: list[torch.Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.new_zeros(len(x), 4)

    pixels = torch.rand(2, 3, 4, 4)
    mean, std = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)
    own_mean, own_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    mentor = ck.Mentor(Spy(), mean=own_mean, std=own_std, size=(8, 8))
    classroom = ck.Classroom(net(), [mentor, ck.Mentor(Spy(), name="same")], "average", mean=mean, std=std)
    x = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    classroom(x, torch.tensor([0, 1]))
    assert seen[0].shape == (2, 3, 8, 8)
    torch.testing.assert_close(seen[0].mean((2, 3)), ((pixels.mean((2, 3)) - 0.5) / 0.25), atol=1e-5, rtol=1e-5)
    assert torch.equal(seen[1], x)
    with pytest.raises(UserError, match="mean and std together"):
        ck.Mentor(net(), mean=own_mean)


def test_class_counts_that_differ_are_named() -> None:
    with pytest.raises(UserError, match=r"student answers .*\(5, 4\).*'big'.*\(5, 7\)"):
        ck.Classroom(net(), [ck.Mentor(net(7), "big")], "average")(*batch())
    with pytest.raises(UserError, match=r"'odd' answers .*\(5, 7\).*'even'"):
        ck.Classroom(net(), [ck.Mentor(net(), "even"), ck.Mentor(net(7), "odd")], "average")(*batch())


def test_student_among_its_mentors_is_refused() -> None:
    student = net()
    with pytest.raises(UserError, match="deepcopy"):
        ck.Classroom(student, [net(seed=1), student])


def test_calibration_is_asked_for() -> None:
    classroom = ck.Classroom(net(), [net(seed=1)], ck.methods.create("classroomkd", credibility="held_out"))
    with pytest.raises(UserError, match="calibrate"):
        classroom(*batch())
    from classroomkd.engine import calibrate

    classroom.calibration = calibrate(classroom.mentors, [batch(40)])
    assert classroom(*batch()).loss.isfinite()


def test_taps_survive_in_place_activations() -> None:
    module = net()
    reader = TapReader(module, ["1", "3"])
    x, _ = batch()
    module.eval()
    prediction, taps = reader(x)
    torch.testing.assert_close(taps["1"], module[1](module[0](x)))  # before the ReLU that works in place
    assert (taps["1"] < 0).any()
    assert taps["3"].shape == (5, 64)
    assert torch.equal(prediction, module(x))
    with pytest.raises(UserError, match="did you mean"):
        TapReader(nn.ModuleDict({"layer1": net()}), ["layer2"])


def test_predictions_of_all_kinds() -> None:
    x = torch.zeros(2, 3)

    class Output:
        logits = x

    for output in (x, (x, None), [x], {"logits": x}, {"out": x}, Output()):
        assert prediction_of(output) is x
    with pytest.raises(UserError, match="returned str"):
        prediction_of("logits")


def test_kd_finds_its_mentor() -> None:
    mentors = [ck.Mentor(net(seed=i), name) for i, name in enumerate(("a", "b", "c"))]
    for given, index in (("b", 1), (2, 2), ("best", 1)):
        room = ck.Classroom(net(), mentors, ck.methods.create("kd", mentor=given), scores=[0.1, 0.9, 0.2])
        lesson = room(*batch())
        assert lesson.active.all(1).nonzero().flatten().tolist() == [index]
        assert room.mentors.forwards == 1  # nobody else is asked
        expected = ck.functional.kd(lesson.student.prediction, mentors[index](batch()[0]).prediction, 4.0).mean()
        torch.testing.assert_close(lesson.terms["distilled"], expected)
    with pytest.raises(UserError, match="mentors: a, b, c"):
        ck.Classroom(net(), mentors, ck.methods.create("kd", mentor="aa"))
    with pytest.raises(UserError, match="there are 3"):
        ck.Classroom(net(), mentors, ck.methods.create("kd", mentor=3))


def test_composition_adds_terms_and_keeps_one_supervised_part() -> None:
    method = ck.methods.compose([("classroomkd", {}), ("average", {"weight": 0.5})])
    room = ck.Classroom(net(), [net(seed=1), net(seed=2)], method)
    lesson = room(*batch())
    assert set(lesson.terms) == {"supervised", "distilled", "average.distilled"}
    expected = lesson.terms["supervised"] + lesson.terms["distilled"] + 0.5 * lesson.terms["average.distilled"]
    torch.testing.assert_close(lesson.loss, expected)


def test_a_part_that_asks_one_mentor_is_handed_its_answers() -> None:
    method = ck.methods.compose([("average", {}), ("kd", {"mentor": 1})])
    room = ck.Classroom(net(), [net(seed=1), net(seed=2)], method)
    lesson = room(*batch())
    alone = ck.Classroom(room.student, list(room.mentors), ck.methods.create("kd", mentor=1))
    torch.testing.assert_close(lesson.terms["kd.distilled"], alone(*batch()).terms["distilled"])


def test_options_are_checked_all_at_once() -> None:
    with pytest.raises(UserError) as error:
        ck.methods.create("classroomkd", tua=3, rule="x", tau=-1)
    text = str(error.value)
    assert "did you mean 'tau'" in text
    assert "rule = 'x'" in text
    assert "tau = -1" in text
    with pytest.raises(UserError, match="did you mean 'classroomkd'"):
        ck.methods.create("clasroomkd")


def test_plug_in_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    from classroomkd.methods import table

    point = metadata.EntryPoint("mine", "classroomkd.methods.average:Average", table.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    table.entries.cache_clear()
    try:
        assert "mine" in ck.methods.names()
        assert ck.Classroom(net(), [net(seed=1)], "mine")(*batch()).loss.isfinite()
    finally:
        monkeypatch.undo()
        table.entries.cache_clear()


def test_an_untaught_lesson_says_so() -> None:
    room = ck.Classroom(net(), [net(seed=1)], "average")
    with pytest.raises(RuntimeError, match="not been taught"):
        _ = room.gather(*batch()).loss


def test_compiled_student_is_a_student() -> None:
    """Aot-eager tracing (no compiler needed): the same loss through ``torch.compile``."""
    room = ck.Classroom(net().eval(), [net(seed=1)], "classroomkd")
    plain = room(*batch()).loss.item()
    compiled = torch.compile(room.reader, backend="aot_eager")
    lesson = room.gather(*batch(), answer=compiled)
    assert lesson.conclude(room.method(lesson)).loss.item() == pytest.approx(plain, rel=1e-5)
