"""Translation of a mentor's answer into the student's answer space: another coding, input size or skeleton.

A mentor of another input size sees its own crop of the same person: the same centre, and the smallest region of its
own shape that holds the student's region (:func:`region`).

==================  ====================================================================================================
mentor → student    rule
==================  ====================================================================================================
SimCC → SimCC       logits, from their median up, read at the student's bins
SimCC → heatmap     per axis the mean target map under the mentor's distribution (what regression tends to), the outer
                    product of both: peak 1 where the mentor is sure, lower where it is not
heatmap → SimCC     per axis the map's profile (:func:`heatmaps.profiles`), read at the bins in the logarithm (exact for
                    a Gaussian) and raised to the power that makes a Gaussian as narrow as the student's label; the peak
                    keeps its height. So a perfect map becomes exactly the label, a low peak an unsure distribution
heatmap → heatmap   read at the student's cells
==================  ====================================================================================================

Within a kind, answers are narrowed (as to SimCC) or widened (by a blur) where the widths of both targets differ by more
than a tenth: how wide a label is says nothing of what a mentor knows.

Answers are numbers whose softmax(beta ·) is the student's kind of distribution, or maps; unknown joints are ``-inf``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.functional import heatmaps, wide
from classroomkd.tasks.pose.coding import Coding, Heatmap, SimCC, Size

__all__ = ["VERSION", "Translation", "region", "resized"]

VERSION = 1
"""Of the rules: answers that were stored under another one are not used."""

_FAINT = 1e-3  # of a map's peak: what is below is noise
_ALIKE = 1.1  # ratio of widths up to which maps are only read at other places


def region(own: Size, other: Size) -> tuple[float, float, float]:
    """Where the student's pixels are in a mentor's crop: ``x_other = a · x_own + b_x``, ``y_other = a · y_own + b_y``.

    Args:
        own: (H, W) of the student's input.
        other: (H, W) of the mentor's.

    Returns:
        (a, b_x, b_y): the largest a that leaves the student's pixels within the mentor's crop, centres on each other.
    """
    spans, others = [max(n - 1, 1) for n in own], [max(n - 1, 1) for n in other]
    a = min(o / s for s, o in zip(spans, others, strict=True))
    return a, (others[1] - a * spans[1]) / 2, (others[0] - a * spans[0]) / 2


def resized(pictures: Tensor, size: Size) -> Tensor:
    """Pictures ``(…, H, W)`` at another (H, W), the outermost pixels in place (UDP), antialiased.

    Libraries' antialiasing counts pixels and not the spaces between them: joints would be up to half a pixel aside.
    """
    rows, columns = (_lines(old, new, pictures) for old, new in zip(pictures.shape[-2:], size, strict=True))
    with torch.autocast(pictures.device.type, enabled=False):
        return rows @ pictures @ columns.T


def _lines(old: int, new: int, like: Tensor) -> Tensor:
    """The matrix ``(new, old)`` that reads a line by triangles as wide as the coarser spacing."""
    step = (old - 1) / max(new - 1, 1)
    places, own = (torch.arange(count, dtype=torch.float32, device=like.device) for count in (new, old))
    weight = (1 - (step * places.unsqueeze(1) - own).abs() / max(step, 1.0)).clamp_min(0)
    return (weight / weight.sum(1, keepdim=True)).to(like.dtype)


class Translation(nn.Module):
    """From a mentor's raw answers ``(B, K_mentor, …)`` to the student's answer space, ``(B, K, …)``.

    Args:
        mentor: coding of the mentor's answers, with its input size.
        student: coding of the student's.
        places: for each of the student's joints its place among the mentor's, or None; None = the same joints.
        where: who the mentor is, for messages.

    Raises:
        UserError: joints that do not fit, or nothing in common.
    """

    def __init__(
        self,
        mentor: Coding,
        student: Coding,
        places: Sequence[int | None] | None = None,
        where: str = "the mentor",
    ) -> None:
        super().__init__()
        if places is None and mentor.joints != student.joints:
            raise UserError(
                f"{where} answers {mentor.joints} joints, the student {student.joints}: say which skeleton it knows"
            )
        places = tuple(range(student.joints)) if places is None else tuple(places)
        if len(places) != student.joints or any(p is not None and not 0 <= p < mentor.joints for p in places):
            raise UserError(
                f"{where} answers {mentor.joints} joints and the student {student.joints}, which does not fit the map "
                f"of joints {list(places)}"
            )
        if all(p is None for p in places):
            raise UserError(f"{where} knows none of the student's joints")
        self.mentor, self.student, self.places = mentor, student, places
        self.same_joints = places == tuple(range(mentor.joints))
        self.same_space = _same_space(mentor, student)
        self.index: Tensor
        self.known: Tensor
        self.x: Tensor
        self.y: Tensor
        self._keep("index", torch.tensor([p or 0 for p in places]))
        self._keep("known", torch.tensor([p is not None for p in places]))
        self.power = (1.0, 1.0)
        if not self.same_space:
            x, y = self._operators()
            self._keep("x", x.float())
            self._keep("y", y.float())

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    @property
    def identity(self) -> bool:
        """Whether answers pass unchanged."""
        return self.same_joints and self.same_space

    def forward(self, answer: Tensor) -> Tensor:
        """The answer in the student's space, in its own precision; gradients flow to it."""
        if self.identity:
            return answer
        if not self.same_joints:
            answer = answer.index_select(1, self.index)
        if not self.same_space:
            with torch.autocast(answer.device.type, enabled=False):
                answer = self._convert(wide(answer)).to(answer.dtype)
        known = self.known.view(-1, *[1] * self.student.trailing)
        return answer if self.same_joints else torch.where(known, answer, -torch.inf)

    def _operators(self) -> tuple[Tensor, Tensor]:
        """Per axis the matrix from the mentor's values to the student's; sets ``power``."""
        a, b_x, b_y = region(self.student.size, self.mentor.size)
        matrices, power = [], []
        for axis, b in enumerate((b_x, b_y)):
            at, step_own, sigma_own = _axis(self.student, axis)
            theirs, step, sigma = _axis(self.mentor, axis)
            count = len(theirs)
            places = (a * step_own * at + b) / step  # of the student's values, counted in the mentor's
            ratio = a * step_own * sigma_own / (step * sigma)  # of the widths, student's over mentor's
            power.append(max(1.0, ratio**-2))
            if isinstance(self.mentor, SimCC) and isinstance(self.student, Heatmap):
                matrix = heatmaps.expected(places, count, ratio * sigma)
            elif ratio > _ALIKE:
                matrix = heatmaps.blurring(places, count, sigma * (ratio**2 - 1) ** 0.5, ratio)
            else:
                matrix = heatmaps.interpolating(places, count)
            matrices.append(matrix)
        self.power = (power[0], power[1])
        return matrices[0], matrices[1]

    def _convert(self, answer: Tensor) -> Tensor:
        mentor, student = self.mentor, self.student
        if isinstance(mentor, SimCC):
            if isinstance(student, SimCC):
                rows = ((part - heatmaps.level(part.unsqueeze(-2)).unsqueeze(-1)) for part in mentor.parts(answer))
                bins = [
                    _read(row, partial(torch.matmul, other=matrix), power, (-1,))
                    for row, matrix, power in zip(rows, (self.x, self.y), self.power, strict=True)
                ]
                return torch.cat(bins, -1) * (mentor.beta / student.beta)
            x, y = (torch.softmax(mentor.beta * part, -1) for part in mentor.parts(answer))
            return heatmaps.product_map(x @ self.x, y @ self.y)
        assert isinstance(mentor, Heatmap)
        if mentor.loss == "kl":
            answer = answer - heatmaps.level(answer)[..., None, None]
        if isinstance(student, SimCC):
            return self._to_bins(answer)
        assert isinstance(student, Heatmap)
        if mentor.loss == student.loss == "kl":
            answer = answer * (mentor.scale / student.scale)
        return _read(answer, lambda values: self.y.T @ values @ self.x, self.power[0], (-2, -1))

    def _to_bins(self, maps: Tensor) -> Tensor:
        top = maps.amax((-2, -1)).clamp_min(_FAINT).unsqueeze(-1)
        logs = [
            (profile / top).clamp_min(_FAINT).log() @ matrix
            for profile, matrix in zip(heatmaps.profiles(maps), (self.x, self.y), strict=True)
        ]
        highs = [log.amax(-1, keepdim=True) for log in logs]
        height = (top * (highs[0] + highs[1]).exp()).clamp_max(1)  # of the peak between the cells
        sharp = [((log - high) * p).exp() for log, high, p in zip(logs, highs, self.power, strict=True)]
        return height * torch.cat(sharp, -1)


def _read(values: Tensor, at: Callable[[Tensor], Tensor], power: float, dims: tuple[int, ...]) -> Tensor:
    """Values that are read elsewhere by ``at``, narrowed by ``power`` around the highest along ``dims``."""
    if power < _ALIKE**2:
        return at(values)
    top = values.amax(dims, keepdim=True).clamp_min(_FAINT)
    logs = at((values / top).clamp_min(_FAINT).log())
    high = logs.amax(dims, keepdim=True)
    return top * (high + (logs - high) * power).exp()


def _axis(coding: Coding, axis: int) -> tuple[Tensor, float, float]:
    """Along x (0) or y (1): the values' numbers, their spacing in input pixels, and the target's sigma in values."""
    if isinstance(coding, SimCC):
        return torch.arange(coding.bins[axis], dtype=torch.float64), 1 / coding.split, coding.sigmas[axis]
    assert isinstance(coding, Heatmap)
    return torch.arange(coding.cells[1 - axis], dtype=torch.float64), coding.spacing[axis], coding.width


def _same_space(mentor: Coding, student: Coding) -> bool:
    """Whether an answer of one means the same as one of the other."""
    if isinstance(mentor, SimCC):
        return mentor == replace(student, joints=mentor.joints)
    if not isinstance(mentor, Heatmap) or not isinstance(student, Heatmap):
        return False
    alike = (mentor.size, mentor.cells, mentor.width, mentor.spacing) == (
        student.size, student.cells, student.width, student.spacing
    )  # fmt: skip
    return alike and (mentor.loss == "mse" or (student.loss == "kl" and mentor.scale == student.scale))
