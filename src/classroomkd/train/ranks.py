"""What keeps the ranks of a run together: who stopped first and why, and who has come to rest.

A rank that stops (a full disk, a mistake, a bug) leaves the others in a collective that never ends; so does one that
hangs. Each rank therefore has a thread that says every second how far its main thread has come, reads what the others
say, and ends its process when another has stopped and the main thread does not come out by itself. They talk through
the key-value store that torchrun's agent keeps, or rank 0.

What a rank says is ``tick count quiet allowed``: seconds its thread has lived, moves of its main thread, 1 in a phase
that may take long (start-up, evaluation, checkpoints), and seconds a move may take. Ranks move alike, so of several
that do not move the one with the fewest moves keeps the others waiting.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from classroomkd.errors import RunStopped, StoppedElsewhere, UserError

__all__ = ["Ranks", "connect", "current", "meet", "part", "together", "world"]

PATIENCE = 60.0  # seconds without a sign of life, or without a step in training, after which all stop
GRACE = 15.0  # seconds in which a main thread may come out by itself once another rank has stopped
LATER = 9  # so many times the patience is waited longer for a rank's first sign: it may start on a slow machine
SLOWER = 10  # a step may take so many times the slowest before, where that is longer
_CODES = ((KeyboardInterrupt, 130), (UserError, 2))
_INTERRUPTED = 75


def world() -> int:
    """Number of ranks, before they have met (torchrun sets WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _code(error: BaseException) -> int:
    """The exit code of the command line for an error."""
    own = getattr(error, "exit_code", None)
    return own if isinstance(own, int) else next((code for kind, code in _CODES if isinstance(error, kind)), 1)


class Ranks:
    """One rank's part in it. Without a store (one process) every method does nothing.

    Args:
        store: where the ranks talk; None = nowhere (yet).
        rank: this one.
        count: of all.
        patience, grace: seconds; see the module's constants. CLASSROOMKD_RANKS_PATIENCE sets the first, for tests.
    """

    def __init__(
        self,
        store: Any = None,
        rank: int = 0,
        count: int = 1,
        patience: float | None = None,
        grace: float | None = None,
    ) -> None:
        self.rank, self.world = rank, count
        self.patience = float(os.environ.get("CLASSROOMKD_RANKS_PATIENCE", PATIENCE)) if patience is None else patience
        self.grace = min(GRACE, self.patience) if grace is None else grace
        self.again: str | None = None  # what the user types to go on
        self._store: Any = None
        self._moves, self._phase, self._moved, self._slowest = 0, "start-up", time.monotonic(), 0.0
        self._through = False
        self._ended, self._stopped = threading.Event(), threading.Event()
        self._first: dict[str, Any] | None = None  # who stopped: {"rank", "why", "code"}
        self._heard = time.monotonic()
        self._threads: list[threading.Thread] = []
        if store is not None:
            self.connect(store)

    def connect(self, store: Any) -> None:
        """Begin to talk and listen."""
        if self._store is not None:
            return
        self._store, self._heard = store, time.monotonic()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._talk, self._judge)]
        for thread in self._threads:
            thread.start()

    @property
    def connected(self) -> bool:
        """Whether the others can be heard."""
        return self._store is not None

    # --- the main thread ----------------------------------------------------------------------------------------------

    def move(self, phase: str | None = None) -> None:
        """The main thread has come one step further, and enters a phase that may take long, or (None) a training step.

        All ranks must call it at the same places.

        Raises:
            StoppedElsewhere: another rank has stopped.
        """
        now = time.monotonic()
        if self._phase in ("", "first step"):
            self._slowest = max(self._slowest, now - self._moved)
        self._moves, self._phase, self._moved = self._moves + 1, phase or "", now
        if self._stopped.is_set():
            raise self._elsewhere()

    def stop(self, error: BaseException) -> BaseException:
        """Tell everybody that this rank stops, and why.

        Returns:
            What to raise: the error, if no other rank stopped before; else whose stop this one follows from.
        """
        if self._store is None:
            return error
        if self._first is None:
            why = str(error) or type(error).__name__
            known = isinstance(error, UserError | RunStopped)  # a sentence for users
            self._claim(why if known else f"{type(error).__name__}: {why}", _code(error))
        assert self._first is not None
        return error if self._first["rank"] == self.rank else self._elsewhere()

    def end(self) -> None:
        """This rank's main thread is through, or has come out; the others need not wait for its signs of life."""
        self._through = True
        if self._store is not None:
            with contextlib.suppress(Exception):
                self._store.set(f"beat/{self.rank}", "done")
                self._wait_as_keeper()
        self._ended.set()

    def _wait_as_keeper(self) -> None:
        """Where rank 0 keeps the store, it stays until the others are through, or have heard why it stops."""
        last = time.monotonic() + (min(3.0, self.grace) if self._stopped.is_set() else self.grace)
        while self.rank == 0 and not _agents_store() and time.monotonic() < last:
            keys = [f"beat/{rank}" for rank in range(self.world)]
            if self._store.check(keys) and all(self._store.get(key) == b"done" for key in keys):
                return
            time.sleep(0.1)

    def _elsewhere(self) -> StoppedElsewhere:
        assert self._first is not None
        code = _INTERRUPTED if self._first["code"] == _INTERRUPTED else 1
        return StoppedElsewhere(f"rank {self._first['rank']} stopped: {self._first['why']}", code)

    # --- the threads --------------------------------------------------------------------------------------------------

    def _claim(self, why: str, code: int) -> bool:
        """Whether this rank is the first to stop; who is, is known afterwards."""
        own = json.dumps({"rank": self.rank, "why": why, "code": code})
        try:
            said = self._store.compare_set("stop", "", own)
            self._first = json.loads(said)
        except Exception:  # nobody is there to hear it
            self._first = json.loads(own)
        self._stopped.set()
        return self._first is not None and self._first["rank"] == self.rank

    def _talk(self) -> None:
        """Say how far this rank is, every second, and read what others say."""
        pause, started = min(1.0, self.patience / 10), time.monotonic()
        others = range(self.world) if self.rank == 0 else (0,)
        seen = {rank: _Seen(started + LATER * self.patience) for rank in others}
        while True:  # at once, so that nobody is silent who hangs within the first second
            quiet, allowed = int(self._phase != ""), max(self.patience, SLOWER * self._slowest)
            try:
                beat = f"{time.monotonic() - started:.1f} {self._moves} {quiet} {allowed:.1f}"
                self._store.set(f"beat/{self.rank}", "done" if self._through else beat)
                if not self._stopped.is_set() and self._store.check(["stop"]):
                    self._first = json.loads(self._store.get("stop"))
                    self._stopped.set()
                for rank in others:
                    if self._store.check([f"beat/{rank}"]):
                        seen[rank].hear(self._store.get(f"beat/{rank}").decode())
            except Exception:
                if seen[0].done:
                    self._ended.set()  # its keeper is through
                self._heard = -float("inf")  # the store went, and its keeper with it
                return
            self._heard = time.monotonic()
            if not self._stopped.is_set() and (why := self._verdict(seen)) is not None and self._claim(why, 1):
                self._say(why)
            if self._ended.wait(pause):
                return

    def _verdict(self, seen: dict[int, _Seen]) -> str | None:
        """Why the run cannot go on, if so."""
        now, there = time.monotonic(), {rank: one for rank, one in seen.items() if not one.done}
        for rank, one in there.items():
            if now - one.lived > self.patience:
                return f"rank {rank} has given no sign of life for {self.patience:.0f} s"
        if self.rank != 0 or not there or any(one.moves < 0 for one in there.values()):
            return None
        least = min(one.moves for one in there.values())
        last = {rank: one for rank, one in there.items() if one.moves == least}
        if all(not one.quiet and now - one.moved > one.allowed for one in last.values()):
            who = f"rank{'s' * (len(last) > 1)} {', '.join(map(str, sorted(last)))}"
            return f"{who} stopped moving in the middle of training: no step for {self.patience:.0f} s or more"
        return None

    def _judge(self) -> None:
        """End this process where its main thread does not; never waits for the store."""
        since = None
        while not self._ended.wait(min(1.0, self.patience / 10)):
            now = time.monotonic()
            if now - self._heard > self.patience and not self._stopped.is_set():
                why = "the other ranks cannot be heard any more: the process that kept their messages has gone or hangs"
                self._first = {"rank": self.rank, "why": why, "code": 1}
                self._stopped.set()
                self._say(why)
            if self._stopped.is_set():
                since = now if since is None else since
                if now - since > self.grace and not self._ended.is_set():
                    sys.stderr.flush()
                    os._exit(self._elsewhere().exit_code)

    def _say(self, why: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"error: {why}" + (f"\nto go on: {self.again}" if self.again else ""), file=sys.stderr, flush=True)


class _Seen:
    """What one rank was last heard to say, and since when it has said so.

    Args:
        lived: when it was alive last, before it has said anything; None: now.
    """

    def __init__(self, lived: float | None = None) -> None:
        self.lived = self.moved = time.monotonic() if lived is None else lived
        self.tick, self.moves, self.quiet, self.allowed, self.done = "", -1, True, PATIENCE, False

    def hear(self, beat: str) -> None:
        now = time.monotonic()
        if beat == "done":
            self.done = True
            return
        tick, moves, quiet, allowed = beat.split()
        if tick != self.tick:
            self.tick, self.lived = tick, now
        if int(moves) != self.moves or quiet == "1":
            self.moved = now
        self.moves, self.quiet, self.allowed = int(moves), quiet == "1", float(allowed)


_current = Ranks()
_times = 0  # how often this process has entered ``together``; all ranks do alike


def _agents_store() -> bool:
    """Whether torchrun's agent keeps the store; else rank 0 does, once the ranks have met."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def current() -> Ranks:
    """This process's part; of a run of one process it does nothing."""
    return _current


def connect() -> None:
    """Join the others' talk, inside :func:`together`; called again once the ranks have met."""
    if _current.world > 1 and not _current.connected and (store := _store()) is not None:
        _current.connect(store)


@contextlib.contextmanager
def together() -> Iterator[Ranks]:
    """What happens to one rank inside happens to all: an error ends the others, and is told by the first one alone.

    Raises:
        StoppedElsewhere: in place of whatever this rank meets because another one stopped.
    """
    global _current, _times
    if world() == 1 or _current.world > 1:  # nobody else, or inside another one
        yield _current
        return
    _current, _times = Ranks(None, int(os.environ.get("RANK", "0")), world()), _times + 1
    if _agents_store():
        connect()
    try:
        yield _current
    except BaseException as error:
        if not getattr(error, "code", getattr(error, "exit_code", 1)):  # SystemExit(0) and the like
            raise
        told = _current.stop(_torn(error))
        if told is not error:
            raise told from error
        raise
    finally:
        _current.end()
        _current = Ranks()


def _torn(error: BaseException) -> BaseException:
    """The error; a broken collective, whose text nobody understands, as a sentence."""
    kinds, words = ("RuntimeError", "DistBackendError", "DistNetworkError"), ("gloo", "NCCL", "Connection", "Socket")
    if type(error).__name__ in kinds and any(word in str(error) for word in words):
        return RunStopped("another rank went away without a word: killed, or out of memory?")
    return error


def meet(backend: str) -> None:
    """Form the group of a later attempt under keys of its own.

    torchrun's agent keeps one store for all attempts, in which torch 2.13 puts the ranks' addresses under the same keys
    each time: who reads before another one has written finds a process that has ended, and waits for ever.
    """
    import torch.distributed as dist

    if _agents_store() and _attempt() != "0" and not dist.is_initialized():
        store = _store("group", dist.default_pg_timeout)
        dist.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=world())


def part() -> None:
    """Take the group down before the interpreter leaves: its threads may abort a process that goes without."""
    import torch.distributed as dist

    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # the others may have gone
            dist.destroy_process_group()


def _attempt() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _store(name: str = "", timeout: timedelta = timedelta(seconds=30)) -> Any:
    """A connection of our own to the ranks' store, in a place of this attempt; None where there is none."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timeout, wait_for_workers=False)
    except (KeyError, ValueError, RuntimeError):
        return None
    return PrefixStore(f"classroomkd/{_attempt()}/{name or _times}", store)
