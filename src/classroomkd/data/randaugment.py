"""The old name of :mod:`classroomkd.data.views.randaugment`."""

from classroomkd._renamed import warn_old_name
from classroomkd.data.views.randaugment import *  # noqa: F403
from classroomkd.data.views.randaugment import __all__ as __all__

warn_old_name("classroomkd.data.randaugment", "classroomkd.data.views.randaugment")
