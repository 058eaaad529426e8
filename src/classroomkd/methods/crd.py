"""crd: contrastive representation, a student's sample should be near the mentors' same sample and far from others.

System   Tian, Krishnan, Isola 2020, arXiv 1910.10699
Rule     L = supervised_weight · CE + weight · mean_m mean_b [ nce(v_s, memory of m) + nce(v_m, memory of s) ]
         v = a linear map of the features, brought to length 1; all maps are trained
         nce(v, U) = −log h(v · u_b) − Σ_k log(1 − h(v · u_k)),   h(x) = P / (P + K/N),   P = exp(x / temperature) / Z
         u_b the sample's own row, u_k K rows of other classes; Z = N times the mean of exp(x / temperature) in the
         first batch, then fixed. After the step a row becomes unit(momentum · row + (1 − momentum) · v)
Shapes   features (B, D) at ``tap``; v (B, d), d = ``size``; a memory (N, d) for the student and for each mentor
Defaults weight 0.8, d 128, K 16384, temperature 0.07, momentum 0.5, supervised_weight 1 (RepDistiller: CIFAR-100)
Deviates one map and memory of the student serve all mentors; negatives are drawn with replacement, by (id, step), and K
         is at most the rows of other classes; first rows are brought to length 1; h has no 1e-7 in its denominator
Pose     weight 0.03: at 0.8 a heatmap student ended at 9.3 px where alone has 4.7. Joints are no classes: every other
         sample's row is a negative
Unknown  samples without a label, and of ids that the register lacks, have no contrastive loss and are not remembered
Cost     the student's step, M forwards, and 2 M products of (B, d) with (N, d); (1 + M) · N · d · 4 bytes of memory,
         also in checkpoints: 102 MB for 50,000 samples and three mentors
Hurts    with few samples or classes, where negatives are few and stale rows many; where ids are not stable
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from classroomkd.classroom import ClassInfo, Lesson, Needs, StepContext, Terms
from classroomkd.errors import UserError
from classroomkd.functional import wide
from classroomkd.methods.pieces.features import FeatureMethod, NonNegative, Positive, Tap
from classroomkd.methods.pieces.memory import Memory

__all__ = ["CRD"]

Count = Annotated[int, Field(ge=1)]


class CRD(FeatureMethod):
    """Contrast with a memory of all training samples.

    Args:
        weight: factor of the contrastive term.
        supervised_weight: factor of the student's own loss.
        size: length of the compared vectors.
        negatives: K, rows of other classes for each sample.
        temperature: of the products, > 0; not that of logits.
        momentum: what is kept of a row when its sample is seen again.
        tap: where features are read, pooled, in student and mentors.
        mentor: ``all``, ``best``, a name, or a position.
    """

    label = "crd"
    order_matters = weighs_samples = True
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pose": {"weight": 0.03}}
    scale: Tensor

    def __init__(
        self,
        *,
        weight: NonNegative = 0.8,
        supervised_weight: NonNegative = 1.0,
        size: Count = 128,
        negatives: Count = 16384,
        temperature: Positive = 0.07,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        tap: Tap = "@penultimate",
        mentor: str | int = "all",
    ) -> None:
        super().__init__(mentor, {"supervised": supervised_weight, "contrast": weight})
        self.size, self.negatives = size, negatives
        self.temperature, self.momentum, self.tap = temperature, momentum, tap
        self.needs = Needs(features={tap: "pooled"}, ids=True, truth=True)
        self.by_class = True  # whether labels are classes
        self.maps = nn.ModuleList()  # the student's, then the mentors'
        self._scaled = False  # whether ``scale`` is known to hold numbers; read without waiting for the device
        self.register_load_state_dict_post_hook(_unscaled)  # type: ignore[no-untyped-call]

    def setup(self, info: ClassInfo) -> None:
        """Build the maps and the memory."""
        super().setup(info)
        if info.shapes is None:
            return
        if info.ids is None or info.labels is None:
            raise UserError("crd remembers every training sample: pass register=(ids, labels) to Classroom")
        self.by_class = info.labels.dim() == 1  # joints are no classes: then every other sample is another one
        ids, labels = info.ids, info.labels if self.by_class else torch.arange(len(info.ids))
        if self.by_class:  # whose negative a sample without a label is, nobody knows
            ids, labels = (x[info.task.mask(info.labels).squeeze(-1)] for x in (ids, labels))
        widths = [info.shapes.student[self.tap][0]]
        widths += [info.shapes.mentors[self.tap][place][0] for place in self.places]
        self.maps.extend(nn.Linear(width, self.size) for width in widths)
        self.memory = Memory(ids, labels, len(widths), self.size, self.negatives, self.momentum, "crd")
        # log(Z / N) by mentor, with the student's and with the mentor's vectors; -inf until the first batch.
        self.register_buffer("scale", torch.full((len(self.places), 2), -torch.inf))

    def loss(self, lesson: Lesson) -> Terms:
        """Supervised and contrastive terms."""
        assert lesson.mentors is not None
        self.memory.settle()  # a loop of one's own may not have called after_step
        features = (lesson.student.features[self.tap], *lesson.mentors.features[self.tap])
        vectors = [
            F.normalize(wide(embed(x.to(embed.weight.dtype))), dim=1)
            for embed, x in zip(self.maps, features, strict=True)
        ]
        with torch.autocast(vectors[0].device.type, enabled=False):
            return self.terms(lesson, {"contrast": self._contrast(lesson, vectors)}, labelled=self.by_class)

    def _contrast(self, lesson: Lesson, vectors: list[Tensor]) -> Tensor:
        assert lesson.ids is not None
        memory, own = self.memory, vectors[0]
        rows = memory.find(lesson.ids)
        others = memory.others(lesson.ids, rows, lesson.step)
        count = memory.counted(others, own)
        products = []  # of (student, memory of m), (mentor m, memory of the student), for each m
        for m, theirs in enumerate(vectors[1:], start=1):
            for vector, network in ((own, m), (theirs, 0)):
                products.append(memory.compare(vector / self.temperature, network, rows, others))
        far, known = [], rows < memory.samples
        for (mine, rest), scale in zip(products, self._scales(lesson, products, count, known).flatten(), strict=True):
            shift = scale + math.log(memory.draws)  # log(Z · K/N)
            far.append(F.softplus(shift - mine) + (count * F.softplus(rest - shift)).sum(1))
        if _learning(self):
            joined = lesson.all_gather(torch.stack([v.detach() for v in vectors], 1))
            memory.expect(lesson.all_gather(rows), joined)
        return lesson.mean(torch.stack(far).sum(0) / len(self.places), known)

    def _scales(self, lesson: Lesson, products: list[tuple[Tensor, Tensor]], count: Tensor, known: Tensor) -> Tensor:
        if self._scaled:
            return self.scale
        learning = _learning(self)
        with torch.no_grad():
            top = 1 / self.temperature  # the largest product can be
            terms = [((mine - top).exp(), count * (rest - top).exp()) for mine, rest in products]
            sums = [a.where(known, 0.0).sum() + b.where(known.unsqueeze(1), 0.0).sum() for a, b in terms]
            total = torch.stack([*sums, known.sum().to(sums[0].dtype)])
            total = total if lesson.reduce is None else lesson.reduce(total)
            mean = (total[:-1] / (total[-1].clamp_min(1) * (self.memory.draws + 1))).log() + top
            scale = self.scale.where(self.scale > -torch.inf, mean.view(-1, 2).to(self.scale.dtype))
            if learning:
                self.scale.copy_(scale)
                self._scaled = not (self.by_class and lesson.task.has_unlabelled_units)  # a batch may lack labels
        return scale

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """Remember this step's samples."""
        self.memory.settle()


def _learning(method: nn.Module) -> bool:
    return method.training and torch.is_grad_enabled()


def _unscaled(method: nn.Module, *_: object) -> None:
    """What was loaded may hold no scale yet."""
    method._scaled = False  # type: ignore[assignment]
