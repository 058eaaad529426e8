"""One recipe, and everything that can be done with it: check → plan → open → mentors → bank → students → report.

Every verb and :func:`classroomkd.distill` come through here. Nothing is printed: what is to be read is passed to
``say``, what is going on to ``notify``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd.errors import UserError
from classroomkd.run.bench import measure
from classroomkd.run.checks import check, remarks
from classroomkd.run.disk_space import check_space
from classroomkd.run.diverged import Anew
from classroomkd.run.experiment import Experiment, Outcome
from classroomkd.run.folder import check_run, first_rank, open_run, restarted
from classroomkd.run.looks import Budget, of_weights
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.run.plan import forecast, plan
from classroomkd.run.recipe_changes import moved
from classroomkd.train import stopping

if TYPE_CHECKING:
    from torch import nn

    from classroomkd.recipe import Recipe
    from classroomkd.train.loop import Notify

__all__ = ["Say", "Session"]

LEAST = 5.0  # seconds that a plan measures for, however long the reading of the data took

Say = Callable[[str, str], None]  # the kind of a sentence (note, data, warning), and the sentence


@dataclass(frozen=True)
class Session:
    """A recipe in one process.

    Args:
        recipe: what is wanted.
        out: the run folder.
        trust_code: whether ``py:`` names may run.
        given: networks handed over in Python, by ``student`` or the mentor's name.
        source: data handed over in Python; None: the recipe's.
        notify: called with progress events. Beside those of jobs: ``plan`` (the jobs), ``forecast`` (what the bank is
            going to cost), ``opened`` (from now on there is something to go on with), ``measuring``.
        say: called with sentences that the user should read, on the first rank.
    """

    recipe: Recipe
    out: Path
    trust_code: bool = False
    given: Mapping[str, nn.Module] = field(default_factory=dict)
    source: Any = None
    notify: Notify = lambda event: None
    say: Say = lambda kind, text: None

    def run(
        self,
        *,
        resume: bool = False,
        command: str = "",
        again: str | None = None,
        anew: Anew | None = None,
        report: Callable[[Path], Any] | None = None,
    ) -> Outcome:
        """Prepare the mentors and teach the students.

        Args:
            resume: go on with what is in the folder. A run that torchrun starts again does so by itself.
            command: what was typed, for the record.
            again: what the user types to go on after an interruption.
            anew: what the user types to begin again with other keys in another folder; None: Python's arguments.
            report: called with the folder when all is done, on the first rank.

        Raises:
            UserError: what is wrong, before any work.
            RunStopped, Diverged, Interrupted: the mentors could not be prepared, the disk is full, a signal.
        """
        by_torchrun = not resume and restarted(self.out)
        check_run(self.out, self.recipe, resume or by_torchrun)
        with stopping.listening():
            networks = self._opened(by_torchrun)
            runtime = networks.context.runtime
            resume = runtime.any(resume or by_torchrun)
            bank_plan, sizes = check(networks, self.out if resume else None)
            for sentence in remarks(networks):
                self._say("note", sentence)
            if resume and (places := moved(self.out / "recipe.yaml", self.recipe)):
                self._say("note", f"{', '.join(places)}: read from another place than before, with the same content")
            check_space(networks, bank_plan, self.out)
            if (bank := forecast(networks, bank_plan, sizes)) is not None:
                self.notify({"event": "forecast", "bank": bank})
            with open_run(self.out, networks.context.recipe, networks.context, resume):
                runtime.ranks.again = again
                self.notify({"event": "opened"})
                warn = partial(self._say, "warning")
                work = Experiment(
                    networks, bank_plan, sizes, self.out, resume, self.notify, warn,
                    partial(self._say, "note"), command, anew,
                )  # fmt: skip
                outcome = work.run()
        if report is not None and runtime.is_zero:
            report(self.out)
        return outcome

    def plan(self, seconds: float | None = None) -> dict[str, Any]:
        """What a run would do and cost, measured; nothing is done. See :func:`~classroomkd.run.plan.plan`.

        Args:
            seconds: how long it may take in all, the reading of the data included, as far as that is possible; None:
                everything is measured.
        """
        budget = Budget.of(seconds)
        networks = self._opened()
        bank_plan, sizes = check(networks)
        for sentence in (*remarks(networks), *of_weights(networks)):
            self._say("note", sentence)
        check_space(networks, bank_plan, self.out)
        budget = Budget(max(budget.end, Budget.of(LEAST).end)) if seconds is not None else budget
        planned = plan(networks, bank_plan, lambda text: self.notify({"event": "measuring", "text": text}), budget)
        runner = networks.task_runner
        words = {"metric": asdict(runner.measure), "val_metric": runner.val_metric, "suspects": runner.suspects}
        return {"out": str(self.out), **words, **sizes, **planned}

    def bench(self, rounds: int) -> dict[str, Any]:
        """Where the time of a step goes. See :func:`~classroomkd.run.bench.measure`."""
        networks = self._opened()
        bank_plan, _ = check(networks)
        return measure(networks, bank_plan, rounds)

    def fill(self, share: tuple[int, int] = (0, 1)) -> Path:
        """Store every answer of the mentors to a share (k, K) of the samples; returns the folder of the stores.

        Raises:
            UserError: a recipe that stores nothing, or another mistake in it.
        """
        with stopping.listening():
            networks = self._opened()
            bank_plan, sizes = check(networks, share=share, ahead=True)
            choice = bank_plan.choice
            if choice.spec.kind == "off":
                raise UserError(f"bank: nothing would be stored ({choice.why}); say bank=exact or bank=views=V")
            check_space(networks, bank_plan)
            views, mine = bank_plan.views.count or 0, len(bank_plan.samples(len(networks.context.student_part)))
            if choice.spec.kind == "exact" and (most := choice.trainings * choice.epochs) < views:
                self._say(
                    "note",
                    f"bank: exact filled ahead stores all {views:,} views, {views * mine:,} answers a "
                    f"mentor; a run asks at most {most * mine:,} of them and stores those as it goes",
                )
            note = partial(self._say, "note")
            work = Experiment(networks, bank_plan, sizes, self.out, notify=self.notify, warn=note, remark=note)
            work.fill(views * mine)
        return networks.context.cache / "bank"

    def _opened(self, by_torchrun: bool = False) -> Networks:
        """Data and runtime; what there is to say of recipe and data is said."""
        for note in self.recipe.notes():
            self._say("note", note)
        context = open_context(self.recipe, self.out, trust_code=self.trust_code, given=self.given, source=self.source)
        if by_torchrun:
            self._say("note", f"torchrun has started this run again; it goes on from what is in {self.out}")
        for note in context.data.notes:
            self._say("data", note)
        return Networks(context)

    def _say(self, kind: str, text: str) -> None:
        if first_rank():
            self.say(kind, text)
