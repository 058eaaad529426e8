"""The table of goals, filled by one command: what step, training and bank cost over the student alone and the peers.

    python benchmarks/bench.py                      # every row that this machine can measure; half an hour
    python benchmarks/bench.py --only 1,4,8         # some rows; what is there of the others stays
    python benchmarks/bench.py --quick              # tries the plumbing in a minute; its figures mean nothing

Each row runs its variants in one process, interleaved in rotating order, on one thread, with large blocks kept; the
clock is the process's CPU time, with the wall beside it. A figure is the median over rounds of a ratio within the
round, with quartiles; A/A is the base over itself and says what the machine can resolve. Writes ``latest.json`` after
every row; ``render.py`` makes the table of it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from parts.figures import GOALS, Found, Plan, Skipped

HERE = Path(__file__).resolve().parent
# row: module of parts, function
ROWS = {
    1: ("steps", "rows"),
    2: ("rivals", "naive"),
    3: ("training", "rows"),
    4: ("exact", "rows"),
    5: ("online", "rows"),
    6: ("rivals", "classroomkd"),
    7: ("rivals", "averaging"),
    8: ("loss", "rows"),
    9: ("reading", "rows"),
    10: ("crops", "rows"),
    11: ("memory", "rows"),
    12: ("quality", "rows"),
    13: ("gpu", "rows"),
}
LATEST, QUICK = HERE / "latest.json", HERE.parent / "runs" / "bench-quick.json"


def measured(row: int, plan: Plan) -> Found:
    """A row's figures; what goes wrong in one row does not cost the others."""
    module, name = ROWS[row]
    wanted = [g.name for g in GOALS if g.row == row]
    try:
        found: Found = getattr(importlib.import_module(f"parts.{module}"), name)(plan)
    except Skipped as why:
        return Found(missing=dict.fromkeys(wanted, str(why)))
    except Exception as error:
        traceback.print_exc()
        return Found(missing=dict.fromkeys(wanted, f"failed: {type(error).__name__}: {error}".splitlines()[0]))
    unknown = set(found.figures) | set(found.missing)
    assert unknown <= set(wanted), f"row {row} measures what the table does not have: {unknown - set(wanted)}"
    return found


def merged(before: dict[str, Any], row: int, found: Found, sitting: dict[str, Any]) -> dict[str, Any]:
    """The content of ``latest.json`` with one row's figures put in the place of older ones.

    A figure that was measured before and cannot be measured now stays, with its own date.
    """
    ratios, about = dict(before.get("ratios", {})), dict(before.get("about", {}))
    missing = dict(before.get("missing", {}))
    for goal in GOALS:
        if goal.row != row:
            continue
        if goal.name in found.figures:
            figure = found.figures[goal.name]
            ratios[goal.name] = figure.entry(goal.goal)
            about[goal.name] = {"row": row, "what": goal.what, **figure.about(), **sitting}
            missing.pop(goal.name, None)
        elif goal.name not in ratios:
            missing[goal.name] = found.missing.get(goal.name, "not measured")
    order = [goal.name for goal in GOALS]
    for goal in GOALS:  # the table's, whenever it was measured
        if goal.name in ratios:
            ratios[goal.name] = {**ratios[goal.name], "goal": goal.goal}
    return {
        **sitting,
        "ratios": {name: ratios[name] for name in order if name in ratios},
        "about": {name: about[name] for name in order if name in about},
        "missing": {name: missing[name] for name in order if name in missing},
    }


def machine() -> str:
    """Processor, cores, and what of it matters here."""
    import torch

    from classroomkd.train.optimize import has_bf16

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), name)
    except OSError:
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    half = "with" if has_bf16("cpu") else "without"
    return f"{name}, {os.cpu_count()} cores, one thread, {half} bf16 in hardware{gpu}"


def sitting(command: str) -> dict[str, Any]:
    """Where and when figures are measured, and with what."""
    import numpy
    import torch

    from classroomkd import __version__

    git = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "machine": machine(),
        "versions": {
            "classroomkd": __version__ + (f" ({commit})" if commit else ""),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "load_before": [round(x, 2) for x in os.getloadavg()],
    }


def options(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(map(str, ROWS)), help="rows, as 1,4,8")
    parser.add_argument("--rounds", type=int, help="instead of each row's own number (21, or 41)")
    parser.add_argument("--quick", action="store_true", help="three rounds of tiny sizes, into runs/bench-quick.json")
    parser.add_argument("--compile", action="store_true", help="row 5: torch.compile, too (minutes)")
    parser.add_argument("--classroomkd-clone", type=Path, help="row 6: the authors' repository")
    parser.add_argument("--camkd-clone", type=Path, help="row 7: CA-MKD's repository")
    parser.add_argument("--peer-python", help="rows 6 and 7: interpreter that the peers' packages are installed for")
    parser.add_argument("--data", type=Path, help="row 13: the folder of CIFAR-100")
    parser.add_argument("--mentors", type=Path, help="row 13: folder of NAME.pth or NAME.safetensors; untrained ones")
    parser.add_argument("--work", type=Path, help="folder for temporary files, on the disk that is to be measured")
    parser.add_argument("--out", type=Path, help="instead of benchmarks/latest.json")
    found = parser.parse_args(words)
    try:
        found.rows = [int(row) for row in found.only.split(",")]
        assert set(found.rows) <= set(ROWS)
    except (ValueError, AssertionError):
        parser.error(f"--only {found.only}: rows are {', '.join(map(str, ROWS))}")
    if found.rounds is not None and found.rounds < 2:
        parser.error("--rounds: a figure with quartiles needs at least 2")
    return found


def main(words: list[str] | None = None) -> None:
    """Measure, row by row."""
    given = options(words)
    import torch

    from classroomkd.train.allocator import keep_large_blocks

    torch.set_num_threads(1)
    if not keep_large_blocks():
        print("this machine's allocator cannot be set; ratios may hold page faults", file=sys.stderr)
    out = given.out or (QUICK if given.quick else LATEST)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "benchmarks/bench.py", *(sys.argv[1:] if words is None else words)])
    clones = {"classroomkd": given.classroomkd_clone, "camkd": given.camkd_clone}
    clones = {name: path for name, path in clones.items() if path is not None}
    for row in given.rows:
        now, started = sitting(command), time.perf_counter()
        with tempfile.TemporaryDirectory(dir=given.work) as folder:
            plan = Plan(Path(folder), given.rounds, given.quick, given.compile, clones, given.peer_python)
            plan.data, plan.mentors = given.data, given.mentors
            found = measured(row, plan)
        before = json.loads(out.read_text()) if out.exists() else {}
        made = merged(before, row, found, now)
        out.write_text(json.dumps(made, indent=1) + "\n")
        for name, figure in found.figures.items():
            told = figure.entry(0.0)
            print(f"{row:2d} {name:44s} {told['median']:.4g} [{told['q1']:.4g} {told['q3']:.4g}]  {figure.note}")
        for name, why in found.missing.items():
            print(f"{row:2d} {name:44s} –  {why}")
        print(f"   row {row}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
