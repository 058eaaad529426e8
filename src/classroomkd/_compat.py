"""Importing torchvision and timm where their wheels and torch's do not fit together. Importing this is cheap.

Torchvision's Linux wheel is compiled for CUDA torch. Beside a CPU torch its operators cannot load, and
``import torchvision`` dies while it describes two of them. Declaring those two lets everything but the operators
themselves work (transforms, models, data sets), and timm with it. See pytorch/vision#9077.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import warnings
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

from classroomkd.errors import UserError

__all__ = ["import_timm", "import_torchvision", "install_extra", "installed", "is_known_mismatch"]

_MISSING_OPERATOR = "operator torchvision::nms does not exist"
_keep: list[Any] = []  # a torch.library.Library lives as long as its object


def installed(package: str) -> bool:
    """Whether ``package`` could be imported, found without importing it."""
    if package in sys.modules:
        return sys.modules[package] is not None  # None is python's way of forbidding an import
    return importlib.util.find_spec(package) is not None


@cache
def import_torchvision(wanted_by: str = "this") -> ModuleType:
    """The torchvision package, with the missing operators declared where its wheel needs it.

    Raises:
        UserError: torchvision is not installed or does not fit torch; with the pip command.
    """
    _require("torchvision", wanted_by)
    try:
        return _import_quietly("torchvision")
    except RuntimeError as error:
        if not is_known_mismatch(error):
            raise UserError(_misfit("torchvision", error)) from error
    except ImportError as error:
        raise UserError(_misfit("torchvision", error)) from error
    _declare_operators()
    try:
        return _import_quietly("torchvision")
    except (RuntimeError, ImportError) as error:
        raise UserError(_misfit("torchvision", error)) from error


@cache
def import_timm(wanted_by: str = "this") -> ModuleType:
    """The timm package, after torchvision, which it needs.

    Raises:
        UserError: either is not installed or does not fit torch; with the pip command.
    """
    _require("timm", wanted_by)
    import_torchvision(wanted_by)
    try:
        return _import_quietly("timm")
    except (RuntimeError, ImportError) as error:
        raise UserError(_misfit("timm", error)) from error


def _require(package: str, wanted_by: str) -> None:
    if not installed(package):
        raise UserError(f"{wanted_by} needs {package}, which is not installed: {install_extra('vision')}")


def install_extra(extra: str) -> str:
    """The command that brings an extra and keeps the torch that is here: its packages ask for the torch they were built
    against, and pip would fetch that."""
    version = metadata.version("torch").partition("+")[0]
    return f'pip install "classroomkd[{extra}]" torch=={version}'


def _import_quietly(package: str) -> ModuleType:
    """Import without the warnings that the package's own start-up causes: the user can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(package)


def is_known_mismatch(error: BaseException) -> bool:
    """Whether ``error`` is a CUDA torchvision imported beside a CPU torch, which ``import_torchvision`` cures."""
    if not isinstance(error, RuntimeError):
        return False
    import torch

    return _MISSING_OPERATOR in str(error) and torch.version.cuda is None and torch.version.hip is None


def _declare_operators() -> None:
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _keep.append(library)
    logging.getLogger("classroomkd").debug("torchvision was built for CUDA: its operators (nms, roi_align) are missing")


def _misfit(package: str, error: BaseException) -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("torch", "torchvision", "timm"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"{package} is installed but cannot be imported ({type(error).__name__}: {error}). Installed: "
        f"{', '.join(found)}. Each torchvision fits one torch: reinstall the matching pair "
        "(torch 2.13.0 with torchvision 0.28.0 is tested)"
    )
