"""Old names of public attributes, keywords and modules work for one more version and say the new one."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch
from torch import Tensor

import classroomkd as ck
from classroomkd.classroom import Lesson, Method, Needs, PlainContext, Terms
from classroomkd.tasks.classification.task import Classification


def old(name: str) -> pytest.WarningsRecorder:
    return pytest.warns(DeprecationWarning, match=f"{name} (is called|is) .* now; the old name goes")


def room(method: Method | None = None) -> ck.Classroom:
    nets = [ck.models.create("convnet4", 4) for _ in range(3)]
    return ck.Classroom(nets[0], nets[1:], method or ck.methods.create("average"))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, 32, 32), torch.arange(4)


def test_a_plug_ins_old_overrides_are_heard() -> None:
    with old("Own.may_teach"), old("Own.own_parameters"), old("Own.by_place"):

        class Own(Method):
            needs = Needs(mentors=1)
            by_place = True

            def may_teach(self, knows_MB: Tensor, ids: Tensor | None, step: int) -> Tensor | None:
                return torch.zeros_like(knows_MB)

            def own_parameters(self) -> list[torch.nn.Parameter]:
                return [torch.nn.Parameter(torch.ones(1))]

            def loss(self, lesson: Lesson) -> Terms:
                return Terms({"supervised": lesson.student.prediction.square().mean()})

    method = Own()
    assert method.order_matters
    assert len(method.meta_parameters()) == 1
    assert not method.eligible(torch.ones(2, 4, dtype=torch.bool), None, 0).any()  # type: ignore[union-attr]
    with old("Own.asks"):
        method.asks = (1,)
    assert method.mentor_indices == (1,)
    with old("Own.asks"):
        assert method.asks == (1,)


def test_a_tasks_old_override_is_heard_though_the_new_name_is_abstract() -> None:
    with old("Coarse.topics"):

        class Coarse(Classification):
            def topics(self, target: Tensor) -> Tensor:
                return target.unsqueeze(-1) // 2

    assert Coarse().unit_labels(torch.tensor([3])).tolist() == [[1]]
    with old("Classification.topics"):
        assert Classification().topics(torch.tensor([3])).tolist() == [[3]]
    with old("Classification.reach"):
        assert Classification().reach(torch.tensor([3])).tolist() == [[True]]


def test_old_calls_of_ones_own_loop() -> None:
    x, y = batch()
    classroom = room()
    with old("Classroom.gather"):
        lesson = classroom.gather(x, y)
    with old("Lesson.everywhere"):
        assert torch.equal(lesson.everywhere(x), x)
    with old(r"classroom\(sights=...\)"):
        classroom(x, y, sights={(32, 32): x})
    context = PlainContext(classroom, torch.optim.SGD(classroom.parameters(), lr=0.1))
    with old(r'batch\["sights"\]'):
        context.lesson({"inputs": x, "target": y, "sights": {(32, 32): x}})


@pytest.mark.parametrize(
    ("module", "name"),
    [("classroomkd.classroom.places", "find_place"), ("classroomkd.data.randaugment", "RandAugment")],
)
def test_documented_modules_that_moved(module: str, name: str) -> None:
    sys.modules.pop(module, None)
    with old(module):
        assert getattr(importlib.import_module(module), name)


def test_the_old_name_of_the_engine() -> None:
    with old("classroomkd.engine.Runtime"):
        assert ck.engine.Runtime("cpu", "fp32").world == 1
    with old("classroomkd.engine.calibrate"):
        assert ck.engine.calibrate is ck.calibrate
    with pytest.raises(AttributeError, match="has no attribute 'anything'"):
        _ = ck.engine.anything
    with pytest.raises(AttributeError, match=r"is gone: what a run is given is classroomkd.run.context.RunContext"):
        _ = ck.engine.Setup
