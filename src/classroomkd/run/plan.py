"""What a run is going to do and cost, before it does it: ``--dry-run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from classroomkd import bank, methods
from classroomkd.classroom import Classroom
from classroomkd.run.bench_setting import prepared, student_layout
from classroomkd.train.gradient_scale import loud, measure
from classroomkd.train.inputs import Batches
from classroomkd.train.step_cost import probe

if TYPE_CHECKING:
    from classroomkd.recipe import Arm
    from classroomkd.run.bank_choice import BankPlan, Choice
    from classroomkd.run.networks import Networks

__all__ = ["forecast", "plan"]

BACKWARD = 2.0  # multiply-adds of a backward pass, in those of the forward pass


def plan(networks: Networks, bank_plan: BankPlan, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Sizes, counts and measured cost of every arm, with untrained networks in place of the trained ones.

    Args:
        networks: of the run.
        bank_plan: what is stored of the mentors' answers.
        tell: told what is being measured, which takes minutes with large networks.

    Returns:
        ``{"data", "arms", "seeds", "steps", "students", "bank"}`` (``bank`` with the bytes it takes, and ``total``,
        the dearest arm's training over the student alone); an arm has ``mentor_forwards`` (a step), ``x_floor`` (its
        step over the student alone, mentors online), ``x_floor_bank`` (with stored answers; None without) and
        ``gradient_ratio`` (the mentors' gradient over that of the labels alone at the start, and ``loud``, what is to
        be said of it; None where a mentor has no weights yet).
    """
    context = networks.context
    recipe = context.recipe
    batches = Batches(
        context.student_part,
        bank_plan.views,
        recipe.train.batch_size,
        0,
        rank=context.runtime.rank,
        world=context.runtime.world,
        sizes=context.known_extra_sizes,
        device=context.runtime.device,
    )
    batch = next(batches.epoch(0))
    arms = []
    choice = bank_plan.choice
    share = choice.asked() / max(choice.trainings * choice.epochs, 1)  # of online answers, on average
    last = student_layout(networks)
    for number, arm in enumerate(recipe.arms(), 1):
        tell(f"measuring a step of '{arm.label}' ({number} of {len(recipe.arms())})")
        with prepared(networks, arm, last) as runner:
            classroom, method = runner.classroom, runner.classroom.method
            wanted = method.needs.mentors > 0
            costs, indices = probe(runner, batch), method.mentor_indices
            teaching = len(recipe.mentors) if indices is None else len(indices)
            stores = wanted and choice.keeps(method.needs)
            if stores:
                classroom.mentors.store = _Blank(classroom, len(batch["ids"]), networks)
                stored = probe(runner, batch)["cost_ratio"]
        arms.append(
            {
                "label": arm.label,
                "mentor_forwards": round(teaching * (share if stores else 1), 2) if wanted else 0,
                "x_floor": round(costs["cost_ratio"], 2),
                "x_floor_bank": round(stored, 2) if stores else None,
                "step_ms": round(costs["step_ms"], 2),
                **_loudness(networks, arm, last, batch),
            }
        )
    bank_costs = _counted(networks, bank_plan, activations=True)
    if dearest := max((a for a in arms if a["x_floor_bank"] is not None), key=lambda a: a["x_floor"], default=None):
        bank_costs["total"] = _totals(choice, dearest["x_floor"], dearest["x_floor_bank"])
    return {
        "data": {
            "name": context.data.name,
            "classes": len(context.classes),
            "samples": networks.task_runner.samples,
            "topics": networks.task_runner.description.vocabulary.units,
            "shape": list(context.data.shape),
            "train": len(context.data.train),
            "student_train": len(context.student_part),
            "val": len(context.data.val),
            "test": len(context.data.test),
        },
        "arms": arms,
        "seeds": list(recipe.seeds),
        "steps": len(batches) * recipe.train.epochs,
        "students": len(arms) * len(recipe.seeds),
        "bank": bank_costs,
    }


def _loudness(networks: Networks, arm: Arm, last: bool, batch: dict[str, Tensor]) -> dict[str, Any]:
    """How loud an arm's mentors are at the start; unknown where one is not trained yet, or must be calibrated first."""
    needs, scale = methods.compose(arm.parts).needs, None
    weights = all(map(networks.has_weights, networks.context.recipe.mentors))
    if needs.mentors > 0 and not needs.calibration and weights:
        with prepared(networks, arm, last, weights=True) as runner:
            scale = measure(runner, batch)
    entry = scale.entry() if scale is not None else {}
    return {"gradient_ratio": entry.get("gradient_ratio"), "loud": loud(scale)}


def _counted(networks: Networks, bank_plan: BankPlan, activations: bool = False) -> dict[str, Any]:
    """What is known without measuring; the bytes are those of logits alone, or with ``activations`` of all."""
    recipe, choice = networks.context.recipe, bank_plan.choice
    samples, mentors = len(networks.context.student_part), len(recipe.mentors)
    once = choice.asked() * samples * mentors
    full = (choice.spec.views or choice.count or 0) * samples  # what has to be free, though exact fills less
    stored = choice.spec.kind != "off"
    rows = 0  # bytes of a sample's answers by all mentors, each with a checksum
    with torch.random.fork_rng(devices=[]):
        for mentor in map(networks.blank_mentor, recipe.mentors if stored else ()):
            logits = {bank.LOGITS: networks.task_runner.codec(mentor, choice.spec.top)}
            codecs = bank_plan.codecs(networks, mentor) if activations else logits
            rows += sum(codec.row_bytes + 4 for codec in codecs.values())
    return {
        "kind": str(choice.spec),
        "why": choice.why,
        "mentor_answers_once": round(once) if stored else 0,
        "mentor_answers_online": round(choice.trainings * choice.epochs * samples * mentors),
        "bytes": full * rows,
        "trainings": choice.trainings,
    }


def _totals(choice: Choice, online: float, stored: float) -> dict[str, float]:
    """A training's cost over the student alone with its share of the filling, alone and where all share the bank."""
    return {"one training": choice.total(online, stored, 1), "all trainings": choice.total(online, stored)}


def forecast(networks: Networks, bank_plan: BankPlan, sizes: dict[str, Any]) -> dict[str, Any] | None:
    """What a run can say of its bank at once: counts, and costs in multiply-adds; nothing is measured.

    Args:
        networks: of the run.
        bank_plan: what is stored of the mentors' answers.
        sizes: of :func:`~classroomkd.run.checks.check`.

    Returns:
        ``bank`` of :func:`plan`, but with the ``bytes`` of logits alone, ``features`` (whether activations come on
        top), ``views``, ``online`` (a step over the student alone where all mentors answer) and ``total`` in
        multiply-adds, as if reading stored answers cost nothing; None where no method asks a mentor.
    """
    needs = networks.context.needs
    if not any(n.mentors > 0 for n in needs):
        return None
    student = (1.0 + BACKWARD) * sizes["student"]["multiply_adds"]
    online = 1.0 + sum(mentor["multiply_adds"] for mentor in sizes["mentors"].values()) / max(student, 1.0)
    return {
        **_counted(networks, bank_plan),
        "views": bank_plan.choice.spec.views or bank_plan.choice.count,
        "features": any(bank_plan.choice.keeps(n) and n.features for n in needs),
        "online": online,
        "total": _totals(bank_plan.choice, online, 1.0),
    }


class _Blank:
    """A store that always answers the same: what looking up costs does not depend on what is there."""

    def __init__(self, classroom: Classroom, batch: int, networks: Networks) -> None:
        device, shape = networks.context.runtime.device, networks.task_runner.answer_shape
        self.answers = torch.zeros(len(classroom.mentors), batch, *shape, device=device)
        self.shapes = classroom.shapes.mentors if classroom.shapes is not None else {}
        self.maps = {
            tap: [torch.zeros(batch, *x, device=device) for x in shapes] for tap, shapes in self.shapes.items()
        }

    def lookup(self, ids: Tensor, views: Tensor) -> Tensor:
        return self.answers[:, : len(ids)].clone()

    def features(self, tap: str, ids: Tensor, views: Tensor) -> tuple[Tensor, ...]:
        return tuple(x[: len(ids)].clone() for x in self.maps[tap])
