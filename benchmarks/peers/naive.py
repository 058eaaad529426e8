"""The naive step, our own writing of what research forks do, against our warm and our online step.

    python benchmarks/peers/naive.py --rounds 21      # resnet8x4 and mobilenetv2, six mentors

Student and mentors one after another in float32 and plain layout, a KL term a mentor in a Python loop, SGD as
``torch.optim`` gives it, the loss read back every step. Ours is ``average``, which computes the same loss. Both draw
their batches by our crop and flip; forks take single images through PIL, which costs more.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers.rounds import Step, arguments, measure, publish, start

__all__ = ["naive_step"]


def naive_step(
    student: torch.nn.Module,
    mentors: list[torch.nn.Module],
    following: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    temperature: float = 4.0,
) -> Step:
    """One naive training step on copies of these networks; calling it gives the loss.

    Args:
        student, mentors: networks from ``(B, 3, H, W)`` to logits ``(B, C)``.
        following: gives the next batch, inputs ``(B, 3, H, W)`` and target ``(B,)``.
        temperature: of the KL terms, which are averaged over the mentors and added to the cross-entropy.
    """
    student = copy.deepcopy(student).train()
    mentors = [copy.deepcopy(mentor).eval() for mentor in mentors]
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> float:
        pixels, target = following()
        logits = student(pixels)
        with torch.no_grad():
            said = [mentor(pixels) for mentor in mentors]
        loss = F.cross_entropy(logits, target)
        for answer in said:
            log_student = F.log_softmax(logits / temperature, dim=1)
            soft = F.softmax(answer / temperature, dim=1)
            loss = loss + temperature**2 * F.kl_div(log_student, soft, reduction="batchmean") / len(said)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--student", choices=("resnet8x4", "mobilenetv2"), action="append", default=[])
    args = parser.parse_args()
    start(args)
    from peers.ours import SIX, Loader, our_step, problem

    pairs: dict[str, tuple[str, str]] = {}
    took = {}
    first: dict[str, list[float]] = {}
    for student in args.student or ("resnet8x4", "mobilenetv2"):
        given = problem(student, SIX, args)
        naive = naive_step(given.student, list(given.mentors), Loader(given).next)
        steps: dict[str, Step] = {
            "naive": naive,
            "naive again": naive,
            "warm fp32": our_step(given, "average", warm=True),
            "online fp32": our_step(given, "average"),
        }
        if args.bf16:
            steps["online bf16"] = our_step(given, "average", mentor_precision="bf16")
        if args.bf16 and student == "resnet8x4":  # bf16 makes depthwise networks slower on CPUs
            steps["warm bf16"] = our_step(given, "average", warm=True, student_precision="bf16")
        first[student] = [float(step()) for name, step in steps.items() if name != "naive again"]
        rounds = measure(steps, args.rounds)
        took |= {f"{name} {student}": times for name, times in rounds.items()}
        pairs[f"aa_naive_{student}"] = (f"naive again {student}", f"naive {student}")
        for name in steps:
            kind = f"{name} {student}"
            if name.startswith("warm"):
                pairs[f"at_least_naive_over_{name.replace(' ', '_')}_{student}"] = (f"naive {student}", kind)
            elif name.startswith("online"):
                pairs[f"{name.replace(' ', '_')}_over_naive_{student}"] = (kind, f"naive {student}")
    peer = {"repository": "none: benchmarks/peers/naive.py", "commit": "this one"}
    publish(took, pairs, peer, {"mentors": list(SIX), "first_losses": first}, args)


if __name__ == "__main__":
    main()
