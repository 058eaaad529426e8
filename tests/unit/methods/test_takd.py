"""TAKD: who the assistant is, what it teaches, and that nobody else is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.classroom import ClassInfo, Classroom, Lesson
from classroomkd.errors import UserError
from classroomkd.methods import create, lasting
from classroomkd.recipe.schema import MentorSpec
from classroomkd.run.assistants import lineage
from classroomkd.tasks import create as task

B, C = 6, 5


class Says(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[: len(x)]


def said(seed: int) -> Tensor:
    return 3 * torch.randn(B, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def room(answers: list[Tensor], taught: list[bool] | None, **options: Any) -> Classroom:
    names = [ck.Mentor(Says(a), f"m{i}") for i, a in enumerate(answers)]
    return Classroom(Says(said(9)), names, create("takd", **options), taught=taught)


def teach(classroom: Classroom) -> Lesson:
    return classroom(torch.zeros(B, 3, 2, 2), torch.arange(B) % C)


def places(taught: list[bool] | None, assistant: str | int = "last") -> tuple[int, ...] | None:
    method = create("takd", assistant=assistant)
    method.setup(
        ClassInfo(task("classification"), ["a", "b", "c"][: 3 if taught is None else len(taught)], taught=taught)
    )
    return method.mentor_indices


def test_the_assistant_is_the_last_that_was_taught_itself() -> None:
    assert places([False, True, True]) == (2,)
    assert places([False, True, False]) == (1,)
    assert places([True, False, False]) == (0,)
    assert places(None) == (2,)  # a loop of one's own, where nobody said
    assert places([False, True, True], "b") == (1,)
    assert places([False, True, True], 1) == (1,)
    assert places(None, "a") == (0,)


@pytest.mark.parametrize(
    ("taught", "assistant", "message"),
    [
        ([False, False, False], "last", r"no mentor was taught by another.*taught_by: \[NAME\]"),
        ([False], 0, r"nobody taught mentor 'a'.*taught_by: NAME"),
        ([False, True, True], "a", r"nobody taught mentor 'a'.*taught_by: NAME"),
        ([False, True, True], "all", "not 'all'"),
        ([False, True, True], "best", "not 'best'"),
        ([False, True, True], "d", "no mentor 'd'"),
        ([False, True, True], 3, "there are 3"),
    ],
)
def test_who_cannot_be_an_assistant(taught: list[bool], assistant: str | int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        places(taught, assistant)


def test_only_the_assistant_is_asked_and_recorded() -> None:
    classroom = room([said(i) for i in range(3)], [False, True, False])
    lesson = teach(classroom)
    assert classroom.mentors.forwards == 1
    assert lesson.weight is not None
    assert lesson.active is not None
    assert lesson.temperature is not None
    assert lesson.weight.shape == lesson.active.shape == lesson.temperature.shape == (3, B)
    assert lesson.active.all(1).tolist() == [False, True, False]
    assert lesson.weight.sum(1).tolist() == [0.0, float(B), 0.0]
    assert (lesson.temperature == 4).all()


def test_the_loss_by_hand() -> None:
    answers = [said(i) for i in range(2)]
    lesson = teach(room(answers, [False, True], temperature=3.0, weight=0.7, supervised_weight=0.3))
    student, target = said(9), torch.arange(B) % C
    ce = F.cross_entropy(student, target)
    kl = F.kl_div(F.log_softmax(student / 3, -1), F.softmax(answers[1] / 3, -1), reduction="batchmean")
    torch.testing.assert_close(lesson.loss, 0.3 * ce + 0.7 * 9 * kl)
    # The trap of the released code: its mean over samples and classes is C times less.
    p, q = (F.softmax(z / 3, -1) for z in (answers[1], student))
    torch.testing.assert_close(lesson.terms["distilled"], C * 9 * (p * (p / q).log()).mean())


def test_the_halves_are_lambda_and_its_rest() -> None:
    classroom = room([said(0)], [True])
    assert classroom.method.coefficients == {"supervised": 0.5, "distilled": 0.5}
    matched = room([said(0)], [True], strength="matched")
    assert matched.method.coefficients == {"supervised": 1.0, "distilled": 1.0}


def test_where_the_assistant_has_nothing_to_say_it_does_not_count() -> None:
    broken = said(1)
    broken[2] = float("nan")
    classroom = room([said(0), broken], [False, True])
    lesson = teach(classroom)
    assert lesson.active is not None
    assert lesson.active[1].tolist() == [True, True, False, True, True, True]
    lesson.loss.backward()
    assert lesson.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in classroom.parameters())
    known = ck.Mentor(Says(said(3)[:, :2]), "few", classes=[0, 3], num_classes=C)  # it knows two of five classes
    partly = Classroom(Says(said(9)), [known], create("takd"), taught=[True])
    active = teach(partly).active
    assert active is not None
    assert active[0].tolist() == [True, False, False, True, False, True]


# --- the cache key of an assistant ------------------------------------------------------------------------------------


def key(folder: Path, teachers: dict[str, str], logits: Tensor, stem: str = "x", **about: Any) -> dict[str, Any]:
    """:func:`lineage` of an assistant; teachers are a name and what its file of weights holds."""
    folder.mkdir(exist_ok=True)
    records: list[Any] = []
    for name, weights in teachers.items():
        (folder / weights).write_text(weights)
        np.save(folder / f"{stem}-val.npy", logits.float().numpy())
        paths = {"weights": str(folder / weights), "val_logits": str(folder / f"{stem}-val.npy")}
        about_it = {"name": name, "model": "m", "mean": None, "std": None, "size": None, "fingerprint": weights}
        records.append(SimpleNamespace(**about_it, **paths))
    task = about.pop("task", None)
    spec = {"name": "middle", "model": "m", "taught_by": {"mentors": [*teachers], **about.pop("by", {})}, **about}
    return lineage(MentorSpec.model_validate(spec), records, task)


def test_a_key_holds_whatever_makes_another_assistant(tmp_path: Path) -> None:
    logits = said(0)
    by_name = {"by": {"method": [{"name": "kd", "mentor": "a"}]}}
    one, other = {"a": "first", "b": "second"}, {"b": "first", "a": "second"}  # the same weights, in the same order
    assert key(tmp_path, one, logits) == key(tmp_path, other, logits)
    assert key(tmp_path, one, logits, **by_name) != key(tmp_path, other, logits, **by_name)
    placed = key(tmp_path, one, logits, taps={"@stage:-1": "layer"})
    assert placed != key(tmp_path, one, logits)
    assert placed != key(tmp_path, one, logits, taps={"@stage:-1": "layer2"})
    assert key(tmp_path, one, logits, task={"per": "person"}) != key(tmp_path, one, logits)


def test_the_order_of_the_classes_that_a_teacher_knows_is_part_of_the_key(tmp_path: Path) -> None:
    whole = said(0)
    few = whole.index_fill(1, torch.tensor([1, 2]), -torch.inf)
    teacher = {"big": "weights"}
    # The file of its answers is named by a key that holds the order; for a whole mentor the weights say everything.
    assert key(tmp_path, teacher, few, "one") != key(tmp_path, teacher, few, "two")
    assert key(tmp_path, teacher, whole, "one") == key(tmp_path, teacher, whole, "two")


def test_another_version_of_the_method_is_another_assistant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, teacher = said(0), {"big": "weights"}
    table = ck.methods.entries()
    monkeypatch.setitem(table, "kd", table["kd"]._replace(version=1))
    first = key(tmp_path, teacher, logits)
    assert "versions" not in first["taught_by"]  # the key of what is in caches already
    monkeypatch.setitem(table, "kd", table["kd"]._replace(version=2))
    assert key(tmp_path, teacher, logits)["taught_by"] == first["taught_by"] | {"versions": {"kd": 2}}
    assert key(tmp_path, teacher, logits, by={"method": [{"name": "average"}]}) != first


def test_an_option_that_came_later_leaves_an_assistants_key_as_it_was(tmp_path: Path) -> None:
    assert lasting("camkd", {"rule": "paper", "unlabelled": "skip"}) == {"rule": "paper"}
    assert lasting("camkd", {"unlabelled": "agreement"}) == {"unlabelled": "agreement"}
    assert lasting("camkd", {"unlabelled": "agreement"}, "pose") == {}
    entry = {"name": "classroomkd", "tau": 8.0}
    made, later, other = (
        key(tmp_path / "a", {"big": "w"}, said(1), by={"method": [{**entry, **more}]})
        for more in ({}, {"unlabelled": "agreement"}, {"unlabelled": "skip"})
    )
    assert made == later != other
