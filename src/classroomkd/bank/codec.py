"""How one answer becomes a row of bytes of fixed length, and back.

``Dense`` keeps every number in half precision. ``TopK`` keeps the k largest logits and what the rest share: for many
classes. A codec is known by its ``definition``, a short text that the manifest carries and :func:`codec` reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from classroomkd.errors import UserError

__all__ = ["Codec", "Dense", "TopK", "codec"]

_MOST = 2**31  # numbers of an answer


class Codec(Protocol):
    """Turns answers ``(B, *shape)`` into rows ``(B, row_bytes)`` uint8 and back.

    Attributes:
        shape: of one decoded answer.
        row_bytes: of one row.
        dtype: of decoded answers.
        definition: text from which :func:`codec` makes the same codec again.
    """

    shape: tuple[int, ...]
    row_bytes: int
    dtype: torch.dtype
    definition: str

    def encode(self, values: Tensor) -> Tensor:
        """(B, *shape) floating -> (B, row_bytes) uint8, contiguous, on the values' device."""

    def decode(self, rows: Tensor) -> Tensor:
        """(B, row_bytes) uint8 -> (B, *shape); may share memory with ``rows``."""


class Dense:
    """Every number as fp16, ``2 * prod(shape)`` bytes; relative error 2^-11, beyond 65 504 infinite."""

    dtype = torch.float16

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        assert all(side > 0 for side in self.shape), self.shape
        self.row_bytes = 2 * math.prod(self.shape)
        self.definition = f"fp16 {self.shape}"

    def encode(self, values: Tensor) -> Tensor:
        """See ``Codec.encode``."""
        assert values.shape[1:] == self.shape, (tuple(values.shape), self.shape)
        return values.detach().to(torch.float16).reshape(len(values), -1).contiguous().view(torch.uint8)

    def decode(self, rows: Tensor) -> Tensor:
        """See ``Codec.decode``; float16."""
        return rows.view(torch.float16).view(-1, *self.shape)


class TopK:
    """The k largest of C logits in fp16, their classes, and one fp32 logit that every other class gets.

    That logit gives the others together the softmax mass they had at T = 1, spread evenly. -inf survives: among the k,
    where all others are -inf, and for the classes that the mentor does not know at all when ``known`` names those it
    does. Without ``known`` an unknown class outside the k shares in the others' mass.

    Args:
        classes: C.
        k: how many are kept, at most C.
        known: the classes the mentor knows; None: all.
    """

    dtype = torch.float32

    def __init__(self, classes: int, k: int, known: Sequence[int] | None = None) -> None:
        assert 1 <= k <= classes, (k, classes)
        self.classes, self.k = classes, k
        self.known = None if known is None else tuple(sorted(set(known)))
        self.shape: tuple[int, ...] = (classes,)
        self._index = torch.int16 if classes <= 2**15 else torch.int32
        self.row_bytes = 4 + k * (2 + self._index.itemsize)
        count = classes if self.known is None else len(self.known)
        self._others = max(count - k, 0)
        self.definition = f"top-{k} of {classes}"
        if self.known is not None:
            self.definition += f" knowing {_ranges(self.known)}"
            self._unknown = torch.ones(classes, dtype=torch.bool)
            self._unknown[list(self.known)] = False

    def encode(self, values: Tensor) -> Tensor:
        """See ``Codec.encode``. A row: the others' logit (4 bytes), the k classes, the k logits in falling order."""
        assert values.shape[1:] == self.shape, (tuple(values.shape), self.shape)
        logits = values.detach().float()
        top, classes = logits.topk(self.k, dim=1)
        rest = logits.scatter(1, classes, -torch.inf).logsumexp(1, keepdim=True) - math.log(max(self._others, 1))
        pieces = (rest, classes.to(self._index), top.to(torch.float16))
        return torch.cat([piece.contiguous().view(torch.uint8) for piece in pieces], 1)

    def decode(self, rows: Tensor) -> Tensor:
        """See ``Codec.decode``; float32."""
        rest, classes, top = self._pieces(rows)
        out = rest.repeat(1, self.classes)
        if self.known is not None:
            out.masked_fill_(self._unknown.to(out.device), -torch.inf)
        # A damaged row can name any class; its content is thrown away later, but must not stop the read.
        return out.scatter_(1, classes.long().clamp_(0, self.classes - 1), top.float())

    def left_out(self, rows: Tensor) -> Tensor:
        """The probability (B,), at T = 1, of all classes outside the k kept, of rows (B, row_bytes)."""
        rest, _, top = self._pieces(rows)
        others = rest[:, 0] + math.log(max(self._others, 1))
        return (others - top.float().logsumexp(1)).sigmoid()

    def _pieces(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The others' logit (B, 1), the classes (B, k) and their logits (B, k)."""
        cut = 4 + self.k * self._index.itemsize
        # Copies: a piece need not lie where its numbers could be read in place.
        rest = rows[:, :4].clone(memory_format=torch.contiguous_format).view(torch.float32)
        classes = rows[:, 4:cut].clone(memory_format=torch.contiguous_format).view(self._index)
        top = rows[:, cut:].clone(memory_format=torch.contiguous_format).view(torch.float16)
        return rest, classes, top


def _ranges(numbers: Sequence[int]) -> str:
    """``0-99,200`` for rising numbers."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in ranges)


def _numbers(ranges: str, limit: int) -> list[int]:
    """The numbers of :func:`_ranges`; none but ``limit`` itself from there on."""
    pairs = [part.partition("-") for part in ranges.split(",") if part]
    return [n for a, _, b in pairs for n in range(min(int(a), limit), min(int(b or a), limit) + 1)]


def codec(definition: str) -> Codec:
    """The codec of a ``definition``.

    Raises:
        UserError: a text that no codec of this version has.
    """
    if match := re.fullmatch(r"fp16 \(([\d, ]*)\)", definition):
        sides = [int(side) for side in match[1].replace(" ", "").split(",") if side]
        if all(sides) and math.prod(sides) <= _MOST:
            return Dense(sides)
    if match := re.fullmatch(r"top-(\d+) of (\d+)(?: knowing ((?:\d+(?:-\d+)?,?)*))?", definition):
        k, classes = (min(int(number[:10]), _MOST + 1) for number in match.group(1, 2))
        known = None if match[3] is None else _numbers(match[3], min(classes, _MOST))
        if 1 <= k <= classes <= _MOST and all(n < classes for n in known or ()):
            return TopK(classes, k, known)
    raise UserError(f"bank: no way of storing is called '{definition}'; there are 'fp16 (100,)' and 'top-50 of 1000'")
