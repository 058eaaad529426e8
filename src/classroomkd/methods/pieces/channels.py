"""One mentor's channels brought into the order of the student's: what is summed up over pictures, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classroomkd.classroom import Lesson
from classroomkd.errors import UserError
from classroomkd.functional import matching as m
from classroomkd.functional import wide
from classroomkd.taps.adapters import Resize

__all__ = ["Cost", "Fit", "Match", "Matching", "Rule", "Sums", "idle", "labels_of", "refuse_classless"]

Match = Literal["bipartite", "greedy", "learned", "identity", "random"]
Cost = Literal["spatial", "class"]
Fit = Literal["procrustes", "ridge"]


@dataclass(frozen=True)
class Rule:
    """How channels are matched; the options of ``kcd``."""

    match: Match
    cost: Cost
    fit: Fit
    ridge: float
    seed: int

    @property
    def by_cost(self) -> bool:
        """Whether it goes by the costs of pairs."""
        return self.match in ("bipartite", "greedy")


class Sums:
    """What is summed up over pictures of the student's channels (S) and a mentor's (T), in float64.

    Args:
        rule: which sums are needed.
        classes: K, labels are below it; 1: pictures have none.
    """

    def __init__(self, rule: Rule, classes: int) -> None:
        self.rule, self.classes, self.pictures = rule, classes, 0
        self.by_class: list[Tensor] = []  # of the student and the mentor, (K, channels)
        self.labelled = torch.zeros(classes, dtype=torch.float64)
        self.products: list[Tensor] = []  # cosines, or F_s F_tᵀ and F_t F_tᵀ

    def add(self, own: Tensor, theirs: Tensor, labels: Tensor) -> None:
        """Take in a batch: ``(B, S, …)`` and ``(B, T, …)`` of one size, and labels ``(B,)``, −1 for none."""
        if own.device.type == "mps":  # which has no float64
            own, theirs, labels = own.cpu(), theirs.cpu(), labels.cpu()
        one, other = (x.flatten(2) if x.dim() > 2 else x.unsqueeze(2) for x in (own.double(), theirs.double()))
        self.pictures += len(one)
        told = (labels >= 0).to(one.device)
        place = labels.to(one.device)[told]
        sums = [
            torch.zeros(self.classes, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, place, x.mean(2)[told])
            for x in (one, other)
        ]
        self.labelled += torch.bincount(place.cpu(), minlength=self.classes)
        products = []
        if self.rule.match == "learned":
            products = [torch.einsum("bsp,btp->st", x, other) for x in (one, other)]
        elif self.rule.by_cost and self.rule.cost == "spatial":
            products = [m.cosines(one, other)]
        self.by_class = _added(self.by_class, sums)
        self.products = _added(self.products, products)

    def means(self) -> tuple[Tensor, Tensor]:
        """The mean activations by class, ``(K, S)`` and ``(K, T)``, of the classes that were seen."""
        seen = self.labelled > 0
        one, other = (x[seen] / self.labelled[seen].unsqueeze(1) for x in self.by_class)
        return one, other


def _added(before: list[Tensor], now: list[Tensor]) -> list[Tensor]:
    """Sums on the CPU."""
    moved = [x.cpu() for x in now]
    return [a + b for a, b in zip(before, moved, strict=True)] if before else moved


class Matching(nn.Module):
    """W of one mentor at one tap: it makes of the mentor's features some in the order of the student's channels.

    Args:
        own, theirs: shapes of a sample, ``(S, H, W)`` or ``(S,)``, and ``(T, H, W)`` or ``(T,)``.
        rule: how channels are matched.
        what: how messages call the two.

    Attributes:
        transform: W ``(S, T)``; the identity's until channels have been matched.
        overlap: of the ten strongest channels by class the share in common: before, after, and what chance gives.

    Raises:
        UserError: a map beside a vector, a spatial cost where there is no space.
    """

    transform: Tensor
    overlap: Tensor

    def __init__(self, own: tuple[int, ...], theirs: tuple[int, ...], rule: Rule, what: str) -> None:
        super().__init__()
        if len(own) != len(theirs):
            one, other = ("a map" if len(shape) > 1 else "a vector" for shape in (own, theirs))
            raise UserError(f"kcd: {what} are {one} and {other}; choose taps that are both maps, or both vectors")
        if rule.by_cost and rule.cost == "spatial" and torch.Size(theirs[1:]).numel() == 1:
            raise UserError(
                f"kcd: cost: spatial compares maps, and {what} have one value a channel; take cost: class or other taps"
            )
        self.rule = rule
        self.resize = Resize(theirs[1:]) if own[1:] != theirs[1:] else nn.Identity()
        # Of a mentor with fewer channels some of the student's are left out; the others have a mean of some, or all.
        self.leaves_out = theirs[0] < own[0] and rule.match != "learned"
        plain = m.averaging(m.identity_assignment(own[0], theirs[0]), own[0])
        self.register_buffer("transform", plain.float())
        self.register_buffer("overlap", torch.full((3,), torch.nan))

    def match(self, sums: Sums) -> None:
        """Find W.

        Raises:
            UserError: of a cost by class, pictures of one class.
        """
        own, theirs = self.transform.shape
        plain = m.averaging(m.identity_assignment(own, theirs), own)
        found = self._found(sums, own, theirs)
        one, other = sums.means()
        if len(one):
            shares = [m.overlap(one, other @ transform.T) for transform in (plain, found)]
            self.overlap.copy_(torch.stack([*shares, torch.tensor(min(10, own) / own).double()]))
        self.transform.copy_(found)

    def _found(self, sums: Sums, own: int, theirs: int) -> Tensor:
        rule = self.rule
        if rule.match == "learned":
            cross, gram = sums.products
            return m.procrustes(cross) if rule.fit == "procrustes" else m.ridge(cross, gram, rule.ridge)
        if rule.match == "identity":
            assigned = m.identity_assignment(own, theirs)
        elif rule.match == "random":
            assigned = m.random_assignment(own, theirs, rule.seed)
        else:
            cost = self._cost(sums)
            assigned = m.bipartite(cost) if rule.match == "bipartite" else m.greedy(cost)
        return m.averaging(assigned, own)

    def _cost(self, sums: Sums) -> Tensor:
        if self.rule.cost == "spatial":
            return m.spatial_cost(sums.products[0], sums.pictures)
        one, other = sums.means()
        if len(one) < 2:
            raise UserError(
                "kcd: cost: class compares classes, and the pictures it has seen are of one; raise calibration, mix "
                "the loader, or take cost: spatial"
            )
        return m.class_cost(one, other)

    def forward(self, theirs: Tensor, own: Tensor) -> Tensor:
        """W F_t ``(B, S, H, W)``, in float32 at least; a channel that has none of the mentor's is the student's own.

        Args:
            theirs: F_t ``(B, T, H, W)``.
            own: F_s ``(B, S, …)``, which no gradient flows to.
        """
        with torch.autocast(theirs.device.type, enabled=False):
            features = wide(theirs)
            flat = features.flatten(2) if features.dim() > 2 else features.unsqueeze(2)
            moved = (self.transform.to(flat.dtype) @ flat).view(len(features), len(self.transform), *features.shape[2:])
            if self.leaves_out:
                none = (self.transform == 0).all(1).view(-1, *[1] * (moved.dim() - 2))
                moved = torch.where(none, self.resize(wide(own.detach())).to(moved.dtype), moved)
        return moved


def idle(options: Mapping[str, Any]) -> list[str]:
    """Options of another ``match`` that are set, one sentence each."""
    match, fit = options.get("match", "bipartite"), options.get("fit", "procrustes")
    acts = {"cost": match in ("bipartite", "greedy"), "fit": match == "learned", "seed": match == "random"}
    acts["ridge"] = match == "learned" and fit == "ridge"
    usual = {"cost": "spatial", "fit": "procrustes", "seed": 0, "ridge": 1e-3}
    set_idly = [key for key, works in acts.items() if not works and options.get(key, usual[key]) != usual[key]]
    return [f"{key} has no effect with match: {match}" for key in set_idly]


def labels_of(lesson: Lesson) -> tuple[Tensor, int]:
    """Of a batch the classes of its pictures ``(B,)``, −1 for none, and how many classes there are; where a picture has
    no class of its own, all are of one."""
    target = lesson.target
    if target.dim() == 1 and not target.is_floating_point():
        return target, lesson.student.prediction.shape[-1]
    return torch.zeros(len(target), dtype=torch.int64), 1


def refuse_classless(labels: Tensor) -> None:
    """Stop a cost by class where the training pictures have none, or one alone.

    Raises:
        UserError: saying what to take instead.
    """
    if labels.dim() != 1 or labels.is_floating_point():
        raise UserError("kcd: cost: class compares classes, and pictures of this task have none; take cost: spatial")
    if (classes := int((torch.bincount(labels[labels >= 0].cpu()) > 0).sum())) < 2:
        how = "one class alone" if classes else "no label"
        raise UserError(f"kcd: cost: class compares classes, and the training pictures have {how}; take cost: spatial")
