"""The data set of a task, by the task's name: what ``classroomkd.data.load`` is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from classroomkd import tasks
from classroomkd.data.images import ImageSet
from classroomkd.data.spec import parse, refuse_parts

__all__ = ["load", "view_names"]


def load(
    spec: Any, *, task: str = tasks.DEFAULT, trust_code: bool = False, scored: str | None = None, **keys: Any
) -> ImageSet:
    """The data set that ``spec`` describes: a source's name, the mapping of a recipe's ``data:``, a torch Dataset or
    a (train, test) pair. ``task`` says what its samples are: images with a class, or for ``pose`` persons with joints.

    Keys of the mapping: ``source``, or ``train``/``val``/``test`` when they live apart; ``val_fraction`` (0.1 of the
    training images) and ``test_fraction`` (0.2), used only where the source has no such part; ``split_seed``;
    ``shard`` (``k/n``: the k-th of n disjoint shards of the training images, before ``limit`` and val);
    ``labels`` (``{share: 0.1}``: of each class's training images that many have a label, the others none; ``{file:
    FILE}``: names and classes of pictures that lie in a folder without labels);
    ``unlabelled`` (a source, a Dataset, or a list of some: pictures that join the training part without a label);
    ``limit`` (stratified cap on training images including val) and ``test_limit``; ``size`` and ``resize`` (see
    ``geometry``); ``views``; ``unreadable``; ``options`` of the source; ``classes``, names by label (the
    source's own in another order are met by name). They may be given as keywords beside ``spec``, too.

    With ``scored`` (``all``, or a part) nothing is to be trained: where the source has that part, what it lacks is
    empty and not split off, and a class may have one image.

    Raises:
        UserError: for anything wrong with the spec or the data, naming the place and the remedy.
    """
    if isinstance(spec, ImageSet):
        refuse_parts(keys)
        return spec
    return tasks.describe(task).load(replace(parse(spec, **keys), scored=scored), trust_code=trust_code)


def view_names(task: str = tasks.DEFAULT) -> tuple[str, ...]:
    """The names of views that a task allows."""
    return tasks.describe(task).views
