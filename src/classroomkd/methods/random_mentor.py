"""random: one mentor drawn anew for every sample and step; what any choice of mentors must beat.

System   the usual control of multi-teacher papers (AMTML-KD's "random teacher" draws the first one always: a bug)
Rule     L = supervised_weight · CE + weight · mean_b D_{m(b)},   m(b) uniform over the mentors that count on the sample
Shapes   the record is one-hot over M, (M, B, U); D (M, B, U), T² included
Defaults T 4 (pose: 1), weight 1, supervised_weight 1, seed 0
Draws    a hash of (seed, sample id, step): the same after a resume, on any number of ranks, in any batch; without ids
         in a loop of your own, of the place in the batch
Cost     the student's step and M forwards: everyone is asked, since the batch needs all
Hurts    the expected gradient is that of ``average``, with more noise; bad mentors are drawn as often as good ones
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from classroomkd.methods.pieces import DivergenceOption
from classroomkd.methods.weighted import NonNegative, Positive, Weighted

__all__ = ["RandomMentor"]


class RandomMentor(Weighted):
    """One mentor at random; see the data sheet.

    Args:
        seed: of the draws; another one gives other draws with the same batches.
        temperature: T > 0.
        weight: factor of the distilled term.
        supervised_weight: factor of the student's own loss.
        divergence: see ``weighted``.
    """

    def __init__(
        self,
        *,
        seed: Annotated[int, Field(ge=0)] = 0,
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        divergence: DivergenceOption = "kl",
    ) -> None:
        super().__init__(
            weighting={"name": "random", "seed": seed},
            divergence=divergence,
            temperature=temperature,
            weight=weight,
            supervised_weight=supervised_weight,
        )
