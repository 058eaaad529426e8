"""The queue: trains what studies lack, in runs of the program itself, with two one-thread workers.

Every finished student is kept at once; a run that is cut goes on where it was. Students, mentors and stored answers lie
in ``runs/evidence`` of the checkout, which may be removed: what was found is in ``results``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks.evidence.cells import DRAWN, NOWHERE, Cell, mentor_cell
from benchmarks.evidence.plan import wanted
from benchmarks.evidence.prepared import prepare
from benchmarks.evidence.results import Store, harvested
from benchmarks.evidence.study import Mentor, Study, load_study
from classroomkd import __version__
from classroomkd._sums import sum_of
from classroomkd.errors import Interrupted, RunStopped, UserError
from classroomkd.models import save_checkpoint
from classroomkd.run.session import Session
from classroomkd.train import stopping

__all__ = ["Queue"]

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
MOST = 120  # students of a run


@dataclass
class Queue:
    """What trains.

    Args:
        data: the folder of the real data.
        store: of the results.
        out: of students, mentors and answers.
        say: told what is going on.
        arms: names of the only ones that are trained; empty: all. The student alone is always one of them.
    """

    data: Path | None
    store: Store
    out: Path = ROOT / "runs" / "evidence"
    say: Any = lambda text: print(text, file=sys.stderr, flush=True)
    arms: frozenset[str] = frozenset()
    troubles: dict[str, str] = field(default_factory=dict)  # cells that cannot be trained in this sitting

    def run(
        self, names: Sequence[str], minutes: float | None = None, announce: Callable[[str], None] = lambda name: None
    ) -> bool:
        """Train what the studies lack, in their order; whether all of it is there now.

        Args:
            names: of the studies.
            minutes: after which to stop; what is at work goes on with the next call.
            announce: told of a study of which nothing is there yet, before it begins.
        """
        try:
            with _until(minutes):
                for name in names:
                    if not any(self.store.students(what.cell) for what in wanted(name, load_study(name), self.store)):
                        announce(name)
                    while self._next(name):
                        pass
        except Interrupted as cut:
            self.say(f"{cut}; the same command goes on")
            return False
        return not self.troubles

    def _next(self, name: str) -> bool:
        """Train one batch; False where nothing is missing that can be trained."""
        study = load_study(name)
        lacking = [
            (what, self.store.missing(what.cell, what.seeds))
            for what in wanted(name, study, self.store)
            if what.cell.key not in self.troubles and self._taken(study, what.arm)
        ]
        lacking = [pair for pair in lacking if pair[1]]
        if not lacking:
            return False
        first, seeds = lacking[0]
        cells = {w.cell.key: w.cell for w, s in lacking if w.cell.base == first.cell.base and s == seeds}
        batch = list(cells.values())[: max(1, MOST // len(seeds))]
        self.say(f"{name}: {first.what}, {len(batch)} arms, seeds {list(seeds)}")
        self._teach(name, study, batch, seeds)
        return True

    def _taken(self, study: Study, arm: str) -> bool:
        return not self.arms or arm in self.arms or arm == study.arms[0].name

    def _teach(self, name: str, study: Study, batch: Sequence[Cell], seeds: Sequence[int]) -> None:
        """Train the students of a batch; one that cannot be trained does not stop the others."""
        folder = self.out / name / batch[0].base
        try:
            given = [mentor for mentor in batch[0].mentors if not mentor.taught_by and not mentor.made_from]
            weights = {mentor.name: str(self.mentor(mentor)) for mentor in given}
            grid = [cell.named for cell in batch]
            place = prepare(batch[0].prepared, Path(self.folder(batch[0])), self.out / "prepared")
            recipe = batch[0].recipe(
                self.folder(batch[0]), lambda m: weights.get(m.name), grid, place, **self.own(seeds)
            )
            self._session(name, study, batch, recipe, folder)
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:  # a method's own mistake must not cost the other rows
            if len(batch) > 1:
                for cell in batch:
                    self._teach(name, study, [cell], self.store.missing(cell, tuple(seeds)) or seeds[:0])
            elif seeds:
                self.troubles[batch[0].key] = f"{type(error).__name__}: {error}"
                self.say(f"{batch[0].label}: {self.troubles[batch[0].key]}")

    def _session(self, name: str, study: Study, batch: Sequence[Cell], recipe: Any, folder: Path) -> None:
        """A run of the program; its students are kept as they come."""
        places = {arm.label: (cell, folder / arm.slug) for arm, cell in zip(recipe.arms(), batch, strict=True)}
        begun = time.monotonic()

        def notify(event: dict[str, Any]) -> None:
            if event["event"] != "done" or " · seed " not in event["job"]:
                return
            label, _, seed = event["job"].rpartition(" · seed ")
            cell, place = places[label]
            if event["entry"] is None:
                self.store.fail(name, cell, int(seed), str(event["error"]))
            elif int(seed) not in self.store.students(cell):
                entry = harvested(place / f"seed{seed}")
                if (vote := _vote(folder)) is not None:
                    entry["mentors_vote"] = vote
                if study.judge is not None:
                    entry |= study.judge(place / f"seed{seed}", recipe)
                self.store.add(name, cell, int(seed), entry, {"made_by": _machine()})
                spent = (time.monotonic() - begun) / 60
                self.say(f"  [{spent:.1f} min] {label} · seed {seed}: {100 * entry['test_last']:.1f}")

        session = Session(recipe, folder, notify=notify, say=self._warn)
        outcome = session.run(resume=(folder / "recipe.yaml").exists())
        if not any(place.exists() for _, place in places.values()):
            raise RunStopped("; ".join(outcome.failures) or "nothing was trained")

    def _warn(self, kind: str, text: str) -> None:
        if kind == "warning":
            self.say(text)

    def mentor(self, mentor: Mentor) -> Path:
        """The file of a mentor's weights, trained now where it is not there."""
        cell = mentor_cell(mentor)
        folder, place = self._place(cell)
        file = place / "student.safetensors"
        if not file.exists():
            self.say(f"mentor {mentor.name}: to be trained")
            recipe = cell.recipe(self.folder(cell), **{**self.own([0]), "workers": 1})
            Session(recipe, folder).run(resume=(folder / "recipe.yaml").exists())
        if self.store.missing(cell, (0,)) or self.store.students(cell)[0].get("sha256") != sum_of(file):
            about = {"mentor": mentor.model, "made_by": _machine()}
            self.store.add("mentors", cell, 0, {**harvested(place), "sha256": sum_of(file)}, about)
        return _mixed_up(file) if mentor.shuffled else file

    def trained(self, mentor: Mentor) -> str | None:
        """The file of a mentor's weights, where it is there."""
        if mentor.taught_by or mentor.made_from:
            return None
        file = self._place(mentor_cell(mentor))[1] / "student.safetensors"
        return str(file) if file.exists() else None

    def _place(self, cell: Cell) -> tuple[Path, Path]:
        """Of a mentor's run, and of its student."""
        folder = self.out / "mentors" / cell.base
        return folder, folder / cell.recipe(NOWHERE).arms()[0].slug / "seed0"

    def own(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Keys that change no result."""
        return {
            "seeds": list(seeds),
            "cache": str(self.out / "cache"),
            "device": "cpu",
            "workers": WORKERS,
            "threads": 1,
            "check_mentors": "off",
        }

    def folder(self, cell: Cell) -> str:
        """Where the data of a cell lie; empty for drawn ones."""
        if cell.keys["data"]["source"] in DRAWN:
            return ""
        if self.data is None:
            raise UserError("where are the data? --data DIR, or CLASSROOMKD_DATA")
        return str(self.data)


def _vote(folder: Path) -> float | None:
    """What the vote of a run's mentors scores."""
    found: float | None = json.loads((folder / "summary.json").read_text()).get("mentors_vote")
    return found


def _mixed_up(file: Path) -> Path:
    """A copy of a network's file whose head answers for another class: each for the third one after it."""
    other = file.with_name("shuffled.safetensors")
    if not other.exists():
        with safe_open(file, "pt") as opened:
            about, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        head = next(name for name, value in reversed(tensors.items()) if value.dim() == 2).removesuffix("weight")
        for name in (f"{head}weight", f"{head}bias"):
            tensors[name] = tensors[name].roll(3, 0)
        save_checkpoint(tensors, other, about, listed=True)
    return other


@contextmanager
def _until(minutes: float | None) -> Iterator[None]:
    """Listen to signals; after so many minutes send one: the run at work writes its checkpoints and stops."""
    timer = threading.Timer(60 * (minutes or 0), os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    with stopping.listening():
        if minutes is not None:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _machine() -> Mapping[str, str]:
    """Where a student was trained: its figures are the same elsewhere within rounding, its times are not."""
    import platform

    import torch

    processor = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {"processor": processor, "torch": torch.__version__, "classroomkd": __version__}
