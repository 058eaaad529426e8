"""What a score is: its name in the field, its unit, and whether more of it is better."""

from __future__ import annotations

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
