"""A method of one's own, in a loop and as a plug-in: python examples/own_method.py (seconds on a CPU).

To use it in recipes, install it in a package with this entry point (docs/python.md):

    [project.entry-points."classroomkd.methods"]
    surest = "own_method:Surest"
"""

from __future__ import annotations

import torch

import classroomkd as ck
from classroomkd.classroom import masked_mean


class Surest(ck.Method):
    """The surest mentor teaches each sample, whether it is right or not.

    Args:
        temperature: T > 0.
        weight: factor of the distilled term.
    """

    def __init__(self, *, temperature: float = 4.0, weight: float = 1.0) -> None:
        """Options are keyword arguments with type hints; recipes check them by these."""
        super().__init__()
        self.temperature = temperature
        self.coefficients = {"distilled": weight}

    def loss(self, lesson: ck.Lesson) -> ck.Terms:
        """Supervised and distilled terms; M mentors, B samples, U units a sample (1 for classes)."""
        assert lesson.mentors is not None
        task, student, answers = lesson.task, lesson.student.prediction, lesson.mentors.prediction
        mask = task.mask(lesson.target)  # (B, U)
        own = task.supervised(student, lesson.target)  # (B, U)
        with torch.no_grad():
            sure = torch.stack([z.softmax(-1).amax(-1) for z in task.distributions(answers)]).mean(0)  # (M, B, U)
            active = (sure == sure.amax(0)) & mask
        divergence = task.divergence(student, answers, self.temperature)  # (M, B, U)
        taught = torch.where(active, divergence, 0.0).sum(0)  # selected: 0 · NaN would be NaN
        return ck.Terms(
            {"supervised": masked_mean(own, mask), "distilled": self.temperature**2 * masked_mean(taught, mask)},
            self.coefficients,
            weight=active.to(own.dtype),
            temperature=torch.full_like(active, self.temperature, dtype=own.dtype),
            active=active,
        )


def main() -> None:
    """Teach a student on drawn figures and say how often each mentor was the surest."""
    torch.manual_seed(0)
    images = ck.data.load({"source": "puppets", "options": {"train": 300, "test": 100, "image_size": 32}})
    pixels, target, _ = images.train.batch(torch.arange(len(images.train)))
    x = (pixels / 255 - 0.5) / 0.25
    mentors = [ck.models.create(name, num_classes=10) for name in ("convnet16", "dwnet16")]
    for mentor in mentors:  # half-trained is enough to show the loop
        train(ck.Classroom(mentor, (), "none"), x, target, epochs=3)
    classroom = ck.Classroom(ck.models.create("convnet8", num_classes=10), mentors, Surest(temperature=2.0))
    share = train(classroom, x, target, epochs=3)
    print({name: round(value, 3) for name, value in zip(classroom.mentors.names, share.tolist(), strict=True)})


def train(classroom: ck.Classroom, x: torch.Tensor, y: torch.Tensor, epochs: int) -> torch.Tensor:
    """Train whatever is in the classroom; the share of samples each mentor taught, (M,)."""
    optimizer = torch.optim.AdamW(classroom.parameters(), lr=5e-3)
    shares = []
    for _ in range(epochs):
        for index in torch.randperm(len(y)).split(32):
            lesson = classroom(x[index], y[index])
            lesson.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if lesson.active is not None:
                shares.append(lesson.active.float().mean(1))
    return torch.stack(shares).mean(0) if shares else torch.zeros(0)


if __name__ == "__main__":
    main()
