"""ctslmkt: networks teach each other answers and relations, while each is held by its own earlier self.

System   collaborative teacher-student learning via multiple knowledge transfer (CTSL-MKT), Sun, Gou, Yu, Du, Tao, arXiv
         2101.08471. Losses from a summary of the paper, no code was found: *reconstructed*
Rule     of every trainee k of K, means over the others j ≠ k:
         L_k = supervised_weight · CE(z_k, y)
               + weight · [ response · M² · KL(q_j ‖ q_k) + distance · huber(d_k, d_j) + angle · huber(a_k, a_j) ]
               + self_weight · KL(softmax(s_k / T) ‖ softmax(z_k / T))
         q = softmax(z / M); d = distances between samples over their mean, a = cosines at each corner of each triple,
         of the classifier's inputs; huber at 1, its mean; s_k what k said when it had been trained by itself, frozen.
         What others say is a target: no gradient reaches them. The last term has no T², as the summary has it
Stages   1: every trainee by itself, from labels; 2: this. Whether 2 begins afresh (``start: fresh``, as Tf-KD does) or
         from the weights of 1 (``start: STAGE``) is not known
Shapes   z (B, C); each KL is (B, U); d (B, B), a (n, n, n) of the first n = ``angle_samples`` samples of all ranks
Selves   whose a mentor is: ``selves: {student: NAME, PEER: NAME}``; without it what stages have left (``from: STAGE``),
         else they stand in the trainees' order
Defaults jacobi; M 1, T 4, all weights 1, distance 25 and angle 50 (RKD's); ours, the paper's values were not found.
         Pose: T 1, distance 0.075, angle 0.15, as loud as rkd there
Deviates means where the summary has sums over pairs and triples, so that no factor depends on the size of a batch
Cost     the steps of K networks, K mentors' forwards, K (K − 1) relations; and stage 1, whose time must be counted
Hurts    a self that has fitted the training data repeats the labels; rkd's factors are 20 times as loud as the labels
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from classroomkd.classroom import ClassInfo, Lesson, Needs, Terms
from classroomkd.classroom.trainees import STUDENT
from classroomkd.functional.relations import rkd_angle_by_mentor, rkd_distance_by_mentor
from classroomkd.methods.pieces.mutual import Mutual, Order, by_peers
from classroomkd.methods.pieces.selves import own_mentors
from classroomkd.methods.pieces.sharing import heard
from classroomkd.methods.weighted import NonNegative, Positive, Tap

__all__ = ["CTSLMKT"]


class CTSLMKT(Mutual):
    """Mutual answers and relations, and everybody's earlier self; see the data sheet.

    Args:
        order: ``jacobi`` or ``gauss_seidel``.
        temperature: M > 0, of what trainees say to each other.
        weight: factor of all that comes from the others.
        response: factor of their answers, inside ``weight``.
        distance: factor of the distances between samples, inside ``weight``.
        angle: factor of the angles, inside ``weight``.
        self_weight: factor of the earlier self; 0 = none, and no mentor is asked.
        self_temperature: T > 0, of the earlier self.
        supervised_weight: factor of every trainee's own loss.
        selves: which mentor is the earlier self of which trainee; None = the selves that stages have left, else all
            mentors in the trainees' order.
        angle_samples: of how many samples of a batch angles are taken; their cost is its third power.
        tap: where relations are read, pooled.
    """

    needs = Needs(peers=(1, None), selves=True)
    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "self_weight": 1.0, "supervised_weight": 1.0}
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pose": {"self_temperature": 1.0, "distance": 0.075, "angle": 0.15}
    }

    def __init__(
        self,
        *,
        order: Order = "jacobi",
        temperature: Positive = 1.0,
        weight: NonNegative = 1.0,
        response: NonNegative = 1.0,
        distance: NonNegative = 25.0,
        angle: NonNegative = 50.0,
        self_weight: NonNegative = 1.0,
        self_temperature: Positive = 4.0,
        supervised_weight: NonNegative = 1.0,
        selves: dict[str, str] | None = None,
        angle_samples: Annotated[int, Field(ge=3)] = 64,
        tap: Tap = "@penultimate",
    ) -> None:
        super().__init__(order)
        self.temperature, self.self_temperature = temperature, self_temperature
        self.selves, self.angle_samples, self.tap = selves, angle_samples, tap
        mutual = {"response": weight * response, "distance": weight * distance, "angle": weight * angle}
        self.coefficients = {"supervised": supervised_weight, **mutual, "self": self_weight}
        related = max(mutual["distance"], mutual["angle"]) > 0
        self.needs = Needs(
            mentors=1 if self_weight > 0 else 0,
            peers=(1, None),
            features={tap: "pooled"} if related else {},
            whole_batch=related,
            selves=self_weight > 0,
        )
        self.rows: dict[str, int] = {}  # of a trainee's earlier self among the mentors that are asked
        self.order_matters = True  # mentors are somebody's

    def setup(self, info: ClassInfo) -> None:
        """Find everybody's earlier self.

        Raises:
            UserError: it is not known whose self a mentor is, or a name is nobody's.
        """
        super().setup(info)
        self.names = tuple(info.mentors)
        if not self.needs.selves or not info.peers:  # too few peers are refused by who has some to give
            return
        places = own_mentors(info, self.selves, "ctslmkt")
        asked = sorted(set(places.values()))
        self.mentor_indices = tuple(asked) if len(asked) < len(self.names) else None
        self.rows = {name: asked.index(place) for name, place in places.items()}

    def of(self, lesson: Lesson, name: str) -> Terms:
        """See the base: the terms of a trainee, those of its earlier self among them."""
        seen = lesson if name == STUDENT else lesson.seen_by(name)
        terms = self.each(seen)
        if not self.rows:
            return terms
        units, row = lesson.task.distill_mask(lesson.target), self.rows[name]
        answers, known = heard(lesson, units)
        far = lesson.task.divergence(seen.student.prediction, answers[row : row + 1], self.self_temperature)
        far = far.where(known[row : row + 1], 0.0).squeeze(0)
        place = row if self.mentor_indices is None else self.mentor_indices[row]
        active = known.new_zeros((len(self.names), *units.shape))
        active[place] = known[row]
        weight, said = active.to(far.dtype), lesson.mean(far, units)
        return Terms(
            {**terms.values, "self": said},
            self.coefficients,
            weight=weight,
            temperature=torch.full_like(weight, self.self_temperature),
            active=active,
            parts={**terms.parts, "self": {self.names[place]: said.detach()}},
        )

    def each(self, lesson: Lesson) -> Terms:
        """A trainee's own loss, and what it learns from the others."""
        own = lesson.task.supervised(lesson.student.prediction, lesson.target)
        response, said = by_peers(lesson, self.temperature)
        values = {"supervised": lesson.mean(own, lesson.task.mask(lesson.target)), "response": response}
        parts = {"response": said}
        if not self.needs.features:
            return Terms(values, self.coefficients, parts=parts)
        mine = lesson.all_gather(lesson.student.features[self.tap])
        with torch.no_grad():
            theirs = [lesson.all_gather(peer.features[self.tap]) for peer in lesson.peers.values()]
        few = slice(self.angle_samples)
        far = {"distance": rkd_distance_by_mentor(mine, theirs)}
        far["angle"] = rkd_angle_by_mentor(mine[few], [one[few] for one in theirs])
        values |= {name: by_peer.mean() for name, by_peer in far.items()}
        for name, by_peer in far.items():
            parts[name] = dict(zip(lesson.peers, (by_peer.detach() / len(theirs)).unbind(), strict=True))
        return Terms(values, self.coefficients, parts=parts)
