"""Shared pieces of the tests. Nothing here needs data, a network or a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def data_root() -> Path:
    """The folder of real data, or a skip."""
    root = os.environ.get("CLASSROOMKD_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("CLASSROOMKD_DATA is not set")
    return Path(root).resolve()
