"""Pose: an answer is a coding of K joints, a target ``(B, K, 3)`` of x, y and v; the units are the joints.

The authors of ClassroomKD released no pose code; what a joint's credibility is, and who may teach it, is this
project's design: see :class:`Pose`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from classroomkd.classroom.task import Task
from classroomkd.data.skeleton import COCO, Skeleton
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.tasks.pose.coding import Coding, SimCC
from classroomkd.tasks.pose.translation import region, resized

__all__ = ["Pose"]

_BAR = 0.5  # pixels beside the student's region in a mentor's crop up to which both have the same shape


class Pose(Task):
    """Where K joints of one person are.

    A joint counts in losses and gates where it is labelled (visible or hidden) and within the crop. Elsewhere there is
    no truth to compare with: credibility is 1 for all, and mentors may still teach there (``distil_hidden``).

    A person without joints has v = -1 at all of them. Mentors may teach such a person whole, and what they agree on
    (:meth:`agreed`) is the place that the mean of their answers has.

    Args:
        coding: of the student's answers, into which mentors' are translated.
        skeleton: of the joints.
        per: credibility of each ``joint``, or one for the ``person``: the mean of the logarithms over the joints that
            count (a mentor's: that it knows), given to all joints.
        distil_hidden: whether mentors may teach joints without a label, of a person who has some with one.
        label_smoothing: accepted for the sake of one signature; must be 0, the labels are smooth already.
        unlabelled: whether there may be persons without joints.

    Raises:
        UserError: a skeleton of another number of joints, or smoothing.
    """

    name = "pose"
    has_unlabelled_units = True
    has_vote = True

    def __init__(
        self,
        coding: Coding,
        skeleton: Skeleton,
        *,
        per: Literal["joint", "person"] = "joint",
        distil_hidden: bool = True,
        label_smoothing: float = 0.0,
        unlabelled: bool = False,
    ) -> None:
        if label_smoothing != 0:
            raise UserError(
                f"label_smoothing must be 0 for pose, whose labels are smooth already; got {label_smoothing}"
            )
        if per not in ("joint", "person"):
            raise UserError(f"pose: per must be joint or person, got '{per}'")
        if coding.joints != len(skeleton):
            raise UserError(
                f"the student answers {coding.joints} joints, skeleton '{skeleton.name}' has {len(skeleton)}"
            )
        self.coding, self.skeleton, self.per, self.distil_hidden = coding, skeleton, per, distil_hidden
        self.unlabelled = unlabelled

    @property
    def steepest(self) -> float | None:  # type: ignore[override]
        """The coding's; see the base."""
        return self.coding.steepest

    @classmethod
    def sketch(cls) -> Pose:
        """A small one with COCO's joints."""
        return cls(SimCC((64, 64), len(COCO)), COCO)

    def supervised(self, answer: Tensor, target: Tensor) -> Tensor:
        """The coding's loss against the labels, ``(B, K)``, 0 without a gradient where a joint does not count."""
        return torch.where(self.mask(target), self.coding.supervised(answer, target), 0.0)

    def log_credibility(self, answer: Tensor, target: Tensor) -> Tensor:
        """The coding's log fit, ``(B, K)`` or ``(M, B, K)``: 0 where there is no truth, ``-inf`` for a joint the mentor
        does not know, NaN where its numbers are not finite.
        """
        fit = self.coding.log_fit(answer, target, self.skeleton.sigmas)
        mask = self.mask(target).expand(fit.shape)
        unknown, broken = self.coding.state(answer)
        if self.per == "person":
            counts = mask & ~unknown & ~broken
            mean = fit.where(counts, 0.0).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp_min(1)
            fit = torch.where(unknown | broken, fit, mean)
        else:
            fit = torch.where(mask | unknown | broken, fit, 0.0)
        return fit

    def mask(self, target: Tensor) -> Tensor:
        """Joints that are labelled and within the crop, ``(B, K)``."""
        return self.coding.inside(target)

    def labelled(self, target: Tensor) -> Tensor:
        """All but persons without joints, ``(B,)``; who has some keeps them where a view shows none of these."""
        return (target[..., 2] != UNLABELLED).any(-1)

    def distill_mask(self, target: Tensor) -> Tensor:
        """Joints that mentors may teach, ``(B, K)``: all, or with ``distil_hidden`` off those of :meth:`mask` and all
        of a person without joints.
        """
        mask = self.mask(target)
        return torch.ones_like(mask) if self.distil_hidden else mask | ~self.labelled(target).unsqueeze(-1)

    @torch.no_grad()
    def agreed(self, answers: Tensor, target: Tensor) -> Tensor:
        """Targets in which persons without joints have the places of the mean of the mentors' answers, as visible ones.

        Mentors that do not know a joint, or whose answer to it is not finite, are left out; where nobody is left the
        joint stays without a label. A joint without a label of a person who has others stays so, too.
        """
        if not self.unlabelled:
            return target
        pooled, known = self._together(answers)
        place = self.coding.decode(pooled)[..., :2].to(target.dtype)
        height, width = self.coding.size
        x, y = place[..., 0].clamp(0, width - 1), place[..., 1].clamp(0, height - 1)
        said = torch.stack([x, y, torch.full_like(x, 2)], -1)
        return torch.where((target[..., 2:] == UNLABELLED) & known.unsqueeze(-1), said, target)

    @torch.no_grad()
    def certainty(self, answers: Tensor) -> Tensor:
        """The score, ``(B, K)`` in [0, 1], at the peak of the mean of the mentors' answers; NaN where nobody knows."""
        pooled, known = self._together(answers)
        return torch.where(known, self.coding.decode(pooled)[..., 2], torch.nan)

    def doubts(self, answers: Tensor) -> Tensor:
        """1 less the mean of :meth:`certainty` over the joints that somebody knows, ``(B,)``."""
        return 1 - self.certainty(answers).nanmean(-1)

    def _together(self, answers: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the mentors' answers, ``(B, K, …)``, and of which joints there is one, ``(B, K)`` bool."""
        unknown, broken = self.coding.state(answers)
        counts = ~(unknown | broken)
        return self.coding.pooled(answers, counts), counts.any(0)

    def no_target(self, answer: Tensor) -> Tensor:
        """``(B, K, 3)`` of persons without joints.

        Raises:
            UserError: without ``unlabelled``.
        """
        if not self.unlabelled:
            raise UserError(
                "the batch has no target; Pose(..., unlabelled=True) teaches persons without joints, "
                "classroom(crops, None) all of a batch"
            )
        target = torch.zeros(len(answer), self.coding.joints, 3, device=answer.device)
        target[..., 2] = UNLABELLED
        return target

    def blanked(self, answers: Tensor, units_MBU: Tensor) -> Tensor:
        """See the base: joint by joint; joints that a mentor does not know become 0 too."""
        marked = units_MBU | self.coding.state(answers)[0]
        return torch.where(marked.view(*marked.shape, *[1] * self.coding.trailing), 0.0, answers)

    def broken(self, answers: Tensor) -> Tensor:
        """See the base: joint by joint; a joint that is ``-inf`` throughout is one that the mentor does not know."""
        return self.coding.state(answers)[1].any(-1)

    def resized(self, inputs: Tensor, size: tuple[int, int], who: str) -> Tensor:
        """See the base: the outermost pixels stay the outermost ones, and nobody is stretched.

        Raises:
            UserError: a size of another shape; the mentor needs a crop of its own (see :func:`translation.region`).
        """
        own = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        _, *bars = region(own, size)
        if max(bars) > _BAR:
            raise UserError(
                f"{who} sees {size[0]} x {size[1]} pixels, the student {own[0]} x {own[1]}: resized, the person would "
                f"be stretched and every joint elsewhere; pass the same views drawn at its size, "
                f"extra_sizes={{{size}: crops}} ('extra_sizes' of a batch in a step), or train by classroomkd run or "
                "ck.distill, which draw them"
            )
        return resized(inputs, size)

    def unit_labels(self, target: Tensor) -> Tensor:
        """A unit is about its joint: ``(B, K)``."""
        return torch.arange(target.shape[-2], device=target.device).expand(target.shape[:-1])

    def distributions(self, answer: Tensor) -> list[Tensor]:
        """SimCC: two, over x-bins and y-bins; heatmaps: one over the cells. Each ``(…, B, K, bins)``."""
        return self.coding.distributions(answer)

    def labels(self, target: Tensor) -> list[Tensor]:
        """The bins nearest the truth, each ``(B, K)``."""
        return self.coding.labels(target)

    @torch.no_grad()
    def mistaken(self, answer: Tensor, target: Tensor) -> Tensor:
        """Joints whose place is so far off that their OKS is below 1/2, as for COCO's AP50; ``(B, K)`` bool.

        The nearest bin would be too much to ask: a student 0.9 px off misses it on every person.
        """
        near = self.coding.log_oks(answer, target, self.skeleton.sigmas) >= math.log(0.5)
        return ~near & self.mask(target)

    def divergence(self, student: Tensor, mentors: Tensor, temperature: float | Tensor) -> Tensor:
        """The coding's divergence, ``(M, B, K)``, without T²; 0 for joints a mentor does not know."""
        return self.coding.divergence(student, mentors, temperature)

    def check(self, student: Tensor, target: Tensor) -> None:
        """The answer must be the coding's, the target ``(B, K, 3)`` finite with v 0, 1 or 2; -1 at all joints of a
        person without joints, where there may be some.
        """
        shape = (len(student), *self.coding.answer_shape)
        if tuple(student.shape) != shape:
            raise UserError(
                f"the student answers with shape {tuple(student.shape)}, its {self.coding.kind} head says {shape}"
            )
        if tuple(target.shape) != (len(student), self.coding.joints, 3) or not target.is_floating_point():
            raise UserError(
                f"targets of {len(student)} persons with {self.coding.joints} joints must be float "
                f"{(len(student), self.coding.joints, 3)}; got {tuple(target.shape)} {target.dtype}"
            )
        if not bool(target.isfinite().all()):
            raise UserError("a joint's coordinates are not finite")
        v = target[..., 2]
        lacks = v == UNLABELLED
        if bool(lacks.any()):
            if not self.unlabelled:
                raise UserError(
                    "a joint's visibility is -1, as of a person without joints; Pose(..., unlabelled=True) teaches such"
                )
            if not bool((lacks.all(-1) == lacks.any(-1)).all()):
                raise UserError("a person without joints has visibility -1 at all of them, not at some")
            v = torch.where(lacks, 0, v)
        if not bool(((v == 0) | (v == 1) | (v == 2)).all()):
            raise UserError("a joint's visibility must be 0 (not labelled), 1 (hidden) or 2 (visible)")
