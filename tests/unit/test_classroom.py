"""Classroom, mentors, taps and lessons as a user of the library meets them."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import classroomkd as ck
from classroomkd.classroom import Answers, Calibration, Composition, TapReader, prediction_of
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
    optimizer = torch.optim.SGD(classroom.parameters(), lr=0.2)
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


def test_a_mentors_normalisation_needs_the_students() -> None:
    mentor = ck.Mentor(net(seed=1), "own", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    with pytest.raises(UserError, match=r"mentor 'own'.*pass mean= and std= to Classroom"):
        ck.Classroom(net(), [net(seed=2), mentor], "average")
    with pytest.raises(UserError, match="one of mean= and std="):
        ck.Classroom(net(), [mentor], "average", mean=(0.0, 0.0, 0.0))
    x, y = batch()
    pixels = ck.Classroom(net(), [mentor], "average", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    told = pixels.mentors.ask(x)
    assert told is not None
    torch.testing.assert_close(told.prediction[0], mentor((x - 0.5) / 0.25).prediction)
    assert pixels(x, y).loss.isfinite()


def test_preparing_and_choosing_copy_nothing_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    mentor = ck.Mentor(net(seed=1), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    x, _ = batch()
    own, student = ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2)), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (m, s), (a, b) = (tuple(torch.tensor(v).view(1, -1, 1, 1) for v in pair) for pair in (own, student))
    assert torch.equal(mentor.prepare(x, *student), (x * b + a - m) / s)
    answers = Answers(torch.randn(4, 5, 3), {"tap": torch.randn(4, 5, 2)})
    expected = answers.prediction[[2, 0]], answers.features["tap"][[2, 0]]

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a list of numbers was copied to the device")

    monkeypatch.setattr(torch, "tensor", forbidden)
    monkeypatch.setattr(torch.Tensor, "new_tensor", forbidden)
    mentor.prepare(x, *student)
    with Seen() as seen:
        chosen = answers.of([2, 0])
    assert "aten::index" not in seen.names
    assert torch.equal(chosen.prediction, expected[0])
    assert torch.equal(chosen.features["tap"], expected[1])


class Seen(TorchDispatchMode):
    """The names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


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
    from classroomkd.run.calibration import calibrate

    classroom.calibration = calibrate(classroom.mentors, [batch(40)])
    assert classroom(*batch()).loss.isfinite()


def test_calibration_follows_to_the_device() -> None:
    classroom = ck.Classroom(net(), [net(seed=1)], ck.methods.create("classroomkd", credibility="held_out"))
    classroom.calibration = Calibration(torch.ones(1), torch.full((1, 4), 0.5))
    classroom.double()
    assert classroom.calibration.ceiling.dtype == torch.float32  # its precision is its own
    classroom.to("meta")
    assert classroom.calibration.temperature.is_meta
    assert classroom.calibration.ceiling.is_meta


def test_deep_copies_have_their_own_taps() -> None:
    x, y = batch()
    mentor = ck.Mentor(net(seed=1), taps=["3"])
    room = ck.Classroom(net().eval(), [mentor], "average", taps=["0", "3"])
    room(x, y)
    room.student(x)  # outside the reader, with a graph: nothing of it is kept
    other = copy.deepcopy(room)
    with torch.no_grad():
        for network in (other.student, next(iter(other.mentors)).module):
            network[0].bias.fill_(3.0)
    old, new = room.collect(x, y), other.collect(x, y)
    for lesson, classroom in ((old, room), (new, other)):
        expected = classroom.student[0](x)
        torch.testing.assert_close(lesson.student.features["0"], expected)
        assert lesson.mentors is not None
        body = next(iter(classroom.mentors)).module[:4]
        torch.testing.assert_close(lesson.mentors.features["3"][0], body(x))
    assert not torch.equal(old.student.features["0"], new.student.features["0"])
    reader = copy.deepcopy(copy.deepcopy(room.reader))
    assert reader(x)[1]["3"].shape == (5, 64)


def test_a_copied_network_does_not_speak_for_the_original() -> None:
    module = net().eval()
    x, _ = batch()
    reader = TapReader(nn.ModuleList([module]), ["0.0"])
    copied = copy.deepcopy(module)
    reader.module.forward = lambda inputs: (module(inputs), copied(inputs + 1))[0]
    torch.testing.assert_close(reader(x)[1]["0.0"], module[0](x))


def test_taps_survive_compilation() -> None:
    room = ck.Classroom(net().eval(), [net(seed=1)], "average", taps=["0"])
    x, _ = batch()
    compiled = torch.compile(room.reader, backend="aot_eager")
    for inputs in (x, x + 1):
        torch.testing.assert_close(compiled(inputs)[1]["0"], room.student[0](inputs))
    torch.testing.assert_close(room.reader(x)[1]["0"], room.student[0](x))


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


def test_two_parts_of_one_name_both_count() -> None:
    parts = [("classroomkd", {}), ("average", {"temperature": 1.0}), ("average", {"weight": 0.5})]
    room = ck.Classroom(net(), [net(seed=1), net(seed=2)], ck.methods.compose(parts))
    terms = room(*batch())
    assert list(terms.terms) == ["supervised", "distilled", "average.distilled", "average-2.distilled"]
    said = terms.terms
    assert not torch.equal(said["average.distilled"], said["average-2.distilled"])
    expected = said["supervised"] + said["distilled"] + said["average.distilled"] + 0.5 * said["average-2.distilled"]
    torch.testing.assert_close(terms.loss, expected)


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
        _ = room.collect(*batch()).loss


def test_compiled_student_is_a_student() -> None:
    """Aot-eager tracing (no compiler needed): the same loss through ``torch.compile``."""
    room = ck.Classroom(net().eval(), [net(seed=1)], "classroomkd")
    plain = room(*batch()).loss.item()
    compiled = torch.compile(room.reader, backend="aot_eager")
    lesson = room.collect(*batch(), answer=compiled)
    assert lesson.conclude(room.method(lesson)).loss.item() == pytest.approx(plain, rel=1e-5)


def test_a_method_with_a_step_of_its_own_is_not_combined() -> None:
    """Whoever overrides ``step`` would not be asked for it by the composition."""

    class Own(ck.Method):
        def step(self, context: Any, batch: Any) -> ck.Lesson:
            raise NotImplementedError

    parts = [ck.methods.create("average"), Own()]
    with pytest.raises(UserError, match="'own' has a step of its own and cannot be combined"):
        Composition(parts, ["average", "own"])
