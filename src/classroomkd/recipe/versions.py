"""Recipes of earlier versions of the format: what they left unsaid, written out.

Version 1 had no ``data.resize``: pictures were padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classroomkd import tasks
from classroomkd.errors import UserError
from classroomkd.recipe.nodes import Node, described_task
from classroomkd.recipe.sections import SCHEMA

__all__ = ["renew_recipe", "renewed_data"]


def renew_recipe(tree: Node) -> list[str]:
    """Write out what a recipe of version 1 means, in place.

    Returns:
        One sentence for each key that was written.
    """
    version, data = tree.child("schema"), tree.child("data")
    if version is None or type(version.value) is not int or not 1 <= version.value < SCHEMA:
        return []
    tree.value["schema"] = Node(SCHEMA, version.origin)
    if data is None or not isinstance(data.value, dict) or not described_task(tree).resizes:
        return []
    given = data.child("resize")
    if given is not None and given.value is not None:
        return []
    data.value["resize"] = Node("pad", version.origin)
    return [
        "data.resize is pad, as always in recipes of version 1; write data.resize: pad to keep it, or crop, the default"
        f" of version {SCHEMA}"
    ]


def renewed_data(recipe: Mapping[str, Any]) -> Any:
    """The ``data`` of a run folder's ``recipe.yaml``, with ``resize: pad`` where its version did not know the key."""
    data, task = recipe.get("data"), recipe.get("task", tasks.DEFAULT)
    name = task.get("name") if isinstance(task, Mapping) else task
    if recipe.get("schema") != 1 or not isinstance(data, dict) or data.get("resize") is not None:
        return data
    try:
        resizes = tasks.describe(str(name)).resizes
    except UserError:  # a task that is not installed here
        return data
    return {**data, "resize": "pad"} if resizes else data
