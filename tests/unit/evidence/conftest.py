"""The toy study in the place of those of ``studies/``."""

from __future__ import annotations

import pytest
from toy_study import TOY

from benchmarks.evidence import marks, plan, queue, render, results, status
from benchmarks.evidence.study import Study
from classroomkd.errors import UserError


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> dict[str, Study]:
    """The studies there are, by name."""
    known = {"toy": TOY}

    def load(name: str) -> Study:
        if name not in known:
            raise UserError(f"there is no study '{name}'")
        return known[name]

    for module in (marks, plan, queue, render, status):
        monkeypatch.setattr(module, "load_study", load)
    monkeypatch.setattr(render, "study_names", lambda: list(known))
    return known


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are written without waiting for the disk; that they are written as a whole has a test of its own."""
    monkeypatch.setattr(results, "atomic_write_text", lambda file, text: file.write_text(text))
