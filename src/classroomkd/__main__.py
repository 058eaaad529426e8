"""``python -m classroomkd``: the same as the command ``classroomkd``."""

import sys

from classroomkd.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
