"""The old name of :mod:`classroomkd.taps.roles`."""

from classroomkd._renamed import warn_old_name
from classroomkd.taps.roles import *  # noqa: F403
from classroomkd.taps.roles import __all__ as __all__

warn_old_name("classroomkd.classroom.places", "classroomkd.taps.roles")
