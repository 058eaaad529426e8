"""What costs nothing must stay so: importing the package, help and lists load no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from classroomkd.cli.app import VERBS

HEAVY = ("torch", "numpy", "PIL", "pydantic", "altair", "lightning_fabric", "torchvision", "timm", "rich", "typer")


def _answer(script: str) -> Any:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_package_is_imported_in_less_than_a_tenth_of_a_second() -> None:
    """Processor time, of which another process takes nothing; the best of three."""
    script = """
import json, sys, time
start = time.process_time()
import classroomkd
spent = time.process_time() - start
print(json.dumps({"spent": spent, "loaded": [name for name in HEAVY if name in sys.modules]}))
""".replace("HEAVY", repr(HEAVY))
    tries = [_answer(script) for _ in range(3)]
    assert tries[0]["loaded"] == []
    assert min(each["spent"] for each in tries) < 0.1


def test_help_and_lists_load_no_torch() -> None:
    lines = ["", "--version", *(f"{verb} --help" for verb in VERBS), "list", "list recipes --json", "list schema"]
    script = """
import contextlib, io, json, sys
from classroomkd.cli.app import main
said = {}
for line in LINES:
    with contextlib.redirect_stdout(io.StringIO()):
        said[line] = [main(line.split()), "torch" in sys.modules]
print(json.dumps(said))
""".replace("LINES", repr(lines))
    assert _answer(script) == {line: [0, False] for line in lines}
