"""The whole job: check everything, prepare the mentors, teach every arm with every seed, sum up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroomkd import data, methods, models, tasks
from classroomkd._files import atomic_write_text, refuse_links, writing
from classroomkd.errors import RunStopped, UserError
from classroomkd.run import assistants
from classroomkd.run.batch_check import check_batches
from classroomkd.run.folder import check_data
from classroomkd.run.setup import Setup, content_key
from classroomkd.run.summary import environment, summarise
from classroomkd.run.workers import Job, cores, in_process, side_by_side
from classroomkd.train.optimize import check_compiler
from classroomkd.train.watch import SKIPPED, Found, added

if TYPE_CHECKING:
    from classroomkd.train.loop import Notify

__all__ = ["Experiment", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a run left: its folder and the content of ``summary.json``."""

    folder: Path
    summary: dict[str, Any]
    failures: list[str]


@dataclass
class Experiment:
    """One recipe, run.

    Args:
        setup: recipe, data, runtime, cache.
        out: the run folder, opened by :func:`open_run`.
        resume: take up what is there.
        notify: called with progress events.
        warn: called with sentences the user should read.
        command: what was typed, for the record.
    """

    setup: Setup
    out: Path
    resume: bool = False
    notify: Notify = lambda event: None
    warn: Callable[[str], None] = lambda text: None
    command: str = ""
    _entries: list[dict[str, Any]] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)
    _not_finite: Found = field(default_factory=dict)
    _mentors: dict[int, dict[str, Any]] = field(default_factory=dict)
    _networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    @property
    def networks(self) -> dict[str, Any]:
        """Sizes of the student and of every mentor, after :meth:`check`."""
        mentors = {m.name: self._networks[m.name] for m in self.setup.recipe.mentors}
        return {"student": self._networks["student"], "mentors": mentors}

    def check(self) -> None:
        """Build every network once, run it dry, read every checkpoint; all problems in one error, before any work."""
        setup, recipe = self.setup, self.setup.recipe
        problems: list[str] = []

        def attempt(what: Callable[[], None]) -> None:
            try:
                what()
            except UserError as error:
                problems.append(str(error))

        def network(
            role: str, key: str, model: str, checkpoint: str | None, size: tuple[int, int] | None = None
        ) -> None:
            spec = next((m for m in recipe.mentors if m.name == key), None)
            module = setup.build(model, key) if spec is None else setup.build_mentor(key)
            setup.task_runner.check_network(module, role, spec, size)
            if checkpoint is not None:
                models.load_checkpoint(module, checkpoint, what=role if spec is None else f"mentor '{key}'")
            shape = (setup.data.shape[0], *(size or setup.data.shape[1:]))
            self._networks[key] = {
                "model": model,
                "parameters": models.parameters(module),
                "multiply_adds": models.multiply_adds(module, shape),
            }

        if self.resume:
            attempt(lambda: check_data(self.out, setup))
        attempt(self._check_places)
        attempt(lambda: network("student", "student", recipe.student.model, recipe.student.checkpoint))
        attempt(lambda: check_batches(setup, None))
        for i, m in enumerate(recipe.mentors):
            size = m.shape
            attempt(lambda m=m, i=i, size=size: network(f"mentors.{i} ({m.name})", m.name, m.model, m.checkpoint, size))  # type: ignore[misc]
            given = bool(setup.given and m.name in setup.given)
            if m.checkpoint is None and not given and not setup.task_runner.comes_trained(m.model):
                attempt(lambda i=i: self._check_part(i))  # type: ignore[misc]
            if m.taught_by is not None:
                attempt(lambda i=i: assistants.check_assistant(setup, i))  # type: ignore[misc]
        if problems := problems + self._arm_problems():
            raise UserError("\n".join(problems))

    def _arm_problems(self) -> list[str]:
        """What the arms cannot work with; the same for several arms is said once."""
        recipe, found = self.setup.recipe, dict[str, list[str]]()
        if len(self._networks) < 1 + len(recipe.mentors):
            return []  # a network that is wrong by itself has been named
        for arm in recipe.arms():
            try:
                self._check_arm(arm)
            except UserError as error:
                found.setdefault(str(error), []).append(f"'{arm.label}'")
        return [f"arm{'s' * (len(arms) > 1)} {', '.join(arms)}: {text}" for text, arms in found.items()]

    def _check_places(self) -> None:
        """The cache can be written, the bank's views exist, mentors are not called like the student."""
        with writing(self.setup.cache):
            self.setup.cache.mkdir(parents=True, exist_ok=True)
        self.setup.task_runner.check_top(self.setup.bank.spec.top)
        _ = self.setup.views
        recipe = self.setup.recipe
        if recipe.mentor_compile or recipe.train.compile or any(m.train and m.train.compile for m in recipe.mentors):
            check_compiler(self.setup.runtime.device)
        if any(m.name == "student" for m in self.setup.recipe.mentors):
            raise UserError("mentors: one is called 'student'; give it another name")

    def _check_part(self, index: int) -> None:
        from classroomkd.run.mentor_data import mentor_part

        own, shared = self.setup.mentor_train(index).precision, self.setup.recipe.train.precision
        if own != shared:
            raise UserError(
                f"mentors.{index}.train.precision is {own}; one run has one precision (train.precision {shared})"
            )
        if (why := self.setup.task_runner.refuse_training(index)) is not None:
            raise UserError(why)
        part, _ = mentor_part(self.setup, index)
        spec = self.setup.recipe.mentors[index]
        if not any(p.requires_grad for p in self.setup.build_mentor(spec.name).parameters()):
            raise UserError(f"mentors.{index}: nothing in '{spec.model}' can be trained; give checkpoint: FILE")
        if len(part) < 2:
            raise UserError(f"mentors.{index}.train leaves {len(part)} samples to train on; it needs at least 2")
        check_batches(self.setup, index)

    def _check_arm(self, arm: Any) -> None:
        from classroomkd.classroom import ClassInfo
        from classroomkd.run.students import untrained_classroom

        method = methods.compose(arm.parts)
        self.setup.check_optimizer(method, self.setup.recipe.train, f"arm '{arm.label}'", "train")
        if method.needs.features:
            untrained_classroom(self.setup, arm)  # every tap is found and every pair of shapes matched
            return
        names = [m.name for m in self.setup.recipe.mentors]
        taught = [m.taught_by is not None for m in self.setup.recipe.mentors]
        method.setup(ClassInfo(self.setup.task, names, [0.0] * len(names), taught=taught))

    def run(self) -> Outcome:
        """Do everything; finished students of an earlier attempt are kept."""
        started = time.perf_counter()
        setup, recipe = self.setup, self.setup.recipe
        zero = setup.runtime.is_zero
        if zero:
            atomic_write_text(
                self.out / "environment.json", json.dumps(environment(self.setup, self.command), indent=1)
            )
        arms = recipe.arms()
        needed = any(methods.method_class(e.name).needs.mentors > 0 for arm in arms for e in arm.entries)
        mentor_jobs = [Job("mentor", m.name, i) for i, m in enumerate(recipe.mentors) if needed]
        student_jobs = [
            Job("student", f"{arm.label} · seed {seed}", i, seed, (), str(self.out), self.resume)
            for seed in recipe.seeds
            for i, arm in enumerate(arms)
        ]
        self.notify({"event": "plan", "jobs": self._work(mentor_jobs, student_jobs)})
        with ExitStack() as stack:
            run = self._runner(stack, len(mentor_jobs), len(student_jobs))
            for wave in assistants.waves(recipe.mentors) if needed else ():
                run([self._with_teachers(mentor_jobs[i]) for i in wave], self._heard, self._mentor_done)
                if self._failures:
                    raise RunStopped(self._failures[0])
            ready = tuple(self._mentors[i] for i in sorted(self._mentors))
            self._check_mentors(ready)
            self._write(started)
            jobs = [Job(j.kind, j.name, j.index, j.seed, ready, j.out, j.resume) for j in student_jobs]

            def done(job: Job, entry: dict[str, Any] | None, error: BaseException | None) -> None:
                if entry is not None:
                    self._entries.append(entry)
                else:
                    self._failures.append(f"{job.name}: {error}")
                self._write(started)
                self.notify({"event": "done", "job": job.name, "entry": entry, "error": str(error) if error else None})

            run(jobs, self._heard, done)
        summary = self._write(started)
        try:
            files = tasks.find_row(recipe.task.name).open_files()
            files.write_prediction_samples(setup, self.out, arms, list(ready))
        except UserError as error:  # pictures never cost a run
            self.warn(f"no pictures: {error}")
        return Outcome(self.out, summary, self._failures)

    def _with_teachers(self, job: Job) -> Job:
        """A mentor's job with the mentors who teach it, ready since an earlier wave."""
        teachers = assistants.teachers_of(self.setup.recipe.mentors, job.index)
        return replace(job, mentors=tuple(self._mentors[i] for i in teachers))

    def _runner(self, stack: ExitStack, mentors: int, students: int) -> Callable[..., None]:
        """Decide whether jobs run side by side, and pack the data for the workers if so."""
        setup, recipe = self.setup, self.setup.recipe
        most = max(mentors, students)
        wanted = recipe.workers if isinstance(recipe.workers, int) else min(cores(), most)
        possible = (
            setup.runtime.device.type == "cpu"
            and setup.runtime.world == 1
            and setup.given is None
            and isinstance(setup.data.train.pixels, data.MemoryPixels)
        )
        if wanted < 2 or not possible:
            if isinstance(recipe.workers, int) and recipe.workers > 1:
                self.warn(
                    f"workers={recipe.workers} needs a CPU run on data that fits in memory; running one at a time"
                )
            return lambda jobs, notify, done: in_process(setup, jobs, notify, done)
        parts = [part.digest() for part in (setup.data.train, setup.data.val, setup.data.test)]
        key = content_key(data=setup.data.fingerprint, parts=parts, shape=setup.data.shape, views=setup.data.views)
        folder = refuse_links(setup.cache, "packed", key)
        try:
            data.pack(setup.data, folder)
        except UserError as error:  # of a cache that others made
            self.warn(f"{error}; running one at a time, which needs no file")
            return lambda jobs, notify, done: in_process(setup, jobs, notify, done)
        threads = recipe.threads if isinstance(recipe.threads, int) else max(1, cores() // wanted)
        pool = stack.enter_context(side_by_side(setup, folder, wanted, threads))
        return pool.run

    def _work(self, mentors: list[Job], students: list[Job]) -> list[dict[str, Any]]:
        """Every job with its epochs and its share of the whole, from multiply-adds."""
        setup = self.setup
        out = []
        for job in mentors:
            own = self._networks.get(job.name, {}).get("multiply_adds", 1)
            trained = setup.recipe.mentors[job.index].checkpoint is None
            epochs = setup.mentor_train(job.index).epochs if trained else 0
            out.append(
                {"job": job.name, "kind": "mentor", "epochs": epochs, "work": own * len(setup.data.train) * epochs}
            )
        student = self._networks.get("student", {}).get("multiply_adds", 1)
        epochs = setup.recipe.train.epochs
        out += [
            {"job": j.name, "kind": "student", "epochs": epochs, "work": student * len(setup.student_part) * epochs}
            for j in students
        ]
        return out

    def _heard(self, event: dict[str, Any]) -> None:
        """An event of a job; a note is a sentence that the user should read, once however many jobs have it."""
        if event["event"] == "note":
            if event["text"] not in self._said:
                self._said.add(event["text"])
                self.warn(event["text"])
        elif event["event"] == "not_finite":
            name, found = event["mentor"], {key: event[key] for key in ("answers", "ids")}
            if name not in self._not_finite and self.setup.recipe.on_bad_mentor == "skip":
                self.warn(f"{event['text']}; they are left out ({SKIPPED})")
            self._not_finite = added(self._not_finite, {name: found})
        else:
            self.notify(event)

    def _mentor_done(self, job: Job, record: dict[str, Any] | None, error: BaseException | None) -> None:
        if record is not None:
            self._mentors[job.index] = record
        else:
            self._failures.append(f"mentor {job.name}: {error}")
        self.notify({"event": "done", "job": job.name, "mentor": record, "error": str(error) if error else None})

    def _check_mentors(self, mentors: tuple[dict[str, Any], ...]) -> None:
        """A mentor near chance is usually a wrong checkpoint or another class order."""
        mode, n = self.setup.recipe.check_mentors, len(self.setup.data.val)
        (limit, words), metric = self.setup.task_runner.chance(), self.setup.task_runner.val_metric
        for m in mentors:
            if mode != "off" and m["val_accuracy"] <= limit:
                remedy = (
                    "wrong weights, another class order, or another normalisation?"
                    if m["samples"] is None
                    else "it was trained by this run and has learned little (epochs, samples, label noise)"
                )
                found = f"{metric} {m['val_accuracy']:.1%} on {n} validation {self.setup.task_runner.samples}"
                text = f"mentor '{m['name']}' has {found}, {words}: {remedy}"
                if mode == "error":
                    raise UserError(text + " (check_mentors: warn goes on all the same)")
                self.warn(text)

    def _write(self, started: float) -> dict[str, Any]:
        """Write ``summary.json`` as far as the run has come."""
        mentors = [self._mentors[i] for i in sorted(self._mentors)]
        summary = summarise(
            self.setup,
            student=self._networks.get("student"),
            entries=self._entries,
            mentors=mentors,
            failures=self._failures,
            command=self.command,
            seconds=time.perf_counter() - started,
            heard=self._not_finite,
        )
        if self.setup.runtime.is_zero:
            atomic_write_text(self.out / "summary.json", json.dumps(summary, indent=1))
        return summary
