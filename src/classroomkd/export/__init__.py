"""Export: a student that needs nothing of this package's training, and reading one back."""

from classroomkd.export.student import Pose, Student, export_student, load_student

__all__ = ["Pose", "Student", "export_student", "load_student"]
