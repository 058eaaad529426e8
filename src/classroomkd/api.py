"""The whole job from Python: ``run = ck.distill(student, mentors, data=..., method=..., epochs=...)``."""

from __future__ import annotations

import logging
import multiprocessing
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from classroomkd._handed import handed
from classroomkd._printable import printable
from classroomkd.errors import UserError
from classroomkd.run.session import Session
from classroomkd.tasks.metric import FRACTION, Metric
from classroomkd.train.ranks import together

__all__ = ["Run", "distill"]

Network = str | nn.Module | Mapping[str, Any]
log = logging.getLogger("classroomkd")


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: its folder, its summary, and its students. ``print(run)`` says in five lines what came of it."""

    folder: Path
    summary: dict[str, Any]
    student_module: nn.Module | None = None
    session: Session | None = field(default=None, repr=False)

    @property
    def accuracy(self) -> list[float]:
        """The test score, which ``summary["metric"]`` names, of every student's last weights, as in
        ``summary["entries"]``."""
        return [float("nan") if e["test_last"] is None else float(e["test_last"]) for e in self.summary["entries"]]

    def __repr__(self) -> str:
        """Folder, best arm on validation, mentors, time, and what to do next: a line each."""
        from classroomkd.report import load_summary

        summary = load_summary(self.folder)
        entries = [e for e in summary.entries if e.test_last is not None]
        best = self._best(entries)
        scored = "no student is finished"
        if best is not None:
            score = _shown(summary, best.test_last)
            scored = f"{best.method}, seed {best.seed}: {summary.metric or 'score'} {score} on test"
            if best.val_last is not None:
                scored += f" (validation {_shown(summary, best.val_last)}, the best of {len(entries)})"
        mentors = ", ".join(f"{m.name} {_shown(summary, m.accuracy)}" for m in summary.mentors) or "none"
        arms = ", ".join(arm.label for arm in summary.arms)
        folder = shlex.quote(str(self.folder))
        then = f"predict {folder} PICTURES" if summary.data.vote else f"evaluate {folder}"  # no label, nothing to score
        return "\n".join(
            [
                f"run: {self.folder} ({arms}; {len(summary.planned)} seed{'s' * (len(summary.planned) != 1)})",
                f"best: {scored}",
                f"mentors: {mentors}",
                f"time: {summary.seconds or 0:.0f} s",
                f'next: run.export("student.onnx"), run.report(), or: classroomkd {then}',
            ]
        )

    def _best(self, entries: Sequence[Any]) -> Any | None:
        """The entry whose student :meth:`student` gives; None where there is none."""
        from classroomkd.export.find import find_student

        if not entries:
            return None
        folders = {str(arm["label"]): self.folder / str(arm["folder"]) for arm in self.summary["arms"]}
        try:
            chosen = find_student(self.folder, say=lambda text: None)
        except UserError:
            return None
        return next((e for e in entries if folders[e.method] / f"seed{e.seed}" in chosen.parents), None)

    def _weights(self, arm: int | str | None, seed: int | None) -> Path:
        """The last weights of a student.

        Raises:
            UserError: an arm or a seed that the run does not have.
        """
        from classroomkd.export.find import find_student

        if arm is None and seed is None:
            return find_student(self.folder)
        arms, seeds = self.summary["arms"], self.summary["seeds"]
        labels = [str(one["label"]) for one in arms]
        if arm is None and len(arms) > 1:
            raise UserError(f"seed {seed} of which arm? {', '.join(map(repr, labels))}; say arm=")
        place = labels.index(arm) if arm in labels else 0 if arm is None else arm
        if not isinstance(place, int) or not -len(arms) <= place < len(arms):
            raise UserError(f"arm {arm!r}: the run has {', '.join(map(repr, labels))}, by name or from 0")
        if seed is not None and seed not in seeds:
            raise UserError(f"seed {seed}: the run has {', '.join(map(str, seeds))}")
        folder = self.folder / str(arms[place]["folder"]) / f"seed{seeds[0] if seed is None else seed}"
        return find_student(folder)

    def _module(self, weights: Path) -> nn.Module | None:
        """The network of these weights, where it was handed over: the student's, or a peer's that is exported."""
        from classroomkd.export.find import PEERS

        if weights.parent.name != PEERS:
            return self.student_module
        return None if self.session is None else self.session.given.get(weights.stem)

    def student(self, arm: int | str | None = None, seed: int | None = None) -> nn.Module:
        """A trained student, or the peer that the recipe exports, in eval mode.

        Args:
            arm: its name or place; None: of all students the best on validation, as the verbs take it, which is logged.
            seed: of that arm; None: the first.

        Raises:
            UserError: an arm or a seed that the run does not have.
        """
        from classroomkd.export import load_student

        weights = self._weights(arm, seed)
        return load_student(weights, module=self._module(weights)).module

    def report(self) -> Path:
        """Write ``report.html`` and return its path."""
        from classroomkd.report import write_report

        return write_report(self.folder)

    def probe(self, data: Any = None, neighbours: int = 20) -> dict[str, Any]:
        """Judge the features of every student and mentor, as ``classroomkd probe`` does.

        Args:
            data: a source such as ``"imagefolder:photos"``, or a ``torch.utils.data.Dataset``; None: the run's own.
            neighbours: k of the nearest neighbours.

        Returns:
            ``students`` and ``mentors`` with their ``figures``, fractions; kept in ``summary.json``, too.
        """
        from classroomkd.run.opening import open_context
        from classroomkd.tasks.probe import probe_files

        session, opened = self.session, None
        if session is not None:
            data = session.source if data is None else data
            opened = partial(
                open_context, session.recipe, self.folder, trust_code=session.trust_code, given=session.given,
                source=session.source,
            )  # fmt: skip
        found = probe_files(
            self.folder,
            data,
            neighbours,
            trust_code=session is not None and session.trust_code,
            module=self.student_module,
            opened=opened,
            say=partial(_log, "note"),
        )
        self.summary["probe"] = found
        return found

    def export(self, path: str | Path, arm: int | str | None = None, seed: int | None = None) -> Path:
        """Write a student (see :meth:`student`) alone to ``path`` (.safetensors or .onnx, a model card beside it)."""
        from classroomkd.export import export_student

        weights = self._weights(arm, seed)
        return export_student(weights, Path(path), module=self._module(weights))


def _shown(summary: Any, score: float | None) -> str:
    """A score for a sentence: a fraction in percent, another as it is."""
    return Metric(summary.metric, summary.metric_unit or FRACTION, summary.higher_is_better).text(score)


def distill(
    student: Network | Mapping[str, Any],
    mentors: Sequence[Network] | Mapping[str, Network],
    data: Any,
    method: Any = "classroomkd",
    *,
    out: str | Path = "runs/distill",
    seeds: Sequence[int] = (0,),
    resume: bool = False,
    trust_code: bool = False,
    **settings: Any,
) -> Run:
    """Teach a student and return the finished run.

    Args:
        student: a model name, a module (copied for every seed; the one passed in is left as it is), or the recipe's
            ``student`` mapping, whose ``model`` may be a module.
        mentors: names, modules, :class:`~classroomkd.Mentor` objects, or mappings of a recipe's mentor keys whose
            ``model`` may be a module; in a list, or in a mapping from mentor names to them. Modules are taken as
            trained; names are trained by the run, unless their mapping has ``weights``.
        data: a source such as ``"imagefolder:photos"``, a ``torch.utils.data.Dataset``, a (train, test) pair of them,
            or a mapping of a recipe's data keys, whose ``source``, ``train``, ``val`` and ``test`` may be Datasets,
            beside which ``classes`` may name the classes.
        method: a name, a mapping with options, or a list.
        out: the run folder.
        seeds: one student each.
        resume: go on with an existing folder.
        trust_code: allow ``py:`` names.
        settings: keys of the recipe's ``train`` section (``epochs``, ``batch_size``, ``lr``, …), of its ``data``
            section (``size``, ``resize``, ``views``, …) or of its top level (``methods`` in place of ``method`` for a
            grid, ``bank``, ``device``, ``mentor_train``, ``cache``, …); of ``peers`` networks may be modules, as of
            ``mentors``, which are copied for every seed, and ``export`` names the one that the run gives in the
            student's place.

    Raises:
        UserError: what is wrong and how to mend it, before any training.
        Interrupted: SIGTERM or SIGHUP; checkpoints were written, and ``resume=True`` goes on. Signals are listened to
            in the main thread only, while the run is on, and only where no handler of your own is set. Ctrl-C is a
            ``KeyboardInterrupt`` as ever, after the same checkpoints.
    """
    from classroomkd.recipe import make_recipe

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            'a worker process is reading this script again: put the call of distill inside `if __name__ == "__main__":`'
        )
    found = handed(Path(out).name, student, mentors, data, method, seeds, settings)
    recipe = make_recipe(found.content, name=Path(out).name, trust_code=trust_code, known_models=found.models)
    folder = Path(out)
    session = Session(recipe, folder, trust_code, found.modules, found.source, say=_log)
    with together():
        outcome = session.run(resume=resume, command="classroomkd.distill(...)")
    if outcome.failures and not outcome.summary["entries"]:
        raise UserError("\n".join(filter(None, [outcome.failures[0], outcome.remedy])))
    return Run(folder, outcome.summary, found.modules.get("student"), session)


def _log(kind: str, text: str) -> None:
    """Log a sentence for the user, control characters of names written out."""
    log.warning(printable(text))
