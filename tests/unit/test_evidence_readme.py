"""The page of the bench of evidence: the study that it shows can be made, and what it names is there."""

from __future__ import annotations

import re
from typing import Any

import documents

from benchmarks.evidence.cells import cell_of
from benchmarks.evidence.marks import WRITERS
from benchmarks.evidence.protocol import CONVERGED, MARGIN
from benchmarks.evidence.study import STUDIES, Panel, Study

PAGE = STUDIES.parent / "README.md"


def test_the_study_of_the_readme_can_be_made() -> None:
    (block,) = (block for block in documents.blocks(PAGE) if block.language == "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    study: Study = names["STUDY"]
    assert len(block.text.splitlines()) < 25
    assert [len(arm.candidates()) for arm in study.arms] == [3, 3, 3]
    for panel in study.panels:
        for arm in study.arms:
            for candidate in arm.candidates():
                cell_of(study, panel, arm.set(candidate)).recipe(".")


def test_the_readme_names_what_there_is() -> None:
    assert documents.broken_links(PAGE) == []
    text = PAGE.read_text()
    assert set(re.findall(r"<!-- evidence: (\w+) ", text)) == set(WRITERS)
    assert set(re.findall(r"python -m benchmarks\.evidence (\w+)", text)) == {"run", "status", "render"}
    assert f"less than {100 * CONVERGED:g} points" in text
    assert f"within ± {100 * MARGIN:g} points" in text
    assert set(Panel("a", "A").curve) == {0.5, 1.5, 3}  # "for half, for 1.5 and for 3 times the epochs"
