"""What ``summary.json`` and ``environment.json`` of a run say."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classroomkd import __version__, methods
from classroomkd._stored import MAPPING, read_json
from classroomkd._sums import damage, is_listed
from classroomkd.classroom.trainees import STUDENT
from classroomkd.errors import UserError
from classroomkd.run.folder import attempt, data_identity
from classroomkd.run.workers import cores
from classroomkd.train.watch import Found, added

if TYPE_CHECKING:
    from classroomkd.recipe import Arm, MethodSpec
    from classroomkd.run.bank_choice import BankPlan
    from classroomkd.run.context import RunContext
    from classroomkd.run.networks import Networks

__all__ = ["earlier", "environment", "summarise"]


def earlier(out: Path, key: str) -> dict[str, Any] | None:
    """What the summary of an earlier attempt holds under a key; None where it has no such mapping, or is damaged."""
    file = out / "summary.json"
    if not (file.is_file() and is_listed(file) and damage(file) is None):
        return None
    with suppress(UserError):
        found = read_json(file, MAPPING, remedy="").get(key)
        return found if isinstance(found, dict) else None
    return None


def environment(context: RunContext, command: str) -> dict[str, Any]:
    """Where and with what a run was made."""
    runtime = context.runtime
    return {
        "schema": 1,
        "classroomkd": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(runtime.device),
        "precision": runtime.precision,
        "device_name": torch.cuda.get_device_name() if runtime.device.type == "cuda" else platform.processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "world": runtime.world,
        "command": command,
        **({"torchelastic": started} if (started := attempt()) is not None else {}),
    }


def summarise(
    networks: Networks,
    bank_plan: BankPlan,
    *,
    student: dict[str, Any],
    entries: Sequence[dict[str, Any]],
    mentors: Sequence[dict[str, Any]],
    failures: Sequence[str],
    command: str,
    seconds: float,
    not_finite: Found,
    vote: str | None = None,
    unlabelled: dict[str, Any] | None = None,
    vote_score: float | None = None,
    probe: dict[str, Any] | None = None,
    peers: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The content of ``summary.json``, schema 1; scores are in ``metric_unit``, of most tasks fractions in 0..1.

    ``not_finite``: mentors' answers that are not finite, by the jobs' events, for mentors of whom no entry tells;
    ``vote``: a digest of what a test part without labels is scored against; ``unlabelled``: see
    :func:`.to_label.look`; ``vote_score``: of the mentors' vote on the test part;
    ``probe``: what ``classroomkd probe`` has found; ``peers``: sizes of what is trained beside the students, by name.
    """
    context = networks.context
    broken = {**not_finite, **added(*(e.get("not_finite", {}) for e in entries))}
    recipe, arms, table = context.recipe, context.recipe.arms(), methods.entries()
    order = {arm.label: i for i, arm in enumerate(arms)}
    return {
        "schema": 1,
        "name": recipe.name,
        "task": recipe.task.name,
        "metric": networks.task_runner.metric,
        "val_metric": networks.task_runner.val_metric,
        "metric_unit": networks.task_runner.measure.unit,
        "higher_is_better": networks.task_runner.measure.higher_is_better,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seconds": round(seconds, 2),
        "data": {
            "name": context.data.name,
            "classes": list(context.classes),
            "train": len(context.data.train),
            "student_train": len(context.student_part),
            "labelled": int(context.student_part.labelled.sum()),
            "val": len(context.data.val),
            "test": len(context.data.test),
            "notes": [*context.data.notes, *_what_mentors_saw(context, mentors)],
            **data_identity(context),
            **({"vote": vote} if vote is not None else {}),
        },
        "train": recipe.train.model_dump(mode="json"),
        "student": student,
        **({"peers": [{"name": name, **size} for name, size in peers.items()]} if peers else {}),
        "seeds": list(recipe.seeds),
        "arms": [
            {
                "label": arm.label,
                "folder": arm.slug,
                "method": arm.method,
                "options": {where + e.name: e.options for where, e in _methods(arm)},
                **({"peers": beside} if (beside := _peers(arm)) else {}),
                "version": {e.name: table[e.name].version for _, e in _methods(arm)},
                "status": "; ".join(dict.fromkeys(table[e.name].status_of(e.options) for _, e in _methods(arm))),
                **({"stages": [_stage(one) for one in arm.stages]} if arm.stages else {}),
            }
            for arm in arms
        ],
        "entries": sorted(entries, key=lambda e: (order.get(e["method"], len(order)), e["seed"])),
        "mentors": [
            {k: v for k, v in m.items() if k not in ("val_logits", "test_logits", "answers", "fingerprint")}
            | {"score": m["accuracy"], "val_score": m["val_accuracy"]}
            | {"not_finite": broken.get(m["name"], {"answers": 0, "ids": []})}
            for m in mentors
        ],
        **({"mentors_vote": vote_score} if vote_score is not None else {}),
        "bank": _bank(bank_plan, mentors, _online(context, bank_plan)),
        "failures": list(failures),
        **({"unlabelled": unlabelled} if unlabelled is not None else {}),
        **({"probe": probe} if probe is not None else {}),
    }


def _methods(arm: Arm) -> list[tuple[str, MethodSpec]]:
    """The methods of an arm, those of a stage behind its name."""
    places = [(f"{one.stage.name}." if one.stage is not None else "", one) for one in arm.trainings]
    return [(place, entry) for place, one in places for entry in one.entries]


def _peers(arm: Arm) -> list[str]:
    """Who is trained beside the student, in any stage."""
    return list(dict.fromkeys(name for one in arm.trainings for name in (one.lead, *one.peers) if name != STUDENT))


def _stage(training: Arm) -> dict[str, Any]:
    """What is planned for a stage."""
    stage = training.stage
    assert stage is not None
    about = {"trainees": list(stage.trainees), "epochs": stage.epochs, "start": stage.start}
    return {"name": stage.name, "method": training.method, **about, "folder": stage.folder}


def _what_mentors_saw(context: RunContext, mentors: Sequence[dict[str, Any]]) -> list[str]:
    """What the mentors had that the student had not."""
    student = int(context.student_part.labelled.sum())
    more = [m["samples"] for m in mentors if m["samples"] is not None and m["samples"] > student]
    if not more:
        return []
    theirs = ", all of them among theirs" if min(more) == int(context.data.train.labelled.sum()) else ""
    return [
        f"{len(more)} of {len(mentors)} mentors were trained on more labels (up to {max(more):,}) than the student "
        f"sees ({student:,}{theirs}): part of what the mentors add is that data."
    ]


def _online(context: RunContext, bank_plan: BankPlan) -> list[str]:
    """Arms whose mentors answer in every step, though there is a bank."""
    stored = [arm for arm, needs in context.banked if bank_plan.choice.keeps(needs)]
    pairs = zip(context.recipe.trainings(), context.needs, strict=True)
    return [arm.title for arm, needs in pairs if needs.mentors > 0 and arm not in stored]


def _bank(bank_plan: BankPlan, mentors: Sequence[dict[str, Any]], online: list[str]) -> dict[str, Any] | None:
    if bank_plan.choice.spec.kind == "off" or not mentors:
        return None
    return {
        "kind": str(bank_plan.choice.spec),
        "why": bank_plan.choice.why,
        "views": bank_plan.views.definition,
        "online": online,
        "forwards": sum(m["forwards"] for m in mentors),
        "seconds": round(sum(m["answer_seconds"] for m in mentors), 2),
    }
