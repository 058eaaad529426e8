"""From what the user said about images to an ``ImageSet``: open, check, split, limit, measure.

Order of work: open the source(s); give every image its id; split off test where the source has none; take the
``shard`` of what is left for training, then the stratified ``limit``; split off val where the source has none; take
``test_limit``; measure mean and standard deviation on what is left for training. A part of the source's own, test or
val, is the same for every shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from classroomkd.data import split
from classroomkd.data.fitting import dim_note, fitting_notes, untouched
from classroomkd.data.images import ImageSet, Part
from classroomkd.data.sources.base import Raw, Request, Source
from classroomkd.data.sources.dataset_names import by_name, given_names
from classroomkd.data.sources.python import dataset_source, from_returned
from classroomkd.data.sources.table import open_source
from classroomkd.data.spec import PARTS, RESIZE, DataSettings, parse, refuse_shard
from classroomkd.data.statistics import mean_std
from classroomkd.data.subsets import compact, strata
from classroomkd.data.targets import CLASS
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
    request = _request(wanted, trust_code, reads, task)
    if wanted.source is not None or (wanted.val is None and wanted.test is None):
        opened = _open(wanted.source if wanted.source is not None else wanted.train, request)
        if isinstance(opened, Source):
            return _assemble(_named(opened, wanted), wanted)
        refuse_shard(wanted.shard)
        return opened
    return _assemble(_named(_together(wanted, request), wanted), wanted)


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
    return _assemble(dataset_source(parts, request, name=name, classes=names), wanted)


def _request(wanted: DataSettings, trust_code: bool = False, reads: str = "classes", task: str = "") -> Request:
    resize = wanted.resize or RESIZE[0]
    return Request(_side(wanted), wanted.options, wanted.unreadable, trust_code, reads, task, resize, wanted.classes)


def _side(wanted: DataSettings) -> int | None:
    if isinstance(wanted.size, tuple):
        raise UserError(f"data.size: {list(wanted.size)} is for pose; whole images are square, give one number")
    return wanted.size


def _open(source: Any, request: Request) -> Source | ImageSet:
    if isinstance(source, str):
        opened: Source | ImageSet = open_source(source, request)
        return opened
    return from_returned(source, request, "data")


def _together(wanted: DataSettings, request: Request) -> Source:
    """One source out of several: each part from its own."""
    given = {part: getattr(wanted, part) for part in PARTS if getattr(wanted, part) is not None}
    if not any(isinstance(value, str) for value in given.values()):
        classes = given_names(request.classes, "data")
        return dataset_source(given, request, name=type(given["train"]).__name__, classes=classes)
    opened: dict[str, Source] = {}
    for part, value in given.items():
        source = _open(value, request)
        if not isinstance(source, Source):
            raise UserError(f"data.{part}: a factory that returns a whole ImageSet cannot be one part; use data.source")
        opened[part] = source
    train = opened["train"]
    parts: dict[str, Raw] = {}
    for part, source in opened.items():
        if sorted(source.classes) != sorted(train.classes):
            raise UserError(
                f"data.{part}: {_difference(train.classes, source.classes)}. Both must have the same classes"
            )
        raw = source.parts.get(part) or source.parts.get("all") or source.parts["train"]
        parts[part] = _in_order(raw, source.classes, train.classes, f"data.{part}")
        if parts[part].pixels.shape != parts["train"].pixels.shape:
            raise UserError(
                f"data.{part}: images are {_shape(parts[part])}, those of data.train are {_shape(parts['train'])};"
                " set data.size to one size for both"
            )
    # `train: cifar100:DIR, val: …` still tests on CIFAR's own test part.
    for part in ("val", "test"):
        if part not in parts and part in train.parts:
            parts[part] = train.parts[part]
    names = [source.name for source in opened.values()]
    name = train.name if len(set(names)) == 1 else " + ".join(names)
    whole = hashlib.sha256(" ".join(f"{part}={source.fingerprint}" for part, source in opened.items()).encode())
    notes = tuple(dict.fromkeys(note for source in opened.values() for note in source.notes))
    return Source(name, train.classes, parts, train.views, whole.hexdigest(), notes)


def _shape(raw: Raw) -> str:
    return "x".join(str(side) for side in raw.pixels.shape)


def _difference(train: tuple[str, ...], other: tuple[str, ...]) -> str:
    extra = [name for name in other if name not in train]
    absent = [name for name in train if name not in other]
    if extra:
        return f"class '{extra[0]}' is not among the {len(train)} classes of data.train" + _more(extra)
    return f"class '{absent[0]}' of data.train is missing" + _more(absent)


def _in_order(raw: Raw, own: tuple[str, ...], names: tuple[str, ...], where: str) -> Raw:
    """The part with targets that count through ``names``, which are its ``own`` in another order."""
    if raw.kind != CLASS or own == names:
        return raw
    return replace(raw, target=by_name(raw.target, own, names, where))


def _named(source: Source, wanted: DataSettings) -> Source:
    """The source with the names of classes that the user gave: its own in another order, or new ones."""
    names = given_names(wanted.classes, "data.classes")
    if names is None or names == source.classes:
        return source
    if len(names) != len(source.classes):
        raise UserError(f"data.classes: {len(names)} names for {len(source.classes)} classes of '{source.name}'")
    if sorted(names) != sorted(source.classes):
        return replace(source, classes=names)
    parts = {part: _in_order(raw, source.classes, names, f"data.{part}") for part, raw in source.parts.items()}
    mark = hashlib.sha256(f"{source.fingerprint} in the order {'|'.join(names)}".encode()).hexdigest()
    return replace(source, classes=names, parts=parts, fingerprint=mark)


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _parts_with_ids(source: Source) -> dict[str, Part]:
    """Ids count through train, val and test in that order, over every image the source lists."""
    parts, start = {}, 0
    for name in ("all", *PARTS):
        raw = source.parts.get(name)
        if raw is not None:
            parts[name] = Part(raw.pixels, raw.target, raw.places + start, torch.arange(len(raw.target)), raw.kind)
            start += raw.total
    return parts


def _names(source: Source) -> dict[int, str]:
    """The names of images by their ids, where they have some."""
    names: dict[int, str] = {}
    start = 0
    for raw in (source.parts[part] for part in ("all", *PARTS) if part in source.parts):
        names.update(enumerate(raw.names, start))
        start += raw.total
    return names


def _limited(part: Part, limit: int | None, purpose: str, *, seed: int, classes: int) -> Part:
    if limit is None or limit >= len(part):
        return part
    if limit < classes:
        raise UserError(f"data.{purpose}: {limit} images cannot cover {classes} classes; give at least {classes}")
    target, ids = strata(part)
    keep = split.stratified(target, ids, limit, seed=seed, purpose=purpose, classes=classes)
    return part.subset(torch.from_numpy(keep))


def _sharded(part: Part, number: int, shards: int, *, seed: int, classes: tuple[str, ...]) -> Part:
    target, ids = strata(part)
    by_class = part.target_kind == CLASS
    counts = np.bincount(target, minlength=len(classes) if by_class else 1)
    fewest = int(counts.argmin())
    if counts[fewest] < shards:
        each = f" of every class; '{classes[fewest]}' has" if by_class else "; there are"
        raise UserError(
            f"data.shard: {shards} shards need {shards} training images{each} {counts[fewest]}. Give fewer shards, or"
            " add images"
        )
    return part.subset(torch.from_numpy(split.shard(target, ids, number, shards, seed=seed)))


def _split_off(part: Part, fraction: float, purpose: str, *, seed: int, classes: int) -> tuple[Part, Part]:
    """(what stays, what is split off): ``fraction`` of every class."""
    target, ids = strata(part)
    counts = split.counts_for_fraction(np.bincount(target, minlength=classes).astype(np.int64), fraction)
    away = split.take(target, ids, counts, seed=seed, purpose=purpose)
    stays = np.setdiff1d(np.arange(len(part)), away)
    return part.subset(torch.from_numpy(stays)), part.subset(torch.from_numpy(away))


def _assemble(source: Source, wanted: DataSettings) -> ImageSet:
    parts, resize = _parts_with_ids(source), wanted.resize or RESIZE[0]
    resized = not all(untouched(raw) for raw in source.parts.values())
    notes = [*source.notes, *fitting_notes(source.parts.values(), resize)]
    train = parts["all"] if "all" in parts else parts["train"]
    classes = len(source.classes) if train.target_kind == CLASS else 1  # to stratify by
    trained = wanted.splits(parts)
    if train.target_kind == CLASS and trained:
        if classes < 2:
            raise UserError(f"data: '{source.name}' has {classes} class; a classifier needs at least two")
        _check_class_sizes(train, source.classes, splits="all" in parts or "test" not in parts, notes=notes)
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
    train, val, test = compact(*chosen.values())
    if (dim := dim_note({"train": train, "val": val, "test": test}, _names(source))) is not None:
        notes.append(dim)
    mean, std, measured = mean_std(train)
    if measured < len(train):
        notes.append(f"mean and standard deviation were measured on {measured} of {len(train)} training images")
    return ImageSet(
        name=source.name, classes=source.classes, train=train, val=val, test=test, mean=mean, std=std,
        views=wanted.views or source.views, fingerprint=_fingerprint(source, resize, resized),
        notes=tuple(notes), resize=resize, resized=resized,
    )  # fmt: skip


def _fingerprint(source: Source, resize: str, resized: bool) -> str:
    """The source's, and the rule where another one than ``pad`` made other pixels.

    ``pad`` is what it was before there was a choice, and pictures that had their size are the same under every rule:
    what was stored of them stays of use.
    """
    if resize == "pad" or not resized:
        return source.fingerprint
    return hashlib.sha256(f"{source.fingerprint} resize={resize}".encode()).hexdigest()


def _check_class_sizes(train: Part, classes: tuple[str, ...], *, splits: bool, notes: list[str]) -> None:
    """An error for classes that cannot be split, a note for those too small to judge."""
    counts = torch.bincount(train.target, minlength=len(classes)).tolist()
    sizes: Mapping[str, int] = dict(zip(classes, counts, strict=True))
    least = 2 if splits else 1
    hopeless = [f"'{name}' ({count})" for name, count in sizes.items() if count < least]
    if hopeless:
        raise UserError(
            f"data: every class needs at least {least} training image{'s' if least > 1 else ''}"
            f"{' to be split' if splits else ''}; too few in {', '.join(hopeless[:8])}{_more(hopeless[7:])}."
            " Add images or remove the class"
        )
    for least, below, sentence in (
        (0, 5, "will hardly be learned, and scores on them mean little"),
        (5, 10, "are small: scores on them are uncertain"),
    ):
        tiny = [f"{name} ({count})" for name, count in sizes.items() if least <= count < below]
        if tiny:
            notes.append(f"classes with fewer than {below} images {sentence}: {', '.join(tiny[:8])}{_more(tiny[7:])}")
