"""``load`` for persons: from opened annotations to an ``ImageSet`` of crops.

Order of work: check what was read; give every annotation its id; leave out what cannot be cropped, counted in notes;
split off test where the source has none; take the ``shard`` of what is left for training, then ``limit``; split off
val where the source has none; take ``test_limit``; cut the canvases. Shards, limits and splits take whole pictures, by
a hash of (seed, purpose, the picture's id): a picture's people stay together, so a part can be scored by COCO's rules,
which see everybody in a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classroomkd.data import split
from classroomkd.data.images import ImageSet, MemoryPixels, Part, Pixels
from classroomkd.data.joined import joined
from classroomkd.data.keypoints import checks
from classroomkd.data.keypoints.annotation_file import PersonSource
from classroomkd.data.keypoints.crops import Canvas, crop
from classroomkd.data.keypoints.files import CropPixels, Files, Job, cut_all, look_at_all
from classroomkd.data.keypoints.fitting import UNFIT, note_fit, note_size
from classroomkd.data.keypoints.options import PersonOptions, metric_for, person_options
from classroomkd.data.keypoints.people import Ints, People, join
from classroomkd.data.keypoints.selections import Selection, limited, selections_of, sharded, split_off
from classroomkd.data.keypoints.skeleton_union import named_skeleton, widened
from classroomkd.data.keypoints.unlabelled import MorePeople, more_people
from classroomkd.data.labels import hide_labels, labels_note, unlabelled
from classroomkd.data.near_copies import copies_notes
from classroomkd.data.sources.base import Request
from classroomkd.data.sources.table import open_source
from classroomkd.data.spec import IMAGE_VIEWS, OF_PERSONS, PARTS, PERSON_VIEWS, DataSettings, refuse_parts
from classroomkd.data.statistics import mean_std
from classroomkd.data.targets import KEYPOINTS
from classroomkd.data.unlabelled import options_of, refuse_twice
from classroomkd.data.views.keypoints import PRESETS
from classroomkd.errors import UserError

__all__ = ["load_people"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_people(wanted: DataSettings, *, trust_code: bool = False, task: str = "") -> ImageSet:
    """The persons that ``wanted`` describes, for the task of that name; see :func:`classroomkd.data.load`.

    Raises:
        UserError: for anything wrong with the spec or the data, naming the place and the remedy.
    """
    if wanted.views in IMAGE_VIEWS and wanted.views not in PERSON_VIEWS:
        raise UserError(
            f"data.views: '{wanted.views}' moves pixels but not joints; for pose there are {', '.join(PERSON_VIEWS)}"
        )
    if wanted.resize is not None:
        raise UserError(
            f"data.resize: '{wanted.resize}' is for whole images; for pose crops are cut around persons, of data.size:"
            " [height, width]. Leave it out"
        )
    if wanted.classes is not None:
        raise UserError("data.classes: is for images with a class each, not for persons with joints; leave it out")
    if wanted.label_file is not None:
        raise UserError(f"data.labels.file: {OF_PERSONS}")
    refuse_twice(wanted, remedy="")
    options = person_options(wanted.options)
    request = Request(
        options=wanted.options,
        unreadable=wanted.unreadable,
        trust_code=trust_code,
        reads="persons",
        task=task,
        skeleton=None if options.skeleton is None else named_skeleton(options.skeleton),
    )
    opened = _open(wanted, request)
    if isinstance(opened, ImageSet):
        refuse_parts(vars(wanted))
        return opened
    size = wanted.size if isinstance(wanted.size, tuple) else (wanted.size,) * 2 if wanted.size else opened.size
    return _assemble(opened, wanted, options, Canvas((size[0], size[-1]), options.canvas), request)


def _open(wanted: DataSettings, request: Request) -> PersonSource | ImageSet:
    if wanted.source is not None:
        return _opened(wanted.source, request, wanted)
    opened: dict[str, PersonSource] = {}
    for part in PARTS:
        text = getattr(wanted, part)
        if text is not None:
            source = _opened(text, request, wanted)
            if isinstance(source, ImageSet):
                raise UserError(f"data.{part}: '{text}' gives a whole set, which cannot be one part; use data.source")
            opened[part] = source
    named = next((source.skeleton for source in opened.values() if source.named), None)
    for part, source in opened.items():
        if named is not None and not source.named:
            again = _opened(getattr(wanted, part), replace(request, skeleton=named), wanted)
            assert isinstance(again, PersonSource)
            opened[part] = again
    train = opened["train"]
    alone = len(opened) == 1
    parts = dict(train.parts) if alone or "all" not in train.parts else {"train": train.parts["all"]}
    for part, source in opened.items():
        if source.skeleton.joints != train.skeleton.joints:
            raise UserError(
                f"data.{part}: its joints are {', '.join(source.skeleton.joints)}; those of data.train are"
                f" {', '.join(train.skeleton.joints)}. Parts of one set have the same skeleton"
            )
        if not alone:
            parts[part] = source.parts.get(part) or source.parts.get("all") or source.parts["train"]
    names = dict.fromkeys(source.name for source in opened.values())
    notes = tuple(dict.fromkeys(note for source in opened.values() for note in source.notes))
    tested = opened.get("test", train)
    return replace(train, name=" + ".join(names), parts=parts, notes=notes, category=tested.category)


def _text(source: Any) -> str:
    if not isinstance(source, str):
        raise UserError(f"data: pose takes a source's name (coco-keypoints:DIR, …), not a {type(source).__name__}")
    return source


def _opened(source: Any, request: Request, wanted: DataSettings) -> PersonSource | ImageSet:
    text = _text(source)
    if wanted.unlabelled is not None:
        request = replace(request, options=options_of(text, wanted, "persons"))
    opened = open_source(text, request)
    if isinstance(opened, PersonSource) or (isinstance(opened, ImageSet) and opened.people is not None):
        return opened
    raise UserError(f"data: '{text}' gives no persons with joints, which task: pose needs")


def _assemble(
    source: PersonSource, wanted: DataSettings, options: PersonOptions, canvas: Canvas, request: Request
) -> ImageSet:
    assert wanted.views is not None or source.views in PERSON_VIEWS, source.views
    first = source.parts.get("all") or source.parts["train"]
    checks.check_flags(first)
    checks.check_flip_pairs(source.skeleton, first.persons.joints, first.where, source.title)
    if options.skeleton is not None and source.named:
        source = widened(source, options.skeleton)
    notes = list(source.notes)
    if not source.paired and options.views.get("flip", PRESETS[wanted.views or source.views]["flip"]) > 0:
        checks.note_mirror(source.skeleton, notes)
    selections = selections_of(source, notes, refuse=wanted.unreadable == "refuse")
    for listing in source.parts.values():
        note_fit(listing, canvas.size, options.padding, source.views == "person_mpii", notes)
    if isinstance(wanted.size, tuple):
        note_size(first, canvas.size, notes)
    seed = wanted.split_seed
    chosen = split.three_parts(
        selections, wanted, partial(limited, seed=seed), partial(split_off, seed=seed), partial(sharded, seed=seed)
    )
    trained = wanted.splits(selections)
    first_free = sum(len(part.persons if part.detected is None else part.detected) for part in source.parts.values())
    more = more_people(wanted, request, source, first_free) if trained else MorePeople()
    notes += more.notes
    # The test part stays the last.
    joining = {f"unlabelled {place}": selection for place, selection in enumerate(more.selections)}
    selections = {**joining, **selections}
    pixels, chosen = _cut({**joining, **chosen}, canvas, options, wanted, notes)
    for name, part in (("training", "train"), ("validation", "val"), ("test", "test")):
        if len(chosen[part]) == 0 and trained:
            own = [note for note in notes if note.startswith(f"{chosen[part].where}: ")]
            skipped = [note for note in own if " left out" in note or UNFIT in note]
            raise UserError(
                f"data: no person is left for the {name} part of '{source.name}'"
                + (f" ({'; '.join(skipped)}); mend these, or " if skipped else "; ")
                + ("" if wanted.shard is None else "take fewer shards (data.shard), ")
                + "raise data.limit or add some"
            )
    people = replace(_people(chosen, selections, canvas, options), category=source.category)
    parts = {
        name: Part(
            pixels[name][0], _target(people, selection.ids), torch.from_numpy(selection.ids), pixels[name][1], KEYPOINTS
        )
        for name, selection in chosen.items()
    }
    parts = {name: unlabelled(part) if chosen[name].unlabelled else part for name, part in parts.items()}
    train = parts["train"]
    if trained and wanted.label_share is not None:
        train = hide_labels(train, wanted.label_share, seed=seed)
    if trained and (some := labels_note(train, "persons")) is not None:
        notes.append(some)
    if joining:
        extra = joined([parts[name] for name in joining])
        called = dict(zip(extra.ids.tolist(), people.file(extra.ids), strict=True))
        notes += copies_notes(extra, {"test": parts["test"], "validation": parts["val"]}, {}, called)
        train = joined([train, extra])
        counts = zip(more.sources, joining, strict=True)
        notes += [f"{len(parts[name])} persons of '{one.name}' train without joints" for one, name in counts]
    parts["train"] = train
    lacking = train.ids[~train.labelled]
    (left, top), (height, width) = canvas.offset, canvas.size
    window = [slice(start, start + round((n - 1) * canvas.scale) + 1) for start, n in ((top, height), (left, width))]
    mean, std = _IMAGENET if source.photographs else mean_std(parts["train"], (window[0], window[1]))[:2]
    return ImageSet(
        name=source.name, classes=source.skeleton.joints if source.named else (),
        train=parts["train"], val=parts["val"], test=parts["test"],
        mean=mean, std=std, views=wanted.views or source.views,
        fingerprint=_fingerprint((source, *more.sources), canvas, options),
        names=dict(zip(lacking.tolist(), people.file(lacking), strict=True)),
        notes=tuple(notes), skeleton=source.skeleton if source.named else None, people=people, input=canvas.size,
        metric=options.metric or metric_for(source.skeleton, people.boxes),
    )  # fmt: skip


def _target(people: People, ids: Ints) -> Tensor:
    """(N, K, 3) float32 in pixels of the untouched input."""
    joints = people.to_input(ids, people.of(ids).joints)
    return torch.from_numpy(np.where(joints[..., 2:] > 0, joints, 0).astype(np.float32))


def _cut(
    chosen: dict[str, Selection], canvas: Canvas, options: PersonOptions, wanted: DataSettings, notes: list[str]
) -> tuple[dict[str, tuple[Pixels, Tensor]], dict[str, Selection]]:
    """Pixels and rows of every part, and the parts without what could not be decoded."""
    total = sum(len(selection) for selection in chosen.values()) * 3 * canvas.side**2
    in_memory = total <= options.memory_gib * 2**30
    pixels: dict[str, tuple[Pixels, Tensor]] = {}
    readable: dict[str, Selection] = {}
    for name, selection in chosen.items():
        origin, step = crop(selection.persons.region, canvas.size, options.padding)
        pictures = [selection.pictures[place] for place in selection.persons.picture]
        jobs: list[Job] = [(p, o, float(s)) for p, o, s in zip(pictures, origin, step, strict=True)]
        canvases: Tensor | None = None
        if in_memory:
            canvases, bad = cut_all(selection.store, jobs, canvas)
        elif isinstance(selection.store, Files):
            bad = look_at_all(selection.store, jobs, whole=wanted.unreadable == "skip")
        else:
            raise UserError(
                f"data: {total / 2**30:.1f} GiB of crops exceed data.options.memory_gib"
                f" ({options.memory_gib:g}); raise it, or take a smaller data.size or fewer samples"
            )
        if bad and wanted.unreadable == "refuse":
            file, reason = pictures[min(bad)].file, bad[min(bad)]
            raise UserError(
                f"data: {selection.where}: {len({pictures[row].file for row in bad})} images cannot be used, e.g."
                f" {file}: {reason}. Mend or remove them, or set data.unreadable: skip"
            )
        checks.count_skips(
            selection.where, "people on unreadable images", [pictures[row].file for row in sorted(bad)], notes
        )
        good = np.array([row not in bad for row in range(len(selection))], bool)
        gone = np.unique(selection.persons.picture[~good])
        readable[name] = selection.placed(origin, step).take(good).without(gone)
        rows = np.flatnonzero(good)
        if canvases is not None:
            cut: Pixels = MemoryPixels(canvases[torch.from_numpy(rows)] if bad else canvases)
        else:
            assert isinstance(selection.store, Files)
            cut = CropPixels(selection.store, [pictures[row] for row in rows], origin[rows], step[rows], canvas)
        pixels[name] = cut, torch.arange(len(rows))
    _note_turned({id(selection.store): selection for selection in chosen.values()}.values(), notes)
    return pixels, readable


def _note_turned(selections: Iterable[Selection], notes: list[str]) -> None:
    """Say which pictures were turned though their sizes leave it open."""
    notes += [
        f"{one.where}: {len(one.store.turned)} pictures have an EXIF orientation that their sizes do not confirm, e.g."
        f" {min(one.store.turned)}: they are turned, as viewers show them, so boxes and joints must be those of the"
        " turned picture; where they are not, remove that orientation from the files"
        for one in selections
        if isinstance(one.store, Files) and one.store.turned
    ]


def _people(
    chosen: dict[str, Selection], selections: dict[str, Selection], canvas: Canvas, options: PersonOptions
) -> People:
    """Everything about the samples in use, in the order of their ids; pictures of all parts are numbered through."""
    pictures: list[Any] = []
    starts: dict[int, int] = {}
    for selection in selections.values():
        starts[id(selection.pictures)] = len(pictures)
        pictures += selection.pictures
    moved = [selection.shifted(starts[id(selection.pictures)]) for selection in chosen.values()]
    ids = np.concatenate([selection.ids for selection in moved])
    order = np.argsort(ids)
    # Parts split off one listing share its other annotations.
    others = {id(selection.pictures): selection.others for selection in moved}
    return People(
        canvas=canvas,
        pictures=tuple(pictures),
        ids=ids[order],
        persons=join(*(selection.persons for selection in moved)).take(order),
        others=join(*others.values()),
        bare=moved[-1].bare,
        boxes="detector" if moved[-1].detected else "gt",
        view_options=dict(options.views),
    )


def _fingerprint(sources: Sequence[PersonSource], canvas: Canvas, options: PersonOptions) -> str:
    total = hashlib.sha256(f"people {canvas} padding={options.padding} {sources[0].skeleton.plain()}".encode())
    named = [(name, listing) for source in sources for name, listing in source.parts.items()]
    for name, listing in named:
        there = sorted({picture.file for picture in listing.pictures})
        if isinstance(listing.store, Files):
            names = listing.store.names()
            there = [file for file in there if file in names]
        total.update(f"|{name} {listing.digest} {listing.store.digest(there)}".encode())
        if isinstance(listing.store, Files) and listing.store.turned:
            total.update(f"turned {sorted(listing.store.turned)}".encode())
        if listing.detected is not None:
            total.update(listing.detected.box.tobytes() + listing.detected.score.tobytes())
    return total.hexdigest()
