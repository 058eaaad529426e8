"""The tensor maths under the methods: pure functions, usable without the rest of the package."""

from classroomkd.functional.baselines import (
    dist,
    dist_by_mentor,
    dkd_per_sample,
    dtkd_per_sample,
    finite_logits,
)
from classroomkd.functional.classroom import Grades, grade
from classroomkd.functional.divergence import kd, kl_divergence, log_credibility, wide
from classroomkd.functional.draws import draw
from classroomkd.functional.multi_teacher import (
    confidence_weights,
    entropy_weights,
    gram_weights,
    kl_gradients,
)
from classroomkd.functional.old_losses import ClassroomTerms, aekd, average, camkd, classroom, dkd, ebkd
from classroomkd.functional.quadratic import capped_simplex_qp
from classroomkd.functional.relations import (
    attention_transfer,
    rkd,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from classroomkd.functional.voting import disagreement, pairs_apart, vote, vote_entropy

__all__ = [
    "ClassroomTerms",
    "Grades",
    "aekd",
    "attention_transfer",
    "average",
    "camkd",
    "capped_simplex_qp",
    "classroom",
    "confidence_weights",
    "disagreement",
    "dist",
    "dist_by_mentor",
    "dkd",
    "dkd_per_sample",
    "draw",
    "dtkd_per_sample",
    "ebkd",
    "entropy_weights",
    "finite_logits",
    "grade",
    "gram_weights",
    "kd",
    "kl_divergence",
    "kl_gradients",
    "log_credibility",
    "pairs_apart",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "similarity_preserving",
    "vote",
    "vote_entropy",
    "wide",
]
