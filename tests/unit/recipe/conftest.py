from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from classroomkd.recipe import Recipe, load_recipe
from classroomkd.recipe.problems import RecipeError

GOOD = """\
data: puppets
student: convnet8
mentors: [convnet16, {name: big, model: vgg8}]
method: {name: classroomkd, tau: 8}
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Paths in messages are then short and the same everywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLASSROOMKD_DATA", raising=False)
    return


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Recipe]:
    """Load a recipe given as text, with overrides, from ``a.yaml`` in the current folder."""

    def do(text: str = GOOD, *overrides: str, **more: Any) -> Recipe:
        (tmp_path / "a.yaml").write_text(text)
        return load_recipe("a.yaml", overrides, **more)

    return do


@pytest.fixture
def mistakes(load: Callable[..., Recipe]) -> Callable[..., list[str]]:
    """What is wrong with a recipe, one line each."""

    def do(text: str = GOOD, *overrides: str, **more: Any) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **more)
        return [str(problem) for problem in caught.value.problems]

    return do
