"""What a run is going to do and cost, before it does it: ``--dry-run``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import bank, methods, models
from classroomkd.classroom import Classroom
from classroomkd.classroom.trainees import STUDENT
from classroomkd.run.bench_setting import prepared, student_layout
from classroomkd.run.looks import FEW, Budget, first_of, look_at
from classroomkd.run.selves import blank_selves
from classroomkd.run.stages import by_arm, plan_of
from classroomkd.run.time_needed import time_needed
from classroomkd.train.ema import too_slow
from classroomkd.train.gradient_scale import loud, measure
from classroomkd.train.inputs import Batches, updates
from classroomkd.train.step_cost import probe

if TYPE_CHECKING:
    from classroomkd.recipe import Arm
    from classroomkd.run.bank_choice import BankPlan, Choice
    from classroomkd.run.networks import Networks
    from classroomkd.train.step import StepRunner

__all__ = ["forecast", "plan"]

BACKWARD = 2.0  # multiply-adds of a backward pass, in those of the forward pass


def plan(
    networks: Networks,
    bank_plan: BankPlan,
    tell: Callable[[str], None] = lambda text: None,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Sizes, counts and measured cost of every arm, with untrained networks in place of the trained ones.

    What there is no time for is counted instead, in multiply-adds: one arm is measured in any case, on some samples of
    a batch where it is slow.

    Args:
        networks: of the run.
        bank_plan: what is stored of the mentors' answers.
        tell: told what is being measured.
        budget: how long that may take; None: as long as it does. Ranks measure everything, to stay together.

    Returns:
        ``{"data", "arms", "looks", "seeds", "steps", "students", "bank", "seconds", "not_measured",
        "notes"}``: a stage is an arm here, and ``stages`` has for every arm that has some what they take together;
        ``steps`` of the longest arm; ``looks`` at the
        mentors, by name (:func:`.looks.look_at`); ``bank`` with the bytes it takes, and ``total``, the dearest arm's
        training over the student alone; ``seconds`` of the run (:func:`.time_needed.time_needed`). An arm has
        ``mentor_forwards`` (a step), ``x_floor`` (its step over the student alone, mentors online; counted where
        ``measured`` is False), ``x_floor_bank`` (with stored answers; None without) and ``gradient_ratio`` (the
        mentors' gradient over that of the labels alone at the start, and ``loud``, what is to be said of it; None where
        a mentor has no weights yet).
    """
    budget = budget if budget is not None and networks.context.runtime.world == 1 else Budget()
    context = networks.context
    recipe = context.recipe
    batches = Batches(
        context.student_part,
        bank_plan.views,
        recipe.train.batch_size,
        0,
        ratio=recipe.train.unlabelled_ratio,
        rank=context.runtime.rank,
        world=context.runtime.world,
        sizes=context.known_extra_sizes,
        device=context.runtime.device,
    )
    waited = _waiting(batches)
    batch = next(batches.epoch(0))
    arms: list[dict[str, Any]] = []
    skipped: list[str] = []
    choice = bank_plan.choice
    share = choice.asked() / max(choice.trainings * choice.epochs, 1)  # of online answers, on average
    last = student_layout(networks)
    trainings = recipe.trainings()
    for number, arm in enumerate(trainings, 1):
        if arms and budget.left <= 0:
            arms.append(_unmeasured(networks, arm, arms[0]["floor_ms"], choice, share))
            skipped.append(f"a step of '{arm.title}'")
            continue
        tell(f"measuring a step of '{arm.title}' ({number} of {len(trainings)})")
        seconds = max(budget.left / (len(trainings) - number + 2), 0.5)  # one share is the mentors'
        with prepared(networks, arm, last) as runner:
            classroom, method = runner.classroom, runner.classroom.method
            wanted = method.needs.mentors > 0
            some = _affordable(runner, batch, seconds)
            costs, indices = probe(runner, some, enough=seconds / 3), method.mentor_indices
            teaching = len(classroom.mentors) if indices is None else len(indices)
            stores = wanted and choice.keeps(method.needs) and not context.selves_of(arm)
            if stores:
                classroom.mentors.store = _Blank(classroom, len(some["ids"]), networks)
                stored = probe(runner, some, enough=seconds / 3)["cost_ratio"]
        times = len(batch["ids"]) / len(some["ids"])
        arms.append(
            {
                "label": arm.title,
                "mentor_forwards": round(teaching * (share if stores else 1), 2) if wanted else 0,
                "x_floor": round(costs["cost_ratio"], 2),
                "x_floor_bank": round(stored, 2) if stores else None,
                "step_ms": round(costs["step_ms"] * times, 2),
                "floor_ms": round(costs["floor_ms"] * times, 2),
                "data_ms": round(waited, 2),
                "measured": True,
                **(_loudness(networks, arm, last, some) if budget.left > 0 else _UNKNOWN),
            }
        )
        if budget.left <= 0:
            skipped.append(f"the mentors' gradient of '{arm.title}'")
    for row, arm in zip(arms, trainings, strict=True):
        row |= {"epochs": context.epochs_of(arm), "steps": len(batches) * context.epochs_of(arm)}
    looks = {}
    for number, spec in enumerate(recipe.mentors):
        tell(f"asking mentor '{spec.name}' ({number + 1} of {len(recipe.mentors)})")
        looks[spec.name] = look_at(networks, spec, budget.left / (len(recipe.mentors) - number))
        if looks[spec.name]["seconds_a_sample"] is None:
            skipped.append(f"mentor '{spec.name}'")
    bank_costs = _counted(networks, bank_plan, activations=True)
    if dearest := max((a for a in arms if a["x_floor_bank"] is not None), key=lambda a: a["x_floor"], default=None):
        bank_costs["total"] = _totals(choice, dearest["x_floor"], dearest["x_floor_bank"])
    return {
        "data": {
            "name": context.data.name,
            "classes": len(context.classes),
            "names": list(context.classes),
            "samples": networks.task_runner.samples,
            "topics": networks.task_runner.description.vocabulary.units,
            "shape": list(context.data.shape),
            "train": len(context.data.train),
            "student_train": len(context.student_part),
            "val": len(context.data.val),
            "test": len(context.data.test),
        },
        "arms": arms,
        **({"stages": staged} if (staged := plan_of(recipe, arms)) else {}),
        "looks": looks,
        "seeds": list(recipe.seeds),
        "steps": max(map(sum, by_arm(recipe, arms, "steps"))),
        "students": len(recipe.arms()) * len(recipe.seeds),
        "bank": bank_costs,
        "seconds": time_needed(context, choice, arms, looks),
        "not_measured": skipped,
        "notes": [
            *(text for text in (too_slow(recipe.train.ema, updates(len(batches), recipe.train)),) if text),
            *_trainees(networks, [arm for arm in trainings if arm.peers]),
        ],
    }


def _trainees(networks: Networks, arms: Sequence[Arm]) -> list[str]:
    """What training several networks takes, a sentence for all arms that train the same."""
    train, alike = networks.context.recipe.train, dict[tuple[str, ...], list[str]]()
    copies = 3 + (train.optimizer == "adamw") + (train.ema is not None)  # weights, gradients, momentum
    for arm in arms:
        alike.setdefault((arm.lead, *arm.peers), []).append(f"'{arm.title}'")
    found = []
    for trained, titles in alike.items():
        alone, *all_of_them = (
            4 * copies * models.parameters(network)
            for network in (networks.blank_student(), *(_blank(networks, name) for name in trained))
        )
        who = f"{', '.join(titles[:-1])} and {titles[-1]} train" if len(titles) > 1 else f"{titles[0]} trains"
        found.append(
            f"{who} {len(all_of_them)} networks: with gradients and the optimiser's state they take "
            f"{sum(all_of_them) / 2**20:,.1f} MiB, the student alone {alone / 2**20:,.1f}; on top come all their "
            "activations for one batch"
        )
    return found


def _blank(networks: Networks, trainee: str) -> nn.Module:
    return networks.blank_student() if trainee == STUDENT else networks.peer(networks.context.peer(trainee), 0)


_UNKNOWN: dict[str, Any] = {"gradient_ratio": None, "loud": ""}


def _waiting(batches: Batches) -> float:
    """Milliseconds until a batch is there, the faster of the first two."""
    times, begun = [], time.perf_counter()
    for _ in itertools.islice(batches.epoch(0), 2):
        times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return 1000 * min(times)


def _affordable(runner: StepRunner, batch: dict[str, Tensor], seconds: float) -> dict[str, Tensor]:
    """The batch, or as many of its samples as can be measured in so many seconds."""
    size = len(batch["ids"])
    if seconds == inf or size <= FEW:
        return batch
    began = time.perf_counter()
    probe(runner, first_of(batch, FEW), rounds=1, enough=0.0)
    each = (time.perf_counter() - began) / FEW  # seconds that a round of both takes
    most = int(seconds / (8 * each))  # rounds online, with a bank, and of gradients
    return batch if most >= size else first_of(batch, max(most, FEW))


def _unmeasured(networks: Networks, arm: Arm, floor_ms: float, choice: Choice, share: float) -> dict[str, Any]:
    """An arm whose step is counted in multiply-adds, as if reading stored answers cost nothing."""
    method, recipe = methods.compose(arm.parts, peers=len(arm.peers)), networks.context.recipe
    asks = method.needs.mentors > 0
    selves = networks.context.selves_of(arm)
    stores = asks and choice.keeps(method.needs) and not selves
    shape = networks.context.data.shape
    student = models.multiply_adds(networks.blank_student(), shape)
    sizes = [(shape[0], *(spec.shape or shape[1:])) for spec in recipe.mentors]
    theirs = sum(models.multiply_adds(networks.mentor(s.name), z) for s, z in zip(recipe.mentors, sizes, strict=True))
    theirs += sum(models.multiply_adds(one.module, shape) for one in blank_selves(networks, arm))
    learning = (_blank(networks, name) for name in (arm.lead, *arm.peers))
    online = sum(models.multiply_adds(one, shape) for one in learning) / max(student, 1)
    online += theirs / max((1.0 + BACKWARD) * student, 1.0) if asks else 0.0
    return {
        "label": arm.title,
        "mentor_forwards": round((len(recipe.mentors) + len(selves)) * (share if stores else 1), 2) if asks else 0,
        "x_floor": round(online, 2),
        "x_floor_bank": 1.0 if stores else None,
        "step_ms": round(floor_ms * online, 2),
        "floor_ms": floor_ms,
        "measured": False,
        **_UNKNOWN,
    }


def _loudness(networks: Networks, arm: Arm, last: bool, batch: dict[str, Tensor]) -> dict[str, Any]:
    """How loud an arm's mentors are at the start; unknown where one is not trained yet or must be calibrated first,
    where the method looks at samples first, or where a stage begins with what is not there yet."""
    needs, scale = methods.compose(arm.parts, peers=len(arm.peers)).needs, None
    context = networks.context
    weights = all(map(networks.has_weights, context.recipe.mentors)) and not context.selves_of(arm)
    weights = weights and (arm.stage is None or arm.stage.begins_from(arm.lead) is None)
    if needs.mentors > 0 and not needs.calibration and not needs.prepare and weights:
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
        multiply-adds, as if reading stored answers cost nothing; None where no method asks a mentor whose answers can
        be stored.
    """
    needs = [needs for _, needs in networks.context.banked]
    if not needs:
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
