"""What a peer's code needs around it to start on a CPU: stand-ins for packages its step does not use, and no CUDA."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["at", "copy_weights", "only_cpu", "stand_ins"]


def stand_ins(names: Iterable[str]) -> list[str]:
    """Empty modules for those of these packages that are not installed; returns which.

    Anything may be imported from one; using it is an error, so that nothing of a measured step can be one.
    """
    made = []
    for name in names:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = _StandIn(name)
            made.append(name)
    return made


class _StandIn(types.ModuleType):
    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        class Missing:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                raise RuntimeError(f"the step uses {self.__class__.__module__}.{name}, which is not installed")

        return Missing


def only_cpu() -> None:
    """``.cuda()`` gives the tensor or module itself: the peers call it without asking whether there is a device."""
    assert not torch.cuda.is_available(), "hide the devices: CUDA_VISIBLE_DEVICES="
    for kind in (torch.Tensor, nn.Module):
        kind.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign, assignment]
    logging.getLogger().setLevel(logging.WARNING)
    warnings.simplefilter("ignore")


@contextmanager
def at(clone: Path) -> Iterator[None]:
    """The clone's folder first on the import path; what its import prints goes to the error stream."""
    if not clone.is_dir():
        raise SystemExit(f"{clone}: no such folder; give the path of a clone (see benchmarks/peers/README.md)")
    before, level = list(sys.path), logging.getLogger().level  # their script sets the root logger's
    sys.path.insert(0, str(clone.resolve()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:] = before
        logging.getLogger().setLevel(level)


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> nn.Module:
    """Give ``target`` the weights of ``source``, entry by entry in order; the shapes must agree."""
    ours, theirs = list(source.state_dict().values()), list(target.state_dict().values())
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        raise SystemExit(f"{type(target).__name__}: not the network {type(source).__name__} is")
    for a, b in zip(ours, theirs, strict=True):
        b.copy_(a)
    return target
