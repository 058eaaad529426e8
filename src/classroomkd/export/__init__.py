"""Export: a student that needs nothing of this package's training, and reading one back."""

from classroomkd.export.student import Prediction, Student, load_student
from classroomkd.export.write import export_student
from classroomkd.tasks.pose.written import PoseAnswers as Pose

__all__ = ["Pose", "Prediction", "Student", "export_student", "load_student"]
