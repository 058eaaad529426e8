"""What every model card has: its head, who taught the student and how well, and lines that run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classroomkd import __version__, models, tasks
from classroomkd._printable import printable
from classroomkd._stored import MAPPING, read_json, trusted
from classroomkd.export.find import own_run
from classroomkd.export.lines import Form, block
from classroomkd.recipe.peer_section import STUDENT, TRAINED
from classroomkd.tasks.metric import FRACTION, Metric

if TYPE_CHECKING:
    from classroomkd.export.student import Student

__all__ = ["card_of", "made_by", "numbers", "sizes"]

_UNKNOWN = "not known: fill in"
_LIBRARY = {".onnx": "onnx", ".pt2": "pytorch"}


def card_of(student: Student, source: Path, form: Form) -> str:
    """The whole card of an exported file but its last line.

    Args:
        student: who.
        source: its file, which may lie in a run's folder: then its scores, mentors and recipe are in the card.
        form: how it is exported.
    """
    files = tasks.find_row(student.task).open_files()
    lines: str = files.lines(student, form)
    use = f"\n## Use\n\n{block(lines)}\n" if lines else ""
    facts = "\n".join(_facts(student, source))
    made: str = printable(
        f"{_head(student, form)}\n{files.card(student, form.target).rstrip()}\n{use}\n## How it was made\n\n{facts}\n"
    )
    return made


def _head(student: Student, form: Form) -> str:
    """The card's front matter, in YAML; what only the user knows is to be filled in."""
    files = tasks.find_row(student.task).open_files()
    library = _LIBRARY.get(form.target.suffix) or student.model.partition(":")[0]
    entries: dict[str, Any] = {
        "license": _UNKNOWN,
        "license_of_the_data": _UNKNOWN,
        "library_name": library if library in ("onnx", "pytorch", "timm", "torchvision") else "classroomkd",
        **({"pipeline_tag": files.pipeline_tag} if files.pipeline_tag else {}),
        "datasets": [student.metadata.get("data", _UNKNOWN)],
        "tags": ["knowledge-distillation", "classroomkd"],
    }
    text = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())
    return f"---\n{text}\n---\n"


def _facts(student: Student, source: Path) -> Iterator[str]:
    """The lines of the last section."""
    about = student.metadata
    seed, which = about.get("seed", "?"), about.get("which", "last")
    yield f"- method: `{about.get('method', '?')}`, seed {seed}, weights: {which}"
    run = own_run(source)
    if run is None or not (run / "summary.json").exists():
        yield "- scores, mentors and recipe: the file lay in no run folder when it was exported"
        return
    summary = read_json(run / "summary.json", MAPPING, remedy="make the run again, or take the student out of it")
    with trusted(run / "summary.json", "make the run again, or take the student out of it"):
        yield from _of_run(about, summary)
    recipe = (run / "recipe.yaml").read_bytes()
    yield f"- recipe: {summary.get('name', '?')}, recipe.yaml of SHA-256 `{hashlib.sha256(recipe).hexdigest()[:16]}`"


def _of_run(about: Mapping[str, str], summary: Mapping[str, Any]) -> Iterator[str]:
    metric = Metric(
        str(summary.get("metric") or "accuracy"), str(summary.get("metric_unit") or FRACTION),
        summary.get("higher_is_better") is not False,
    )  # fmt: skip
    own = about.get("method"), about.get("seed")
    entry: dict[str, Any] = next((e for e in summary["entries"] if (e["method"], str(e["seed"])) == own), {})
    peer = about.get("peer")
    if peer is not None or "exported" in entry:  # its own scores, not those of the network beside it
        whose = peer or STUDENT
        entry = next((v for v in entry.get("variants") or [] if v["name"] == whose and v["kind"] in TRAINED), {})
    if peer is not None:
        yield f"- trained beside the student, as `{peer}`"
    names = {"test_last": "test, last weights", "val_last": "validation, last weights", "test_best": "test, best epoch",
             "val_best": "validation, best epoch", "test_ema": "test, averaged weights"}  # fmt: skip
    scores = [f"{metric.text(entry[key])} ({what})" for key, what in names.items() if entry.get(key) is not None]
    spelled = tasks.describe(str(about.get("task") or tasks.DEFAULT)).spelled
    yield f"- {spelled.get(metric.name, metric.name)}: {', '.join(scores) or 'not known'}"
    mentors = [f"{m['name']} ({m['model']}, {_score(m, metric)})" for m in summary["mentors"]]
    yield f"- mentors: {', '.join(mentors) or 'none'}"


def _score(mentor: Mapping[str, Any], metric: Metric) -> str:
    value = mentor.get("accuracy")
    return "–" if value is None else metric.text(value)


def made_by(student: Student) -> str:
    """Who taught it what."""
    about = student.metadata
    return (
        f"Taught with classroomkd {about.get('classroomkd', __version__)} by the method `{about.get('method', '?')}`\n"
        f"(seed {about.get('seed', '?')}) on {about.get('data', '?')}."
    )


def sizes(student: Student) -> str:
    """How large it is and what one input costs."""
    with torch.no_grad():
        macs = models.multiply_adds(student.module, student.shape)
    return f"{models.parameters(student.module):,} parameters, {macs:,} multiply-adds"


def numbers(values: tuple[float, ...]) -> str:
    """Four places each."""
    return "(" + ", ".join(f"{v:.4f}" for v in values) + ")"
