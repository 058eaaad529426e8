"""What the recipe's ``bank`` says: ``auto``, ``off``, ``exact`` or ``views=V``; the last two also with ``,top=K``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["PATTERN", "BankSpec"]

PATTERN = r"^(auto|off|(exact|views=[1-9][0-9]*)(,top=[1-9][0-9]*)?)$"


@dataclass(frozen=True)
class BankSpec:
    """Which answers of the mentors are stored.

    Attributes:
        kind: ``auto`` chooses; ``off`` asks the mentors in every step; ``exact`` keeps what they say to any view of a
            finite space; ``views`` shows every sample in ``views`` fixed views.
        views: V of ``views``.
        top: how many logits of a sample are kept; None = all.
    """

    kind: Literal["auto", "off", "exact", "views"]
    views: int | None = None
    top: int | None = None

    @classmethod
    def parse(cls, text: str) -> BankSpec:
        """From a text of the pattern that the recipe's schema checks."""
        match = re.fullmatch(r"(auto|off|exact|views)(?:=(\d+))?(?:,top=(\d+))?", text)
        assert match is not None, text
        kind, views, top = match.groups()
        return cls(kind, int(views) if views else None, int(top) if top else None)  # type: ignore[arg-type]

    def __str__(self) -> str:
        views = f"={self.views}" if self.kind == "views" else ""
        return f"{self.kind}{views}" + (f",top={self.top}" if self.top else "")
