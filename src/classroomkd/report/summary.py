"""Reading a run's ``summary.json`` and ``metrics.jsonl``: checked once here, trusted everywhere else.

A summary is written again after every seed, so one with missing seeds is an ordinary unfinished run. Numbers that
are not finite are read as missing (``None``). Scores are fractions in 0..1.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from classroomkd import tasks
from classroomkd.errors import UserError
from classroomkd.report.files import read_json, read_metrics
from classroomkd.report.vocabulary import Vocabulary, vocabulary
from classroomkd.tasks.metric import Metric

__all__ = [
    "PROBE",
    "SAME",
    "SHARED",
    "ArmInfo",
    "Data",
    "FinishedStudent",
    "MentorInfo",
    "Stage",
    "StudentInfo",
    "Summary",
    "Variant",
    "load_summary",
    "read_json",
    "read_metrics",
]

SCHEMA = 1
NAME = "summary.json"
PROBE = " (probe)"  # behind the figures of a probe, beside the others
SAME, SHARED = "agreement with", "neighbours shared with"  # of its figures, before a mentor's name


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


def _measured(value: Any) -> Any:
    """Figures that were measured: not ``nan``, and not the -1 of a COCO figure without anybody to count."""
    if not isinstance(value, dict):
        return _empty_if_none(value)
    numbers = {str(name): _finite_or_none(figure) for name, figure in value.items()}
    return {
        name: figure
        for name, figure in numbers.items()
        if figure is not None and not (isinstance(figure, int | float) and figure < 0)
    }


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
Count = Annotated[int | None, BeforeValidator(_finite_or_none)]
Options = Annotated[dict[str, Any], BeforeValidator(_empty_if_none)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Data(_Part):
    """The data a run used; counts are samples, ``student_train`` those whose labels the student saw.

    ``fingerprint`` stands for the content, ``parts`` (``train``, ``student``, ``val``, ``test``) for which samples
    are in which part; runs written by earlier versions have neither. ``labelled``: of ``student_train`` those that have
    a label; ``vote`` stands for the mentors' vote, against which a test part without labels was scored.
    """

    name: str = ""
    classes: list[str] = []
    train: Count = None
    student_train: Count = None
    val: Count = None
    test: Count = None
    notes: list[str] = []
    fingerprint: str = ""
    parts: Annotated[dict[str, str], BeforeValidator(_empty_if_none)] = {}
    labelled: Count = None
    vote: str = ""


class StudentInfo(_Part):
    """The taught network: its name and size."""

    model: str = ""
    parameters: Count = None
    multiply_adds: Number = None


class PeerInfo(StudentInfo):
    """A network that was trained beside the student."""

    name: str


class Stage(_Part):
    """One of the trainings of an arm: what was planned, and of a finished student what it gave."""

    name: str
    method: str = ""
    trainees: list[str] = []
    epochs: Count = None
    test_last: Number = None
    val_last: Number = None
    steps: Count = None
    seconds: Number = None


class ArmInfo(_Part):
    """One method of the run, or several ``stages``; ``folder`` is where its seeds lie, below the run folder."""

    label: str
    folder: str = ""
    method: str = ""
    options: Options = {}
    status: str = ""
    cost: Options = {}
    stages: list[Stage] = []


class Variant(_Part):
    """One trainee of a student's training, its average (``ema``), or the ensemble; scores as the student's.

    ``role`` of a teacher: ``teacher``; it is no member of the ensemble.
    """

    name: str
    kind: str = ""
    role: str = ""
    test_last: Number = None
    test_best: Number = None
    disagreement: Number = None


class FinishedStudent(_Part):
    """One finished student: an arm and a seed. Scores are fractions, ``seconds`` wall time, ``*_ms`` per step.

    ``test_metrics`` are further figures by name, fractions too. ``exported``: the peer whose scores these are, which is
    exported in the student's place.
    """

    method: str
    seed: int
    exported: str = ""
    test_last: Number = None
    test_best: Number = None
    test_ema: Number = None
    test_metrics: Annotated[dict[str, float], BeforeValidator(_measured)] = {}
    best_epoch: Number = None
    val_last: Number = None
    val_best: Number = None
    steps: Count = None
    seconds: Number = None
    mentor_answers: Count = None
    step_ms: Number = None
    floor_ms: Number = None
    cost_ratio: Number = None
    variants: list[Variant] = []
    stages: list[Stage] = []


class MentorInfo(_Part):
    """One mentor: test accuracy (also per class), size, and how many labels it was trained on (``None``: unknown)."""

    name: str
    model: str = ""
    accuracy: Number = None
    val_accuracy: Number = None
    parameters: Count = None
    multiply_adds: Number = None
    per_class: list[Number] = []
    samples: Count = None
    note: str | None = ""
    seconds: Number = None
    not_finite: Options = {}


class Unlabelled(_Part):
    """What the mentors think of the training pictures without a label.

    ``unknown``: of ``pictures`` those whose vote has an entropy above ``bound``, a share of log C; ``bound_is``
    ``train.outliers`` or ``usual``; ``rows`` of ``to_label.csv``, and the ``first`` of them by column.
    """

    pictures: int = 0
    unknown: int = 0
    bound: float = 0.0
    bound_is: str = ""
    rows: int = 0
    first: list[dict[str, str]] = []


class ProbedStudent(_Part):
    """The figures of one student, an arm and a seed, by name; fractions."""

    method: str
    seed: int
    figures: Annotated[dict[str, float], BeforeValidator(_measured)] = {}


class ProbedMentor(_Part):
    """The figures of one mentor."""

    name: str
    figures: Annotated[dict[str, float], BeforeValidator(_measured)] = {}


class Probe(_Part):
    """What ``classroomkd probe`` found on ``data``: ``fitted`` on so many labelled samples (0: on none), ``scored`` on
    others."""

    data: str = ""
    which: str = "last"
    neighbours: int = 0
    fitted: int = 0
    scored: int = 0
    students: list[ProbedStudent] = []
    mentors: list[ProbedMentor] = []


class Summary(_Part):
    """``summary.json``, checked; ``root`` is the run folder it was read from.

    ``train`` is how the students were trained, every key of the recipe's section; empty in runs of earlier versions.
    """

    schema_: int = Field(alias="schema")
    name: str = ""
    task: str = tasks.DEFAULT
    metric: str = ""
    val_metric: str = ""
    metric_unit: str = ""
    higher_is_better: bool = True
    created: str = ""
    command: str = ""
    seconds: Number = None
    data: Data = Data()
    student: StudentInfo = StudentInfo()
    peers: list[PeerInfo] = []
    train: Options = {}
    arms: list[ArmInfo] = []
    planned: list[int] = Field(default=[], alias="seeds")
    entries: list[FinishedStudent] = []
    mentors: list[MentorInfo] = []
    mentors_vote: Number = None
    bank: dict[str, Any] | None = None
    unlabelled: Unlabelled = Unlabelled()
    probe: Probe = Probe()
    root: Path = Field(default=Path(), exclude=True)

    def scores(self, label: str, field: str = "test_last") -> dict[int, float | None]:
        """``seed -> score`` of one arm, for a field of :class:`FinishedStudent` (``test_last``, ``cost_ratio``, …)."""
        return {entry.seed: getattr(entry, field) for entry in self.entries if entry.method == label}

    def exported(self, label: str) -> str:
        """The peer whose scores an arm has, since it is exported in the student's place; empty: the student."""
        return next((entry.exported for entry in self.entries if entry.method == label), "")

    def network_of(self, label: str) -> StudentInfo:
        """The network whose scores an arm has."""
        name = self.exported(label)
        return next((peer for peer in self.peers if peer.name == name), self.student)

    def metrics(self, label: str) -> dict[str, list[float]]:
        """``figure -> values`` of one arm's finished seeds: what was measured beside the score that counts.

        What a probe has found comes last, with ``(probe)`` behind its names.
        """
        figures: dict[str, list[float]] = {}
        for entry in self.entries:
            for name, value in entry.test_metrics.items() if entry.method == label else ():
                figures.setdefault(name, []).append(value)
        for student in self.probe.students:
            for name, value in student.figures.items() if student.method == label else ():
                figures.setdefault(f"{name}{PROBE}", []).append(value)
        return figures

    @property
    def say(self) -> Vocabulary:
        """What scores, units and samples of this run are called."""
        figures = {name for entry in self.entries for name in entry.test_metrics}
        by_unit = self.metric
        with suppress(UserError):  # a task that is not installed here
            by_unit = tasks.describe(self.task).by_unit(self.metric, figures)
        measure = Metric(self.metric, self.metric_unit, self.higher_is_better) if self.metric_unit else None
        say = vocabulary(self.task, self.metric, by_unit, measure)
        return replace(say, on_val=self.val_metric) if self.val_metric not in ("", self.metric) else say

    def seeds(self) -> list[int]:
        """Every seed that was planned or that any arm has finished, sorted."""
        return sorted({*self.planned, *(entry.seed for entry in self.entries)})

    def missing(self) -> dict[str, list[int]]:
        """``arm label -> seeds`` it has not finished, of :meth:`seeds`; empty for a whole run."""
        seeds = set(self.seeds())
        gaps = {arm.label: sorted(seeds - set(self.scores(arm.label))) for arm in self.arms}
        return {label: gap for label, gap in gaps.items() if gap}


def load_summary(path: str | Path) -> Summary:
    """Read and check the summary of a run: ``path`` is its folder or the file itself.

    Raises :class:`UserError` naming the file when it is missing, cut off, of another schema, or not a summary.
    """
    file = Path(path)
    if file.is_dir():
        file = file / NAME
    if not file.exists():
        if (file.parent / "recipe.yaml").exists():
            raise UserError(
                f"{file.parent}: this run has no {NAME} yet: no student has finished. "
                "Let it run on, or go on with it by the same command and --resume."
            )
        raise UserError(f"{file}: not found. Give the folder that `classroomkd run --out` wrote (it holds {NAME}).")
    raw = read_json(file)
    if not isinstance(raw, dict) or "schema" not in raw:
        raise UserError(f'{file}: this is not a run\'s summary (no "schema" in it). Give a run folder.')
    if raw["schema"] != SCHEMA:
        raise UserError(
            f"{file}: written with summary schema {raw['schema']!r}; this version of classroomkd reads schema "
            f"{SCHEMA}. Read it with the version that wrote it (environment.json says which), or run again."
        )
    try:
        summary = Summary.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(
            f"{file}: {place}: {first['msg']}{more}. The file was changed by hand or by another program; run again."
        ) from None
    summary.root = file.parent
    # Entries of an arm that is not listed get one, so that no result is lost for want of a heading.
    for label in dict.fromkeys(entry.method for entry in summary.entries):
        if all(arm.label != label for arm in summary.arms):
            summary.arms.append(ArmInfo(label=label, folder=label, method=label))
    return summary
