"""Who should teach? Three mentors, one of them bad, under four methods in one loop: python examples/weigh_mentors.py.

Features, projectors, a meta-learned weighting with a step of its own, and two methods at once; seconds on a CPU,
which is too short to judge any of them by.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import classroomkd as ck
from classroomkd.classroom import PlainContext

DATA = {"source": "puppets", "options": {"train": 320, "test": 200, "image_size": 32, "hard": 0.2}}
METHODS: dict[str, list[tuple[str, dict[str, object]]]] = {
    "average": [("average", {})],
    "camkd": [("camkd", {"feature_weight": 1.0})],  # logits, and features through the mentors' own classifiers
    "mmkd": [("mmkd", {"feature_weight": 1.0, "meta_every": 4, "buffer": 64})],
    "aekd + at": [("aekd", {}), ("at", {"weight": 10.0})],
}


def tensors(part: ck.data.Part, images: ck.data.ImageSet) -> tuple[Tensor, Tensor]:
    """A part as normalised images (N, 3, H, W) and classes (N,)."""
    pixels, target, _ = part.batch(torch.arange(len(part)))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (images.mean, images.std))
    return (pixels / 255 - mean) / std, target


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images that a network gets right."""
    net.eval()
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


def train(classroom: ck.Classroom, x: Tensor, y: Tensor, epochs: int) -> Tensor | None:
    """One loop for every method; the mentors' mean weights in the last epoch, (M,)."""
    method = classroom.method
    own = {id(p) for p in method.meta_parameters()}  # what mmkd updates by itself
    trained = [p for p in classroom.parameters() if id(p) not in own]
    context = PlainContext(classroom, torch.optim.SGD(trained, lr=0.05, momentum=0.9, weight_decay=5e-4))
    classroom.train()
    classroom.epochs = epochs  # for schedules: dkd's, say
    for epoch in range(epochs):
        classroom.epoch, weights = float(epoch), []
        for index in torch.randperm(len(y)).split(32):
            lesson = method.step(context, {"inputs": x[index], "target": y[index]})
            weights += [] if lesson.weight is None else [lesson.weight.mean(1)]
    return torch.stack(weights).mean(0) if weights else None


def main() -> None:
    """Train three mentors, one of them on labels that mean nothing, then a student by every method."""
    torch.manual_seed(0)
    images = ck.data.load(DATA)
    (x, y), (test_x, test_y) = tensors(images.train, images), tensors(images.test, images)
    mentors = {name: ck.models.create(name, num_classes=10) for name in ("convnet16", "dwnet16", "convnet8")}
    for name, net in mentors.items():
        wrong = y[torch.randperm(len(y))] if name == "convnet8" else y
        train(ck.Classroom(net, (), "none"), x, wrong, epochs=10)
        print(f"{name:10s} {accuracy(net, test_x, test_y):.1%}")
    for label, parts in METHODS.items():
        torch.manual_seed(1)
        student = ck.models.create("convnet8", num_classes=10)
        classroom = ck.Classroom(student, list(mentors.values()), ck.methods.compose(parts), image_shape=images.shape)
        weights = train(classroom, x, y, epochs=4)
        assert weights is not None
        shares = ", ".join(f"{name} {w:.2f}" for name, w in zip(mentors, weights.tolist(), strict=True))
        print(f"{label:10s} {accuracy(student, test_x, test_y):.1%}  {shares}")


if __name__ == "__main__":
    main()
