"""Classrooms whose mentors say what they were told to say about a batch, on every kind of answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import torch
from cases import CLASSES
from pose_lessons import FIVE, K, answers_to, coding, how_many, people
from torch import Tensor, nn

from classroomkd import methods, tasks
from classroomkd.classroom import Calibration, Classroom, Lesson, Mentor, Method, Task
from classroomkd.data.targets import UNLABELLED
from classroomkd.tasks.pose.task import Pose

__all__ = [
    "IDS",
    "SHAPE",
    "B",
    "C",
    "M",
    "batch",
    "by_main",
    "classroom",
    "peers_for",
    "said",
    "student",
    "targets",
    "teach",
    "teachers_for",
    "without_label",
]

B, C, M = 6, 5, 3
IDS = torch.arange(B) * 7 + 3
SHAPE = (3, 8, 8)
# Where a method's places are in networks whose answers are no classes.
TAPS = {"@penultimate": "head:input", "@stage:-3": "one", "@stage:-2": "two", "@stage:-1": "three"}


class Rounded(nn.Module):
    """To the bank's precision and back, so that stored and live answers can be the same."""

    def forward(self, x: Tensor) -> Tensor:
        return x.half().to(x.dtype)


class Exact(nn.Sequential):
    """Layers that compute in float64 before they round, so that no batch size or kernel shows in what is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.double()
        for layer in self:
            tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
            doubled = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
            wide = torch.func.functional_call(layer, doubled, (wide,))
        return wide.to(x.dtype)


class Speaker(nn.Module):
    """A network that says what it was told to say about :func:`batch`, by way of features of its own.

    What it was told is a parameter, so that a leak of gradient shows.

    Args:
        logits: ``(n, C)``, or answers of any other shape, to a batch of n.
        seed: of its features.
    """

    def __init__(self, logits: Tensor, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        width = 6 + 2 * (seed % 2)
        self.one = Exact(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Rounded())
        self.two = Exact(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), Rounded())
        self.three = Exact(nn.Conv2d(6, width, 3, 2, 1), nn.ReLU(), Rounded())
        self.pool = Exact(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Rounded())
        self.head = nn.Linear(width, logits[0].numel())
        self.last = Rounded()
        self.logits = nn.Parameter(logits.float())
        with torch.no_grad():
            self.eval()
            known = batch(len(logits))[0]
            self.register_buffer("own", self.answered(known))
            self.register_buffer("known", known.flatten(1)[:, 0])

    def trunk(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.three(self.two(self.one(x))))
        return pooled

    def answered(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.trunk(x)).unflatten(1, self.logits.shape[1:])
        return found

    def forward(self, x: Tensor) -> Tensor:
        said = self.answered(x)
        at = torch.arange(len(said))
        if len(x) == len(said):  # a replay puts the batch in behind one blank image
            # It may be asked about some of the batch alone, so it looks which samples these are.
            nearest = (x.flatten(1)[:, :1].float() - self.known.float()).abs().min(1)
            at = torch.where(nearest.values < 0.02, nearest.indices, at)
        moved = said - self.own[at]
        # What it was told, exactly: a batch of another size may be summed in another order. The gradient stays.
        moved = torch.where(moved.abs() < 2**-10, moved - moved.detach(), moved)
        answer: Tensor = self.last(moved + self.logits[at])
        return answer


def student(answer: tuple[int, ...] = (C,), seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers: dict[str, nn.Module] = {
        "one": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh()),
        "two": nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1), nn.Tanh()),
        "three": nn.Sequential(nn.Conv2d(5, 6, 3, 2, 1), nn.Tanh()),
        "pool": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "head": nn.Linear(6, torch.Size(answer).numel()),
    }
    if len(answer) > 1:
        layers["last"] = nn.Unflatten(1, answer)
    return nn.Sequential(OrderedDict(layers))


def said(seed: int = 1, mentors: int = M, n: int = B, kind: str = CLASSES) -> Tensor:
    """Answers ``(mentors, n, …)``, in the bank's precision."""
    if kind != CLASSES:
        return answers_to(kind, targets(n, kind), mentors).half().float()
    torch.manual_seed(seed)
    return (3 * torch.randn(mentors, n, C)).half().float()


def classroom(
    name: str,
    given: dict[str, Any],
    answers: Tensor,
    net: nn.Module | None = None,
    order: Tensor | None = None,
    store: Any = None,
    kind: str = CLASSES,
    hidden: Tensor | None = None,
) -> Classroom:
    """A room of mentors who say ``answers``; ``hidden`` (n,) bool: which samples of the batch have no label."""
    order = torch.arange(len(answers)) if order is None else order
    count = len(answers)
    lacks = hidden is not None
    on_joints = kind != CLASSES
    task: Task = Pose(coding(kind), FIVE, unlabelled=lacks) if on_joints else tasks.create(CLASSES, unlabelled=lacks)
    labels = targets(60, kind).clone()
    if hidden is not None:
        labels[IDS[: len(hidden)][hidden]] = without_label(kind)
    taps = {} if kind == CLASSES else TAPS
    mentors = [Mentor(Speaker(answers[i], seed=10 + int(i)).to(answers.dtype), taps=taps) for i in order]
    torch.manual_seed(5)
    method = methods.create(name, **given)
    peers = peers_for(method, answers)
    room = Classroom(
        net or student(tuple(answers.shape[2:])),
        mentors,
        method,
        task=task,
        taps=taps,
        image_shape=SHAPE,
        register=(torch.arange(60), labels),
        taught=[i == count - 1 for i in range(count)],
        store=store,
        peers=peers,
        teachers=teachers_for(method, peers),
    )
    room.epochs, room.epoch = 240, 1.0  # a rule may make an exception of the first epoch (0)
    ceiling = torch.linspace(0.6, 0.9, count)[order, None].repeat(1, C if kind == CLASSES else K)
    room.calibration = Calibration(torch.linspace(0.5, 2.0, count)[order], ceiling)
    if method.needs.prepare and store is not None:  # what it finds in a room without
        room.load_state_dict(classroom(name, given, answers, None, order, None, kind, hidden).state_dict())
    elif method.needs.prepare:
        inputs, _ = batch(dtype=next(room.student.parameters()).dtype)
        room.prepare([{"inputs": inputs, "target": targets(B, kind), "ids": IDS}])
    return room


def peers_for(method: Method, answers: Tensor) -> dict[str, nn.Module]:
    """As many networks as a method must have beside the student, and one that is no teacher, from their own weights."""
    return {
        f"p{number}": student(tuple(answers.shape[2:]), seed=number + 20).to(answers.dtype)
        for number in range(how_many(method, len(answers)) if method.needs.takes_peers else 0)
    }


def teachers_for(method: Method, peers: Collection[str]) -> list[str]:
    """The last of them, as many as the method trains."""
    return list(peers)[len(peers) - method.needs.teachers :]


def without_label(kind: str = CLASSES) -> Tensor:
    """The target of a sample without a label."""
    return torch.tensor(UNLABELLED) if kind == CLASSES else torch.tensor([[0.0, 0.0, UNLABELLED]]).expand(K, 3)


def targets(n: int, kind: str = CLASSES) -> Tensor:
    """What is to be said of samples 0 to n - 1."""
    return torch.arange(n) % C if kind == CLASSES else people(n)


def batch(n: int = B, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, *SHAPE, generator=generator).to(dtype), torch.randint(C, (n,), generator=generator)


def teach(name: str, given: dict[str, Any], answers: Tensor, n: int = B) -> tuple[Classroom, Lesson]:
    room = classroom(name, given, answers)
    return room, room(*batch(n), ids=IDS[:n])


def by_main(room: Classroom) -> dict[str, nn.Parameter]:
    """What the main optimiser trains."""
    own = {id(p) for p in room.method.meta_parameters()}
    return {name: p for name, p in room.named_parameters() if id(p) not in own and p.requires_grad}
