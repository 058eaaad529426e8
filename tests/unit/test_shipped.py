"""What a wheel brings beside the modules: recipes, examples, the schema of recipes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from classroomkd import tasks
from classroomkd.errors import UserError
from classroomkd.recipe import example_files, find_recipe, load_recipe, recipe_files
from classroomkd.recipe.find import is_shipped

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("recipes", "examples")


def _files(root: Path) -> set[str]:
    inside = (file for folder in SHIPPED for file in (root / folder).rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix() for file in inside if "__pycache__" not in file.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel would unpack to, built from the checkout."""
    pytest.importorskip("setuptools")
    place = tmp_path_factory.mktemp("built")
    (place / "about").mkdir()
    words = ["-q", "egg_info", "--egg-base", str(place / "about"), "build_py", "--build-lib", str(place / "lib")]
    done = subprocess.run([sys.executable, "setup.py", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / "lib"


def _answers(built: Path, folder: Path, text: str) -> Any:
    """What a script prints as JSON with the built package alone on the path."""
    env = {**os.environ, "PYTHONPATH": str(built)}
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_wheel_holds_what_lies_beside_the_package(built: Path) -> None:
    assert _files(built / "classroomkd" / "shipped") == _files(ROOT)
    assert {"recipes/smoke.yaml", "recipes/recipe.schema.json", "examples/own_modules.py"} <= _files(ROOT)
    for file in ("py.typed", "report/page.css", "tasks/pose/demo.yaml"):
        assert (built / "classroomkd" / file).is_file(), file


def test_recipes_are_found_from_a_wheel_in_an_empty_folder(built: Path, tmp_path: Path) -> None:
    script = """
import json
from classroomkd.recipe import example_files, load_recipe, recipe_files
from classroomkd.recipe.find import is_shipped
print(json.dumps({
    "recipes": sorted(recipe_files()),
    "examples": sorted(example_files()),
    "loaded": [load_recipe(name).name for name in ("smoke", "smoke.yaml", "recipes/smoke.yaml", "pose/puppets")],
    "shipped": is_shipped(recipe_files()["smoke"]),
}))
"""
    said = _answers(built, tmp_path, script)
    assert said["recipes"] == sorted(recipe_files())
    assert said["examples"] == sorted(example_files())
    assert said["loaded"] == ["smoke", "smoke", "smoke", "puppets"]
    assert said["shipped"] is True


def test_examples_are_those_of_the_folder() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")} | {"segmentation"}
    assert set(example_files()) == names


def test_a_recipe_of_the_user_is_not_taken_for_a_shipped_one(tmp_path: Path) -> None:
    mine = tmp_path / "smoke.yaml"
    mine.write_text("data: puppets\n")
    assert is_shipped(find_recipe("smoke"))
    assert not is_shipped(mine)


@pytest.mark.parametrize("name", list(tasks.TASKS))
def test_the_last_line_of_a_demo_names_a_recipe_that_is_there(name: str) -> None:
    found = re.search(r"classroomkd run (\S+)", tasks.describe(name).next_step)
    assert found is None or found[1] in recipe_files()


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("own-images", "classroomkd run own-images data.source=imagefolder:DIR"),
        ("classroomkd/cifar100", "classroomkd run classroomkd/cifar100 data.source=cifar100:DIR"),
    ],
)
def test_a_recipe_run_without_ones_folder_says_what_to_type(
    name: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(typed)) as caught:
        load_recipe(name)
    assert "did you mean" not in str(caught.value)  # none of the package's own folders
