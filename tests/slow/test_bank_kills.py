"""Killed with -9 at twenty random moments while it fills, a bank comes to the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from classroomkd.bank import RowStore, verify

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).resolve().parents[1] / "unit" / "bank" / "bank_pieces.py"
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SAMPLES, VIEWS = 2000, 4


def filling(folder: Path, pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PROGRAM), str(folder), str(SAMPLES), str(VIEWS), str(pause)]
    return subprocess.Popen(command, env=ENV, start_new_session=True)


def rows(folder: Path) -> int:
    if not (folder / "manifest.json").exists():
        return 0
    with RowStore.at(folder) as store:
        return store.count()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.bin"))}


def test_kill_nine_at_twenty_random_moments(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert filling(whole, 0).wait(timeout=300) == 0
    draw = random.Random(0)
    moments = sorted(draw.randrange(1, int(0.97 * SAMPLES * VIEWS)) for _ in range(20))
    before = 0
    for moment in moments:
        process = filling(cut, 0.001)
        # Each moment is somewhere in the filling; a random wait besides, so that no step of the writer is spared.
        while process.poll() is None and rows(cut) < moment:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.004))
        assert process.poll() is None, "it was done before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        found = verify(cut)
        assert found.damaged == 0
        assert found.good >= before, "rows were lost"
        before = found.good
    assert before < SAMPLES * VIEWS
    assert filling(cut, 0).wait(timeout=300) == 0
    assert contents(cut) == contents(whole)
