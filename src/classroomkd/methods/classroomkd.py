"""ClassroomKD: per sample, only mentors who beat the student teach, at a temperature set by the gap.

System    Sarode, Khan, Shehzadi, Stricker, Afzal, "Classroom-Inspired Multi-Mentor Distillation with Adaptive
          Learning Strategies", arXiv 2409.20237, IntelliSys 2025
Rule      s, p_m = credibility of student and mentor (probability of the true class) per sample b and unit u
  sample  active: p_m > s;  w_m ∝ p_m, Σ over the active = 1 (``native``: M · p_m / (s + Σ p));
          T_m = max(floor, 1 + tau · (p_m − s) / p_m);  distilled = mean_b r_b Σ_m w_m T_m² KL_m, r_b = min(1, √2 /
          length of that sum's gradient on the logits) (``bound``). Reconstructed from the abstract (per-sample
          activation) and the released share; the sum of 1, the floor of 2 and the bound are ours
  batch   R1, released code at e80d320: the same on batch scores g = exp(mean log p), shares rounded to two decimals,
          active: w_m >= w_s; T_m = 1 + tau · (w_m − w_s) / max(w_m, w_s)
  rank    R0, released code at b1d1177: r = ordinal rank of the mean p, / 10; active: r_m > r_s;
          T_m = 1 + tau |r_m − r_s|, divergence times (T_m − 1)²
Shapes    weight, temperature, active (M, B, U); constant along B for batch and rank, whose scores are summed over ranks
No label  ``unlabelled: agreement`` (ours): ŷ = argmax of the mean over mentors of softmax(z_m), T = 1; s and p_m are
          the probabilities of ŷ, the supervised part is 0. ``skip``: nobody teaches
Units     those with a truth or an agreement. A mentor that does not know a joint, or is not finite there, teaches the
          others, not it; in its batch score such a joint counts as the student's own
Defaults  tau 12 (released CIFAR-100 configs), on pose 1, fixed_temperature too (not ``rank``); supervised part times
          the student's credibility in both released rules, and so in ``sample``; ``supervised: one`` turns that off.
          ``sample``: normalise unit, floor 2, on pose native, 1; decided by ``sample_rule`` of the bench
Deviates  rounding is done without a host sync; scores that are not finite are inactive (the released loss becomes NaN);
          a batch of 1 works; the two loss weights below are applied (the released code reads and ignores them)
          ``bound``: Σ w T² KL pulls with up to Σ w T √2, a cross-entropy with √2: a MobileNetV3 with three mentors, one
          shuffled, diverged in 4 of 5 seeds at lr 0.05, with the bound in none (``benchmarks/misordered.py``)
Version   3: ``sample`` has normalise unit, floor 2 (2: native, 1). 2: the bound; ``sample`` compares logs (1 tied at 0)
Cost      the student's step and M forwards (none with a bank)
Hurts     on training data a mentor that memorised it scores near 1 and teaches everywhere; see ``credibility``.
          With good mentors there is nothing to filter: run ``average`` beside it
Ablations gate: none (all teach; weights 1/M or 1), mentoring: false (one ``fixed_temperature`` for all; None = 4, 1,
          1 + 0.1 tau by rule), both; under any divergence: see ``weighted``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from classroomkd.classroom import Lesson, Method, Needs, Terms
from classroomkd.functional.bound import restraint
from classroomkd.functional.classroom import Gate, Normalise, Rule, gate_of
from classroomkd.methods.pieces import graded
from classroomkd.methods.pieces.credibility import Credibility
from classroomkd.methods.pieces.divergences import KL
from classroomkd.methods.pieces.graded import TAU, AtLeastOne, Graded, NonNegative, Positive, Supervised
from classroomkd.methods.pieces.truth import Unlabelled

__all__ = ["ClassroomKD"]


class ClassroomKD(Method):
    """ClassroomKD in its three rules; see the module's data sheet.

    Args:
        rule: ``sample``, ``batch`` or ``rank``.
        tau: temperature per unit of relative gap.
        gate: who teaches: who beats the student (``strict``), who ties with it too (``hard``), all by a sigmoid of
            the difference (``soft``), the best alone, ahead or not (``argmax``), all alike (``none``); None = ``soft``
            where ``soft`` is given, else the rule's own.
        soft: width of the sigmoid of a soft gate; None = 0.1.
        normalise: ``unit`` keeps the weights of who teaches at a sum of 1; ``native``: as they are; None = the rule's.
        mentoring: adaptive temperature on or off.
        fixed_temperature: the temperature when mentoring is off; None = the rule's own. With ``rank`` 1 is nothing.
        floor: the least temperature of mentoring; None = the rule's own.
        supervised: what multiplies the student's own loss, its ``credibility`` or ``one``; None = the rule's own.
        weight, supervised_weight: factors of the distilled and of the supervised term.
        bound: how hard all mentors together may pull at a unit, in longest gradients of its label's loss (``mse`` has
            none, and no bound). 0 = as hard as they like; None = the rule's own.
        credibility: a mentor's probability on the training sample (``train``), the same at its best temperature on the
            validation part (``calibrated``), or capped by its mean probability of the class there (``held_out``).
        unlabelled: samples without a label are judged by the mentors' vote (``agreement``), or not taught (``skip``).
    """

    later: ClassVar[tuple[str, ...]] = ("unlabelled",)
    since: ClassVar[int] = 2

    @classmethod
    def defaults_on(cls, task: str | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """See the base; the rule's own, and a fixed temperature without mentoring alone."""
        own = graded.usual(options.get("rule", "sample"), task)
        return {key: own[key] for key in own if key != "fixed_temperature" or not options.get("mentoring", True)}

    def __init__(
        self,
        *,
        rule: Rule = "sample",
        tau: NonNegative = TAU,
        gate: Gate | None = None,
        soft: Positive | None = None,
        normalise: Normalise | None = None,
        mentoring: bool = True,
        fixed_temperature: Positive | None = None,
        floor: AtLeastOne | None = None,
        supervised: Supervised | None = None,
        weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        bound: NonNegative | None = None,
        credibility: Credibility = "train",
        unlabelled: Unlabelled = "agreement",
    ) -> None:
        super().__init__()
        self.weighting = Graded(
            rule=rule,
            tau=tau,
            gate=gate,
            soft=soft,
            normalise=normalise,
            mentoring=mentoring,
            fixed_temperature=fixed_temperature,
            floor=floor,
            bound=bound,
            credibility=credibility,
            unlabelled=unlabelled,
        )
        self.tau, self.fixed_temperature, self.supervised = tau, fixed_temperature, supervised
        self.coefficients = {"supervised": supervised_weight, "distilled": weight}
        own = self.weighting
        self.needs = Needs(calibration=own.calibration, whole_batch=own.whole_batch, truth=not own.by_agreement)

    @classmethod
    def renewed(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """See the base; ``gate`` was a switch with ``strict`` beside it. Null is what is not given: the rule's own."""
        options = {key: value for key, value in options.items() if value is not None or key not in graded.RELEASED}
        old = {key: options.pop(key) for key in ("gate", "strict") if isinstance(options.get(key), bool)}
        if options.get("strict", 0) is None:
            del options["strict"]
        gate = gate_of(options.get("gate", old.get("gate")), options.get("soft"), old.get("strict"))
        if old.get("gate") is False or "strict" in old:
            options["gate"] = gate
        renamed = {key: value for key, value in old.items() if key == "strict" or not value}
        return options, [f"{key}: {str(value).lower()} is read as gate: {gate}" for key, value in renamed.items()]

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base: a fixed temperature under mentoring, a width without a soft gate."""
        idle = []
        if options.get("fixed_temperature") is not None and options.get("mentoring", True):
            idle.append("fixed_temperature acts only with mentoring: false")
        if options.get("soft") is not None and options.get("gate") not in (None, "soft"):
            idle.append("soft acts only with gate: soft")
        return idle

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int) -> Tensor | None:
        """See the base; the weighting decides."""
        return self.weighting.eligible(knows_MB, ids, step, KL())

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and distilled terms, with who taught whom."""
        task, student, mask = lesson.task, lesson.student.prediction, lesson.task.mask(lesson.target)
        own = task.supervised(student, lesson.target)
        taught = self.weighting.units(lesson) if task.has_unlabelled_units else mask
        grades, answers = self.weighting.grades(lesson, taught, self.supervised)
        divergence = task.divergence(student, answers, grades.temperature)
        pull = (grades.weight * grades.strength * divergence).sum(0)
        if self.weighting.bound and task.steepest is not None:
            pull = pull * restraint(pull, student, self.weighting.bound * task.steepest)
        values = {"supervised": lesson.mean(grades.supervised * own, mask), "distilled": lesson.mean(pull, taught)}
        return Terms(values, self.coefficients, grades.weight, grades.temperature, grades.active)
