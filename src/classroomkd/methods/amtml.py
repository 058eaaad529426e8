"""amtml: latent representations of the mentors and the student's own feature give each sample its mixture of mentors.

System   Liu, Zhang, Wang, "Adaptive multi-teacher multi-level knowledge distillation" (AMTML-KD), Neurocomputing 415,
         2020, arXiv 2103.04062
Rule     s_k(b) = Σ_c β_c Θ_kc ω_c;  w = softmax_k s;  q(b) = Σ_k w_k softmax(z_k / T), the mixed target
  paper      L = CE + T² · mean_b KL(q ‖ p_s) + angle_weight · RKD-angle(p_s, q) + hint_weight · mean_j hint_j;
             β the student's pooled feature, detached, of unit variance, s over √c; hint_j = mean over samples and
             places of ‖norm(P_j norm(F_s)) − norm(F_k)‖² = 2 − 2 cos over channels, at the j-th tap, from mentor
             k = j mod K. Corrected: no released variant computes this
  reference  L = 0.3 · CE + 1.4 · T² · mean_{b,c} q log(q / p_s): the released notebook ``LR_adaptive_KD`` (α 0.7; the
             Hint notebook has the same line), β as it is, its gradient reaching the student through w and q
Shapes   β (B, c), Θ (K, c), ω (c); z (K, B, C); w (K, B, U); q, p_s (B, U, C) at temperature T; F (B, channels, H, W)
Defaults T 5 (pose: 1); paper: weights 1, taps the last three stages; reference: 0.3 and 1.4, no hints, no angle
Version  2: hints summed over channels (1: averaged, 0.0078 at 256 channels: inert)
Pose     ``reference`` divides by the bins: its divergence has 35 / bins of a batch mean's scale, 0.07 at 512
Stages   the release has two, 80 epochs of all and 200 with Θ and ω frozen (``adapter: frozen``); one is the default
Deviates both: the run's seed for Θ and ω. paper: the released hints are never trained; the flagship's penalty
         0.1 (‖ω‖² + ‖Θ‖²) makes every weight 1/K, here decay is the optimiser's
Defects  kept in reference: the divergence is divided by C too; sharp, arbitrary w, which the student can move its way
Cost     the student's step, K forwards, K·c + c numbers; hints: a 1x1 convolution a stage; angle: B³ numbers of memory
Hurts    w is pulled to the mentors whom the student can already follow, not to those who are right
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from classroomkd.classroom import ClassInfo, Lesson, Method, Needs, Terms
from classroomkd.errors import UserError
from classroomkd.functional import rkd_angle, wide
from classroomkd.methods.pieces.latent import Latent, hint_distance, mixture, mixture_kl
from classroomkd.methods.weighted import NonNegative, Positive, Weighted
from classroomkd.taps.adapters import adapter

__all__ = ["AMTML"]

FEATURE, TAPS = "@penultimate", ("@stage:-3", "@stage:-2", "@stage:-1")
_OWN = {  # weights that ``null`` stands for, by rule: supervised, distilled, angle, hints
    "paper": (1.0, 1.0, 1.0, 1.0),
    "reference": (0.3, 1.4, 0.0, 0.0),
}


class AMTML(Method):
    """AMTML-KD; see the data sheet.

    Args:
        rule: ``paper`` (corrected) or ``reference`` (the released notebook).
        temperature: T > 0.
        weight: factor of the mixed target's divergence; None = the rule's own, as for the three below.
        supervised_weight: factor of the student's own loss.
        angle_weight: factor of the angles between samples; 0 = none.
        hint_weight: factor of the hints; 0 = none, and no maps are read.
        taps: the student's and the mentors' places of the hints; the j-th is taught by mentor j mod K.
        adapter: Θ and ω are ``learned``, or ``frozen``, as an earlier stage left them.
    """

    order_matters = True
    without_labels = "learns its weights beside labels, and teaches all pictures by them"
    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "supervised_weight": 1.0}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"temperature": 1.0}}

    def __init__(
        self,
        *,
        rule: Literal["paper", "reference"] = "paper",
        temperature: Positive = 5.0,
        weight: NonNegative | None = None,
        supervised_weight: NonNegative | None = None,
        angle_weight: NonNegative | None = None,
        hint_weight: NonNegative | None = None,
        taps: Annotated[tuple[str, ...], Field(min_length=1)] = TAPS,
        adapter: Literal["learned", "frozen"] = "learned",
    ) -> None:
        super().__init__()
        given = (supervised_weight, weight, angle_weight, hint_weight)
        factors = [own if one is None else one for one, own in zip(given, _OWN[rule], strict=True)]
        self.rule, self.temperature = rule, temperature
        self.coefficients = dict(zip(("supervised", "distilled", "angle", "hints"), factors, strict=True))
        self.taps = taps if factors[3] > 0 else ()
        if FEATURE in self.taps or len(set(self.taps)) < len(self.taps):
            raise UserError(f"amtml: taps {list(self.taps)} must be different places of maps, such as @stage:-1")
        self.needs = Needs(
            features={FEATURE: "pooled", **dict.fromkeys(self.taps, "map")},
            distributions=True,
            whole_batch=factors[2] > 0,
            truth=True,
            learned=adapter == "frozen",
        )
        self.latent: Latent | None = None
        self.projectors = nn.ModuleList()

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base: taps without hints."""
        own = _OWN[options.get("rule", "paper")][3]
        hints = own if options.get("hint_weight") is None else options["hint_weight"]
        moved = tuple(options.get("taps", TAPS)) != TAPS
        return ["taps act only with hint_weight above 0"] if moved and hints == 0 else []

    def setup(self, info: ClassInfo) -> None:
        """Build Θ, ω and the hints' projectors, where shapes are known."""
        super().setup(info)
        if info.shapes is None:
            return
        places, paper = len(info.mentors), self.rule == "paper"
        self.latent = Latent(places, info.shapes.student[FEATURE][0], normalised=paper, detached=paper)
        self.latent.requires_grad_(not self.needs.learned)
        for j, tap in enumerate(self.taps):
            what = f"student and mentor '{info.mentors[j % places]}' at '{tap}'"
            own, theirs = info.shapes.student[tap], info.shapes.mentors[tap][j % places]
            self.projectors.append(adapter(own, theirs, "linear", what=what))

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised, distilled and, if asked, angle and hint terms."""
        assert lesson.mentors is not None
        assert self.latent is not None
        task, mask, reach = lesson.task, lesson.task.mask(lesson.target), lesson.task.distill_mask(lesson.target)
        answers, known = Weighted.heard(lesson, reach)
        weight = self.latent(lesson.student.features[FEATURE], known)
        own = lesson.mean(task.supervised(lesson.student.prediction, lesson.target), mask)
        values = {"supervised": own, "distilled": own.new_zeros(()), "angle": own.new_zeros(())}
        pairs = list(zip(task.distributions(lesson.student.prediction), task.distributions(answers), strict=True))
        for ours, theirs in pairs:
            mixed = mixture(theirs, weight, self.temperature)  # (B, U, bins)
            far = mixture_kl(ours, mixed, self.temperature) * self.temperature**2
            far = far if self.rule == "paper" else far / ours.shape[-1]
            values["distilled"] = values["distilled"] + lesson.mean(far, reach) / len(pairs)
            if self.coefficients["angle"] > 0:
                values["angle"] = values["angle"] + self._angle(lesson, ours, mixed, known) / len(pairs)
        if self.coefficients["angle"] == 0:
            del values["angle"]
        if self.taps:
            values["hints"] = self._hints(lesson, known.any(-1))
        constant, totals = weight.detach(), {}
        if self.rule == "reference":  # its division by C is a weight like any other: ``strength: matched`` undoes it
            totals["distilled"] = constant.new_full((), sum(1 / ours.shape[-1] for ours, _ in pairs) / len(pairs))
        temperature = torch.full_like(constant, self.temperature)
        return Terms(values, self.coefficients, constant, temperature, known & (constant > 0), totals)

    def _angle(self, lesson: Lesson, ours: Tensor, mixed: Tensor, known_MBU: Tensor) -> Tensor:
        """How far angles between samples differ, over the batch of all ranks; gradient reaches the student alone."""
        p = torch.softmax(wide(ours) / self.temperature, -1)
        goal = torch.where(known_MBU.any(0).unsqueeze(-1), mixed, p).detach()  # where nobody teaches: as it is
        return rkd_angle(lesson.all_gather(p.flatten(1)), lesson.all_gather(goal.flatten(1)))

    def _hints(self, lesson: Lesson, counts_MB: Tensor) -> Tensor:
        """The mean over the taps; 0 for samples on which the tap's mentor does not count."""
        assert lesson.mentors is not None
        student, mentors = lesson.student.features, lesson.mentors.features
        far = []
        for j, (tap, projector) in enumerate(zip(self.taps, self.projectors, strict=True)):
            k = j % len(counts_MB)
            far.append(hint_distance(projector, student[tap], mentors[tap][k], counts_MB[k]))
        return lesson.share(torch.stack(far).mean())
