"""What a folder of the bank says about itself: which question its rows answer, and in which files they lie.

``manifest.json`` is replaced as a whole, never changed in place. Its key is a JSON mapping of everything the answers
depend on (mentor, weights, preprocessing, data, views, precision, place in the network). A key that differs in any
entry belongs to another store and is refused in a sentence that names the entry.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from classroomkd import __version__
from classroomkd._files import atomic_write_text
from classroomkd._stored import MAPPING, read_json
from classroomkd.errors import UserError

__all__ = ["MANIFEST", "SCHEMA", "Manifest", "Span", "differences", "digest", "nearest", "refuse", "store_folder"]

MANIFEST = "manifest.json"
SCHEMA = 1
MOST_ROWS = 2**44  # of a store; a billion images in ten thousand views
_ROWS, _SUMS = re.compile(r"rows-\d{5}\.bin"), re.compile(r"sums-\d{5}\.bin")

# What an entry of a key is called when it differs; others are called by their name.
_NOUNS = {
    "mentor": "another mentor",
    "weights": "other weights",
    "model": "another network",
    "preprocessing": "another preprocessing",
    "data": "other data",
    "part": "other samples",
    "shape": "another image size",
    "known": "other known classes",
    "views": "other views",
    "precision": "another precision",
    "place": "another place in the network",
    "stored": "another form",
    "software": "another version",
}
# The same of what stands beside the key.
_FIELDS = {
    "kind": "for another kind of answer",
    "views": "for another number of views",
    "samples": "for another number of samples",
    "codec": "in another form",
}


@dataclass(frozen=True)
class Span:
    """The files that hold the rows of positions ``first`` up to, not including, ``last``, in all views."""

    first: int
    last: int
    rows: str
    sums: str

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Manifest:
    """One store.

    Attributes:
        key: everything the answers depend on, as JSON.
        kind: ``logits`` or the tap.
        views: number of views V.
        samples: number of samples N of the student's training part; positions are 0..N-1.
        codec: definition of the codec, see :func:`classroomkd.bank.codec.codec`.
        parts: spans without overlap, in rising order; together they need not cover all positions.
        software: versions that made the store; shown, not compared.
        schema: version of the files' format.
    """

    key: Mapping[str, Any]
    kind: str
    views: int
    samples: int
    codec: str
    parts: tuple[Span, ...] = ()
    software: Mapping[str, str] | None = None
    schema: int = SCHEMA

    @property
    def salt(self) -> int:
        """An int64 made of the key and the kind; it goes into every checksum."""
        return int.from_bytes(bytes.fromhex(digest({"key": self.key, "kind": self.kind}))[:8], "little", signed=True)

    def check(self) -> None:
        """Raise ``ValueError`` where entries are of a wrong type or do not fit each other."""
        if not isinstance(self.key, Mapping) or not isinstance(self.kind, str) or not isinstance(self.codec, str):
            raise ValueError("its key, kind or codec is of a wrong type")
        if not isinstance(self.software, Mapping | None):
            raise ValueError("its software is of a wrong type")
        if not all(type(n) is int for n in (self.views, self.samples)) or self.views < 1 or self.samples < 0:
            raise ValueError(f"{self.views} views of {self.samples} samples")
        at = 0
        for span in self.parts:
            if not (type(span.first) is int and type(span.last) is int):
                raise ValueError(f"a part from {span.first!r} to {span.last!r}")
            if not at <= span.first < span.last <= self.samples:
                raise ValueError(f"a part from {span.first} to {span.last} of {self.samples} samples, after {at}")
            if not _ROWS.fullmatch(str(span.rows)) or not _SUMS.fullmatch(str(span.sums)):
                raise ValueError(f"files {span.rows!r} and {span.sums!r}")
            at = span.last
        if self.views * self.samples >= MOST_ROWS:
            raise ValueError(f"{self.views} views of {self.samples} samples")

    def write(self, folder: Path) -> None:
        """Make this the manifest of ``folder``; a reader sees the old or the new one."""
        software = self.software or {"classroomkd": __version__, "torch": str(torch.__version__)}
        atomic_write_text(folder / MANIFEST, json.dumps(asdict(replace(self, software=software)), indent=1))

    @staticmethod
    def read(folder: Path) -> Manifest:
        """The manifest of ``folder``.

        Raises:
            UserError: none there, not readable, or of another format.
        """
        path = folder / MANIFEST
        if not path.exists():
            raise UserError(f"bank: {folder} holds no store of answers (no {MANIFEST}); fill it first")
        content = read_json(path, MAPPING, remedy=f"mend it, or remove the folder {folder} of the bank")
        schema = content.get("schema")
        if schema != SCHEMA:
            raise UserError(
                f"bank {folder}: stored in another format ({schema} there, {SCHEMA} here); remove the folder, or use"
                " the version of classroomkd that made it"
            )
        try:
            manifest = Manifest(**{**content, "parts": tuple(Span(**span) for span in content["parts"])})
            manifest.check()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"bank: {path} is damaged ({error}); remove the folder {folder}") from error
        return manifest


def digest(key: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a key; equal content, equal digest."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def store_folder(root: Path, mentor: str, key: Mapping[str, Any], kind: str = "logits") -> Path:
    """``root/<mentor>-<digest16>``: where the store of this key and kind lives.

    A store that may exist in several forms (``Dense``, ``TopK``) has the codec's definition in its key.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", mentor).strip("._") or "mentor"
    return root / f"{name[:60]}-{digest({'key': key, 'kind': kind})[:16]}"


def nearest(mine: Manifest, folders: Iterable[Path]) -> tuple[Path, Manifest] | None:
    """Of the stores in ``folders``, the one of the same mentor and kind in which the fewest entries differ."""
    candidates = []
    for folder in folders:
        try:
            theirs = Manifest.read(folder)
        except UserError:
            continue  # it is not asked for
        if (theirs.key.get("mentor"), theirs.kind) == (mine.key.get("mentor"), mine.kind):
            candidates.append((folder, theirs))
    return min(candidates, key=lambda pair: len(_clauses(mine, pair[1])), default=None)


def differences(mine: Manifest, theirs: Manifest) -> str:
    """What sets ``theirs`` (stored) apart from ``mine`` (wanted), in one clause; empty when rows can be shared."""
    return ", ".join(_clauses(mine, theirs))


def _clauses(mine: Manifest, theirs: Manifest) -> list[str]:
    clauses = []
    for name, here, there in _unequal(*(json.loads(json.dumps(m.key)) for m in (mine, theirs))):  # tuples are lists
        top, _, rest = name.partition(".")
        noun = _NOUNS.get(top, f"another '{name}'") + (f" ({rest})" if rest and top in _NOUNS else "")
        if top == "weights" and mine.key.get("mentor") == theirs.key.get("mentor") is not None:
            noun += f" of mentor '{mine.key['mentor']}'"
        text_there, text_here = _shortened(there, here)
        clauses.append(f"for {noun} ({text_there} there, {text_here} here)")
    for name, what in _FIELDS.items():
        here, there = getattr(mine, name), getattr(theirs, name)
        if here != there:
            clauses.append(f"{what} ({there} there, {here} here)")
    return clauses


def refuse(folder: Path, mine: Manifest, theirs: Manifest) -> None:
    """Raise ``UserError`` unless the store ``theirs`` in ``folder`` holds the answers that ``mine`` asks for."""
    if clauses := differences(mine, theirs):
        raise UserError(f"bank {folder}: stored {clauses}; remove this folder or give another cache=")


_ABSENT = object()


def _unequal(here: Any, there: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value here, value there of every entry that differs."""
    if isinstance(here, dict) and isinstance(there, dict):
        for part in sorted({*here, *there}):
            yield from _unequal(here.get(part, _ABSENT), there.get(part, _ABSENT), f"{name}.{part}" if name else part)
    elif here is _ABSENT or there is _ABSENT or here != there:
        yield name, here, there


def _shortened(*values: Any) -> Sequence[str]:
    """Values short enough for a sentence; where they are cut, the place at which they differ is seen."""
    texts = ["nothing" if v is _ABSENT else v if isinstance(v, str) else json.dumps(v) for v in values]
    if all(re.fullmatch(r"[0-9a-f]{12,}", text) for text in texts):
        short = [text[:8] + "…" for text in texts]
        return short if len(set(short)) == len(short) else texts
    if max(map(len, texts)) <= 60:
        return texts
    same = next((i for i, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1), 0)
    start = max(same - 15, 0)
    return [
        ("…" if start else "") + text[start : start + 45] + ("…" if len(text) > start + 45 else "") for text in texts
    ]
