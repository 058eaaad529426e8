"""The runtime: Lightning Fabric for devices, precision and ranks; everything else here is a thin word for it."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from classroomkd.errors import UserError
from classroomkd.train import ranks
from classroomkd.train.allocator import is_own_process, keep_large_blocks
from classroomkd.train.checkpoint import rng_state, set_rng_state

__all__ = ["PRECISIONS", "Runtime", "pick_device"]

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def pick_device(name: str) -> torch.device:
    """``auto`` is cuda where there is one, else cpu; anything else (mps) must be asked for and exist.

    Raises:
        UserError: a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device '{name}' is not known to torch; try auto, cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{name}': this torch sees no CUDA device; use device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device '{name}': this torch sees no MPS device; use device=cpu or device=auto")
    return device


class Runtime:
    """One process of a run.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0``, ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16`` (mixed).
        threads: torch's intra-op threads, or None to leave them; stored with a run, since it changes rounding.

    Under torchrun (``WORLD_SIZE`` > 1) all ranks form one DDP group, gloo on CPU and nccl on CUDA.
    """

    def __init__(self, device: str = "auto", precision: str = "fp32", threads: int | None = None) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)}")
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = pick_device(device)
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if self.device.type == "cuda" and world == 1:
            # The GPU of this run is the one that torch means when none is named: questions about "the device" are its.
            torch.cuda.set_device(self.device.index or 0)
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.precision = precision
        if self.device.type == "cpu" and is_own_process():
            keep_large_blocks()
        if self.device.type != "cpu":
            torch.backends.cudnn.deterministic = True  # few operations are left whose bits a resumed run may miss
        if precision == "fp16" and self.device.type == "cpu":
            raise UserError("precision fp16 needs a GPU; on a CPU use fp32 or bf16")
        self.fabric = _fabric(self.device, world, PRECISIONS[precision])
        self._beside: Any = None  # a group of the hosts, beside the devices'
        if world > 1:
            ranks.meet("gloo" if self.device.type == "cpu" else "nccl")
            self.fabric.launch()
            atexit.register(ranks.part)
            self.device = self.fabric.device
            ranks.connect()
            if self.device.type != "cpu":
                self._beside = torch.distributed.new_group(backend="gloo")

    @property
    def world(self) -> int:
        """Number of ranks."""
        return int(self.fabric.world_size)

    @property
    def rank(self) -> int:
        """This process's rank; rank 0 writes files."""
        return int(self.fabric.global_rank)

    @property
    def ranks(self) -> ranks.Ranks:
        """What keeps the ranks together; see :mod:`classroomkd.train.ranks`."""
        return ranks.current()

    @property
    def is_zero(self) -> bool:
        """Whether this rank writes files and talks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world > 1:
            self.fabric.barrier()

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks; the tensor itself on one."""
        if self.world == 1:
            return tensor
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    def first(self, tensor: Tensor) -> Tensor:
        """The first rank's tensor; every rank must ask with one of its shape."""
        if self.world == 1:
            return tensor
        told = tensor.contiguous().clone()
        torch.distributed.broadcast(told, 0)
        return told

    def total(self, count: int) -> int:
        """The sum of a count over ranks; every rank must ask."""
        return int(self.reduce(torch.tensor(count, device=self.device)))

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; every rank must ask. The devices are not waited for."""
        if self.world == 1:
            return flag
        flags = torch.tensor([int(flag)])
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX, group=self._beside)
        return bool(flags)

    def join(self, tensor: Tensor, shares: Sequence[int] | None = None) -> Tensor:
        """``tensor`` of all ranks, concatenated along its first dimension.

        Its size is the same everywhere, or ``shares`` says what it is by rank.

        Gradients flow to this rank's part times the number of ranks, so that averaging over ranks, as DDP does, gives
        the gradient of a loss on the whole.
        """
        if self.world == 1:
            return tensor
        rows = shares or [len(tensor)] * self.world
        joined: Tensor = _Join.apply(tensor, self.rank, rows)  # type: ignore[no-untyped-call]
        return joined

    @property
    def skips_rows(self) -> bool:
        """Whether mentors run only on the samples for which they can count: on a CPU. Elsewhere finding the rows would
        wait for the device."""
        return self.device.type == "cpu"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the generators that dropout and the like draw from, fp16's loss scale, and the
        number of threads, on which the order of a running sum depends."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {"generators": rng_state(self.device), "threads": torch.get_num_threads(), "scaler": scaler}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        torch.set_num_threads(state["threads"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        set_rng_state(state["generators"], self.device)

    @property
    def scaler(self) -> Any:
        """The loss scaler of fp16; None in other precisions."""
        return getattr(self.fabric._precision, "scaler", None)

    def autocast(self) -> Any:
        """The precision's context for forward passes outside training."""
        return self.fabric.autocast()

    def synchronize(self) -> None:
        """Wait for the device, before reading a clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


class _Join(torch.autograd.Function):
    """Concatenation over ranks; see :meth:`Runtime.join`."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rank: int, shares: Sequence[int]) -> Tensor:
        ctx.world, ctx.start, ctx.rows = len(shares), sum(shares[:rank]), len(tensor)
        own, most = tensor.detach().contiguous(), max(shares)
        plain = own.to(torch.uint8) if own.dtype == torch.bool else own  # gloo does not know bool
        if len(own) < most:
            plain = torch.cat([plain, plain.new_zeros(most - len(own), *plain.shape[1:])])
        parts = [torch.empty_like(plain) for _ in shares]
        torch.distributed.all_gather(parts, plain)
        return torch.cat([part[:rows] for part, rows in zip(parts, shares, strict=True)]).to(own.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0][ctx.start : ctx.start + ctx.rows] * ctx.world, None, None


def _fabric(device: torch.device, world: int, precision: str) -> Any:
    from lightning_fabric import Fabric

    if world > 1:
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        return Fabric(
            accelerator="cpu" if device.type == "cpu" else "cuda",
            devices=devices,
            num_nodes=max(1, world // devices),
            strategy="ddp",
            precision=precision,
        )
    index: Any = [device.index] if device.type == "cuda" and device.index is not None else 1
    with _quiet():
        return Fabric(accelerator=device.type, devices=index, precision=precision)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import logging

    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
