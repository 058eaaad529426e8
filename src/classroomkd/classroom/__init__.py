"""The heart: classroom, mentors, lessons, methods. Knows no task, no data set and no file."""

from classroomkd.classroom.choosing import choose
from classroomkd.classroom.classroom import Classroom
from classroomkd.classroom.composition import Composition
from classroomkd.classroom.lesson import Answers, Calibration, Lesson, Terms
from classroomkd.classroom.mentor import Mentor
from classroomkd.classroom.method import ClassInfo, Method, Shapes, masked_mean
from classroomkd.classroom.needs import Needs
from classroomkd.classroom.plain_loop import PlainContext, inner_of, substituted
from classroomkd.classroom.pool import AnswerStore, MentorPool
from classroomkd.classroom.step import Batch, Inner, StepContext
from classroomkd.classroom.step_info import StepInfo
from classroomkd.classroom.task import Task
from classroomkd.taps.taps import TapReader, prediction_of, tap_names

__all__ = [
    "AnswerStore",
    "Answers",
    "Batch",
    "Calibration",
    "ClassInfo",
    "Classroom",
    "Composition",
    "Inner",
    "Lesson",
    "Mentor",
    "MentorPool",
    "Method",
    "Needs",
    "PlainContext",
    "Shapes",
    "StepContext",
    "StepInfo",
    "TapReader",
    "Task",
    "Terms",
    "choose",
    "inner_of",
    "masked_mean",
    "prediction_of",
    "substituted",
    "tap_names",
]
