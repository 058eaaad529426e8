"""From names to pose networks: the table's, on timm's bodies, ViTPose and the user's own."""

from __future__ import annotations

from typing import Any

from torch import nn

from classroomkd._compat import import_timm, installed
from classroomkd._foreign import load_factory
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.building import check_counts
from classroomkd.models.catalogue import ZOO, build
from classroomkd.models.libraries import SOURCES, library_names, python_network
from classroomkd.models.measuring import example
from classroomkd.models.pairs import tensors_in
from classroomkd.models.pose.catalogue import FORMS, POSE
from classroomkd.models.pose.vitpose import check_vitpose
from classroomkd.taps.trace import dry_run

__all__ = ["SMALLEST", "check_pose", "resolve_pose"]

SMALLEST = 16  # pixels a side
_HEADS = ("simcc", "heatmap")
_KINDS = (*_HEADS, "vitpose", "py")


def resolve_pose(
    spec: str, joints: int, size: tuple[int, int], *, trust_code: bool = False, in_channels: int = 3
) -> nn.Module:
    """The pose network that a recipe's ``model:`` means, with fresh weights (``vitpose:`` with its published ones).

    It maps crops ``(B, in_channels, H, W)`` to SimCC bins ``(B, joints, X + Y)`` or maps ``(B, joints, h, w)``, and
    says which in ``pose_head``, ``{"kind": "simcc", "split": 2.0}`` or ``{"kind": "heatmap", "stride": 4}`` (networks
    of the user's own may leave that out). SimCC networks take crops of exactly ``size``.

    Args:
        spec: a name of ``pose_names()``; ``simcc:timm:NAME`` or ``heatmap:timm:NAME``; ``vitpose:ORG/NAME`` (a mentor
            only); ``py:package.module:factory`` (needs ``trust_code``; gets ``num_joints``, ``joints``, ``size`` and
            ``in_channels`` if it takes them).
        joints: K.
        size: (H, W) of the crops in pixels.
        trust_code: whether code that the spec names may run.
        in_channels: channels of the crops.

    Raises:
        UserError: an unknown name (with the nearest right one), a package that is not installed, code that is not
            trusted, a size that the network cannot take, an answer that is no pose.
    """
    size = _checked(spec, joints, size, in_channels)
    check_pose(spec, trust_code=trust_code)
    prefix, separator, rest = spec.partition(":")
    wanted: dict[str, Any] = {"joints": joints, "size": size, "in_channels": in_channels}
    if not separator:
        network: nn.Module = build("pose", POSE[spec].target, **wanted, **POSE[spec].arguments)
        return network
    if prefix == "py":
        return _build_python(spec, wanted)
    if prefix == "vitpose":
        from classroomkd.models.pose.vitpose import vitpose

        return vitpose(spec=spec, **wanted)
    name = rest.partition(":")[2]
    if prefix == "heatmap" and name.startswith("hrnet_"):
        from classroomkd.models.pose.hrnet import hrnet

        return hrnet(name=name, **wanted)
    from classroomkd.models.pose.backbones import on_timm

    return on_timm(spec=spec, kind=prefix, name=name, **wanted)


def check_pose(spec: str, *, trust_code: bool = False) -> None:
    """Raise the ``UserError`` that ``resolve_pose`` would for the name alone, without building anything."""
    prefix, separator, rest = spec.partition(":")
    if not separator:
        _check_name(spec)
    elif prefix in _HEADS:
        _check_body(spec, prefix, rest)
    elif prefix == "vitpose":
        check_vitpose(spec)
    elif prefix == "py":
        load_factory(spec, trust_code=trust_code, what="model")
    elif prefix in SOURCES:
        raise UserError(
            f"'{spec}' is a network for classification, without joints; with a pose head timm's are called "
            f"simcc:timm:{rest or 'NAME'} or heatmap:timm:{rest or 'NAME'}"
        )
    else:
        near = did_you_mean(prefix, _KINDS) or f" (known: {', '.join(f'{kind}:' for kind in _KINDS)})"
        raise UserError(f"unknown kind of pose network '{prefix}:' in '{spec}'{near}")


def _check_name(spec: str) -> None:
    if spec not in POSE:
        raise UserError(
            f"unknown pose network '{spec}'{_nearest(spec)}; known are {', '.join(POSE)}, and {', '.join(FORMS)}"
        )
    name = POSE[spec].library
    if name:
        import_timm(f"'{spec}'")
        if name not in library_names("timm"):
            raise UserError(f"'{spec}' is built on {name}, which the installed timm lacks: pip install -U timm")


def _nearest(spec: str) -> str:
    """The body of that name with a head, or the closest name of the table."""
    try:
        if installed("timm") and spec in library_names("timm"):
            return f" (did you mean 'simcc:timm:{spec}' or 'heatmap:timm:{spec}'?)"
    except UserError:  # installed but broken: a suggestion is not worth an error of its own
        pass
    return " (it is a network for classification)" if spec in ZOO else did_you_mean(spec, POSE)


def _check_body(spec: str, head: str, rest: str) -> None:
    library, separator, name = rest.partition(":")
    if f"{head}_{rest}" in POSE:
        raise UserError(f"'{spec}' is written with an underscore (did you mean '{head}_{rest}'?)")
    if library != "timm" or not separator or not name:
        meant = ""
        if not separator and rest:
            meant = f" (did you mean '{head}:timm:{rest}'?)"
        elif near := did_you_mean(library, ("timm",)):
            meant = near
        raise UserError(f"'{spec}': {head}: takes a body of timm, as in {head}:timm:resnet18{meant}")
    try:
        SOURCES["timm"].check(f"timm:{name}", False)
    except UserError as error:
        raise UserError(f"'{spec}': {error}") from error
    if name.startswith("hrnet_") and head == "simcc":
        raise UserError(f"'{spec}': HRNets make maps of stride 4; take heatmap:timm:{name}")


def _build_python(spec: str, wanted: dict[str, Any]) -> nn.Module:
    joints = wanted["joints"]
    network = python_network(spec, True, {}, {"num_joints": joints, **wanted})
    shape = (wanted["in_channels"], *wanted["size"])
    pixels = example(network, shape)
    try:
        with dry_run(network, pixels.device):
            tensors = tensors_in(network(pixels))
    except Exception as error:
        crop = "x".join(map(str, shape))
        raise UserError(f"'{spec}' cannot take one crop of {crop}: {type(error).__name__}: {error}") from error
    answer = tuple(tensors[0].shape) if tensors else ()
    if len(answer) not in (3, 4) or answer[:2] != (1, joints):
        shown = f"shape (B, {', '.join(map(str, answer[1:]))})" if answer else "no tensor"
        raise UserError(
            f"'{spec}' answers with {shown}; a pose network of {joints} joints answers "
            f"(B, {joints}, x-bins + y-bins) or (B, {joints}, rows, columns)"
        )
    return network


def _checked(spec: str, joints: Any, size: Any, in_channels: Any) -> tuple[int, int]:
    check_counts(spec, joints=joints, in_channels=in_channels)
    sides = tuple(size) if isinstance(size, list | tuple) else ()
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= SMALLEST for side in sides)
    if len(sides) != 2 or not whole:
        raise UserError(
            f"model '{spec}': size must be (height, width) in whole pixels, {SMALLEST} or more, not {size!r}"
        )
    return sides
