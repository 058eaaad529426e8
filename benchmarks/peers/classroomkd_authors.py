"""The authors' ClassroomKD loop from a clone, against our ``classroomkd`` step with the same rule: online and warm.

    PEER_PYTHON benchmarks/peers/classroomkd_authors.py CLONE --rounds 21     # mobilenetv2, the six mentors

Theirs, unchanged, from the clone: ``train_epoch`` (tools/train.py), the loss ``AskKDLoss`` (lib/models/losses), the
optimiser and schedule from their builders with the settings of configs/classroom/mobv2_student/1t5p.yaml, the meters
and the networks, with our weights. One call of ``train_epoch`` with one batch is one step.
Their loop is timed on our networks too (``_our_networks`` in the names): the same layers, but theirs work in place.
Scaffold: our loader (crop and flip, as theirs) on both sides; a process group of one rank (gloo) for their meters,
which they open with nccl; the first mentor as the teacher and the other five as peers, untrained. Their
DistributedDataParallel around the student is left out, in their favour (``--ddp`` puts it in).
To make it start: ``.cuda()`` gives back the tensor; packages that the step does not use and that are not installed
(``efficientnet_pytorch``, ``einops``) are empty stand-ins; torchvision's two missing operators are declared; log level
WARNING, no warnings, prints to the error stream. Ours is ``rule: batch``, their rule at this commit; the first loss of
both is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers.rounds import Step, arguments, commit_of, measure, publish, start

NAMES = {"mobilenetv2": "MobileNetV2"}  # theirs, where it is not ours
RATE, WARM_UP, EPOCHS, STEPS = 0.05, 120, 240, 781


def their_code(clone: Path) -> tuple[Any, Any, Any, list[str]]:
    """Their training script, their loss, their table of networks, and packages that are stand-ins."""
    import torch.distributed as dist

    from classroomkd._compat import import_torchvision
    from peers.theirs import at, only_cpu, stand_ins

    import_torchvision("the peer")
    only_cpu()
    missing = stand_ins(("efficientnet_pytorch", "einops"))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with at(clone):
        where = importlib.util.spec_from_file_location("their_train", clone / "tools" / "train.py")
        assert where is not None
        assert where.loader is not None
        train = importlib.util.module_from_spec(where)
        where.loader.exec_module(train)
        loss = importlib.import_module("lib.models.losses.ask_kd_loss_new").AskKDLoss
        return train, loss, importlib.import_module("lib.models.cifar").model_dict, missing


def their_step(code: tuple[Any, Any, Any, list[str]], given: Any, student: str | None, ddp: bool) -> Step:
    """Their step; calling it gives the loss.

    Args:
        code: of :func:`their_code`.
        given: the problem; its networks are copied.
        student: to build their networks by name, with the problem's weights; None = the problem's networks.
        ddp: wrap the student as their script does.
    """
    import torch

    from peers.ours import SIX, Loader
    from peers.theirs import copy_weights

    train, loss, shelf, _ = code
    networks = [copy.deepcopy(n) for n in (given.student, *given.mentors)]
    if student is not None:
        named = zip((student, *SIX), networks, strict=True)
        with contextlib.redirect_stdout(sys.stderr):
            networks = [copy_weights(ours, shelf[NAMES.get(name, name)](num_classes=100)) for name, ours in named]
    learner, teacher, *peers = networks
    model = torch.nn.parallel.DistributedDataParallel(learner) if ddp else learner
    rule = loss(
        model, [teacher], peers, "", "", "", torch.nn.CrossEntropyLoss(), kd_method="ask_t12", ask=True,
        confidence_threshold=0.5,
    )  # fmt: skip
    optimizer = train.build_optimizer(
        "sgd", learner, 0.01, momentum=0.9, weight_decay=5e-4, filter_bias_and_bn=False, nesterov=False
    )
    schedule = train.build_scheduler(
        "step", optimizer, WARM_UP * STEPS, RATE, 30 * STEPS, 0.1, EPOCHS * STEPS, steps_per_epoch=STEPS,
        decay_by_epoch=True, min_lr=1e-6,
    )  # fmt: skip
    wishes = argparse.Namespace(
        kd="ask_t12", ask=True, no_ask=False, ask_b=False, epochs=EPOCHS, clip_grad_norm=False, log_interval=50
    )
    loader = Loader(given)

    def step() -> float:
        said = train.train_epoch(wishes, 0, model, None, loader, optimizer, rule, schedule)
        return float(said["train_loss"])

    return step


def main() -> None:
    parser = arguments(__doc__, clone=True)
    parser.add_argument("--student", default="mobilenetv2")
    parser.add_argument("--ddp", action="store_true", help="wrap their student as their script does")
    args = parser.parse_args()
    start(args)
    from peers.ours import SIX, our_step, problem

    given = problem(args.student, SIX, args)
    code = their_code(args.clone)
    theirs = their_step(code, given, args.student, args.ddp)
    options = {"rule": "batch"}
    steps: dict[str, Step] = {
        "theirs": theirs,
        "theirs again": theirs,
        "theirs, our networks": their_step(code, given, None, args.ddp),
        "student alone": our_step(given, "none", mentors=False),
        "warm": our_step(given, "classroomkd", options, warm=True),
        "online fp32": our_step(given, "classroomkd", options),
    }
    if args.bf16:
        steps["online bf16"] = our_step(given, "classroomkd", options, mentor_precision="bf16")
    first = {name: float(step()) for name, step in steps.items() if name != "theirs again"}
    took = measure(steps, args.rounds)
    pairs = {"aa_classroomkd_authors": ("theirs again", "theirs")}
    for name in list(steps)[3:]:
        over = f"{name.replace(' ', '_')}_over_classroomkd_authors"
        pairs |= {over: (name, "theirs"), over + "_our_networks": (name, "theirs, our networks")}
    peer = {"repository": "github.com/saifkhichi96/classroom-kd", "commit": commit_of(args.clone)}
    settings = {
        "student": args.student,
        "mentors": list(SIX),
        "ddp": args.ddp,
        "stand_ins": code[-1],
        "first_losses": first,
    }
    publish(took, pairs, peer, settings, args)


if __name__ == "__main__":
    main()
