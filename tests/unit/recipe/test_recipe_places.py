"""Files and folders that recipes name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from classroomkd.recipe import Recipe, load_recipe, make_recipe

Load = Callable[..., Recipe]
Mistakes = Callable[..., list[str]]

TEXT = "data: imagefolder:photos\nstudent: {model: convnet8, checkpoint: w.pth}\nmethod: none\n"


def test_the_order_of_looking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("here", "beside", "shared"):
        Path(place).mkdir()
    Path("beside/a.yaml").write_text(TEXT)
    monkeypatch.setenv("CLASSROOMKD_DATA", str(tmp_path / "shared"))
    monkeypatch.chdir("here")
    for place in ("shared", "beside", "here"):  # each later one comes first
        (tmp_path / place / "photos").mkdir()
        (tmp_path / place / "w.pth").write_bytes(b"")
        recipe = load_recipe("../beside/a.yaml")
        assert recipe.data.source == f"imagefolder:{tmp_path / place / 'photos'}"
        assert recipe.student.checkpoint == str(tmp_path / place / "w.pth")


def test_home_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PICTURES", str(tmp_path))
    for written in ("~/photos", "$PICTURES/photos", "${PICTURES}/photos"):
        made = make_recipe({"data": f"imagefolder:{written}", "student": "convnet8", "method": "none"})
        assert made.data.source == f"imagefolder:{tmp_path / 'photos'}"


def test_parts_that_live_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    data = {"train": "imagefolder:a", "test": "imagefolder:b"}
    made = make_recipe({"data": data, "student": "convnet8", "method": "none"})
    assert (made.data.train, made.data.test) == (f"imagefolder:{tmp_path / 'a'}", f"imagefolder:{tmp_path / 'b'}")


def test_what_is_not_there(mistakes: Mistakes, tmp_path: Path) -> None:
    assert mistakes(TEXT) == [
        f"a.yaml:1: data = 'imagefolder:photos': there is no folder 'photos' (looked in {tmp_path}); "
        "give the folder: data.source=imagefolder:DIR",
        f"a.yaml:2: student.checkpoint = 'w.pth': there is no such file (looked in {tmp_path})",
    ]
    Path("photo").mkdir()
    Path("photos.txt").write_bytes(b"")  # nearer, but no folder
    Path("w2.pth").write_bytes(b"")
    near = mistakes(TEXT)
    assert "there is no folder 'photos' (did you mean 'photo'?)" in near[0]
    assert "there is no such file (did you mean 'w2.pth'?)" in near[1]


def test_a_file_for_a_folder_and_a_folder_for_a_file(mistakes: Mistakes) -> None:
    Path("photos").write_bytes(b"")
    Path("w.pth").mkdir()
    Path("w.pth/student.safetensors").write_bytes(b"")
    assert mistakes(TEXT) == [
        "a.yaml:1: data = 'imagefolder:photos': 'photos' is a file; give the folder it lies in",
        "a.yaml:2: student.checkpoint = 'w.pth': is a folder; give the file; it holds student.safetensors",
    ]


def test_an_unset_variable_and_none(mistakes: Mistakes) -> None:
    text = "data: imagefolder:$NO_SUCH_THING/x\nstudent: {model: convnet8, checkpoint: None}\nmethod: none\n"
    assert mistakes(text) == [
        "a.yaml:1: data = 'imagefolder:$NO_SUCH_THING/x': the environment variable NO_SUCH_THING is not set; set it, "
        "or write the path itself",
        "a.yaml:2: student.checkpoint = 'None': there is no such file (nothing is written null)",
    ]


OUT = "data: puppets\nstudent: convnet8\nmethod: none\n"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", ".", "a/..", "~x/../../../y", "link/x"])
def test_a_files_name_does_not_lead_out(load: Load, mistakes: Mistakes, tmp_path: Path, name: str) -> None:
    """Of the folder that runs go to; what is typed may."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "home")
    text = f"name: {name}\n{OUT}"
    (said,) = mistakes(text, writes=True)
    assert (
        said == f"a.yaml:1: name = '{name}': leads out of the folder runs, where the run goes; type where to: --out DIR"
    )
    assert load(text).name == name  # it is only read
    assert load(text, writes=True, out=tmp_path / "elsewhere").name == name
    assert load(text, f"name={name}", writes=True).name == name
    assert load(f"name: a/b\n{OUT}", writes=True).name == "a/b"


@pytest.mark.parametrize("cache", ["../x", "/tmp/x", "runs/../x", "$HOME/x", "runs/link/x", "x"])
def test_a_files_cache_does_not_lead_out(
    load: Load, mistakes: Mistakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("HOME", "/home")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to("/tmp")
    text = f"cache: {cache}\n{OUT}"
    (said,) = mistakes(text, writes=True)
    assert said.startswith("a.yaml:1: cache = ")
    assert f"leads out of {tmp_path / 'runs'}, where the run goes; if it is meant, type it: cache=/" in said
    assert load(text).cache
    assert load(text, f"cache={cache}", writes=True).cache
    assert load(f"cache: runs/mine\n{OUT}", writes=True).cache == str(tmp_path / "runs" / "mine")
    assert mistakes(f"cache: runs/mine\n{OUT}", writes=True, out=tmp_path / "else" / "where")
    assert make_recipe({"data": "puppets", "student": "convnet8", "method": "none", "cache": cache}).cache
