"""dist: the student's probabilities should correlate with the mentor's, within each sample and within each class.

System   "Knowledge Distillation from A Stronger Teacher", Huang et al., NeurIPS 2022, arXiv 2205.10536; code
         image_classification_sota
Rule     L = supervised_weight · CE
           + weight · mean_m T² [beta · (1 − mean_b ρ of rows) + gamma · (1 − mean_c ρ of columns)]
         ρ Pearson's correlation of softmax(z_s / T) with softmax(z_m / T): a row is a sample's classes, a column a
         class over the batch
Pose     a row is one joint of one sample, a column one bin (cell) over all joints of the batch
Shapes   D (M,): it lives on the batch, of all ranks; a mentor's weights are averaged over their samples
Defaults beta 1, gamma 1, weight 2, supervised_weight 1 (its code: CIFAR-100), T 1 (its code: ImageNet). The code's T 4
         is for resnet32x4 -> resnet8x4 and the like: the term goes with T², and at 4 pulls a small student 70 times as
         hard as the labels at the start (resnet8; 3 at T 1)
Matched  ``strength: matched``: weight 1, supervised_weight 1
Deviates the paper has one mentor: here the mean over those chosen. Samples on which a mentor does not count are left
         out of its rows and columns. Logits less than 0.001 apart are as steep as 0.001 (the code: without bound)
Version  2: that bound; 3: T 1 (4 before)
Cost     the student's step and a forward for each mentor asked; under several processes the logits are exchanged
Hurts    columns need a batch: with one sample they say nothing. A student that gives all classes the same probability
         has no direction to correlate, and a steep gradient, though a bounded one
"""

from __future__ import annotations

from typing import Any, ClassVar

from classroomkd.methods.weighted import Mentor, NonNegative, Positive, Weighted

__all__ = ["DIST"]


class DIST(Weighted):
    """Distillation by correlation; see the data sheet.

    Args:
        beta: factor of the rows.
        gamma: factor of the columns.
        temperature: T > 0.
        weight: factor of both.
        supervised_weight: factor of the student's own loss.
        mentor: ``all`` (their mean), ``best``, a name, or a position.
    """

    matched: ClassVar[dict[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}

    def __init__(
        self,
        *,
        beta: NonNegative = 1.0,
        gamma: NonNegative = 1.0,
        temperature: Positive = 1.0,
        weight: NonNegative = 2.0,
        supervised_weight: NonNegative = 1.0,
        mentor: Mentor = "all",
    ) -> None:
        super().__init__(
            divergence={"name": "dist", "beta": beta, "gamma": gamma},
            temperature=temperature,
            weight=weight,
            supervised_weight=supervised_weight,
        )
        self.mentor = mentor
