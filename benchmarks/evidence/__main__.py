"""``python -m benchmarks.evidence``: run, status, render."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.evidence.queue import ROOT, Queue
from benchmarks.evidence.render import write
from benchmarks.evidence.results import HERE, Store
from benchmarks.evidence.status import status
from benchmarks.evidence.study import load_study, study_names
from classroomkd.errors import UserError


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description="The bench of evidence.")
    parser.add_argument("verb", choices=("run", "status", "render"))
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="names; all, in the order of the queue")
    parser.add_argument("--minutes", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--arms", help="of run: names, with commas; only these, and the student alone; all else later")
    parser.add_argument("--data", type=Path, default=os.environ.get("CLASSROOMKD_DATA"), help="or CLASSROOMKD_DATA")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "evidence", help="students, mentors, answers")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="what was found")
    given = parser.parse_args()
    try:
        names = given.studies or study_names()
        for name in names:
            load_study(name)
        arms = frozenset(filter(None, (given.arms or "").split(",")))
        if unknown := arms - {arm.name for name in names for arm in load_study(name).arms}:
            raise UserError(f"--arms: no study named has an arm {', '.join(map(repr, sorted(unknown)))}")
        data = Path(given.data).resolve() if given.data else None
        queue = Queue(data, Store(given.results), given.out.resolve(), arms=arms)
        if given.verb == "run":
            return 0 if queue.run(names, given.minutes, lambda name: status([name], queue)) else 75
        if given.verb == "status":
            status(names, queue)
        else:
            write(queue.store)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
