"""Two processes give what one gives: every method, one spawn of ranks for all of them (gloo)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("worker.py")


def launch(ranks: int, out: Path, turn: int) -> None:
    command = [sys.executable, str(WORKER), str(out), str(turn)]
    if ranks > 1:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(WORKER),
            str(out), str(turn),
        ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.parametrize("turn", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_ranks_equal_one(tmp_path: Path, turn: int) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed package")
    launch(1, tmp_path, turn)
    launch(2, tmp_path, turn)
    found = sorted(tmp_path.glob("*-1.safetensors"))
    assert len(found) >= 6  # none, kd, average, and the three rules
    assert len([file for file in found if file.name.startswith("unlabelled")]) == (0 if turn else 4)
    for one in found:
        two = load_file(one.with_name(one.name.replace("-1.safe", "-2.safe")))
        for key, value in load_file(one).items():
            torch.testing.assert_close(two[key], value, rtol=1e-6, atol=1e-9, msg=lambda m, o=one: f"{o.name}: {m}")
