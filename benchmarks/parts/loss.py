"""Row 8: what the loss and the bookkeeping of ``classroomkd`` cost, and the fused loss over a loop over the mentors.

At B 128, M 6, C 100. The share is that of the warm step of mobilenetv2, the cheapest student; the loss is taken with
its backward down to the student's logits, the record of who taught what is inside. The two forms of the distilled term
have a temperature and a weight for each sample and mentor, forward and backward.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from peers.rounds import measure

from classroomkd.classroom import Answers, Lesson
from classroomkd.functional import kl_divergence
from parts.figures import Figure, Found, Plan, ratios
from parts.setting import SIX, images, slab_bank, stores, training

__all__ = ["rows"]

B, M, C = 128, len(SIX), 100
REPEAT = 20


def _forms() -> tuple[Callable[[], object], Callable[[], object]]:
    """The distilled term fused over the mentors, and one mentor after another."""
    student = torch.randn(B, C, requires_grad=True)
    mentors, target = torch.randn(M, B, C), torch.rand(M, B)
    temperature, weight = 1 + 11 * target, target / M

    def fused() -> None:
        student.grad = None
        each = kl_divergence(student.unsqueeze(0), mentors, temperature)
        (weight * temperature.square() * each).sum(0).mean().backward()

    def loop() -> None:
        student.grad = None
        total = torch.zeros(())
        for m in range(M):
            t = temperature[m].unsqueeze(1)
            far = F.kl_div(F.log_softmax(student / t, dim=1), F.softmax(mentors[m] / t, dim=1), reduction="none").sum(1)
            total = total + (weight[m] * temperature[m] ** 2 * far).mean()
        total.backward()

    fused()
    first = student.grad
    loop()
    assert first is not None
    assert student.grad is not None
    assert torch.allclose(first, student.grad, atol=1e-6), "the two forms are not the same loss"
    return fused, loop


def rows(plan: Plan) -> Found:
    """See the module."""
    samples = plan.size(8000, 512)
    part = images(samples, C)
    bank = slab_bank(stores(plan.folder / f"slabs-{C}-{samples}", samples, C, 1), part)
    step = training("mobilenetv2", part, 1, C, bank=bank, batch=B)
    room, record = step.context.classroom, step.context.record
    logits, target = torch.randn(B, C, requires_grad=True), torch.randint(C, (B,))
    answers = Answers(torch.randn(M, B, C))

    def teach() -> None:
        for _ in range(REPEAT):
            logits.grad = None
            lesson = Lesson(logits, target, Answers(logits), answers, room.task)
            lesson.conclude(room.method(lesson))
            lesson.loss.backward()
            record.add(lesson)

    fused, loop = _forms()

    def often(work: Callable[[], object]) -> Callable[[], None]:
        def many() -> None:
            for _ in range(REPEAT):
                work()

        return many

    cases = {
        "step": step.step,
        "step again": step.step,
        "teach": teach,
        "loop": often(loop),
        "loop again": often(loop),
        "fused": often(fused),
    }
    took = measure(cases, plan.turns(21))
    share = ratios([(a / REPEAT, b / REPEAT) for a, b in took["teach"]], took["step"], took["step again"])
    taught, whole = (1000 * statistics.median(t[0] for t in took[k]) for k in ("teach", "step"))
    share.note = f"{taught / REPEAT:.2f} of the {whole:.0f} ms of a warm mobilenetv2 step"
    form: Figure = ratios(took["fused"], took["loop"], took["loop again"])
    return Found({"loss_share_of_step": share, "loss_fused_over_loop": form})
