"""From what the user said about images to an ``ImageSet``: open, check, split, limit, measure.

Order of work: open the source(s); give every image its id; split off test where the source has none; take the
``shard`` of what is left for training, then the stratified ``limit``; split off val where the source has none; take
``test_limit``; measure mean and standard deviation on what is left for training. A part of the source's own, test or
val, is the same for every shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from classroomkd.data import split
from classroomkd.data.class_sizes import check_class_sizes
from classroomkd.data.fitting import dim_note, fitting_notes, untouched
from classroomkd.data.images import ImageSet, Part
from classroomkd.data.joined import joined
from classroomkd.data.label_file import with_labels
from classroomkd.data.labels import hide_labels, labels_note, to_score
from classroomkd.data.meeting import named, one_source
from classroomkd.data.near_copies import copies_notes
from classroomkd.data.sources.base import Raw, Request, Source
from classroomkd.data.sources.dataset_names import given_names
from classroomkd.data.sources.pictures import Pictures
from classroomkd.data.sources.python import dataset_source, from_returned
from classroomkd.data.sources.table import open_source
from classroomkd.data.spec import PARTS, RESIZE, DataSettings, parse, refuse_labels, refuse_parts
from classroomkd.data.statistics import mean_std
from classroomkd.data.subsets import class_counts, compact, strata
from classroomkd.data.targets import CLASS
from classroomkd.data.unlabelled import Extra, open_extra, options_of, refuse_twice
from classroomkd.errors import UserError

__all__ = ["from_dataset", "load_images"]


def load_images(wanted: DataSettings, *, trust_code: bool = False, task: str = "", reads: str = "classes") -> ImageSet:
    """Whole images with a class each, or with targets that lie on the pixels; see :func:`classroomkd.data.load`.

    Args:
        wanted: what the user said about data.
        trust_code: whether ``py:`` sources may run.
        task: whom they are for, in messages.
        reads: what the source is to give: a key of its ``opens``.

    Raises:
        UserError: for anything wrong with the spec or the data, naming the place and the remedy.
    """
    refuse_twice(wanted)
    request = _request(wanted, trust_code, reads, task)
    if wanted.source is not None or (wanted.val is None and wanted.test is None):
        opened = _open(wanted.source if wanted.source is not None else wanted.train, request, wanted)
        if isinstance(opened, Source):
            return _assemble(named(_labelled(opened, wanted), wanted.classes), wanted, request)
        refuse_parts(vars(wanted))
        return opened
    return _assemble(named(_together(wanted, request), wanted.classes), wanted, request)


def from_dataset(
    train: Any,
    test: Any = None,
    *,
    val: Any = None,
    classes: Any = None,
    name: str = "dataset",
    **keys: Any,
) -> ImageSet:
    """An ``ImageSet`` from ``torch.utils.data.Dataset`` objects that give (image, label); ``keys`` as in ``load``.

    Images may be PIL images, ``uint8`` arrays or tensors, or float tensors within 0..1 (without Normalize and without
    random augmentation, which belong to ``views``). Without ``test`` (or ``val``) a stratified part is split off.
    """
    wanted = parse({"source": "dataset", **keys})
    request = _request(wanted)
    parts = {part: value for part, value in zip(PARTS, (train, val, test), strict=True) if value is not None}
    names = given_names(classes, "data")
    refuse_twice(replace(wanted, source=None, **parts))
    source = dataset_source(parts, request, name=name, classes=names)
    return _assemble(_labelled(source, wanted), wanted, request)


def _request(wanted: DataSettings, trust_code: bool = False, reads: str = "classes", task: str = "") -> Request:
    resize = wanted.resize or RESIZE[0]
    return Request(_side(wanted), wanted.options, wanted.unreadable, trust_code, reads, task, resize, wanted.classes)


def _side(wanted: DataSettings) -> int | None:
    if isinstance(wanted.size, tuple):
        raise UserError(f"data.size: {list(wanted.size)} is for pose; whole images are square, give one number")
    return wanted.size


def _open(source: Any, request: Request, wanted: DataSettings) -> Source | ImageSet:
    if wanted.unlabelled is not None:
        request = replace(request, options=options_of(source, wanted))
    if isinstance(source, str):
        opened: Source | ImageSet = open_source(source, request)
        return opened
    return from_returned(source, request, "data")


def _labelled(source: Source, wanted: DataSettings) -> Source:
    """The source, with the labels that a table gives its pictures."""
    file = wanted.label_file
    return source if file is None else with_labels(source, file, wanted.classes)


def _together(wanted: DataSettings, request: Request) -> Source:
    """One source out of several: each part from its own."""
    given = {part: getattr(wanted, part) for part in PARTS if getattr(wanted, part) is not None}
    if not any(isinstance(value, str) for value in given.values()):
        classes = given_names(request.classes, "data")
        return _labelled(dataset_source(given, request, name=type(given["train"]).__name__, classes=classes), wanted)
    opened: dict[str, Source] = {}
    for part, value in given.items():
        source = _open(value, request, wanted)
        if not isinstance(source, Source):
            raise UserError(f"data.{part}: a factory that returns a whole ImageSet cannot be one part; use data.source")
        opened[part] = source
    opened["train"] = _labelled(opened["train"], wanted)
    return one_source(opened)


def _parts_with_ids(source: Source) -> dict[str, Part]:
    """Ids count through train, val and test in that order, over every image the source lists."""
    parts, start = {}, 0
    for name in ("all", *PARTS):
        raw = source.parts.get(name)
        if raw is not None:
            parts[name] = Part(raw.pixels, raw.target, raw.places + start, torch.arange(len(raw.target)), raw.kind)
            start += raw.total
    return parts


def _files(raws: Iterable[Raw]) -> dict[int, tuple[Pictures, str]]:
    """Where images lie and what they are called there, by their ids: those that are files."""
    files: dict[int, tuple[Pictures, str]] = {}
    start = 0
    for raw in raws:
        if raw.pictures is not None:
            files.update((place, (raw.pictures, name)) for place, name in enumerate(raw.names, start))
        start += raw.total
    return files


def _unlabelled_names(train: Part, files: Mapping[int, tuple[Pictures, str]]) -> dict[int, str]:
    """What the files of samples without a label are called, by id: as in their folder, in full where it is not one."""
    lie = {sample: files[sample] for sample in train.ids[~train.labelled].tolist() if sample in files}
    one = len({id(pictures) for pictures, _ in lie.values()}) == 1
    return {sample: name if one else pictures.shown(name) for sample, (pictures, name) in lie.items()}


def _limited(part: Part, limit: int | None, purpose: str, *, seed: int, classes: int) -> Part:
    if limit is None or limit >= len(part):
        return part
    if limit < classes:
        raise UserError(f"data.{purpose}: {limit} images cannot cover {classes} classes; give at least {classes}")
    target, ids = strata(part, classes)
    keep = split.stratified(target, ids, limit, seed=seed, purpose=purpose, classes=classes)
    return part.subset(torch.from_numpy(keep))


def _sharded(part: Part, number: int, shards: int, *, seed: int, classes: tuple[str, ...]) -> Part:
    target, ids = strata(part, len(classes))
    counted = part.target_kind == CLASS and bool(part.labelled.any())
    sizes = dict(enumerate(class_counts(part, len(classes)))) if counted else {0: len(part)}
    if counted and not bool(part.labelled.all()):  # a class without a label needs none in a shard
        sizes = {label: size for label, size in sizes.items() if size}
    fewest = min(sizes, key=lambda label: sizes[label])
    if sizes[fewest] < shards:
        each = f" of every class; '{classes[fewest]}' has" if counted else "; there are"
        raise UserError(
            f"data.shard: {shards} shards need {shards} training images{each} {sizes[fewest]}. Give fewer shards, or"
            " add images"
        )
    return part.subset(torch.from_numpy(split.shard(target, ids, number, shards, seed=seed)))


def _split_off(part: Part, fraction: float, purpose: str, *, seed: int, classes: int) -> tuple[Part, Part]:
    """(what stays, what is split off): ``fraction`` of every class; nothing of what has no label, which no score could
    count, unless nothing has one."""
    target, ids = strata(part, classes)
    counts = split.counts_for_fraction(np.bincount(target, minlength=classes).astype(np.int64), fraction)
    if part.target_kind == CLASS and bool(part.labelled.any()):
        counts[classes:] = 0
    away = split.take(target, ids, counts, seed=seed, purpose=purpose)
    stays = np.setdiff1d(np.arange(len(part)), away)
    return part.subset(torch.from_numpy(stays)), part.subset(torch.from_numpy(away))


def _assemble(source: Source, wanted: DataSettings, request: Request | None = None) -> ImageSet:
    parts, resize = _parts_with_ids(source), wanted.resize or RESIZE[0]
    raws = [source.parts[part] for part in ("all", *PARTS) if part in source.parts]
    resized = not all(map(untouched, raws))
    notes = [*source.notes, *fitting_notes(raws, resize)]
    train = parts["all"] if "all" in parts else parts["train"]
    classes = len(source.classes) if train.target_kind == CLASS else 1  # to stratify by
    trained = wanted.splits(parts)
    if train.target_kind == CLASS and trained:
        splits = "all" in parts or "test" not in parts
        check_class_sizes(train, source.classes, source.name, splits=splits, notes=notes)
    elif train.target_kind != CLASS:
        refuse_labels(wanted, f"targets of the kind '{train.target_kind.name}'")
    seed = wanted.split_seed
    chosen = split.three_parts(
        parts,
        wanted,
        partial(_limited, seed=seed, classes=classes),
        partial(_split_off, seed=seed, classes=classes),
        partial(_sharded, seed=seed, classes=source.classes),
    )
    for name, part in (("training", "train"), ("validation", "val"), ("test", "test")):
        if len(chosen[part]) == 0 and trained:
            fewer = "" if wanted.shard is None else "take fewer shards (data.shard), "
            raise UserError(
                f"data: no image is left for the {name} part of '{source.name}'; {fewer}raise data.limit or add images"
            )
    train, val, test = chosen.values()
    if trained:
        val, test = to_score(val, "validation", notes), to_score(test, "test", notes)
    if trained and wanted.label_share is not None:
        train = hide_labels(train, wanted.label_share, seed=seed)
    if trained and source.classes and (some := labels_note(train)) is not None:
        notes.append(some)
    mark = _fingerprint(source.fingerprint, resize, resized)
    extra = _extra(wanted, request, train, raws) if trained and wanted.unlabelled is not None else None
    if extra is not None:
        raws += extra.raws
        more_resized = not all(map(untouched, extra.raws))
        mark = f"{mark} and without labels {_fingerprint(extra.fingerprint, resize, more_resized)}"
        mark, resized = hashlib.sha256(mark.encode()).hexdigest(), resized or more_resized
        notes += [*extra.notes, *fitting_notes(extra.raws, resize)]
        notes += copies_notes(joined(extra.parts), {"test": test, "validation": val}, _files(raws))
        train = joined([train, *extra.parts])
    train, val, test = compact(train, val, test)
    names = {sample: name for sample, (_, name) in _files(raws).items()}
    if (dim := dim_note({"train": train, "val": val, "test": test}, names)) is not None:
        notes.append(dim)
    mean, std, measured = mean_std(train)
    if measured < len(train):
        notes.append(f"mean and standard deviation were measured on {measured} of {len(train)} training images")
    return ImageSet(
        name=source.name, classes=source.classes, train=train, val=val, test=test, mean=mean, std=std,
        views=wanted.views or source.views, fingerprint=mark,
        notes=tuple(notes), resize=resize, resized=resized, names=_unlabelled_names(train, _files(raws)),
    )  # fmt: skip


def _extra(wanted: DataSettings, request: Request | None, train: Part, raws: Sequence[Raw]) -> Extra:
    """What ``data.unlabelled`` names, in the training images' shape, with the ids after all of ``raws``."""
    assert request is not None
    first = sum(raw.total for raw in raws)
    return open_extra(wanted, request, partial(_open, wanted=wanted), train.pixels.shape, first)


def _fingerprint(mark: str, resize: str, resized: bool) -> str:
    """The source's, and the rule where another one than ``pad`` made other pixels.

    ``pad`` is what it was before there was a choice, and pictures that had their size are the same under every rule:
    what was stored of them stays of use.
    """
    if resize == "pad" or not resized:
        return mark
    return hashlib.sha256(f"{mark} resize={resize}".encode()).hexdigest()
