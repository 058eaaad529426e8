"""Export: a student that needs nothing of this package's training, and reading one back."""

from classroomkd.export.student import Student, load_student
from classroomkd.export.write import export_student
from classroomkd.tasks.pose.written import PoseAnswers as Pose

__all__ = ["Pose", "Student", "export_student", "load_student"]
