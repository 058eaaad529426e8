"""The short forms of a recipe, written out: after :func:`write_out` every section has one shape.

``data: puppets`` is ``data: {source: puppets}``, ``task: pose`` is ``{name: pose}``, ``student: resnet8`` is
``{model: resnet8}``, a mentor may be its model alone, ``{at: {weight: 10}}`` is ``{name: at, weight: 10}``, ``method:
kd`` is a list of one entry, ``methods`` a list of such lists, a stage's
``trainees: b`` is ``[b]``, ``taught_by: big`` is ``{mentors: [big]}``, ``seeds: 3`` is ``[3]``. Writing out twice
changes nothing, so it can be done between overrides.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from classroomkd.recipe.nodes import Node, is_self
from classroomkd.recipe.peer_section import STUDENT

__all__ = ["derived_name", "name_mentors", "write_out"]


def _mapping(key: str) -> Callable[[Node], Node]:
    """``text`` -> ``{key: text}``."""

    def write(node: Node) -> Node:
        return Node({key: node}, node.origin) if isinstance(node.value, str) else node

    return write


def _list(of: Callable[[Node], Node]) -> Callable[[Node], Node]:
    """``x`` -> ``[x]``, every item written out."""

    def write(node: Node) -> Node:
        items = node.value if isinstance(node.value, list) else [] if node.value is None else [node]
        return Node([of(item) for item in items], node.origin)

    return write


def _entry(node: Node) -> Node:
    """One method: ``kd`` or ``{kd: {temperature: 4}}`` or ``{kd: }`` -> ``{name: kd, ...}``."""
    if isinstance(node.value, str):
        return Node({"name": node}, node.origin)
    if (stages := node.child("stages")) is not None:
        listed = [_stage(item) for item in stages.value] if isinstance(stages.value, list) else stages.value
        return Node({**node.value, "stages": Node(listed, stages.origin)}, node.origin)
    if isinstance(node.value, dict) and len(node.value) == 1 and "name" not in node.value:
        ((name, options),) = node.value.items()
        if options.value is None or isinstance(options.value, dict):
            return Node({"name": Node(name, options.origin), **(options.value or {})}, node.origin)
    return node


def _stage(node: Node) -> Node:
    """A stage with its method's entries written out, and its trainees as a list but for ``all``."""
    if not isinstance(node.value, dict):
        return node
    written = {"method": _method, "trainees": _trainees}
    inside = {k: written[k](v) if k in written and v.value is not None else v for k, v in node.value.items()}
    return Node(inside, node.origin)


def _trainees(node: Node) -> Node:
    return Node([node], node.origin) if isinstance(node.value, str) and node.value != "all" else node


def _taught_by(node: Node) -> Node:
    """``big`` or ``[big, wide]`` -> ``{mentors: [...]}``; the method's entries written out."""
    if not isinstance(node.value, dict):
        return Node({"mentors": _list(lambda item: item)(node)}, node.origin)
    written = {"mentors": _list(lambda item: item), "method": _method}
    inside = {k: written[k](v) if k in written and v.value is not None else v for k, v in node.value.items()}
    return Node(inside, node.origin)


def _mentor(node: Node) -> Node:
    node = _mapping("model")(node)
    taught = node.child("taught_by")
    if taught is None or taught.value is None:
        return node
    return Node({**node.value, "taught_by": _taught_by(taught)}, node.origin)


def _mentor_list(node: Node) -> Node:
    named = isinstance(node.value, dict) and "model" not in node.value  # {big: {model: …}} is not one mentor
    return node if named else _list(_mentor)(node)


def _seeds(node: Node) -> Node:
    whole = isinstance(node.value, int) and not isinstance(node.value, bool)
    return Node([node], node.origin) if whole else node


_method = _list(_entry)

_SECTIONS: dict[str, Callable[[Node], Node]] = {
    "data": _mapping("source"),
    "task": _mapping("name"),
    "student": _mapping("model"),
    "mentors": _mentor_list,
    "peers": _list(_mapping("model")),
    "method": _method,
    "methods": _list(_method),
    "seeds": _seeds,
}

# A header whose entries are all commented out reads as null; for these that means "nothing said".
_MAY_BE_EMPTY = ("train", "mentor_train", "mentors", "peers", "method", "methods")


def write_out(tree: Node) -> None:
    """Write out every short form of a recipe's tree, in place. Values of the wrong kind are left for validation."""
    assert isinstance(tree.value, dict)
    for key in _MAY_BE_EMPTY:
        if key in tree.value and tree.value[key].value is None:
            del tree.value[key]
    for key, write in _SECTIONS.items():
        if key in tree.value and tree.value[key].value is not None:
            tree.value[key] = write(tree.value[key])


def derived_name(model: str) -> str:
    """The name of a mentor that was given none: its model without the library (``timm:resnet50`` -> ``resnet50``)."""
    return model.rpartition(":")[2]


def name_mentors(tree: Node) -> None:
    """Give mentors and peers without ``name`` the one derived from its model, in place; done after all overrides.

    A mentor that is made ``from`` a stage has the model of the network that it is.
    """
    for mentor in tree.items("mentors"):
        if is_self(mentor):
            _name_self(tree, mentor)
    for mentor in tree.items("mentors"):
        model = mentor.text("model")
        if model is not None and mentor.child("name") is None:
            mentor.value["name"] = Node(derived_name(model), mentor.value["model"].origin)
    for peer in tree.items("peers"):
        model = peer.text("model")
        if model is not None and peer.child("name") is None:
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", derived_name(model)).strip("-")
            peer.value["name"] = Node(name, peer.value["model"].origin)


def _name_self(tree: Node, mentor: Node) -> None:
    """Give a mentor that is made from a stage the model of its network, and a name."""
    origin, who = mentor.value["from"].origin, (mentor.text("from") or "").partition(".")[2]
    mentor.value.setdefault("name", Node("self", origin))
    if mentor.child("model") is not None:
        return
    models = {STUDENT: tree.text("student", "model")}
    models |= {peer.text("name") or "": peer.text("model") for peer in tree.items("peers")}
    model = models.get(who) or models.get(re.sub(r"-[0-9]+$", "", who)) or models[STUDENT]
    mentor.value["model"] = Node(model, origin)
