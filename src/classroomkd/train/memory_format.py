"""Which memory layout and precision suit a student on this machine: a probe of about a second before training.

The choice depends on a clock. A run that may be resumed must keep it, since layouts differ in the last bits.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from pydantic import BaseModel, TypeAdapter
from torch import Tensor, nn

from classroomkd._stored import read_json
from classroomkd._sums import write_listed
from classroomkd.classroom import prediction_of
from classroomkd.train.optimize import has_bf16

if TYPE_CHECKING:
    from classroomkd.train.runtime import Runtime

__all__ = ["LayoutChoice", "choose_layout", "settle"]

_ROWS = 8  # of the batch on a CPU, enough to tell the layouts apart; on a GPU so few would time the launches
_SPAN = 0.01  # seconds; shorter steps are repeated until one reading of the clock takes as long
_ROUNDS = (3, 9)  # fewer say nothing, more are not needed
_NOISE = 0.02  # least difference that counts, whatever the A/A comparison says
_BF16_GAIN = 0.9  # of the best float32 time: other numerics must be worth it


class Kept(BaseModel, extra="allow"):
    """What is read of ``layout.json``."""

    channels_last: bool


_KEPT = TypeAdapter(Kept)


class LayoutChoice(TypedDict):
    """What was chosen; ``ratios``: of forward and backward to NCHW float32, empty where nothing was measured."""

    channels_last: bool
    precision: Literal["fp32", "bf16"]
    ratios: dict[str, float]


def choose_layout(
    student: nn.Module,
    batch_inputs: Tensor,
    loss_fn: Callable[[Any], Tensor],
    *,
    bf16: bool | None = None,
    under: torch.dtype | None = None,
    seconds: float = 1.0,
) -> LayoutChoice:
    """Time forward and backward in NCHW, channels-last and bf16 with channels-last, interleaved, and choose.

    A copy of the student is timed, so weights, buffers, gradients and generators stay as they are. On a CPU the clock
    is the process's time with one thread, which counts work whatever else the machine does; on a GPU it is wall time.

    Args:
        student: any network.
        batch_inputs: ``(B, channels, H, W)`` in its space; on a CPU at most 8 of them are used.
        loss_fn: a scalar from what the student returns for as many samples as it is given.
        bf16: whether autocast to bf16 may be chosen; None = where :func:`has_bf16`.
        under: what the student is trained in by autocast, where that is decided: both layouts are timed in it.
        seconds: what the probe may take beside two warming passes of each. Where three rounds do not fit, and where the
            student cannot be copied, the answer is channels-last in float32, without ratios.

    Returns:
        Channels-last when it is faster by more than the noise (at least 2 %), bf16 when it is faster than the better
        layout by a tenth and the noise. ``ratios``: medians over rounds of ``channels_last``, ``bf16`` (where it may
        be chosen) and ``again``, NCHW once more, which says what the clock can resolve.
    """
    fallback: LayoutChoice = {"channels_last": True, "precision": "fp32", "ratios": {}}
    device = batch_inputs.device
    if batch_inputs.dim() != 4:
        return {"channels_last": False, "precision": "fp32", "ratios": {}}
    try:
        network = copy.deepcopy(student).train()
    except (RuntimeError, TypeError):  # tensors with a graph, locks, generators
        return fallback
    low = has_bf16(device) if bf16 is None else bf16
    pixels = (batch_inputs[:_ROWS] if device.type == "cpu" else batch_inputs).detach()
    tries = {"nchw": (False, under), "again": (False, under), "channels_last": (True, under)}
    if low and under is None:
        tries["bf16"] = (True, torch.bfloat16)
    steps = {name: _step(network, pixels, loss_fn, last, half) for name, (last, half) in tries.items()}
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
            rounds = _measure(steps, device, seconds)
    finally:
        torch.set_num_threads(threads)
    return _choice(rounds) if rounds else fallback


def _step(
    network: nn.Module, pixels: Tensor, loss_fn: Callable[[Any], Tensor], last: bool, half: torch.dtype | None
) -> Callable[[], None]:
    """Forward and backward; every layout has weights and inputs of its own."""
    kind = torch.channels_last if last else torch.contiguous_format
    own, inputs = copy.deepcopy(network).to(memory_format=kind), pixels.contiguous(memory_format=kind)  # type: ignore[call-overload]

    def step() -> None:
        own.zero_grad()
        with torch.autocast(pixels.device.type, half) if half else nullcontext():
            loss = loss_fn(own(inputs))
        loss.backward()  # type: ignore[no-untyped-call]

    return step


def _measure(steps: dict[str, Callable[[], None]], device: torch.device, seconds: float) -> list[dict[str, float]]:
    """Times by round; none where the budget is too small for three."""
    for step in steps.values():
        step()  # the first pass pays for memory and kernels
    names = list(steps)
    repeats = max(1, round(_SPAN / max(min(_time(step, device, 1) for step in steps.values()), 1e-6)))
    rounds: list[dict[str, float]] = []
    spent = 0.0
    while len(rounds) < _ROUNDS[1]:
        turn = len(rounds) % len(names)
        took = {name: _time(steps[name], device, repeats) for name in names[turn:] + names[:turn]}
        rounds.append(took)
        spent += sum(took.values())
        left = _ROUNDS[0] - len(rounds)
        if spent / len(rounds) * max(left, 1) > seconds - spent:
            break
    return rounds if len(rounds) >= _ROUNDS[0] else []


def _time(step: Callable[[], None], device: torch.device, repeats: int) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def _choice(rounds: list[dict[str, float]]) -> LayoutChoice:
    """The choice from times by round."""
    ratios = {name: [took[name] / max(took["nchw"], 1e-9) for took in rounds] for name in rounds[0] if name != "nchw"}
    middle = {name: statistics.median(values) for name, values in ratios.items()}
    low, _, high = statistics.quantiles(ratios["again"], n=4)
    noise = max(_NOISE, abs(middle["again"] - 1.0), (high - low) / math.sqrt(len(rounds)))
    last = middle["channels_last"] < 1.0 - noise
    best = middle["channels_last"] if last else 1.0
    half = "bf16" in middle and middle["bf16"] < _BF16_GAIN * best - noise
    return {
        "channels_last": last or half,
        "precision": "bf16" if half else "fp32",
        "ratios": {name: round(value, 3) for name, value in middle.items()},
    }


def settle(student: nn.Module, inputs: Tensor, runtime: Runtime, folder: Path | None, resume: bool) -> bool:
    """Whether a student works channels-last: measured once a run, and kept in its folder for when it is resumed.

    Args:
        student: as it is trained.
        inputs: a batch of it.
        runtime: of the run; all ranks take what the first measured.
        folder: of the student; None = nothing is kept.
        resume: take what is kept.
    """
    kept = None if folder is None else folder / "checkpoints" / "layout.json"
    if resume and kept is not None and kept.exists():
        return read_json(kept, _KEPT, remedy=f"remove {folder} to teach this student anew").channels_last
    chosen = choose_layout(
        student,
        inputs,
        lambda output: prediction_of(output).float().square().mean(),
        under={"bf16": torch.bfloat16, "fp16": torch.float16}.get(runtime.precision),
    )
    last = torch.tensor(float(chosen["channels_last"] and runtime.is_zero), device=runtime.device)
    if kept is not None and runtime.is_zero:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_listed(kept, json.dumps(chosen))
    return bool(runtime.reduce(last) > 0)
