"""CA-MKD's loop from a clone, three resnet32x4 teaching a resnet8x4, against our ``average`` step, online and warm.

    PEER_PYTHON benchmarks/peers/camkd_authors.py CLONE --rounds 21

Theirs, unchanged, from the clone: ``train_distill_multi_teacher`` (helper/loops.py), its criteria (distiller_zoo), the
feature module ``CalWeight`` (models/util.py), the networks (models/resnet.py, which the loop needs) with our weights.
Two of its settings are timed, as scripts/run.sh has them: plain averaging (``kd``, AVERAGE_LOSS), which computes the
loss of our ``average``, and CA-MKD itself (``inter``, CAMKD, feature weight 50, from the second epoch on).
One call of the loop with one batch is one step. Scaffold: our loader (crop and flip, as theirs) on both sides; SGD
with their settings (learning rate 0.05, Nesterov), made here as ``train_student.py`` makes it; untrained networks.
To make it start: ``.cuda()`` gives back the tensor; packages that the step does not use and that are not installed
(``sklearn``) are empty stand-ins; its networks use ``einops``, so run it with a Python that has that; what it prints
is thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers.rounds import Step, arguments, commit_of, measure, publish, start

STUDENT, TEACHERS = "resnet8x4", ("resnet32x4",) * 3
KINDS = {
    "average": {"distill": "kd", "ensemble_method": "AVERAGE_LOSS", "beta": 0.0},
    "camkd": {"distill": "inter", "ensemble_method": "CAMKD", "beta": 50.0},
}


def their_step(clone: Path, given: Any, kind: str) -> Step:
    """Their step on their networks with the problem's weights; calling it gives the loss."""
    import torch

    from peers.ours import Loader
    from peers.theirs import at, copy_weights, only_cpu, stand_ins

    only_cpu()
    stand_ins(("sklearn", "sklearn.svm"))
    with at(clone):
        loops = importlib.import_module("helper.loops")
        zoo = importlib.import_module("distiller_zoo")
        shelf = importlib.import_module("models").model_dict
        weigh = importlib.import_module("models.util").CalWeight
    options = argparse.Namespace(
        **KINDS[kind], teacher_num=len(TEACHERS), dali=None, batch_size=given.batch, gpu=None, preact=False,
        distill_decay=False, alpha=1.0, gamma=1.0, print_freq=100, multiprocessing_distributed=False, factor=2,
        convs=False, epochs=240,
    )  # fmt: skip
    student = copy_weights(given.student, shelf[STUDENT](num_classes=100))
    teachers = [copy_weights(m, shelf[n](num_classes=100)) for n, m in zip(TEACHERS, given.mentors, strict=True)]
    modules = torch.nn.ModuleList([student])
    criteria = [torch.nn.CrossEntropyLoss(), zoo.DistillKL(4.0), zoo.DistillKL(4.0)]
    if kind == "camkd":
        with torch.no_grad():
            feats = [network.eval()(torch.randn(2, 3, 32, 32), is_feat=True)[0][-2] for network in (student, *teachers)]
        modules.append(weigh(feats[0], feats[1:], options))
        criteria[2] = zoo.CAMKD()
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    modules.extend(teachers)
    loader = Loader(given)

    def step() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            said = loops.train_distill_multi_teacher(2, loader, modules, criteria, optimizer, options)
        return float(said[2])

    return step


def main() -> None:
    args = arguments(__doc__, clone=True).parse_args()
    start(args)
    from peers.ours import our_step, problem

    given = problem(STUDENT, TEACHERS, args)
    average = their_step(args.clone, given, "average")
    steps: dict[str, Step] = {
        "their average": average,
        "their average again": average,
        "their camkd": their_step(args.clone, given, "camkd"),
        "average warm": our_step(given, "average", warm=True),
        "average online fp32": our_step(given, "average"),
    }
    if args.bf16:
        steps["average online bf16"] = our_step(given, "average", mentor_precision="bf16")
    first = {name: float(step()) for name, step in steps.items() if name != "their average again"}
    took = measure(steps, args.rounds)
    pairs = {"aa_camkd_authors": ("their average again", "their average")}
    for name in list(steps)[3:]:
        for loop in ("average", "camkd"):
            pairs[f"{name.replace(' ', '_')}_over_camkd_loop_{loop}"] = (name, f"their {loop}")
    peer = {"repository": "github.com/Rorozhl/CA-MKD", "commit": commit_of(args.clone)}
    publish(took, pairs, peer, {"student": STUDENT, "mentors": list(TEACHERS), "first_losses": first}, args)


if __name__ == "__main__":
    main()
