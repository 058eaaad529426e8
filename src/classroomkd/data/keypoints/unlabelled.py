"""Persons without joints beside those who have some: ``data.unlabelled``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from classroomkd.data.keypoints.annotation_file import PersonSource
from classroomkd.data.keypoints.selections import Selection, without_joints
from classroomkd.data.sources.base import Request
from classroomkd.data.sources.table import PERSON_OPTIONS, open_source
from classroomkd.data.spec import PARTS, DataSettings
from classroomkd.data.unlabelled import listed
from classroomkd.errors import UserError

__all__ = ["MorePeople", "more_people"]

_WHERE = "data.unlabelled"


@dataclass(frozen=True, eq=False)
class MorePeople:
    """Persons that train without joints, by source.

    Attributes:
        sources: what they were read from, with the one listing that is taken.
        selections: they, whose ids go on where those of the labelled source end.
        notes: what the user should read.
    """

    sources: tuple[PersonSource, ...] = ()
    selections: tuple[Selection, ...] = ()
    notes: tuple[str, ...] = ()


def more_people(wanted: DataSettings, request: Request, source: PersonSource, first: int) -> MorePeople:
    """What ``data.unlabelled`` names; none where it names nothing.

    Args:
        wanted: what the user said about data.
        request: how the labelled source was opened.
        source: that one, by whose joints persons are taught.
        first: the first free id.

    Raises:
        UserError: what a source finds wrong.
    """
    sources: list[PersonSource] = []
    selections: list[Selection] = []
    notes: list[str] = []
    for value in listed(wanted.unlabelled):
        if not isinstance(value, str):
            raise UserError(
                f"{_WHERE}: pose takes a source's name (images:DIR, coco-keypoints:FILE.json@IMAGES, …), not a "
                f"{type(value).__name__}"
            )
        options = {
            key: given for key, given in wanted.options.items() if key in PERSON_OPTIONS
        }  # not files of the other
        own = replace(request, options=options, labels=False, skeleton=source.skeleton)
        try:
            opened = open_source(value, own)
        except UserError as error:
            raise UserError(f"{_WHERE}: {str(error).removeprefix('data: ')}") from error
        if not isinstance(opened, PersonSource):
            raise UserError(f"{_WHERE}: it is a whole ImageSet ('{value}'); give the name of a source")
        part = "all" if "all" in opened.parts else "train"
        listing = opened.parts[part]
        found: list[str] = []
        selection = without_joints(
            listing, first, len(source.skeleton), found, learn=True, refuse=wanted.unreadable == "refuse"
        )
        if not len(selection):
            raise UserError(f"{_WHERE}: no person of '{value}' can be cropped ({'; '.join(found) or 'it lists none'})")
        if left := [name for name in PARTS[1:] if name in opened.parts]:
            found.append(f"of '{value}' the training part is taken, not its {' and '.join(left)}")
        sources.append(replace(opened, parts={part: listing}))
        selections.append(selection)
        notes += [f"{_WHERE}: {note}" for note in (*opened.notes, *found)]
        first += len(listing.persons)
    return MorePeople(tuple(sources), tuple(selections), tuple(notes))
