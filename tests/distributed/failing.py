"""``classroomkd`` with a rank that fails where the environment says: ``FAIL=rank:step:how:attempt``.

``step`` counts the training steps of this process. How: ``die`` (killed, no word), ``full`` (the disk), ``broken`` (a
bug), ``rest`` (hangs in the middle of a step), ``freeze`` (the whole process stands still).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from classroomkd.cli.app import main
from classroomkd.errors import RunStopped
from classroomkd.train import step as context

HOW: dict[str, Any] = {
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "rest": lambda: time.sleep(1000),
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def full() -> None:
    raise RunStopped("no space left on the disk")


def broken() -> None:
    raise ZeroDivisionError("a bug")


def fail_there() -> None:
    rank, at, how, attempt = os.environ["FAIL"].split(":")
    if (os.environ["RANK"], os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) != (rank, attempt):
        return
    step, taken = context.StepRunner.step, 0

    def counted(self: context.StepRunner, batch: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == int(at):
            {**HOW, "full": full, "broken": broken}[how]()
        return step(self, batch)

    context.StepRunner.step = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    if "FAIL" in os.environ:
        fail_there()
    sys.exit(main())
