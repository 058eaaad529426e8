"""Fast mentors: the network that is asked online, when no stored answer can be used.

BatchNorms are folded into convolutions, memory is channels-last, weights are bf16 where asked, and the network may be
compiled. The mentor it was made from, and the user's network inside, stay as they are.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classroomkd.classroom import Answers, Mentor, prediction_of
from classroomkd.errors import UserError
from classroomkd.functional import wide
from classroomkd.models.folding import Folded, fold, probe
from classroomkd.taps.tap_set import Kind
from classroomkd.taps.taps import TapReader, remove_readers, unwrapped

__all__ = ["FastMentor", "Precision", "has_bf16", "optimize_for_inference"]

Precision = Literal["fp32", "bf16"]
_BF16_ERROR = 0.05  # of the answer's norm; sound networks stay tenfold below


class FastMentor(Mentor):
    """A mentor whose network is a faster copy; built by :func:`optimize_for_inference`. It answers in float32.

    Attributes:
        folded: BatchNorms folded into other layers.
        precision: of its weights. ``fp32`` where ``bf16`` was asked and the network cannot compute in it.
        compiled: whether torch.compile runs it.
    """

    def __init__(self, source: Mentor, copied: Folded, precision: Precision, compiled: bool) -> None:
        super().__init__(
            torch.compile(copied.module) if compiled else copied.module,  # type: ignore[arg-type]
            source.name,
            mean=source.mean,
            std=source.std,
            size=source.size,
            taps=source.wishes,
            classes=source.classes,
            num_classes=None if source.classes is None else source.num_classes,
            translate=source.translate,
        )
        self.reader = TapReader(self.module, source.reader.places)
        self.tapped = source.tapped
        self.folded, self.precision, self.compiled = copied.count, precision, compiled
        self._changed = copied.changed

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Answers:
        """Its answers, float32, to a batch that is already in its own space."""
        inputs = inputs.to(self._kind(inputs))
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        answers = super().forward(inputs)
        return Answers(wide(answers.prediction), {tap: wide(x) for tap, x in answers.features.items()})

    def read(self, taps: Mapping[str, Kind], example: Tensor, heads: bool = False) -> dict[str, tuple[int, ...]]:
        """See :meth:`Mentor.read`.

        Raises:
            UserError: a place whose activation folding has changed, which is kept only where it was read before.
        """
        shapes = super().read(taps, example.to(self._kind(example)), heads)
        assert self.tapped is not None
        lost = [place for place in self.tapped.places.values() if place in self._changed]
        if lost:
            raise UserError(
                f"mentor '{self.name}': tap '{lost[0]}' is no more what it was since its BatchNorm was folded; set the "
                "taps (Mentor.read) before the mentor is made fast (optimize_for_inference)"
            )
        return shapes

    @staticmethod
    def _as_it_is(like: Tensor, own: torch.dtype) -> AbstractContextManager[Any]:
        """Its precision was chosen beside the run's."""
        return nullcontext()

    def _kind(self, like: Tensor) -> torch.dtype:
        return next(self.parameters(), like).dtype

    def head(self, tap: str, value: Tensor) -> Tensor:
        """See :meth:`Mentor.head`; float32."""
        return wide(super().head(tap, value))


def optimize_for_inference(
    mentor: Mentor, example: Tensor, *, precision: Precision = "fp32", compile: bool = False
) -> Mentor:
    """A mentor that gives the answers of ``mentor``, faster. Best made after :meth:`Mentor.read`.

    Float32 answers differ by rounding alone. Cost: a copy of the weights and a few passes of two samples. A mentor of
    a class of its own, one that is fast already, and one whose network cannot be copied come back as they are.

    Args:
        mentor: it and its network stay as they are.
        example: a blank batch ``(B, channels, H, W)`` in its own space; the size the network is checked at.
        precision: ``bf16`` halves the time where :func:`has_bf16`; relative error about 3e-3. BatchNorms that are not
            folded stay float32. A network that cannot compute in it stays ``fp32``; see ``FastMentor.precision``.
        compile: by torch.compile at the first batch of each size; pays in runs of many minutes.

    Raises:
        UserError: ``compile`` without the compiler that torch.compile needs.
    """
    if compile:
        check_compiler(example.device)
    if type(mentor) is not Mentor:
        return mentor
    try:
        network = copy.deepcopy(unwrapped(mentor.module))
    except (RuntimeError, TypeError):  # tensors with a graph, locks, generators
        return mentor
    remove_readers(network)
    copied = fold(network, example, mentor.reader.places.values())
    if precision == "bf16":
        network, precision = _in_bf16(copied.module, example)
        copied = replace(copied, module=network)
    for layer in copied.module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FastMentor(mentor, copied, precision, compile)


@torch.no_grad()
def _in_bf16(network: nn.Module, example: Tensor) -> tuple[nn.Module, Precision]:
    """The network with bf16 weights, or as it is where its answers would not be its own any more."""
    if {p.dtype for p in network.parameters() if p.is_floating_point()} != {torch.float32}:
        return network, "fp32"
    low = copy.deepcopy(network).to(torch.bfloat16)
    for layer in low.modules():
        if isinstance(layer, _BatchNorm):
            layer.float()  # a running variance needs more than 8 bits
    if next(low.parameters()).dtype != torch.bfloat16:
        return network, "fp32"  # its first parameter says what precision its inputs have
    pixels = probe(example, torch.float32)
    try:
        expected, rounded = prediction_of(network(pixels)), prediction_of(low(pixels.bfloat16())).float()
    except (RuntimeError, UserError):  # a tensor that its code makes in float32 meets bf16 weights
        return network, "fp32"
    if bool((rounded - expected).norm() <= _BF16_ERROR * expected.norm()):
        return low, "bf16"
    return network, "fp32"


def has_bf16(device: torch.device | str) -> bool:
    """Whether the hardware multiplies bf16 faster than float32: AMX or AVX-512 BF16, or a GPU with bf16 of its own."""
    device = torch.device(device)
    if device.type == "cpu":
        return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@cache
def _cpu_flags() -> frozenset[str]:
    """What the processor can do, by the names Linux gives it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def check_compiler(device: torch.device) -> None:
    """Refuse torch.compile where it would fail at the first batch.

    Raises:
        UserError: no C++ compiler for a CPU, no Triton for a GPU.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UserError("compile needs Triton on a GPU, which is not installed: pip install triton, or compile off")
        return
    wanted = os.environ.get("CXX") or "g++"
    if shutil.which(wanted.split()[0]) is None:
        raise UserError(
            f"compile needs a C++ compiler on a CPU and '{wanted}' is not there: install g++ (or name another in the "
            "environment variable CXX), or compile off"
        )
