"""mmkd: two small nets, trained by what they do to the student, weight the mentors' logits and features.

System   Zhang, Chen, Wang, "Adaptive Multi-Teacher Knowledge Distillation with Meta-Learning" (MMKD), ICME 2023,
         arXiv 2306.06634
Rule     L = supervised_weight · CE + weight · L_KD + feature_weight · L_F;  L_KD = mean_b Σ_k w_k T² KL_k,
         L_F = mean_b Σ_k v_k mean (r_k(F_s) − F_k)²;  w = softmax net_w(logits), v = softmax net_v(features), constant.
         Every meta_every steps, on a buffer of the student's mistakes: virtual_steps SGD steps on weight · L_KD +
         feature_weight · L_F, one on CE; the gradient of CE after them with respect to the nets goes to Adam on φ. A
         ``schedule`` multiplies the mentors' terms in the virtual steps too; at factor 0 no meta step is taken
  paper      corrected: the exact gradient (heavy ball, Nesterov, decay); CE after the steps is on other samples than
             the steps are; net_w sees standardised logits, net_v similarities free of scale, batch size and order, both
             of the student before the virtual steps; running statistics stay
  reference  the released code, where it runs: raw logits; rows of raw Gram matrices, so that the first batch fixes the
             size (v = 0 on others; the release skips them); the heavy-ball adjoint always; the same samples throughout;
             CE + L_KD + feature_weight · L_F in the real step; maps compared at the smaller of both sizes; the running
             statistics see the meta samples once
Shapes   z_k (K, B, C), z_s (B, C), F (B, channels, H, W); w (K, B, U), v (K, B); net_w C(K+1) → half → K; net_v
         3K+2 → 32 → K, or B(K+1) → half → K. φ: both nets, θ: student and projectors r_k
Defaults T 4, weight 1, feature_weight 100, meta_every 5, Adam 1e-3, decay 1e-4, buffer 256, 2 virtual steps (release)
Deviates steps are counted over epochs (release: each epoch's first, every fifth, its last); the buffer ends exactly
         full (release: without bound where B does not divide 256) and keeps the mentors' answers, so that no mentor
         runs in a meta step; ``projector`` acts (release: its flag does not); a meta gradient that is not finite is
         dropped; one mentor: weights 1, no nets, no meta steps
Version  2: the schedule acts in virtual steps (1: it did not)
Cost     K forwards, K projectors; each meta step about 7 forwards and 10 backwards of the student.
         Buffer, in memory, on every rank and in checkpoints: 54 MB for three resnet32x4 at 32 x 32
Pose     T 1, feature_weight 0: at 100 the hints' gradient is 17 to 27 times the labels'. One net_w for all joints, as
         wide as their bins: 6 million numbers with three mentors at 256 x 192 (SimCC), 75 million with heatmaps; built
         at the first step. A joint is a mistake when its OKS is below 1/2
Hurts    SGD only. feature_weight 100 is much: a user of the release got 10 points below the student alone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from classroomkd.classroom import ClassInfo, Lesson, StepContext
from classroomkd.methods.pieces.hints import Projector
from classroomkd.methods.pieces.meta_step import MetaTraining, Seen
from classroomkd.methods.pieces.meta_weights import FeatureWeights, LogitWeights, at_smaller_size, hint_distance
from classroomkd.methods.pieces.sharing import idle_features
from classroomkd.methods.weighted import NonNegative, Positive, Tap, Weighted

__all__ = ["MMKD"]

Count = Annotated[int, Field(ge=1)]


class MMKD(Weighted):
    """MMKD; see the data sheet.

    Args:
        rule: ``paper`` (corrected) or ``reference`` (the released code).
        temperature: T > 0.
        weight: α, factor of the distilled term; with ``reference`` in the virtual steps alone.
        feature_weight: β, factor of the features' term; 0 = logits only, and no maps are read.
        supervised_weight: factor of the student's own loss in the real step; with ``reference`` 1.
        meta_every: steps from one meta step to the next.
        meta_lr, meta_weight_decay: of Adam on the weight nets.
        buffer: samples kept.
        virtual_steps: on the mentors' terms, before the one on the student's own loss.
        tap: where features are read.
        projector: from the student's features to a mentor's.
    """

    without_labels = "learns from labels how much mentors count, and teaches all pictures by it"
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"temperature": 1.0, "feature_weight": 0.0}}

    def __init__(
        self,
        *,
        rule: Literal["paper", "reference"] = "paper",
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        feature_weight: NonNegative = 100.0,
        supervised_weight: NonNegative = 1.0,
        meta_every: Count = 5,
        meta_lr: Positive = 1e-3,
        meta_weight_decay: NonNegative = 1e-4,
        buffer: Annotated[int, Field(ge=2)] = 256,
        virtual_steps: Count = 2,
        tap: Tap = "@stage:-1",
        projector: Projector = "conv",
    ) -> None:
        super().__init__(temperature=temperature, weight=weight, supervised_weight=supervised_weight)
        self.paper, self.alpha, self.beta = rule == "paper", weight, feature_weight
        if not self.paper:
            self.coefficients |= {"supervised": 1.0, "distilled": 1.0}
        self.weighting: LogitWeights = LogitWeights(standardised=self.paper)
        self.teach_features(feature_weight, tap, projector)
        self.needs = replace(self.needs, sgd=True, distributions=True, whole_batch=feature_weight > 0, truth=True)
        self.features = FeatureWeights(tap, summarised=self.paper) if feature_weight > 0 else None
        self.order_matters, self.period = True, meta_every
        read = None if self.features is None else tap
        self.meta = MetaTraining(read, meta_every, buffer, meta_lr, meta_weight_decay, virtual_steps, self.paper)

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base: how features are read, when they are not; the real step's factor that the release ignores."""
        idle = []
        if options.get("rule") == "reference" and options.get("supervised_weight", 1) != 1:
            idle.append("supervised_weight acts only with rule: paper")
        if options.get("feature_weight", 100) == 0:
            idle += idle_features(options, {"tap": "@stage:-1", "projector": "conv"}, "feature_weight above 0")
        return idle

    def setup(self, info: ClassInfo) -> None:
        """Build projectors and nets, where shapes are known."""
        if not self.paper:
            info = at_smaller_size(info)
        super().setup(info)
        if self.features is not None:
            self.features.setup(info)

    def meta_parameters(self) -> list[nn.Parameter]:
        """φ; a net whose width only a batch tells comes with the first lesson."""
        return [*self.weighting.parameters(), *([] if self.features is None else self.features.parameters())]

    def more(self, lesson: Lesson, known_MBU: Tensor) -> dict[str, Tensor]:
        """The features' term, with constant weights."""
        if self.features is None or self.hints is None:
            return {}
        with torch.no_grad():
            weight = self.features.weigh(self.features.see(lesson), known_MBU.any(-1))
        return {"hints": hint_distance(self.hints, lesson, known_MBU, weight)}

    def see(self, lesson: Lesson) -> Seen:
        """What the nets are shown of a lesson."""
        answers, _ = self.heard(lesson, self.units(lesson))
        return self.weighting.see(lesson, answers), None if self.features is None else self.features.see(lesson)

    def matching(self, lesson: Lesson, seen: Seen) -> Tensor:
        """α L_KD + β L_F times the schedule's factor, as in the real step, with a gradient to φ."""
        units = self.units(lesson)
        answers, known = self.heard(lesson, units)
        far = self.divergence(lesson, lesson.student.prediction, answers, known).where(known, 0.0)
        loss = self.alpha * self.mean(self.weighting.weigh(seen[0], known), far, units, lesson)
        if self.features is not None and self.hints is not None and seen[1] is not None:
            weight = self.features.weigh(seen[1], known.any(-1))
            loss = loss + self.beta * hint_distance(self.hints, lesson, known, weight)
        return self.factor_of(lesson) * loss

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """Feed the buffer; every few steps train φ, while mentors teach: at factor 0 there is nothing to learn from."""
        if self.mentors > 1 and (size := self.meta.remember(lesson)) and self.factor_of(lesson) > 0:
            self.meta.learn(context, lesson, size, self.meta_parameters(), self.see, self.matching)

    def get_extra_state(self) -> dict[str, Any]:
        """What the meta steps need beside φ, for a checkpoint."""
        return self.meta.state()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self.meta.load(state)
