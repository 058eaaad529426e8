"""What is known of a mentor that is ready to teach."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["MentorRecord"]


@dataclass(frozen=True)
class MentorRecord:
    """A mentor that is ready to teach; plain data, so that worker processes can pass it on."""

    name: str
    model: str
    weights: str  # path of its checkpoint; empty for a module handed in from Python
    mean: list[float] | None
    std: list[float] | None
    size: list[int] | None
    accuracy: float
    val_accuracy: float
    per_class: list[float | None]
    parameters: int
    multiply_adds: int
    samples: int | None
    note: str
    seconds: float
    val_logits: str  # path of its logits on the validation part, (N, C) float32
    answers: dict[str, str]  # by kind (logits, taps), folder of its stored answers; empty without a bank
    forwards: int  # samples it answered to fill them ahead; 0 when they were there
    answer_seconds: float  # what filling them took, whoever did it
    fingerprint: str = ""  # of its tensors and its code

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
