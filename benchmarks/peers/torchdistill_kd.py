"""torchdistill's own distillation box (PyPI), one teacher, against our ``kd`` step, online and warm.

    PEER_PYTHON benchmarks/peers/torchdistill_kd.py --rounds 21      # resnet32x4 teaching resnet8x4

Run it with the Python of the environment torchdistill is installed in; it needs this package's dependencies torch,
numpy, pydantic and PyYAML too; where the package itself is not installed it is found beside this folder.
Theirs, unchanged: ``DistillationBox`` with ``WeightedSumLoss`` over ``KDLoss`` (temperature 4, alpha 0.1) on forward
hooks, its registry's SGD, its forward and post-forward processes; one step is what its example scripts do with a batch.
Scaffold: our loader (crop and flip) on both sides; the networks are ours on both sides, untrained.
To make it start: torchvision's two missing operators are declared; log level WARNING.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers.rounds import Step, arguments, measure, publish, start


def their_step(given: Any) -> Step:
    """Their step on copies of the problem's networks; calling it gives the loss."""
    import torch

    from classroomkd._compat import import_torchvision

    import_torchvision("the peer")
    from torchdistill.core.distillation import get_distillation_box

    from peers.ours import Loader

    logging.getLogger("torchdistill").setLevel(logging.WARNING)
    place = {"module_path": "fc", "module_io": "output"}
    terms = {f"{who}_{key}": value for who in ("student", "teacher") for key, value in place.items()}
    config = {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "forward_hook": {"output": ["fc"]}, "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "forward_hook": {"output": ["fc"]}, "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {"key": "KDLoss", "kwargs": {**terms, "temperature": 4.0, "alpha": 0.1}},
                        "weight": 1.0,
                    }
                }
            },
        },
    }
    student, teacher = copy.deepcopy(given.student), copy.deepcopy(given.mentors[0])
    box = get_distillation_box(teacher, student, {}, config, torch.device("cpu"), None, False, 1)
    box.student_model.train()
    box.teacher_model.eval()
    following = Loader(given).next

    def step() -> float:
        pixels, target = following()
        box.pre_forward_process()
        loss = box.forward_process(pixels, target, None)
        box.post_forward_process(loss=loss)
        return float(loss.detach())

    return step


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--teacher", default="resnet32x4")
    args = parser.parse_args()
    start(args)
    from peers.ours import our_step, problem

    given = problem(args.student, (args.teacher,), args)
    theirs = their_step(given)
    steps: dict[str, Step] = {
        "theirs": theirs,
        "theirs again": theirs,
        "kd warm": our_step(given, "kd", warm=True),
        "kd online fp32": our_step(given, "kd"),
    }
    if args.bf16:
        steps["kd online bf16"] = our_step(given, "kd", mentor_precision="bf16")
    first = {name: float(step()) for name, step in steps.items() if name != "theirs again"}
    took = measure(steps, args.rounds)
    pairs = {f"{name.replace(' ', '_')}_over_torchdistill": (name, "theirs") for name in list(steps)[2:]}
    pairs["aa_torchdistill"] = ("theirs again", "theirs")
    peer = {"repository": "torchdistill (PyPI)", "commit": version("torchdistill")}
    publish(took, pairs, peer, {"student": args.student, "mentors": [args.teacher], "first_losses": first}, args)


if __name__ == "__main__":
    main()
