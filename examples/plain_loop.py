"""ClassroomKD in a plain PyTorch loop, on drawn figures: python examples/plain_loop.py (seconds on a CPU)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import classroomkd as ck

DATA = {"source": "puppets", "options": {"train": 600, "test": 400, "image_size": 32, "hard": 0.2}}


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


def teach(student: nn.Module, mentors: list[nn.Module], method: str, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """The loop: ten lines, whatever the method; without mentors it is ordinary training."""
    classroom = ck.Classroom(student, mentors, method)
    optimizer = torch.optim.AdamW(classroom.parameters(), lr=5e-3)
    classroom.train()
    for _ in range(epochs):
        for index in torch.randperm(len(y)).split(16):
            lesson = classroom(x[index], y[index])
            lesson.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return student


def main() -> None:
    """Train two mentors on all images, then students on a third of them."""
    torch.manual_seed(0)
    images = ck.data.load(DATA)
    (x, y), (test_x, test_y) = tensors(images.train, images), tensors(images.test, images)
    mentors = [teach(ck.models.create(n, num_classes=10), [], "none", x, y, 10) for n in ("convnet16", "dwnet16")]
    few_x, few_y = tensors(ck.data.subset(images.train, len(y) // 3), images)
    students = {}
    for method in ("none", "average", "classroomkd"):
        torch.manual_seed(1)  # the same first weights and the same order for every method
        student = ck.models.create("convnet8", num_classes=10)
        students[method] = teach(student, [] if method == "none" else mentors, method, few_x, few_y, 16)
    for name, net in [*zip(("convnet16", "dwnet16"), mentors, strict=True), *students.items()]:
        print(f"{name:12s} {accuracy(net, test_x, test_y):.1%}")


if __name__ == "__main__":
    main()
