"""What a score is: its name in the field, its unit, and whether more of it is better."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["FRACTION", "Metric"]

FRACTION = "fraction"


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        name: ``accuracy``, ``AP_gtbox``, ``mean IoU``, ``PSNR``.
        unit: ``fraction`` (in 0..1, shown in percent), or what stands behind the number: ``dB``, ``px``.
        higher_is_better: whether of two scores the larger one is the better.
    """

    name: str
    unit: str = FRACTION
    higher_is_better: bool = True

    @property
    def factor(self) -> float:
        """What a value is multiplied by to be shown."""
        return 100.0 if self.unit == FRACTION else 1.0

    @property
    def sign(self) -> str:
        """What stands behind a value that is shown: ``%``, ``dB``."""
        return "%" if self.unit == FRACTION else self.unit

    @property
    def difference_sign(self) -> str:
        """What stands behind a difference: percentage ``points``, ``dB``."""
        return "points" if self.unit == FRACTION else self.unit

    def rank(self, value: float) -> float:
        """A number that is larger for the better of two scores."""
        return value if self.higher_is_better else -value

    def text(self, value: float | None, decimals: int = 1) -> str:
        """``81.2%``, ``31.2 dB``; a dash where there was nobody to judge."""
        if value is None or not math.isfinite(value):
            return "–"
        return f"{self.factor * value:.{decimals}f}{'' if self.unit == FRACTION else ' '}{self.sign}"
