"""The heart: classroom, mentors, lessons, methods. Knows no task, no data set and no file."""

from classroomkd.classroom.classroom import Classroom
from classroomkd.classroom.lesson import Answers, Calibration, Lesson, Terms
from classroomkd.classroom.mentor import AnswerStore, Mentor, MentorPool
from classroomkd.classroom.method import ClassInfo, Composition, Method, masked_mean
from classroomkd.classroom.needs import Needs
from classroomkd.classroom.step import Batch, PlainContext, StepContext
from classroomkd.classroom.taps import TapReader, prediction_of, tap_names
from classroomkd.classroom.task import Task

__all__ = [
    "AnswerStore",
    "Answers",
    "Batch",
    "Calibration",
    "ClassInfo",
    "Classroom",
    "Composition",
    "Lesson",
    "Mentor",
    "MentorPool",
    "Method",
    "Needs",
    "PlainContext",
    "StepContext",
    "TapReader",
    "Task",
    "Terms",
    "masked_mean",
    "prediction_of",
    "tap_names",
]
