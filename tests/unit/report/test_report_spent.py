"""Where the time went and where the mentors' answers came from, in the words of the page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from classroomkd.report.sections import _spent
from classroomkd.report.summary import Summary


def spent(bank: dict[str, Any] | None, samples: int | None, *answers: int | None) -> str:
    entries = [{"method": "kd", "seed": i, "mentor_answers": n} for i, n in enumerate(answers)]
    summary = Summary.model_validate(
        {"schema": 1, "bank": bank, "entries": entries, "mentors": [{"name": "a", "seconds": 30.0, "samples": samples}]}
    )
    context: Any = SimpleNamespace(summary=summary)
    return " ".join(_spent(context))


def test_mentors_from_files_were_not_trained() -> None:
    said = spent(None, None)
    assert "30 s went into scoring the mentors." in said
    assert "train" not in said
    assert "scoring the mentors and storing their answers" in spent({"kind": "views=8"}, None)
    said = spent({"kind": "views=8"}, 200)
    assert "training the mentors, which are kept for later runs, scoring them and storing their answers" in said
    assert "training the mentors, which are kept for later runs and scoring them." in spent(None, 200)


@pytest.mark.parametrize(
    ("bank", "answers", "expected"),
    [
        ({"kind": "exact", "forwards": 0}, (3000, 444), "were asked 3,444 questions, whose answers are in the bank"),
        ({"kind": "views=8", "forwards": 4800}, (None,), "were asked 4,800 questions"),
        ({"kind": "views=8", "forwards": 0}, (None,), "The mentors' answers came from the bank."),
        ({"kind": "views=8", "online": ["at", "fitnet"]}, (None,), "bank; they answered every step of at, fitnet."),
        (None, (None,), "computed in every step (no bank)"),
    ],
)  # fmt: skip
def test_answers_that_were_asked_are_counted(bank: Any, answers: tuple[int | None, ...], expected: str) -> None:
    assert expected in spent(bank, None, *answers)
