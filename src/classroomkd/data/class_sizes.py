"""Whether every class has the images that a split and a training need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from classroomkd.data.images import Part
from classroomkd.data.meeting import more
from classroomkd.data.subsets import class_counts
from classroomkd.errors import UserError

__all__ = ["check_class_sizes"]


def check_class_sizes(train: Part, classes: Sequence[str], source: str, *, splits: bool, notes: list[str]) -> None:
    """An error for classes that cannot be split, a note for those too small to judge. Where some images have no label,
    these may be of any class, so a class may lack labels; a note says so.

    Args:
        train: all images that are to be split or trained on.
        classes: their names.
        source: the data's name, for messages.
        splits: whether a test part is split off them.
        notes: where notes go.

    Raises:
        UserError: fewer than two classes, or too few images of one.
    """
    labelled = int(train.labelled.sum())
    if len(classes) < 2 and (labelled or classes):
        raise UserError(f"data: '{source}' has {len(classes)} class; a classifier needs at least two")
    counts: Mapping[str, int] = dict(zip(classes, class_counts(train, len(classes)), strict=True))
    if labelled == len(train):
        _refuse_small(counts, splits)
        _note_small(counts, notes)
    elif labelled:
        _note_few_labels(counts, notes)


def _refuse_small(counts: Mapping[str, int], splits: bool) -> None:
    least = 2 if splits else 1
    hopeless = [f"'{name}' ({count})" for name, count in counts.items() if count < least]
    if hopeless:
        raise UserError(
            f"data: every class needs at least {least} training image{'s' if least > 1 else ''}"
            f"{' to be split' if splits else ''}; too few in {', '.join(hopeless[:8])}{more(hopeless[7:])}."
            " Add images or remove the class"
        )


def _note_small(counts: Mapping[str, int], notes: list[str]) -> None:
    for least, below, sentence in (
        (0, 5, "will hardly be learned, and scores on them mean little"),
        (5, 10, "are small: scores on them are uncertain"),
    ):
        tiny = [f"{name} ({count})" for name, count in counts.items() if least <= count < below]
        if tiny:
            notes.append(f"classes with fewer than {below} images {sentence}: {', '.join(tiny[:8])}{more(tiny[7:])}")


def _note_few_labels(counts: Mapping[str, int], notes: list[str]) -> None:
    for least, below, sentence in (
        (0, 1, "no image has a label of the classes {names}: only mentors teach them"),
        (1, 2, "one image alone has a label of the classes {names}: it is trained on, and no score counts these"),
        (2, 10, "classes of which fewer than 10 images have a label, so that scores on them are uncertain: {names}"),
    ):
        few = [name for name, count in counts.items() if least <= count < below]
        if few:
            notes.append(sentence.format(names=", ".join(few[:8]) + more(few[7:])))
