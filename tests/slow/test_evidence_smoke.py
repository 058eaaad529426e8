"""The bench of evidence as a program: stopped twice while it trains, it ends with what one that was left alone has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# Two rates, of which one is a candidate, too; three candidates of three arms; by two seeds three rows and three lengths
# of the student alone.
STUDENTS = 2 + 9 - 1 + 2 * (3 + 3)
TIMES = ("seconds", "step_ms", "cost_ratio")  # what a clock says, the processor's too


def command(place: Path, verb: str) -> list[str]:
    folders = ["--out", str(place / "out"), "--results", str(place / "results")]
    return [sys.executable, "-m", "benchmarks.evidence", verb, "_smoke", *folders]


def there(place: Path) -> int:
    return sum(len(json.loads(file.read_text())["students"]) for file in (place / "results").glob("_smoke/*.json"))


def found(place: Path) -> dict[str, dict[str, Any]]:
    """The files of results without what a clock says; weights of mentors by their sums."""
    files = {
        file.relative_to(place).as_posix(): json.loads(file.read_text()) for file in place.glob("results/*/*.json")
    }
    for content in files.values():
        content["students"] = {
            seed: {key: value for key, value in entry.items() if key not in TIMES}
            for seed, entry in content["students"].items()
        }
    return files


def test_stopped_and_begun_again_it_finds_the_same(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(whole, "run"), check=True, env=ENV, cwd=ROOT, timeout=900)
    assert there(whole) == STUDENTS
    for enough in (1, 8):
        process = subprocess.Popen(command(cut, "run"), env=ENV, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and there(cut) < enough:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 75, said
        assert "stopped by SIGTERM" in said
        assert said.rstrip().endswith("; the same command goes on")
        assert enough <= there(cut) < STUDENTS
        assert not any(json.loads(file.read_text())["failures"] for file in cut.glob("results/*/*.json"))
    subprocess.run(command(cut, "run"), check=True, env=ENV, cwd=ROOT, timeout=900)
    assert found(cut) == found(whole)
    said = subprocess.run(command(cut, "status"), check=True, env=ENV, cwd=ROOT, timeout=120, capture_output=True)
    assert re.fullmatch(r"_smoke: (\d+) of \1 students\n", said.stdout.decode())
    assert found(cut) == found(whole)
