"""The same picture twice in a folder: under two classes, or in two parts, where it spoils labels and scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from classroomkd.data.sources.walking import shown

__all__ = ["Copies"]

File = tuple[str, str, int]  # part, name, class


class Copies:
    """Files whose content, as far as it is read, is that of an earlier one."""

    def __init__(self) -> None:
        self._first: dict[bytes, File] = {}
        self._pairs: dict[str, list[tuple[str, str]]] = {"classes": [], "parts": [], "part": []}

    def look(self, part: str, name: str, label: int, length: int, content: bytes) -> None:
        """Take the next file into account; one of which nothing was read has no copies."""
        if not content:
            return
        digest = hashlib.sha256(length.to_bytes(8, "little") + content).digest()
        earlier = self._first.setdefault(digest, (part, name, label))
        if earlier == (part, name, label):
            return
        kind = "classes" if earlier[2] != label else "parts" if earlier[0] != part else "part"
        self._pairs[kind].append((earlier[1], name))

    def notes(self) -> Iterator[str]:
        """Sentences with how many there are, and the first."""
        for kind, sentence in (
            ("classes", "are the same file in another class: one of the two labels is wrong"),
            ("parts", "are the same file in another part: scores on it are too good"),
            ("part", "are the same file twice: where the split parts them, scores are too good"),
        ):
            if pairs := self._pairs[kind]:
                one, two = (shown(name) for name in pairs[0])
                count = "1 image is" if len(pairs) == 1 else f"{len(pairs)} images are"
                yield f"{count} {sentence.removeprefix('are ')} (e.g. {one} and {two})"
