"""The work of a run: make the mentors ready, teach every arm with every seed, sum up."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd import data, tasks
from classroomkd._stored import MAPPING, finite, read_json
from classroomkd._sums import write_listed
from classroomkd.classroom.trainees import STUDENT
from classroomkd.errors import Diverged, RunStopped, UserError
from classroomkd.run import assistants, judging, probing, to_label
from classroomkd.run.diverged import Anew, remedy
from classroomkd.run.mentor_record import MentorRecord
from classroomkd.run.summary import earlier, environment, summarise
from classroomkd.run.workers import Done, Job, cores, in_process, side_by_side
from classroomkd.train.loop import Notify
from classroomkd.train.watch import SKIPPED, Found, added

if TYPE_CHECKING:
    from classroomkd.recipe import Arm
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.networks import Networks

__all__ = ["Experiment", "Outcome"]

Runner = Callable[[list[Job], Notify, Done], None]


@dataclass(frozen=True)
class Outcome:
    """What a run left: its folder, the content of ``summary.json``, and what could not be finished.

    Attributes:
        remedy: where trainings diverged, how to start again at a lower rate; else empty.
    """

    folder: Path
    summary: dict[str, Any]
    failures: list[str]
    remedy: str = ""


@dataclass
class Experiment:
    """One recipe, checked, at work.

    Args:
        networks: of the run.
        bank_plan, sizes: of :func:`~classroomkd.run.checks.check`.
        out: the run folder, opened by :func:`open_run`.
        resume: take up what is there.
        notify: called with progress events.
        warn: called with sentences the user should read.
        remark: called with those that say what is as it should be.
        command: what was typed, for the record.
        anew: what the user types to begin again; None: the arguments of ``distill``.
    """

    networks: Networks
    bank_plan: BankPlan
    sizes: dict[str, Any]
    out: Path
    resume: bool = False
    notify: Notify = lambda event: None
    warn: Callable[[str], None] = lambda text: None
    remark: Callable[[str], None] = lambda text: None
    command: str = ""
    anew: Anew | None = None
    _entries: list[dict[str, Any]] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)
    _diverged: list[Job] = field(default_factory=list)
    _not_finite: Found = field(default_factory=dict)
    _mentors: dict[int, dict[str, Any]] = field(default_factory=dict)
    _voted: list[str] = field(default_factory=list)
    _vote: str | None = None
    _unlabelled: dict[str, Any] | None = None
    _vote_score: float | None = None
    _probe: dict[str, Any] | None = None
    _warned: set[str] = field(default_factory=set)

    def fill(self, answers: int) -> None:
        """Make the mentors ready, and store so many answers of each; nothing is written to a run folder."""
        recipe, world = self.networks.context.recipe, self.networks.context.runtime.world
        about = {"kind": "mentor", "epochs": 0, "work": answers // world, "answers": True}
        self.notify({"event": "plan", "jobs": [{"job": m.name, **about} for m in recipe.mentors]})

        def done(job: Job, record: dict[str, Any] | None, error: BaseException | None) -> None:
            self._keep(job, record, error)
            self.notify({"event": "done", "job": job.name, "answers": record and record["forwards"]})

        self._make_ready(self._in_process, [Job("mentor", m.name, i) for i, m in enumerate(recipe.mentors)], done)

    def run(self) -> Outcome:
        """Do everything; finished students of an earlier attempt are kept."""
        started = time.perf_counter() - self._spent_before()
        context, recipe = self.networks.context, self.networks.context.recipe
        known = to_label.before(self.out) if self.resume else None
        self._unlabelled = None if context.runtime.any(known is None) else known
        self._probe = earlier(self.out, probing.KEY) if self.resume else None
        if context.runtime.is_zero:
            write_listed(self.out / "environment.json", json.dumps(environment(context, self.command), indent=1))
        arms = recipe.arms()
        needed = any(needs.mentors > 0 for needs in context.needs)
        needed = needed or bool(judging.by_vote(self.networks))  # by whom the students are scored
        mentor_jobs = [Job("mentor", m.name, i) for i, m in enumerate(recipe.mentors) if needed]
        student_jobs = [
            Job("student", f"{arm.label} · seed {seed}", i, seed, out=str(self.out), resume=self.resume)
            for seed in recipe.seeds
            for i, arm in enumerate(arms)
        ]
        measure = asdict(self.networks.task_runner.measure)
        self.notify({"event": "plan", "jobs": self._work(mentor_jobs, student_jobs), "metric": measure})
        with ExitStack() as stack:
            run = self._runner(stack, len(mentor_jobs), len(student_jobs))
            self._make_ready(run, mentor_jobs, self._mentor_done)
            ready = tuple(self._mentors[i] for i in sorted(self._mentors))
            self._check_mentors(ready)
            self._vote_score = judging.vote_score(self.networks, [MentorRecord(**m) for m in ready])
            self._write(started)

            def done(job: Job, entry: dict[str, Any] | None, error: BaseException | None) -> None:
                if entry is not None:
                    self._entries.append(entry)
                else:
                    self._failed(job, job.name, error)
                self._write(started)
                self.notify({"event": "done", "job": job.name, "entry": entry, "error": str(error) if error else None})

            run([replace(job, mentors=ready) for job in student_jobs], self._on_event, done)
        self._look_at_unlabelled(ready, time.perf_counter() - started)
        summary = self._write(started)
        try:
            files = tasks.find_row(recipe.task.name).open_files()
            files.write_prediction_samples(self.networks, self.out, arms, list(ready))
        except UserError as error:  # pictures never cost a run
            self.warn(f"no pictures: {error}")
        return Outcome(self.out, summary, self._failures, self._remedy())

    def _look_at_unlabelled(self, mentors: Sequence[dict[str, Any]], spent: float) -> None:
        """Write down which pictures without a label the mentors disagree about most, once a run."""
        if self._unlabelled is not None:
            return
        try:
            found = to_label.look(self.networks, [MentorRecord(**m) for m in mentors], self.out, spent)
        except UserError as error:  # a list never costs a run
            found = f"no {to_label.FILE}: {error}"
        if isinstance(found, str):
            self.warn(found)
        else:
            self._unlabelled = found

    def _spent_before(self) -> float:
        """Seconds of earlier attempts, as far as they have said."""
        file = self.out / "summary.json"
        if not self.resume or not file.exists():
            return 0.0
        with suppress(UserError, TypeError, ValueError):  # of another form: it is written anew
            seconds = float(read_json(file, MAPPING, remedy="").get("seconds") or 0.0)
            return seconds if 0 <= seconds < inf else 0.0
        return 0.0

    def _make_ready(self, run: Runner, jobs: list[Job], done: Done) -> None:
        """Have the mentors' jobs done, each after those of its teachers.

        Raises:
            RunStopped, Diverged: one could not be made ready.
        """
        mentors = self.networks.context.recipe.mentors
        for wave in assistants.waves(mentors) if jobs else ():
            teachers = {i: tuple(self._mentors[k] for k in assistants.teachers_of(mentors, i)) for i in wave}
            run([replace(jobs[i], mentors=teachers[i]) for i in wave], self._on_event, done)
            if self._diverged:
                raise Diverged(f"{self._failures[0]}\n{self._remedy()}")
            if self._failures:
                raise RunStopped(self._failures[0])
            self._score_by_vote()

    def _score_by_vote(self) -> None:
        """Give the mentors that are ready their scores on parts without labels, which need all of their answers."""
        places = sorted(self._mentors)
        ready = [MentorRecord(**self._mentors[i]) for i in places]
        self._voted = judging.by_vote(self.networks)
        scored, self._vote = judging.with_agreement(self.networks, ready)
        self._mentors = {i: record.plain() for i, record in zip(places, scored, strict=True)}

    def _in_process(self, jobs: list[Job], notify: Notify, done: Done) -> None:
        in_process(self.networks, self.bank_plan, jobs, notify, done)

    def _runner(self, stack: ExitStack, mentors: int, students: int) -> Runner:
        """Decide whether jobs run side by side."""
        context, recipe = self.networks.context, self.networks.context.recipe
        wanted = recipe.workers if isinstance(recipe.workers, int) else min(cores(), max(mentors, students))
        possible = (
            context.runtime.device.type == "cpu"
            and context.runtime.world == 1
            and not context.given
            and isinstance(context.data.train.pixels, data.MemoryPixels)
        )
        if wanted < 2 or not possible:
            if isinstance(recipe.workers, int) and wanted > 1:
                what = "networks that are named" if context.given else "a CPU run on data that fits in memory"
                handed = ", not handed over as modules" if context.given else ""
                self.warn(f"workers={wanted} needs {what}{handed}; running one at a time")
            return self._in_process
        threads = recipe.threads if isinstance(recipe.threads, int) else max(1, cores() // wanted)
        try:
            return stack.enter_context(side_by_side(context, self.bank_plan.choice, wanted, threads)).run
        except UserError as error:
            self.warn(f"{error}; running one at a time")
            return self._in_process

    def _work(self, mentors: list[Job], students: list[Job]) -> list[dict[str, Any]]:
        """Every job with its epochs and its share of the whole, from multiply-adds."""
        context, jobs = self.networks.context, []
        for job in mentors:
            trained = not self.networks.has_weights(context.recipe.mentors[job.index])
            epochs = context.mentor_train(job.index).epochs if trained else 0
            work = self.sizes["mentors"][job.name]["multiply_adds"] * len(context.data.train) * epochs
            jobs.append({"job": job.name, "kind": "mentor", "epochs": epochs, "work": work})
        arms, samples = context.recipe.arms(), len(context.student_part)
        for job in students:
            trainings = arms[job.index].trainings
            passes = sum(self._each(one) * context.epochs_of(one) for one in trainings)
            epochs = sum(map(context.epochs_of, trainings))
            jobs.append({"job": job.name, "kind": "student", "epochs": epochs, "work": passes * samples})
        return jobs

    def _each(self, training: Arm) -> float:
        """Multiply-adds of all its trainees for one sample."""
        sizes = {STUDENT: self.sizes["student"], **self.sizes.get("peers", {})}
        return float(sum(sizes[name]["multiply_adds"] for name in (training.lead, *training.peers)))

    def _on_event(self, event: dict[str, Any]) -> None:
        """An event of a job; a note is a sentence that the user should read, once however many jobs have it."""
        if event["event"] == "note":
            if event["text"] not in self._warned:
                self._warned.add(event["text"])
                (self.remark if event.get("expected") else self.warn)(event["text"])
        elif event["event"] == "not_finite":
            name, which = event["mentor"], {key: event[key] for key in ("answers", "ids")}
            if name not in self._not_finite and self.networks.context.recipe.on_bad_mentor == "skip":
                self.warn(f"{event['text']}; they are left out ({SKIPPED})")
            self._not_finite = added(self._not_finite, {name: which})
        else:
            self.notify(event)

    def _keep(self, job: Job, record: dict[str, Any] | None, error: BaseException | None) -> None:
        if record is not None:
            self._mentors[job.index] = record
        else:
            self._failed(job, f"mentor {job.name}", error)

    def _failed(self, job: Job, who: str, error: BaseException | None) -> None:
        self._failures.append(f"{who}: {error}")
        if isinstance(error, Diverged):
            self._diverged.append(job)

    def _remedy(self) -> str:
        """How to start again at a lower rate, where nothing else went wrong than that trainings diverged."""
        if not self._diverged or len(self._diverged) < len(self._failures):
            return ""
        job = self._diverged[0]
        mentor = job.index if job.kind == "mentor" else None
        recipe = self.networks.context.recipe
        trained = not all(map(self.networks.has_weights, recipe.mentors))
        return remedy(recipe, mentor, trained, self.out, self.anew)

    def _mentor_done(self, job: Job, record: dict[str, Any] | None, error: BaseException | None) -> None:
        self._keep(job, record, error)
        self.notify({"event": "done", "job": job.name, "mentor": record, "error": str(error) if error else None})

    def _check_mentors(self, mentors: tuple[dict[str, Any], ...]) -> None:
        """A mentor near chance is usually a wrong checkpoint, or its classes come in another order."""
        mode, n = self.networks.context.recipe.check_mentors, len(self.networks.context.data.val)
        if mode == "off":
            return
        runner = self.networks.task_runner
        if judging.VAL in self._voted:
            self._check_agreement(mentors)
            return
        (limit, words), measure = runner.chance(), runner.measure
        for m in mentors:
            if math.isnan(m["val_accuracy"]) or measure.rank(m["val_accuracy"]) > measure.rank(limit):
                continue  # or nobody there to judge it by
            remedy = runner.suspects
            if m["samples"] is not None:
                remedy = "it was trained by this run and has learned little (epochs, samples, label noise)"
            scored = f"{runner.val_metric} {measure.text(m['val_accuracy'])} on {n} validation {runner.samples}"
            text = f"mentor '{m['name']}' has {scored}, {words}: {remedy}"
            if mode == "error":
                raise UserError(text + " (check_mentors: warn goes on all the same)")
            self.warn(text)

    def _check_agreement(self, mentors: tuple[dict[str, Any], ...]) -> None:
        """A mentor that says other things than all together may be the one that is right, so this never stops a run."""
        runner = self.networks.task_runner
        for m, words in judging.near_chance(self.networks, [MentorRecord(**m) for m in mentors]):
            scored = f"{runner.measure.text(m.val_accuracy)} of the validation {runner.samples}"
            self.warn(f"mentor '{m.name}' agrees with the mentors' vote on {scored}, {words}: {runner.suspects}")

    def _write(self, started: float) -> dict[str, Any]:
        """Write ``summary.json`` as far as the run has come."""
        mentors = [self._mentors[i] for i in sorted(self._mentors)]
        summary = summarise(
            self.networks,
            self.bank_plan,
            student=self.sizes["student"],
            peers=self.sizes.get("peers", {}),
            entries=self._entries,
            mentors=mentors,
            failures=self._failures,
            command=self.command,
            seconds=time.perf_counter() - started,
            vote=self._vote,
            unlabelled=self._unlabelled,
            not_finite=self._not_finite,
            vote_score=self._vote_score,
            probe=self._probe,
        )
        if self.networks.context.runtime.is_zero:
            write_listed(self.out / "summary.json", json.dumps(finite(summary), indent=1))
        return summary
