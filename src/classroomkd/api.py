"""The whole job from Python: ``run = ck.distill(student, mentors, data=..., method=..., epochs=...)``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from classroomkd._printable import printable
from classroomkd.classroom import Mentor, Method
from classroomkd.errors import UserError
from classroomkd.run.session import Session
from classroomkd.train.ranks import together

__all__ = ["Run", "distill"]

Network = str | nn.Module
log = logging.getLogger("classroomkd")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its summary, and its students."""

    folder: Path
    summary: dict[str, Any]
    student_module: nn.Module | None = None

    @property
    def accuracy(self) -> list[float]:
        """Test accuracy of every student's last weights, in the order of ``summary["entries"]``."""
        return [float(e["test_last"]) for e in self.summary["entries"]]

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
        student: a model name, the recipe's ``student`` mapping, or a module (copied for every seed; the one passed in
            is left as it is).
        mentors: names, modules or :class:`~classroomkd.Mentor` objects, or a mapping from mentor names to them.
            Modules are taken as trained; names are trained by the run.
        data: a source such as ``"imagefolder:photos"``, a mapping, a ``torch.utils.data.Dataset`` or a
            (train, test) pair of them.
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
    given: dict[str, nn.Module] = {k: _network(m) for k, m in named.items() if isinstance(m, nn.Module)}
    if isinstance(student, nn.Module):
        given["student"] = copy.deepcopy(student)  # the caller's own is left as it is, device and mode included
    train = {k: settings.pop(k) for k in list(settings) if k in TrainSpec.model_fields}
    from_python = not isinstance(data, str | Mapping)
    content: dict[str, Any] = {
        "name": Path(out).name,
        "data": {"source": "python"} if from_python else data,
        "student": dict(student) if isinstance(student, Mapping) else _spec(student),
        "mentors": [{"name": k, "model": _spec(m), **_preprocessing(m)} for k, m in named.items()],
        **({} if "methods" in settings else {"method": method}),
        "train": train,
        "seeds": list(seeds),
        "workers": 1,  # worker processes would run the caller's script again
        **settings,
    }
    handed = [_spec(n) for n in (student, *named.values()) if isinstance(n, nn.Module)]
    recipe = make_recipe(content, name=Path(out).name, trust_code=trust_code, known_models=handed)
    folder = Path(out)
    session = Session(recipe, folder, trust_code, given, data if from_python else None, say=_log)
    with together():
        outcome = session.run(resume=resume, command="classroomkd.distill(...)")
    if outcome.failures and not outcome.summary["entries"]:
        raise UserError(outcome.failures[0])
    return Run(folder, outcome.summary, given.get("student"))


def _log(kind: str, text: str) -> None:
    """Log a sentence for the user, control characters of names written out."""
    log.warning(printable(text))


def _named(mentors: Sequence[Network]) -> dict[str, Network]:
    if len({id(m) for m in mentors if isinstance(m, nn.Module)}) < sum(isinstance(m, nn.Module) for m in mentors):
        raise UserError("distill: the same module is listed twice among the mentors")
    names = [m if isinstance(m, str) else m.name if isinstance(m, Mentor) else type(m).__name__ for m in mentors]
    return {f"{n}-{i}" if names.count(n) > 1 else n: m for i, (n, m) in enumerate(zip(names, mentors, strict=True))}


def _network(module: nn.Module) -> nn.Module:
    """The user's own network, out of the ``Mentor`` it may have been wrapped in."""
    return module.module if isinstance(module, Mentor) else module


def _spec(network: Network) -> str:
    return network if isinstance(network, str) else f"given:{type(_network(network)).__name__}"


def _preprocessing(network: Network) -> dict[str, Any]:
    """What a ``Mentor`` says of its own normalisation and size, as recipe keys."""
    if not isinstance(network, Mentor):
        return {}
    known = {"mean": network.mean, "std": network.std, "size": network.size}
    return {k: list(v) if isinstance(v, Sequence) else v for k, v in known.items() if v is not None}
