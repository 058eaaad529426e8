"""What is handed to ``distill``: a recipe's content, and the objects that stand behind its names."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from classroomkd.classroom import Mentor, Method
from classroomkd.classroom.batches import precision_of
from classroomkd.classroom.frozen import refuse_shapeless, refuse_shared
from classroomkd.data.spec import PARTS
from classroomkd.errors import UserError
from classroomkd.recipe import DataSpec, TrainSpec

__all__ = ["Handed", "handed"]

# What a run does to get weights, which a network that is handed over has.
_OF_NAMED = ("weights", "checkpoint", "reset_head", "train", "taught_by")


@dataclass(frozen=True)
class Handed:
    """What :func:`distill` was given.

    Attributes:
        content: the recipe.
        modules: networks that were handed over, by ``student`` or the mentor's or peer's name; of the student and of
            peers copies.
        source: data that were handed over; None where they are named.
        models: the names under which the recipe has the networks.
    """

    content: dict[str, Any]
    modules: dict[str, nn.Module]
    source: Any
    models: list[str] = field(default_factory=list)


def handed(
    name: str,
    student: Any,
    mentors: Any,
    data: Any,
    method: Any,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> Handed:
    """Sort the arguments of :func:`distill`.

    Raises:
        UserError: what cannot be a network, a mentor or a method; networks that cannot be trained, have no weights yet
            or share some; a key that is given twice.
    """
    if isinstance(method, Method):
        raise UserError(
            "distill: give the method by name, with its options as a mapping; a Method object of your own goes into "
            "ck.Classroom, or becomes a name through the entry-point group classroomkd.methods"
        )
    named = dict(mentors) if isinstance(mentors, Mapping) and "model" not in mentors else _named(mentors)
    if "student" in named:
        raise UserError("distill: a mentor cannot be called 'student'; give it another name")
    parts = {name: _parts(mentor, f"mentors['{name}']") for name, mentor in named.items()}
    own, taught = _parts(student, "student")
    modules = {name: module for name, (module, _) in parts.items() if module is not None}
    for mentor, module in modules.items():
        refuse_shapeless(module, f"mentor '{mentor}'")
        _refuse_weights(mentor, parts[mentor][1])
    if own is not None:
        _check_student(own)
        refuse_shared(own, modules.items())
        copied = copy.deepcopy(own)  # the caller's own is left as it is: device, mode and precision
        modules["student"] = copied if precision_of(copied) == torch.float32 else copied.float()
    rest = dict(settings)
    beside = [_peer(peer, name) for peer, name in _peer_items(rest.pop("peers", None) or ())]
    theirs = {keys["name"]: copy.deepcopy(module) for module, keys in beside if module is not None}
    for peer, module in theirs.items():
        refuse_shapeless(module, f"peer '{peer}'")
        if peer in modules:
            raise UserError(f"distill: a peer is called '{peer}' like a mentor; give peers={{NAME: network}}")
    modules |= theirs
    of_data = {*DataSpec.model_fields, "classes"} - {"source", *PARTS}  # train is a section of its own
    source, section = _data(data, {key: rest.pop(key) for key in list(rest) if key in of_data})
    train = {key: rest.pop(key) for key in list(rest) if key in TrainSpec.model_fields}
    content: dict[str, Any] = {
        "name": name,
        "data": section,
        "student": taught,
        "mentors": [{"name": name, **keys} for name, (_, keys) in parts.items()],
        **({"peers": [keys for _, keys in beside]} if beside else {}),
        **_method(method, "methods" in rest),
        "train": _together("train", rest.pop("train", None) or {}, train),
        "seeds": list(seeds),
        "workers": 1,  # worker processes would run the caller's script again
        **rest,
    }
    models = [keys["model"] for module, keys in ((own, taught), *parts.values(), *beside) if module is not None]
    return Handed(content, modules, source, models)


def _peer_items(peers: Any) -> list[tuple[Any, str | None]]:
    """The peers with the names that a mapping, or their class, gives them; a single one may stand without a list.

    Raises:
        UserError: one that is listed twice.
    """
    if isinstance(peers, Mapping) and "model" not in peers:
        return [(peer, str(name)) for name, peer in peers.items()]
    single = isinstance(peers, str | Mapping) or (isinstance(peers, nn.Module) and not _is_list(peers))
    listed = [peers] if single else list(peers)
    modules = [peer for peer in listed if isinstance(peer, nn.Module)]
    if len({id(module) for module in modules}) < len(modules):
        raise UserError("distill: the same module is listed twice among the peers; equal networks teach nothing")
    names = [type(peer).__name__ if isinstance(peer, nn.Module) else None for peer in listed]
    numbered = [f"{name}-{i}" if name and names.count(name) > 1 else name for i, name in enumerate(names)]
    return list(zip(listed, numbered, strict=True))


def _peer(peer: Any, name: str | None) -> tuple[nn.Module | None, dict[str, Any]]:
    """The module that was handed over, if any, and what a recipe says of a peer.

    Raises:
        UserError: neither a name, a network nor a mapping of a recipe's keys; a mentor; copies of a module.
    """
    if isinstance(peer, Mentor):
        raise UserError("distill: a ck.Mentor among the peers; a mentor is frozen, a peer is trained: give its network")
    module, keys = _parts(peer, "a peer" if name is None else f"peers['{name}']")
    if isinstance(peer, Mapping):
        name = name or peer.get("name")
    if module is not None and keys.get("copies", 1) != 1:
        raise UserError("distill: copies of a peer that is handed over would be the same network; hand over each")
    if name is None and module is not None:
        name = type(module).__name__
    return module, keys if name is None else {**keys, "name": name}


def _method(method: Any, grid: bool) -> dict[str, Any]:
    """``methods``, a grid, replaces ``method``, as on the command line; that is said where one was given."""
    if not grid:
        return {"method": method}
    if method not in (None, "classroomkd"):
        logging.getLogger("classroomkd").warning("distill: methods says the arms, so method=%r is not used", method)
    return {}


def _together(section: str, mapping: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section, some of which were given as keywords.

    Raises:
        UserError: one that was given in both ways.
    """
    if twice := [key for key in keywords if key in mapping]:
        raise UserError(f"distill: '{twice[0]}' is given twice, in {section} and as a keyword; give it once")
    return {**mapping, **keywords}


def _check_student(student: nn.Module) -> None:
    """Refuse a student that cannot be trained.

    Raises:
        UserError: layers without a shape, nothing that requires gradients, a traced or exported network.
    """
    refuse_shapeless(student, "the student")
    if isinstance(student, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise UserError(
            f"student: {type(student).__name__} is a traced or exported network, whose code cannot change between "
            "training and evaluation; give the network that it was made from"
        )
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise UserError(
            "student: nothing in it can be trained (no parameter requires gradients); student.requires_grad_(True)"
        )


def _refuse_weights(mentor: str, keys: Mapping[str, Any]) -> None:
    """Refuse keys that would give weights to a mentor that is handed over.

    Raises:
        UserError: with the first of them.
    """
    given = [key for key in _OF_NAMED if keys.get(key) not in (None, False, "trained")]
    if given:
        raise UserError(
            f"distill: mentors['{mentor}'] is a network that is handed over, which is taken as trained: '{given[0]}' "
            "would have no effect. Leave it out, and load weights yourself (ck.models.load_checkpoint(network, FILE)); "
            "a mentor that the run is to load or train is given by its model's name"
        )


def _named(mentors: Any) -> dict[str, Any]:
    """Mentors by name; a single one may stand without a list."""
    single = isinstance(mentors, str | Mapping) or (isinstance(mentors, nn.Module) and not _is_list(mentors))
    listed = [mentors] if single else list(mentors or ())
    if len({id(m) for m in listed if isinstance(m, nn.Module)}) < sum(isinstance(m, nn.Module) for m in listed):
        raise UserError("distill: the same module is listed twice among the mentors")
    names = [_name(m) for m in listed]
    return {f"{n}-{i}" if names.count(n) > 1 else n: m for i, (n, m) in enumerate(zip(names, listed, strict=True))}


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList)


def _name(mentor: Any) -> str:
    """What a mentor is called where nobody said it."""
    if isinstance(mentor, Mapping):
        return str(mentor.get("name") or ("self" if "model" not in mentor else _name(mentor["model"])))
    return mentor if isinstance(mentor, str) else mentor.name if isinstance(mentor, Mentor) else type(mentor).__name__


def _parts(network: Any, where: str) -> tuple[nn.Module | None, dict[str, Any]]:
    """The module that was handed over, if any, and what a recipe says of it.

    Raises:
        UserError: neither a name, a network nor a mapping of a recipe's keys.
    """
    if isinstance(network, str):
        return None, {"model": network}
    if isinstance(network, Mentor):
        return network.module, {"model": _given(network.module), **_said(network, where)}
    if isinstance(network, nn.Module):
        return network, {"model": _given(network)}
    if isinstance(network, Mapping) and "from" in network and "model" not in network:
        return None, {key: value for key, value in network.items() if key != "name"}
    if isinstance(network, Mapping) and "model" in network:
        module, keys = _parts(network["model"], where)
        return module, {**keys, **{key: value for key, value in network.items() if key not in ("model", "name")}}
    raise UserError(
        f"distill: {where} is a {type(network).__name__}; give a model name, a torch.nn.Module, a ck.Mentor, or a "
        "mapping of a recipe's keys with 'model' (or 'from', a frozen self of an earlier stage)"
    )


def _given(module: nn.Module) -> str:
    return f"given:{type(module).__name__}"


def _said(mentor: Mentor, where: str) -> dict[str, Any]:
    """What a ``Mentor`` says of itself, as recipe keys; a class by its place is ``@2``.

    Raises:
        UserError: it translates its network's answers, which a recipe cannot say.
    """
    if mentor.translate is not None:
        raise UserError(f"distill: {where} has translate=, which a run does not know; do it in the network's forward")
    places = mentor.classes if mentor.given_places is None else mentor.given_places
    classes = mentor.class_names if places is None else tuple(f"@{place}" for place in places)
    known = {
        "mean": mentor.mean,
        "std": mentor.std,
        "size": mentor.size,
        "classes": classes,
        "taps": mentor.wishes or None,
    }
    return {k: list(v) if isinstance(v, Sequence) else v for k, v in known.items() if v is not None}


def _is_named(value: Any) -> bool:
    """Whether data are named, as text or a list of texts, and not handed over."""
    return all(isinstance(one, str | None) for one in (value if isinstance(value, list | tuple) else [value]))


def _data(data: Any, keywords: Mapping[str, Any]) -> tuple[Any, dict[str, Any] | str]:
    """What was handed over of data (None: nothing, it is named), and what the recipe says of it.

    Args:
        data: as :func:`distill` takes it.
        keywords: keys of the recipe's data section that were given beside it.
    """
    if isinstance(data, str) and not keywords:
        return None, data
    if isinstance(data, str):
        data = {"source": data}
    elif not isinstance(data, Mapping):
        if not keywords:
            return data, {"source": "python"}
        names = {2: ("train", "test"), 3: PARTS}.get(len(data) if isinstance(data, tuple) else 0)
        data = {"source": data} if names is None else dict(zip(names, data, strict=True))
    data = _together("data", data, keywords)
    objects = [k for k in ("source", *PARTS, "unlabelled") if k in data and not _is_named(data[k])]
    if not objects:
        return None, data
    plain = {key: value for key, value in data.items() if key not in ("source", *PARTS, "classes", *objects)}
    return data, {"source": "python", **plain}
