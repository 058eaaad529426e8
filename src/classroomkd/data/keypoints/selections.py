"""The samples of a part before their canvases are cut: what can be cropped; limits, shards, splits by picture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from classroomkd.data import rng, split
from classroomkd.data.keypoints import checks
from classroomkd.data.keypoints.annotation_file import AnnotationFile, PersonSource
from classroomkd.data.keypoints.files import Files, Store
from classroomkd.data.keypoints.people import Floats, Ints, Persons, Picture
from classroomkd.data.keypoints.placing import reason
from classroomkd.errors import UserError

__all__ = ["Selection", "limited", "selections_of", "sharded", "split_off", "without_joints"]


@dataclass(frozen=True, eq=False)
class Selection:
    """Samples of one listing: ``ids`` (n,) and ``persons``; ``others`` are annotations of the listing that are no
    samples of any part; ``bare`` places of pictures of this part without a sample; ``unlabelled``: nobody has joints.
    """

    where: str
    pictures: tuple[Picture, ...]
    store: Store
    ids: Ints
    persons: Persons
    others: Persons
    detected: bool
    bare: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    unlabelled: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def placed(self, origin: Floats, step: Floats) -> Selection:
        """The same samples, and where their inputs are."""
        return replace(self, persons=replace(self.persons, origin=origin, step=step))

    def take(self, index: NDArray[np.bool_]) -> Selection:
        """The samples ``index`` (n,) bool."""
        return replace(self, ids=self.ids[index], persons=self.persons.take(index))

    def without(self, pictures: Ints) -> Selection:
        """The same, without anything that is annotated in ``pictures``, which nobody could read."""
        selection = self.take(~np.isin(self.persons.picture, pictures))
        others = self.others.take(~np.isin(self.others.picture, pictures))
        return replace(selection, others=others, bare=np.setdiff1d(self.bare, pictures))

    def shifted(self, start: int) -> Selection:
        """The same, with pictures counted from ``start``."""
        persons = replace(self.persons, picture=self.persons.picture + start)
        others = replace(self.others, picture=self.others.picture + start)
        return replace(self, persons=persons, others=others, bare=self.bare + start)


def selections_of(source: PersonSource, notes: list[str], *, refuse: bool) -> dict[str, Selection]:
    """The samples of every part; ids count through the parts, over everything they list.

    Raises:
        UserError: for what makes a file useless, and for missing images where they are to be refused.
    """
    selections: dict[str, Selection] = {}
    start = 0
    for name, listing in source.parts.items():
        assert listing.persons.joints.shape[1:] == (len(source.skeleton), 3), listing.persons.joints.shape
        checks.check_flags(listing)
        learn = name in ("all", "train")
        if listing.unlabelled:
            selection = without_joints(listing, start, len(source.skeleton), notes, learn=learn, refuse=refuse)
        else:
            selection = _selection_of(listing, start, learn=learn, notes=notes, refuse=refuse)
        selections[name] = selection
        start += len(listing.persons if listing.detected is None else listing.detected)
        if name in ("val", "test"):
            every = np.arange(len(listing.pictures))
            selections[name] = replace(selections[name], bare=np.setdiff1d(every, selections[name].persons.picture))
    return selections


def _selection_of(listing: AnnotationFile, start: int, *, learn: bool, notes: list[str], refuse: bool) -> Selection:
    broken = checks.sanitize(listing, notes)
    persons = listing.persons
    if listing.detected is None:
        jointless = np.asarray((persons.joints[..., 2] > 0).sum(1) == 0)
        able = _able(listing, jointless, broken, learn, notes)
        samples, others = persons, persons.take(~able)
    else:
        samples, others = listing.detected, persons
        names = [f"in image {listing.pictures[place].id}" for place in samples.picture]
        able = checks.usable(listing, samples.region, names, learn=learn, notes=notes)
    ids = start + np.flatnonzero(able)
    selection = Selection(
        listing.where, listing.pictures, listing.store, ids, samples.take(able), others,
        listing.detected is not None,
    )  # fmt: skip
    return _present(selection, notes, refuse)


def without_joints(
    listing: AnnotationFile, start: int, joints: int, notes: list[str], *, learn: bool, refuse: bool
) -> Selection:
    """Everybody who can be cropped but crowds, with ids from ``start`` on and none of the ``joints`` joints."""
    persons = replace(listing.persons, joints=np.zeros((len(listing.persons), joints, 3)))
    able = np.logical_not(persons.crowd)
    names = [str(persons.annotation[row]) for row in np.flatnonzero(able)]
    able[able] = checks.usable(
        listing, persons.region[able], names, learn=learn, notes=notes, area=persons.area[able]
    )  # fmt: skip
    ids = start + np.flatnonzero(able)
    nobody = persons.take(np.zeros(0, np.int64))
    selection = Selection(
        listing.where, listing.pictures, listing.store, ids, persons.take(able), nobody, False, unlabelled=True
    )  # fmt: skip
    return _present(selection, notes, refuse)


def _able(
    listing: AnnotationFile, jointless: NDArray[np.bool_], broken: NDArray[np.bool_], learn: bool, notes: list[str]
) -> NDArray[np.bool_]:
    """Which annotations (n,) are samples: persons with a labelled joint who can be cropped. In a part that is only
    scored, and where there is no such person, those without a label, else the crowds: they are predicted."""
    persons = listing.persons
    names = [str(number) for number in persons.annotation]
    someone, nobody = np.logical_not(persons.crowd), np.zeros(len(persons), bool)
    tries = [(someone, jointless), (someone, nobody), (~nobody, nobody)]
    said: list[str] = []
    able = nobody
    for who, without in tries[: 1 if learn else 3]:
        said, able = [], who.copy()
        able[able] = checks.usable(
            listing, persons.region[able], [names[row] for row in np.flatnonzero(able)],
            learn=learn, notes=said, jointless=without[able], broken=broken[able], area=persons.area[able],
        )  # fmt: skip
        if able.any():
            break
    if able.any() and (jointless | persons.crowd)[able].all():
        said.append(f"{listing.where}: none of its persons has a labelled joint: they are predicted, and have no score")
    notes += said
    return able


def _present(selection: Selection, notes: list[str], refuse: bool) -> Selection:
    """The selection without samples on pictures whose files are not there."""
    if not isinstance(selection.store, Files):
        return selection
    names = selection.store.names()
    missing = [place for place in np.unique(selection.persons.picture) if selection.pictures[place].file not in names]
    if not missing:
        return selection
    files = [selection.pictures[place].file for place in missing]
    if refuse:
        raise UserError(
            f"data: {selection.where}: {len(missing)} images are not in {selection.store.path}"
            f"{'/' + selection.store.inside if selection.store.inside else ''}, e.g. {files[0]}"
            f"{reason(names, files[0])}; add them, set data.options.images, or data.unreadable: skip"
        )
    checks.count_skips(selection.where, "images that are missing were", files, notes)
    return selection.without(np.array(missing, np.int64))


def _order(selection: Selection, purpose: str, seed: int) -> Ints:
    """Places of the selection's pictures, with samples or bare, in the order of (seed, purpose, the picture's id)."""
    places = np.union1d(selection.persons.picture, selection.bare)
    numbers = np.array([selection.pictures[place].id for place in places], np.int64)
    keys = rng.keys(seed, np.int64(split.PURPOSES[purpose]), numbers)
    return np.asarray(places[np.lexsort((numbers, keys))], np.int64)


def limited(selection: Selection, limit: int | None, purpose: str, *, seed: int) -> Selection:
    """Whole pictures with at most ``limit`` samples together (one picture at least)."""
    if limit is None or limit >= len(selection):
        return selection
    order = _order(selection, purpose, seed)
    counts = np.bincount(selection.persons.picture, minlength=len(selection.pictures))[order].cumsum()
    return _only(selection, order[: max(1, int((counts <= limit).sum()), int(np.argmax(counts > 0)) + 1)])


def sharded(selection: Selection, number: int, shards: int, *, seed: int) -> Selection:
    """The ``number``-th (from 1) of ``shards``: of n pictures the one of rank r is of shard r · ``shards`` // n + 1.

    Raises:
        UserError: fewer pictures than shards.
    """
    order = _order(selection, "shard", seed)
    if len(order) < shards:
        raise UserError(
            f"data.shard: {shards} shards need {shards} training pictures with persons; there are {len(order)}. Give"
            " fewer shards, or add pictures"
        )
    return _only(selection, order[np.arange(len(order)) * shards // len(order) == number - 1])


def _only(selection: Selection, chosen: Ints) -> Selection:
    """What is annotated in the pictures ``chosen``, and the bare ones among them."""
    selection = selection.take(np.isin(selection.persons.picture, chosen))
    return replace(selection, bare=np.intersect1d(selection.bare, chosen))


def split_off(selection: Selection, fraction: float, purpose: str, *, seed: int) -> tuple[Selection, Selection]:
    """(what stays, what is split off): ``fraction`` of the pictures."""
    order = _order(selection, purpose, seed)
    count = int(split.counts_for_fraction(np.array([len(order)]), fraction)[0])
    away = np.isin(selection.persons.picture, order[:count])
    return selection.take(~away), selection.take(away)
