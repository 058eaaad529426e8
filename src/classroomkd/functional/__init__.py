"""The tensor maths under the methods: pure functions, usable without the rest of the package."""

from classroomkd.functional.baselines import (
    dist,
    dist_by_mentor,
    dkd,
    dkd_per_sample,
    dtkd_per_sample,
    finite_logits,
)
from classroomkd.functional.classroom import ClassroomTerms, Grades, classroom, grade
from classroomkd.functional.divergence import average, kd, kl_divergence, log_credibility, wide
from classroomkd.functional.draws import draw
from classroomkd.functional.multi_teacher import (
    aekd,
    camkd,
    confidence_weights,
    ebkd,
    entropy_weights,
    gram_weights,
    kl_gradients,
)
from classroomkd.functional.quadratic import capped_simplex_qp
from classroomkd.functional.relations import (
    attention_transfer,
    rkd,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)

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
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "similarity_preserving",
    "wide",
]
