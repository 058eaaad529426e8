"""Methods' options of earlier versions: written under today's names in a recipe's tree, with a note for each."""

from __future__ import annotations

from classroomkd.errors import UserError
from classroomkd.recipe.nodes import Node
from classroomkd.recipe.stage_nodes import entry_locs

__all__ = ["renew_options"]


def renew_options(tree: Node) -> list[str]:
    """Rewrite the options of every method entry, in place. What is no known method is left for the checks.

    Returns:
        One sentence for each option that was read as another.
    """
    from classroomkd import methods

    notes = []
    assistants = [entry for mentor in tree.items("mentors") for entry in mentor.items("taught_by", "method")]
    for entry in (*(entry for _, entry in entry_locs(tree)), *assistants):
        name = entry.text("name")
        if name is None or name not in methods.entries():
            continue
        given = {key: node.plain() for key, node in entry.value.items() if key not in ("name", "label", "peers")}
        try:
            options, read = methods.renewed(name, given)
        except UserError:  # a plug-in that cannot be loaded
            continue
        notes += [f"method {name}: {sentence}" for sentence in read]
        same = {key: node for key, node in entry.value.items() if key in options or key not in given}
        changed = {
            key: Node(value, (entry.value.get(key) or entry).origin)
            for key, value in options.items()
            if key not in given or value != given[key]
        }
        entry.value = {**same, **changed}
    return notes
