"""Run folders and caches that came from somebody else: links in them lead nowhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from classroomkd.cli.app import main

BANKED = ["method=classroomkd", "bank=views=2", "--quiet"]
SECRET = "the user's own"
FILES = [
    ".lock", "recipe.yaml", "summary.json", "report.html", "environment.json", "data.json", "gallery.json",
    "none/arm.json", "none/seed0/metrics.jsonl", "none/seed0/student.safetensors",
    "none/seed0/student-best.safetensors", "none/seed0/entry.json", "none/seed0/teaching.json",
    "none/seed0/checkpoints/last.pt", "none/seed0/checkpoints/layout.json",
]  # fmt: skip
FOLDERS = ["none", "none/seed0", "none/seed0/checkpoints"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, quick: list[str], smoke: str) -> Path:
    """A cache with trained mentors and their answers."""
    place = tmp_path_factory.mktemp("filled")
    words = ["run", smoke, *quick, f"cache={place / 'cache'}", *BANKED, "--out", str(place / "run")]
    assert main(words) == 0
    return place / "cache"


def outside(tmp_path: Path) -> Path:
    """A file that nothing may touch."""
    secret = tmp_path / "home" / "precious"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    return secret


def linked(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def untouched(secret: Path) -> bool:
    return secret.read_text() == SECRET and [p.name for p in secret.parent.iterdir()] == [secret.name]


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_link_in_a_run_folder(
    tmp_path: Path, finished: Path, quick: list[str], smoke: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, run = outside(tmp_path), tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "none" / "seed1")  # something is left to do
    linked(run / name, secret.parent if name in FOLDERS else secret)
    words = [smoke, *quick, "methods=[none,classroomkd]", "seeds=[0,1]", "--out", str(run), "--resume", "--quiet"]
    assert main(["run", *words]) == 2
    said = capsys.readouterr().err
    assert f"{run / name}: it is a link to" in said
    assert "remove it" in said
    assert untouched(secret)


def test_a_link_in_place_of_a_report(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret, run = outside(tmp_path), tmp_path / "run"
    shutil.copytree(finished, run)
    linked(run / "report.html", secret)
    assert main(["report", str(run)]) == 2
    assert "report.html: it is a link to" in capsys.readouterr().err
    assert untouched(secret)
    assert (run / "report.html").is_symlink()


def test_the_folders_that_are_typed_may_be_links(tmp_path: Path, finished: Path, quick: list[str], smoke: str) -> None:
    shutil.copytree(finished, tmp_path / "real")
    (tmp_path / "run").symlink_to("real")
    words = [smoke, *quick, "methods=[none,classroomkd]", "seeds=[0,1]", "--out", str(tmp_path / "run"), "--resume"]
    assert main(["run", *words, "--quiet"]) == 0
    assert (tmp_path / "run").is_symlink()


LINKS = ["mentors", "bank/*/rows-*", "mentors/*/.lock"]
OTHERS = ["bank", "mentors/*[0-9a-f]", "bank/*", "bank/*/.lock", "mentors/*/checkpoints"]


@pytest.mark.parametrize("name", [*LINKS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_link_in_a_cache(
    tmp_path: Path, filled: Path, quick: list[str], smoke: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing in a cache is not made outside of it."""
    cache, secret = tmp_path / "cache", outside(tmp_path)
    shutil.copytree(filled, cache)
    place = next(iter(sorted(cache.glob(name))))
    folder = place.is_dir()
    linked(place, secret.parent if folder else secret)
    for file in cache.glob("mentors/*/mentor.safetensors"):
        file.unlink()
    words = ["run", smoke, *quick, f"cache={cache}", *BANKED, "--out", str(tmp_path / "second")]
    assert main(words) == 2
    assert " a link" in capsys.readouterr().err
    assert untouched(secret)


def test_a_bank_is_not_repaired_through_links(tmp_path: Path, filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, secret = tmp_path / "cache", outside(tmp_path)
    shutil.copytree(filled, cache)
    stores = sorted((cache / "bank").iterdir())
    for store, name in zip(stores, ["rows-00000.bin", "sums-00000.bin", ".lock"], strict=False):
        linked(store / name, secret)
    assert main(["bank", "verify", str(cache), "--repair"]) == 2
    assert capsys.readouterr().err.count(" link") >= len(stores)
    assert untouched(secret)
    assert main(["bank", "merge", str(cache), "--into", str(tmp_path / "other")]) == 2
    assert untouched(secret)
