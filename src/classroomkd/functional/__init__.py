"""The tensor maths under the methods: pure functions, usable without the rest of the package."""

from classroomkd.functional.classroom import ClassroomTerms, Grades, classroom, grade
from classroomkd.functional.divergence import average, kd, kl_divergence, log_credibility

__all__ = ["ClassroomTerms", "Grades", "average", "classroom", "grade", "kd", "kl_divergence", "log_credibility"]
