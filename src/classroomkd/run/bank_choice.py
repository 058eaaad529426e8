"""Which of the mentors' answers a run stores, and what each kind of bank costs: a count, not a measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from classroomkd import bank, data
from classroomkd.bank import LOGITS
from classroomkd.classroom.composition import union
from classroomkd.errors import UserError
from classroomkd.recipe.bank_spec import BankSpec

if TYPE_CHECKING:
    from classroomkd.classroom import Mentor, Needs
    from classroomkd.data.views.base import Views
    from classroomkd.recipe import Arm
    from classroomkd.run.context import RunContext
    from classroomkd.run.networks import Networks
    from classroomkd.taps.tap_set import Kind

__all__ = ["DEFAULT_VIEWS", "BankPlan", "Choice", "choose", "distinct", "plan_bank"]

DEFAULT_VIEWS = 8  # what it does to accuracy: benchmarks/RESULTS.md, row 12 of the goals
MOST_BYTES = 16 * 2**30  # ``auto`` does not fill a disk with more


def distinct(count: int, draws: float) -> float:
    """How many of ``count`` equally likely views have been met after ``draws``, on average."""
    return count * (1.0 - math.pow(1.0 - 1.0 / count, draws))


@dataclass(frozen=True)
class Choice:
    """A bank that is decided on.

    Attributes:
        spec: ``off``, ``exact`` or ``views=V``.
        why: one sentence.
        answers: by kind (``off``, ``exact``, ``views=8``), how often one mentor answers for one sample in the whole
            run, on average.
        trainings: trainings that share the bank.
        epochs: of each, on average.
        count: views there are; None without bound.
        maps: whether feature maps are stored; without, a method that reads some asks the mentors.
    """

    spec: BankSpec
    why: str
    answers: dict[str, float]
    trainings: int
    epochs: float
    count: int | None
    maps: bool = True

    def keeps(self, needs: Needs) -> bool:
        """Whether a method with these needs is taught from stored answers."""
        return self.spec.kind != "off" and (self.maps or not _reads_maps(needs))

    def asked(self, trainings: int | None = None) -> float:
        """How often one mentor answers for one sample in so many trainings (None: the run's), on average."""
        draws = float((self.trainings if trainings is None else trainings) * self.epochs)
        if self.spec.kind == "off":
            return draws
        if self.spec.kind == "views":
            return float(self.spec.views or 0)
        assert self.count is not None
        return distinct(self.count, draws)

    def total(self, online: float, stored: float, trainings: int | None = None) -> float:
        """A training's cost over the student alone, filling included, from a step's with mentors online and stored."""
        n = self.trainings if trainings is None else trainings
        return stored + self.asked(n) / max(n * self.epochs, 1) * (online - stored)


def choose(networks: Networks) -> Choice:
    """Settle the recipe's ``bank``; the same in every process, so it does not look at the machine.

    Raises:
        UserError: ``exact`` on a space without bound, more views or top logits than there are.
    """
    context, recipe = networks.context, networks.context.recipe
    space, classes = context.base_views, networks.task_runner.answer_size
    spec = BankSpec.parse(recipe.bank)
    taught = context.banked
    stored = [(arm, n) for arm, n in taught if spec.kind != "auto" or not _reads_maps(n)]
    trainings, epochs = len(stored or taught) * len(recipe.seeds), _mean_epochs(context, stored or taught)
    draws, run = round(trainings * epochs), (trainings, epochs, space.count)
    if spec.top is not None and spec.top >= classes:
        raise UserError(f"bank: top={spec.top} of {classes} classes keeps them all; leave top out")
    if spec.kind == "exact" and space.count is None:
        raise UserError(f"bank: the views '{space.name}' have no end, so not all can be stored; use views=8 or off")
    fixed = spec.views or DEFAULT_VIEWS
    if space.count is not None and spec.kind != "views":
        fixed = min(fixed, space.count)
    answers = {"off": float(draws), f"views={fixed}": float(fixed)}
    if space.count is not None:
        answers["exact"] = distinct(space.count, draws)
    if spec.kind != "auto":
        return Choice(spec, "as the recipe says", answers, *run)
    if not taught:
        asked = any(needs.mentors > 0 for needs in context.needs)
        why = "no method asks a mentor" + " whose answers can be stored: frozen selves answer as they are asked" * asked
        return Choice(BankSpec("off"), why, answers, *run)
    if not stored:
        why = "feature maps are read, which take much room: bank=views=V stores them"
        return Choice(BankSpec("off"), why, answers, *run)

    # What its files take when full: much of ``exact`` may never be asked, but has to be free.
    views = {**answers, "off": 0.0, "exact": float(space.count or 0)}
    taps = union([needs for _, needs in stored])
    features = activation_size(networks, taps) if taps else 0
    each = 2.0 * len(context.student_part) * (len(recipe.mentors) * classes + features)
    possible = {k: n for k, n in answers.items() if each * views[k] <= MOST_BYTES}
    best = min(possible, key=lambda k: (possible[k], k != "exact", k != "off"))
    many = f"{trainings} training{'s' * (trainings != 1)}"
    why = f"the fewest answers of the mentors: {possible[best]:.1f} a sample instead of {draws} in {many}"
    if len(stored) < len(taught):
        why += "; methods that read feature maps, which take much room, ask the mentors (bank=views=V stores maps)"
    why = why if best != "off" else "nothing would be asked twice"
    return Choice(BankSpec.parse(best), why, answers, *run, maps=len(stored) == len(taught))


def _mean_epochs(context: RunContext, trainings: Sequence[tuple[Arm, Needs]]) -> float:
    """Of one training on average: stages have epochs of their own."""
    epochs = [context.epochs_of(arm) for arm, _ in trainings] or [context.recipe.train.epochs]
    return epochs[0] if len({*epochs}) == 1 else sum(epochs) / len(epochs)


def _reads_maps(needs: Needs) -> bool:
    return "map" in needs.features.values()


@dataclass(frozen=True)
class BankPlan:
    """Which of the mentors' answers a run stores, and of which samples.

    Attributes:
        choice: the kind of bank.
        views: the run's augmentation: the data's own view space, or V fixed views of it.
        taps: every tap whose activations are stored for a method of the run, and whether as a map or pooled.
        share: ``(k, K)``, which k-th share of K of the samples this machine stores.
        ahead: whether every answer is stored before the students start, in ``exact``, too.
    """

    choice: Choice
    views: Views
    taps: Mapping[str, Kind]
    share: tuple[int, int] = (0, 1)
    ahead: bool = False

    @classmethod
    def of(cls, choice: Choice, context: RunContext, share: tuple[int, int] = (0, 1), ahead: bool = False) -> BankPlan:
        """What follows from a choice."""
        fixed, base = choice.spec.views, context.base_views
        views: Views = base if fixed is None else data.FixedViews(base, fixed)
        return cls(choice, views, union([needs for _, needs in context.banked if choice.keeps(needs)]), share, ahead)

    def samples(self, count: int) -> range:
        """The positions of this machine's share among ``count`` samples."""
        k, shards = self.share
        return range(k * count // shards, (k + 1) * count // shards)

    def codecs(self, networks: Networks, mentor: Mentor) -> dict[str, bank.Codec]:
        """How a mentor's answers are stored, by kind (logits, taps); it reads the taps from now on."""
        shapes = networks.read(mentor, self.taps) if self.taps else {}
        logits = networks.task_runner.codec(mentor, self.choice.spec.top)
        return {LOGITS: logits, **{tap: bank.Dense(shape) for tap, shape in shapes.items()}}


def plan_bank(networks: Networks, share: tuple[int, int] = (0, 1), ahead: bool = False) -> BankPlan:
    """Decide on a run's bank; see :func:`choose` and :class:`BankPlan`."""
    return BankPlan.of(choose(networks), networks.context, share, ahead)


def activation_size(networks: Networks, taps: Mapping[str, Kind]) -> int:
    """How many numbers all mentors' activations of one sample at ``taps`` are; 0 where a mentor cannot be built or
    lacks a tap, which the check of the run says."""
    total = 0
    with suppress(UserError), torch.random.fork_rng(devices=[]):
        for mentor in map(networks.blank_mentor, networks.context.recipe.mentors):
            total += sum(map(math.prod, networks.read(mentor, taps).values()))
    return total
