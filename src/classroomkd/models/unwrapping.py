"""From what a checkpoint file holds to a network's named tensors: entries, prefixes, wrappers, what is beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from classroomkd.errors import UserError

__all__ = ["class_names", "is_counter", "some", "unwrap"]

# Where training scripts keep the weights, the first that is there wins; averaged weights only when there are no others.
_ENTRIES = (
    *("state_dict", "model", "model_state", "model_state_dict", "net", "network", "student", "module", "weights"),
    *("params", "model_ema", "state_dict_ema", "ema"),
)
_PREFIXES = (
    *("module.", "_orig_mod.", "model.", "net.", "network.", "student.", "backbone."),
    *("head.", "keypoint_head."),  # heatmap heads of pose toolboxes, where the network's own has no such part
)
# What torch.compile, FSDP and activation checkpointing put into names, anywhere.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_CLASSROOM = "reader.module."  # where a Classroom has its student
_AVERAGED = re.compile(r"ema|swa|averag")
# What averaging, profiling and modules with a state of another kind leave beside the weights.
_BESIDE = ("n_averaged", "total_ops", "total_params", "_extra_state")
_SHOWN = 4


def unwrap(content: Mapping[str, Any], own: set[str], place: str) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The named tensors inside ``content``, under the names ``own`` as far as taking prefixes off gets there.

    Returns:
        The tensors, a sentence for everything that was looked through, and the names of what was left out.

    Raises:
        UserError: no tensors under a known name; several networks that fit equally.
    """
    notes: list[str] = []
    while (entry := _entry(content)) is not None:
        notes.append(f"used the entry '{entry}'")
        content = content[entry]
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{place} has no weights under a known name; its entries: {some(map(str, content))}")
    left = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    fitted = _fitted(state, own, place)
    if not _whole(own, fitted.state) and not any(map(_WRAPPERS.search, own)):
        plain = {_WRAPPERS.sub("", key): value for key, value in state.items()}
        if len(plain) == len(state) and plain.keys() != state.keys():
            found = sorted({name for key in state for name in _WRAPPERS.findall(key)})
            fitted = _fitted(plain, own, place)
            notes.append(f"took {', '.join(name.rstrip('.') for name in found)} out of the names")
    state, notes, left = fitted.state, [*notes, *fitted.notes], [*left, *fitted.left]
    harmless = [key for key in state if key not in own and key.rpartition(".")[2] in _BESIDE]
    left += harmless
    return {key: value for key, value in state.items() if key not in harmless}, notes, left


def class_names(content: Mapping[str, Any]) -> list[str] | None:
    """Names of classes that a training script left beside the weights, in the order of the answers; None for none.

    A list of different names (``classes``, ``class_names``), or a mapping between names and places (``class_to_idx``,
    ``idx_to_class``); at the top or in ``meta``.
    """
    inner = content.get("meta")
    for holder in (content, inner if isinstance(inner, Mapping) else {}):
        for key in ("classes", "class_names", "CLASSES", "class_to_idx", "idx_to_class"):
            names = holder.get(key)
            if isinstance(names, Mapping):
                pairs = names.items() if key != "idx_to_class" else [(name, place) for place, name in names.items()]
                by_place = {int(place): name for name, place in pairs if str(place).isdigit()}
                names = [by_place.get(place) for place in range(len(names))]
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return [str(name) for name in names] if len(set(names)) == len(names) else None
    return None


def some(items: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    listed = list(items)
    rest = f", … ({len(listed) - _SHOWN} more)" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest


def is_counter(key: str) -> bool:
    """Whether a tensor counts the batches that a batch normalisation has seen."""
    return key.endswith("num_batches_tracked")


def _entry(content: Mapping[str, Any]) -> str | None:
    """The entry that holds the weights; None where they are ``content`` itself, or nowhere."""
    return next((key for key in _ENTRIES if _holds_tensors(content.get(key))), None)


def _holds_tensors(value: Any) -> bool:
    """Whether it is a mapping with a tensor in it, or in a mapping in it; others are settings."""
    return isinstance(value, Mapping) and any(
        isinstance(item, Tensor) or _holds_tensors(item) for item in value.values()
    )


class _Fitted(NamedTuple):
    state: dict[str, Tensor]
    notes: list[str]
    left: list[str]  # names of what was left out


def _whole(own: set[str], names: Iterable[str]) -> bool:
    """Whether the names are all of the network's; old files lack the counters."""
    return {key for key in own if not is_counter(key)} <= set(names)


def _fitted(state: dict[str, Tensor], own: set[str], place: str) -> _Fitted:
    """The network of these names, taken out of a larger module or from under prefixes."""
    inner = _inner(state, own, place)
    if inner is not None:
        left = [key for key in state if not key.startswith(inner)]
        state = {key.removeprefix(inner): value for key, value in state.items() if key.startswith(inner)}
        return _Fitted(state, [f"took the network '{inner.rstrip('.')}' out of it"], left)
    notes = []
    while set(state) != own and (prefix := _needless_prefix(state, own)):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        notes.append(f"took the prefix '{prefix}' off")
    return _Fitted(state, notes, [])


def _needless_prefix(state: Mapping[str, Tensor], own: set[str]) -> str | None:
    """The first prefix without which more of the names are among ``own``."""
    known = len(own & set(state))
    for prefix in _PREFIXES:
        shorter = {key.removeprefix(prefix) for key in state}
        if len(shorter) == len(state) and len(own & shorter) > known:
            return prefix
        # Two wrappers on top of each other: the outer one alone matches nothing yet.
        if state and not known and all(key.startswith(prefix) for key in state):
            return prefix
    return None


def _inner(state: Mapping[str, Tensor], own: set[str], place: str) -> str | None:
    """Under which prefix a larger module, such as a classroom or a Lightning module, has the network.

    None where the state has it without a prefix, in parts, or is nothing but it.

    Raises:
        UserError: it has several.
    """
    wanted = {key for key in own if not is_counter(key)}
    if not wanted or _whole(own, state):
        return None
    probe = max(wanted, key=len)
    found = [key[: -len(probe)] for key in state if key.endswith(f".{probe}")]
    whole = [prefix for prefix in found if all(f"{prefix}{key}" in state for key in wanted)]
    known = all(f"{part}." in _PREFIXES for prefix in whole[:1] for part in prefix[:-1].split("."))
    if not whole or (known and all(key.startswith(whole[0]) for key in state)):
        return None
    students = [prefix for prefix in whole if "student" in prefix.split(".") or prefix.endswith(_CLASSROOM)]
    live = [prefix for prefix in students or whole if not _AVERAGED.search(prefix)]
    chosen = live or students or whole
    if len(chosen) > 1:
        raise UserError(f"{place} holds several networks of this form: {some(chosen)}; save the one you mean by itself")
    return chosen[0]
