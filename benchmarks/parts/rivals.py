"""Rows 2, 6 and 7: the peers' own steps, each by its script in ``benchmarks/peers`` in a process of its own.

Where a clone or an environment is not named, its figures are not measured and the table says so. Both sides run with
large blocks kept, and draw their batches by the same code; the scripts run alone also measure stock glibc. Row 6 needs
nothing that this environment lacks, so it runs without ``--peer-python``, too, with stand-ins that its note names.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from classroomkd.train.optimize import has_bf16
from parts.figures import Figure, Found, Plan, five

__all__ = ["averaging", "classroomkd", "naive"]

HERE = Path(__file__).resolve().parent.parent / "peers"


def _run(python: str, script: str, plan: Plan, *more: str) -> dict[str, Any]:
    """What a script says."""
    command = [python, str(HERE / script), *more, "--rounds", str(plan.turns(21)), "--allocator", "kept"]
    command += ["--work", str(plan.folder), "--samples", str(plan.size(50_000, 1000))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _figure(said: dict[str, Any], name: str, again: str, note: str = "") -> Figure:
    peer = said["peer"]
    where = f"{peer['repository']} at {peer['commit'][:12]}" if not peer["repository"].startswith("none") else ""
    note = "; ".join(x for x in (where, note) if x)
    own, wall = said["ratios"], said["wall_ratios"]
    return Figure(five(own[name]), five(wall[name]), five(own[again]), note, said["settings"]["rounds"])


def _warm(said: dict[str, Any]) -> str:
    """A note of what a warm step is."""
    images = f"{said['settings']['samples']:,} images"
    return f"both sides crop and flip; answers from the bank's slab of {images}, its reading included"


def naive(plan: Plan) -> Found:
    """Row 2."""
    said, found = _run(sys.executable, "naive.py", plan), Found()
    for student, precision in (("resnet8x4", "fp32"), ("resnet8x4", "bf16"), ("mobilenetv2", "fp32")):
        name = f"at_least_naive_over_warm_{precision}_{student}"
        if name in said["ratios"]:
            found.figures[name] = _figure(said, name, f"aa_naive_{student}", _warm(said))
        else:
            found.missing[name] = "this processor does not compute in bf16"
    return found


def _best(said: dict[str, Any], name: str) -> tuple[str, str]:
    """The online figure in the precision that we would use here, and a note of it."""
    half = has_bf16("cpu") and name.format("bf16") in said["ratios"]
    return name.format("bf16" if half else "fp32"), f"mentors in {'bf16' if half else 'fp32'}"


def classroomkd(plan: Plan) -> Found:
    """Row 6."""
    names = ("online_over_classroomkd_loop", "warm_over_classroomkd_loop")
    if "classroomkd" not in plan.clones:
        return Found(missing=dict.fromkeys(names, "no clone was named: --classroomkd-clone DIR"))
    own = plan.peer_python is not None
    said = _run(plan.peer_python or sys.executable, "classroomkd_authors.py", plan, str(plan.clones["classroomkd"]))
    online, note = _best(said, "online_{}_over_classroomkd_authors")
    lacking = said["settings"]["stand_ins"]
    where = ("in the peers' environment" if own else "in ours, without --peer-python") + (
        f", stand-ins for {' and '.join(lacking)}, which the step does not use" if lacking else ""
    )
    again = "aa_classroomkd_authors"
    return Found(
        {
            names[0]: _figure(said, online, again, f"{where}; {note}"),
            names[1]: _figure(said, "warm_over_classroomkd_authors", again, f"{where}; {_warm(said)}"),
        }
    )


def averaging(plan: Plan) -> Found:
    """Row 7."""
    found, python = Found(), plan.peer_python
    if python is None or "camkd" not in plan.clones:
        found.missing["average_over_camkd_loop"] = "no clone or environment: --camkd-clone DIR --peer-python FILE"
    else:
        said = _run(python, "camkd_authors.py", plan, str(plan.clones["camkd"]))
        name, note = _best(said, "average_online_{}_over_camkd_loop_average")
        found.figures["average_over_camkd_loop"] = _figure(said, name, "aa_camkd_authors", note)
    if python is None:
        found.missing["kd_over_torchdistill"] = "no environment that has torchdistill was named: --peer-python FILE"
    else:
        said = _run(python, "torchdistill_kd.py", plan)
        name, note = _best(said, "kd_online_{}_over_torchdistill")
        found.figures["kd_over_torchdistill"] = _figure(said, name, "aa_torchdistill", note)
    return found
