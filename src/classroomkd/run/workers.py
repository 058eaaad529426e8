"""Jobs: one mentor or one student each; run one after the other, or side by side in one-thread processes on a CPU."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd.errors import DiskFull, Interrupted, RunStopped
from classroomkd.run.arms import teach_arm
from classroomkd.run.bank_choice import BankPlan, Choice
from classroomkd.run.context import RunContext
from classroomkd.run.mentor_record import MentorRecord
from classroomkd.run.mentors import prepare_mentor
from classroomkd.run.networks import Networks
from classroomkd.train import stopping

if TYPE_CHECKING:
    from classroomkd.data import ImageSet
    from classroomkd.recipe import Recipe
    from classroomkd.train.loop import Notify

__all__ = ["Done", "Job", "cores", "execute", "in_process", "side_by_side"]


@dataclass(frozen=True)
class Job:
    """A piece of work as plain data: ``mentor`` (index, its teachers) or ``student`` (arm, seed, ready mentors)."""

    kind: str
    name: str
    index: int
    seed: int = 0
    mentors: tuple[dict[str, Any], ...] = ()
    out: str = ""
    resume: bool = False


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(networks: Networks, bank_plan: BankPlan, job: Job, notify: Notify) -> dict[str, Any]:
    """Do one job in this process."""

    def tell(event: dict[str, Any]) -> None:
        notify({"job": job.name, **event})

    mentors = [MentorRecord(**m) for m in job.mentors]
    if job.kind == "mentor":
        return prepare_mentor(networks, bank_plan, job.index, tell, mentors).plain()
    assert job.kind == "student", job.kind
    arm = networks.context.recipe.arms()[job.index]
    return teach_arm(networks, bank_plan, arm, job.seed, mentors, Path(job.out), job.resume, tell)


Done = Callable[[Job, dict[str, Any] | None, BaseException | None], None]


def in_process(networks: Networks, bank_plan: BankPlan, jobs: Sequence[Job], notify: Notify, done: Done) -> None:
    """One after the other. A job that stops (a loss that is not finite) does not stop the others; a signal and a full
    disk do.

    Under ranks all must go on alike, so only what stops a job on every rank leaves the others.
    """
    for job in jobs:
        stopping.check()
        try:
            notify({"job": job.name, "event": "start"})
            result = execute(networks, bank_plan, job, notify)
        except (DiskFull, Interrupted):
            raise
        except RunStopped as error:
            if networks.context.runtime.world > 1 and not error.everywhere:
                raise
            done(job, None, error)
        else:
            done(job, result, None)


_networks: Networks | None = None
_bank_plan: BankPlan | None = None
_queue: Any = None
_stop: Any = None  # a pipe that ends when the parent wants everyone to come to an end


def _start(
    recipe: Recipe, choice: Choice, images: ImageSet, cache: str, trust_code: bool, threads: int, queue: Any, stop: Any
) -> None:
    """A worker's start: one runtime, and the data, whose tensors are in shared memory."""
    global _networks, _bank_plan, _queue, _stop
    from classroomkd.train.allocator import claim_process
    from classroomkd.train.runtime import Runtime

    claim_process()
    for number in stopping.SIGNALS:  # the parent decides: a terminal and a batch system tell everybody
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    _stop = stop
    threading.Thread(target=_pass_on, daemon=True).start()
    runtime = Runtime("cpu", recipe.train.precision, threads)
    context = RunContext(recipe, images, runtime, Path(cache), trust_code)
    _networks, _bank_plan = Networks(context), BankPlan.of(choice, context)
    _queue = queue


def _pass_on() -> None:
    """Tell this worker's job of the parent's wish, as a signal that it listens to."""
    _stop.poll(None)
    if stopping.asked() is None:
        _thread.interrupt_main(signal.SIGTERM)  # without a job nobody listens, and none is begun any more


def _die_with_parent() -> None:
    """A worker whose parent was killed must not go on writing a run folder that is being resumed."""
    import ctypes
    import time

    parent = os.getppid()
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tell(event: dict[str, Any]) -> None:
    """Pass an event to the parent, whole: half a message would block it."""
    with stopping.patient():
        _queue.put(event)
    stopping.check()


def _work(job: Job) -> dict[str, Any]:
    assert _networks is not None
    assert _bank_plan is not None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with stopping.listening((signal.SIGTERM,)):
            if _stop.poll():
                raise stopping.Asked(signal.SIGTERM)
            _tell({"job": job.name, "event": "start"})
            return execute(_networks, _bank_plan, job, _tell)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _why_a_worker_died() -> str:
    """What a worker that is gone may have died of. Workers run the caller's script again, up to its ``__main__``."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    own = script is not None and not str(script).endswith(("classroomkd", "classroomkd.exe", "__main__.py"))
    guard = (
        f'{Path(str(script)).name} must call classroomkd inside `if __name__ == "__main__":`, since workers read it '
        "again; or it was out of memory"
        if own
        else "out of memory?"
    )
    return f"a worker process died ({guard}); what was finished is kept. Resume with workers=1"


class side_by_side:  # noqa: N801 - used as a context manager, like open()
    """A pool of worker processes, each with ``threads`` threads; a context manager.

    Args:
        context: the parent's; its data go to shared memory.
        choice: the run's bank.
        workers: processes.
        threads: threads of each.

    Raises:
        UserError: the data do not fit into shared memory.
    """

    def __init__(self, context: RunContext, choice: Choice, workers: int, threads: int) -> None:
        images = replace(context.data.share(), names={})  # which are of use in the parent alone
        spawn = multiprocessing.get_context("spawn")
        self._queue: Any = spawn.SimpleQueue()
        # A pipe, not an event: a worker that is killed may hold an event's lock, and nobody could set it any more.
        self._stopped, self._stop = spawn.Pipe(duplex=False)
        plain = (context.recipe, choice, images, str(context.cache), context.trust_code, threads)
        # Waiting threads must sleep, not spin, when several processes share the cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._pool = ProcessPoolExecutor(workers, spawn, _start, (*plain, self._queue, self._stopped))

    def __enter__(self) -> side_by_side:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self._stop.close()  # whoever is at work finishes an update and keeps it
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._stop.close()
        self._stopped.close()
        if self._before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = self._before

    def run(self, jobs: Sequence[Job], notify: Notify, done: Done) -> None:
        """Do all jobs; ``notify`` and ``done`` are called in this process."""
        over = threading.Event()

        def listen() -> None:  # by looking: a worker that was killed may hold the lock of whoever puts a last word in
            while True:
                if not self._queue.empty():
                    notify(self._queue.get())
                elif over.wait(0.05):
                    return

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        futures: dict[Future[dict[str, Any]], Job] = {self._pool.submit(_work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise RunStopped(_why_a_worker_died()) from error
                stops_one_job = isinstance(error, RunStopped) and not isinstance(error, DiskFull | Interrupted)
                if error is not None and not stops_one_job:
                    raise error
                done(futures[future], None if error else future.result(), error)
        except stopping.Asked as wish:
            raise stopping.told(wish.number, self._wind_up(list(futures))) from None
        finally:
            over.set()
            listener.join(timeout=5)

    def _wind_up(self, futures: list[Future[dict[str, Any]]]) -> str:
        """Have everyone finish an update and keep it; what came of it, in words. Another signal does not wait."""
        self._stop.close()
        running = [future for future in futures if not future.cancel()]
        try:
            wait(running)
        finally:  # nobody has work any more, and leaving in order takes seconds
            for process in list((self._pool._processes or {}).values()):
                with suppress(Exception):
                    process.kill()
        written = sum("checkpoint" in str(future.exception()) for future in running if future.exception() is not None)
        return f"; {written} training{'s' * (written != 1)} wrote a checkpoint" if written else ""
