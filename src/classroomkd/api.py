"""The whole job from Python: ``run = ck.distill(student, mentors, data=..., method=..., epochs=...)``."""

from __future__ import annotations

import copy
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from classroomkd._printable import printable
from classroomkd.classroom import Mentor, Method
from classroomkd.classroom.frozen import refuse_shared
from classroomkd.data.spec import PARTS
from classroomkd.errors import UserError
from classroomkd.run.session import Session
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

    @property
    def accuracy(self) -> list[float]:
        """Test accuracy of every student's last weights, in the order of ``summary["entries"]``."""
        return [float("nan") if e["test_last"] is None else float(e["test_last"]) for e in self.summary["entries"]]

    def __repr__(self) -> str:
        """Folder, best arm on validation, mentors, time, and what to do next: a line each."""
        from classroomkd.report import load_summary

        summary = load_summary(self.folder)
        entries = [e for e in summary.entries if e.test_last is not None]
        best = max(
            entries, key=lambda e: _value(summary, e.val_best if e.val_best is not None else e.val_last), default=None
        )
        scored = "no student is finished"
        if best is not None:
            score = _shown(summary, best.test_last)
            scored = f"{best.method}, seed {best.seed}: {summary.metric or 'score'} {score} on test"
            if best.val_best is not None:
                scored += f" (validation {_shown(summary, best.val_best)}, the best of {len(entries)})"
        mentors = ", ".join(f"{m.name} {_shown(summary, m.accuracy)}" for m in summary.mentors) or "none"
        arms = ", ".join(arm.label for arm in summary.arms)
        folder = shlex.quote(str(self.folder))
        return "\n".join(
            [
                f"run: {self.folder} ({arms}; {len(summary.planned)} seed{'s' * (len(summary.planned) != 1)})",
                f"best: {scored}",
                f"mentors: {mentors}",
                f"time: {summary.seconds or 0:.0f} s",
                f'next: run.export("student.onnx"), run.report(), or: classroomkd evaluate {folder}',
            ]
        )

    def _weights(self, arm: int, seed: int | None) -> Path:
        """The last weights of an arm's student; of its first seed where none is named."""
        folder = self.folder / str(self.summary["arms"][arm]["folder"])
        return folder / f"seed{self.summary['seeds'][0] if seed is None else seed}" / "student.safetensors"

    def student(self, arm: int = 0, seed: int | None = None) -> nn.Module:
        """The trained student of an arm (its first seed), in eval mode."""
        from classroomkd.export import load_student

        return load_student(self._weights(arm, seed), module=self.student_module).module

    def report(self) -> Path:
        """Write ``report.html`` and return its path."""
        from classroomkd.report import write_report

        return write_report(self.folder)

    def export(self, path: str | Path, arm: int = 0, seed: int | None = None) -> Path:
        """Write the student alone to ``path`` (.safetensors or .onnx, with a model card beside it)."""
        from classroomkd.export import export_student

        return export_student(self._weights(arm, seed), Path(path), module=self.student_module)


def _value(summary: Any, score: float | None) -> float:
    """A score as a number of which more is better; nothing is the least."""
    if score is None:
        return float("-inf")
    return score if summary.higher_is_better else -score


def _shown(summary: Any, score: float | None) -> str:
    """A score for a sentence: a fraction in percent, another as it is."""
    if score is None:
        return "–"
    return f"{score:.4g}" if summary.metric_unit not in ("", "%") else f"{score:.1%}"


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
            or a mapping of a recipe's data keys, whose ``source``, ``train``, ``val`` and ``test`` may be Datasets.
        method: a name, a mapping with options, or a list.
        out: the run folder.
        seeds: one student each.
        resume: go on with an existing folder.
        trust_code: allow ``py:`` names.
        settings: keys of the recipe's ``train`` section (``epochs``, ``batch_size``, ``lr``, …) or of its top level
            (``methods`` in place of ``method`` for a grid, ``bank``, ``device``, ``mentor_train``, ``cache``, …).

    Raises:
        UserError: what is wrong and how to mend it, before any training.
        Interrupted: SIGTERM or SIGHUP; checkpoints were written, and ``resume=True`` goes on. Signals are listened to
            in the main thread only, while the run is on, and only where no handler of your own is set. Ctrl-C is a
            ``KeyboardInterrupt`` as ever, after the same checkpoints.
    """
    from classroomkd.recipe import TrainSpec, make_recipe

    named = dict(mentors) if isinstance(mentors, Mapping) else _named(mentors)
    if isinstance(method, Method):
        raise UserError(
            "distill: give the method by name, with its options as a mapping; a Method object of your own goes into "
            "ck.Classroom, or becomes a name through the entry-point group classroomkd.methods"
        )
    if "student" in named:
        raise UserError("distill: a mentor cannot be called 'student'; give it another name")
    parts = {name: _parts(mentor, f"mentors['{name}']") for name, mentor in named.items()}
    own, taught = _parts(student, "student")
    given = {name: module for name, (module, _) in parts.items() if module is not None}
    if own is not None:
        refuse_shared(own, given.items())
        given["student"] = copy.deepcopy(own)  # the caller's own is left as it is, device and mode included
    train = {k: settings.pop(k) for k in list(settings) if k in TrainSpec.model_fields}
    source, section = _data(data)
    content: dict[str, Any] = {
        "name": Path(out).name,
        "data": section,
        "student": taught,
        "mentors": [{"name": name, **keys} for name, (_, keys) in parts.items()],
        **({} if "methods" in settings else {"method": method}),
        "train": {**settings.pop("train", {}), **train},
        "seeds": list(seeds),
        "workers": 1,  # worker processes would run the caller's script again
        **settings,
    }
    handed = [keys["model"] for module, keys in ((own, taught), *parts.values()) if module is not None]
    recipe = make_recipe(content, name=Path(out).name, trust_code=trust_code, known_models=handed)
    folder = Path(out)
    session = Session(recipe, folder, trust_code, given, source, say=_log)
    with together():
        outcome = session.run(resume=resume, command="classroomkd.distill(...)")
    if outcome.failures and not outcome.summary["entries"]:
        raise UserError("\n".join(filter(None, [outcome.failures[0], outcome.remedy])))
    return Run(folder, outcome.summary, given.get("student"))


def _log(kind: str, text: str) -> None:
    """Log a sentence for the user, control characters of names written out."""
    log.warning(printable(text))


def _named(mentors: Sequence[Any]) -> dict[str, Any]:
    if len({id(m) for m in mentors if isinstance(m, nn.Module)}) < sum(isinstance(m, nn.Module) for m in mentors):
        raise UserError("distill: the same module is listed twice among the mentors")
    names = [_name(m) for m in mentors]
    return {f"{n}-{i}" if names.count(n) > 1 else n: m for i, (n, m) in enumerate(zip(names, mentors, strict=True))}


def _name(mentor: Any) -> str:
    """What a mentor is called where nobody said it."""
    if isinstance(mentor, Mapping):
        return str(mentor.get("name") or _name(mentor.get("model")))
    return mentor if isinstance(mentor, str) else mentor.name if isinstance(mentor, Mentor) else type(mentor).__name__


def _parts(network: Any, where: str) -> tuple[nn.Module | None, dict[str, Any]]:
    """The module that was handed over, if any, and what a recipe says of it.

    Raises:
        UserError: neither a name, a network nor a mapping of a recipe's keys.
    """
    if isinstance(network, str):
        return None, {"model": network}
    if isinstance(network, Mentor):
        return network.module, {"model": _given(network.module), **_said(network)}
    if isinstance(network, nn.Module):
        return network, {"model": _given(network)}
    if isinstance(network, Mapping) and "model" in network:
        module, keys = _parts(network["model"], where)
        return module, {**keys, **{key: value for key, value in network.items() if key != "model"}}
    raise UserError(
        f"distill: {where} is a {type(network).__name__}; give a model name, a torch.nn.Module, a ck.Mentor, or a "
        "mapping of a recipe's keys with 'model'"
    )


def _given(module: nn.Module) -> str:
    return f"given:{type(module).__name__}"


def _said(mentor: Mentor) -> dict[str, Any]:
    """What a ``Mentor`` says of itself, as recipe keys; a class by its place is ``@2``."""
    places = mentor.classes if mentor.given_places is None else mentor.given_places
    classes = mentor.class_names if places is None else tuple(f"@{place}" for place in places)
    known = {
        "mean": mentor.mean,
        "std": mentor.std,
        "size": mentor.size,
        "classes": classes,
        "taps": mentor.wishes or None,
    }
    return {k: list(v) if isinstance(v, Sequence) else v for k, v in known.items() if v is not None}


def _data(data: Any) -> tuple[Any, dict[str, Any] | str]:
    """What was handed over of data (None: nothing, it is named), and what the recipe says of it."""
    if isinstance(data, str):
        return None, data
    if not isinstance(data, Mapping):
        return data, {"source": "python"}
    objects = [k for k in ("source", *PARTS) if k in data and not isinstance(data[k], str | None)]
    if not objects:
        return None, dict(data)
    plain = {key: value for key, value in data.items() if key not in ("source", *PARTS, "classes")}
    return dict(data), {"source": "python", **plain}
