"""Methods' options of earlier versions: written under today's names in a recipe's tree, with a note for each."""

from __future__ import annotations

from collections.abc import Iterator

from classroomkd.errors import UserError
from classroomkd.recipe.check_methods import entry_locs
from classroomkd.recipe.nodes import Node

__all__ = ["renew_options"]


def renew_options(tree: Node) -> list[str]:
    """Rewrite the options of every method entry, in place. What is no known method is left for the checks.

    Returns:
        One sentence for each option that was read as another.
    """
    from classroomkd import methods

    notes = []
    for entry in (*(entry for _, entry in entry_locs(tree)), *_assistants(tree)):
        name = entry.child("name")
        if name is None or not isinstance(name.value, str) or name.value not in methods.entries():
            continue
        given = {key: node.plain() for key, node in entry.value.items() if key not in ("name", "label")}
        try:
            options, read = methods.renewed(name.value, given)
        except UserError:  # a plug-in that cannot be loaded
            continue
        notes += [f"method {name.value}: {sentence}" for sentence in read]
        kept = {key: node for key, node in entry.value.items() if key in options or key not in given}
        changed = {
            key: Node(value, (entry.value.get(key) or entry).origin)
            for key, value in options.items()
            if key not in given or value != given[key]
        }
        entry.value = {**kept, **changed}
    return notes


def _assistants(tree: Node) -> Iterator[Node]:
    """The method entries of mentors whom others teach."""
    mentors = tree.child("mentors")
    for mentor in mentors.value if mentors is not None and isinstance(mentors.value, list) else []:
        taught = mentor.child("taught_by")
        section = taught.child("method") if taught is not None else None
        yield from section.value if section is not None and isinstance(section.value, list) else []
