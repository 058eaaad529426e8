"""ebkd: mentors that are sure of their answer count more, right or wrong.

System   EBKD, "Adaptive Knowledge Distillation Based on Entropy", Kwon, Na, Lee, Kim, ICASSP 2020; as released with
         CA-MKD (Rorozhl/CA-MKD at c2f39a9)
Rule     L = supervised_weight · CE + weight · mean_b Σ_m w_m D_m,   w_m = (1 − H_m / Σ_k H_k) / (M − 1)
         H_m the entropy of mentor m's answer at temperature 1, per sample
Shapes   w (M, B, U), sums to 1 over M; D (M, B, U), T² included
Rules    paper      as above
         reference  times (M − 1) / M: the code divides by M where the weights sum to M − 1
Defaults T 4 (pose: 1), weight 1, supervised_weight 1 (CA-MKD's loop)
Deviates a probability of 0 has entropy 0 (the code: NaN); one mentor counts 1; the paper's text was not available, rule
         paper is the code without its scale factor
Cost     the student's step and M forwards
Hurts    sure is not right: an over-confident mentor wins everywhere; on training data all are sure, and w is near 1/M
"""

from __future__ import annotations

from typing import Literal

from classroomkd.methods.pieces import DivergenceOption
from classroomkd.methods.weighted import NonNegative, Positive, Weighted

__all__ = ["EBKD"]


class EBKD(Weighted):
    """Entropy-based distillation; see the data sheet.

    Args:
        rule: ``paper`` or ``reference``.
        temperature: T > 0, of the divergence; the entropies are at 1.
        weight: factor of the distilled term.
        supervised_weight: factor of the student's own loss.
        divergence: see ``weighted``.
    """

    def __init__(
        self,
        *,
        rule: Literal["paper", "reference"] = "paper",
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        divergence: DivergenceOption = "kl",
    ) -> None:
        super().__init__(
            weighting="entropy",
            divergence=divergence,
            temperature=temperature,
            weight=weight,
            supervised_weight=supervised_weight,
        )
        self.released = rule == "reference"

    def factor(self, mentors: int) -> float:
        """See the base: the released code's scale; its loop averages where there is one mentor."""
        return (mentors - 1) / mentors if self.released and mentors > 1 else 1.0
