"""Every method that does pose takes steps in a classroom of built-in networks: mixed heads, input sizes, and joints."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from cases import cases, labels
from pose_lessons import FIVE, HEADS, K, how_many, people
from torch import Tensor, nn

from classroomkd import methods
from classroomkd.classroom import Classroom, Mentor, PlainContext
from classroomkd.methods.pieces.features import FeatureMethod
from classroomkd.models.pose import resolve_pose
from classroomkd.tasks.pose.coding import Coding, coding_of
from classroomkd.tasks.pose.task import Pose
from classroomkd.tasks.pose.translation import Translation

SIZE, OWN = (32, 32), (32, 24)  # the student's input, and that of one mentor
B, N = 4, 40
CASES = [
    (n, o)
    for n, o in cases("pose")
    if not o or (n in ("mmkd", "camkd", "aekd") and ("rule" in o or "features" in o or "feature_weight" in o))
]
every = pytest.mark.parametrize(("name", "given"), CASES, ids=labels(CASES))
heads = pytest.mark.parametrize("head", HEADS)
# Where a method's places are in these networks.
TAPS = {"@penultimate": "head:input", "@stage:-3": "body.stem", "@stage:-2": "body.levels.0", "@stage:-1": "body"}


def network(spec: str, size: tuple[int, int], joints: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = resolve_pose(spec, joints, size)
    with torch.no_grad():  # heads begin near zero, where heatmaps have no peak to be right or wrong
        for parameter in net.get_submodule("head").parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return net


@cache
def code(spec: str, size: tuple[int, int], joints: int) -> Coding:
    net = network(spec, size, joints, 0).eval()
    with torch.no_grad():
        return coding_of(net, net(torch.zeros(1, 3, *size)), size)


def classroom(name: str, given: dict[str, Any], head: str) -> Classroom:
    """A student; one mentor of its kind; one of the other head, a narrower input and four of the joints."""
    own, other = f"{head}_tiny", f"{HEADS[1 - HEADS.index(head)]}_tiny"
    student = code(own, SIZE, K)
    mentors = [
        Mentor(network(own, SIZE, K, 1), "same", taps=TAPS),
        Mentor(
            network(other, OWN, 4, 2),
            "other",
            size=OWN,
            taps=TAPS,
            translate=Translation(code(other, OWN, 4), student, (3, 0, None, 1, 2)),
        ),
    ]
    torch.manual_seed(0)
    method = methods.create(name, task="pose", **given)
    peers = {f"p{number}": network(own, SIZE, K, 4 + number) for number in range(how_many(method, len(mentors)))}
    room = Classroom(
        network(own, SIZE, K, 3),
        mentors,
        method,
        task=Pose(student, FIVE),
        taps=TAPS,
        image_shape=(3, *SIZE),
        register=(torch.arange(N), people(N)),
        taught=[False, True],
        peers=peers,
        teachers=list(peers)[len(peers) - method.needs.teachers :],
    )
    if method.needs.prepare:
        inputs, target, ids = batch()
        room.prepare([{"inputs": inputs, "target": target, "ids": ids, "extra_sizes": extra_sizes()}])
    return room


def batch() -> tuple[Tensor, Tensor, Tensor]:
    target = people(B).clone()
    target[..., :2] *= 2
    return torch.randn(B, 3, *SIZE, generator=torch.Generator().manual_seed(3)), target, torch.arange(B)


def extra_sizes() -> dict[tuple[int, int], Tensor]:
    return {OWN: torch.randn(B, 3, *OWN, generator=torch.Generator().manual_seed(4))}


@heads
@every
def test_steps_change_the_student_and_no_mentor(name: str, given: dict[str, Any], head: str) -> None:
    room = classroom(name, given, head)
    room.train()
    room.epochs, room.epoch = 240, 1.0  # a rule may make an exception of the first epoch (0)
    before = {key: p.detach().clone() for key, p in room.named_parameters()}
    theirs = [p.detach().clone() for mentor in room.mentors for p in mentor.parameters()]
    own = {id(p) for p in room.method.meta_parameters()}
    main = [p for p in room.parameters() if id(p) not in own]
    context = PlainContext(room, torch.optim.SGD(main, lr=0.002, momentum=0.9))
    x, y, ids = batch()
    for _ in range(1 if room.method.period == 1 else room.method.period + 1):
        lesson = room.method.step(context, {"inputs": x, "target": y, "ids": ids, "extra_sizes": extra_sizes()})
        assert lesson.loss.isfinite()
    if lesson.active is not None and not isinstance(room.method, FeatureMethod) and "other" in room.mentors.names[-1:]:
        assert not lesson.active[1, :, 2].any()  # the joint it does not know
    for key, parameter in room.named_parameters():
        assert parameter.isfinite().all(), key
        cancels = ".projectors." in key and key.endswith("bias")  # in the normalisation behind it
        assert cancels or key not in before or not torch.equal(parameter, before[key]), key
    now = [p for mentor in room.mentors for p in mentor.parameters()]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(theirs, now, strict=True))


@heads
def test_a_mentors_own_head_answers_in_the_students_form(head: str) -> None:
    room = classroom("camkd", {"feature_weight": 1.0}, head)
    room.eval()
    x, y, ids = batch()
    lesson = room.collect(x, y, ids=ids, extra_sizes=extra_sizes())
    assert lesson.mentors is not None
    for m in range(2):
        features = lesson.mentors.features["@stage:-1"][m]
        said = lesson.head(m, "@stage:-1", features)
        assert said.shape == lesson.student.prediction.shape
        torch.testing.assert_close(said, lesson.mentors.prediction[m])
    assert (said[:, 2] == -torch.inf).all()
