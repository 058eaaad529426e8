"""On resuming, a finished student or a mentor whose files are not what was written is made again, and it is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from classroomkd.cli.app import main
from classroomkd.recipe import load_recipe
from classroomkd.run.finished import read_back
from classroomkd.train.runtime import Runtime
from classroomkd.train.step import StepRunner

Harm = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One bit in the middle: of a tensor, or of a number in JSON."""
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)


def another(path: Path) -> None:
    """Readable weights of a network of other shapes."""
    save_file({key: torch.zeros(*value.shape, 2) for key, value in load_file(path).items()}, path)


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff[" * 50)


HARMS: dict[str, Harm] = {
    "gone": Path.unlink, "empty": lambda path: path.write_bytes(b"") and None, "cut": cut, "flipped": flipped,
    "another": another, "garbage": garbage,
}  # fmt: skip
SAID = {"gone": "is gone", "empty": "is empty"}
OF_WEIGHTS = ["gone", "empty", "cut", "flipped", "another"]
CASES = [
    *(("student.safetensors", harm) for harm in OF_WEIGHTS),
    *(("student-best.safetensors", harm) for harm in ("gone", "cut", "flipped")),
    *(("student-ema.safetensors", harm) for harm in ("gone", "flipped")),
    ("teaching.json", "gone"), ("teaching.json", "garbage"),
    *(("entry.json", harm) for harm in ("gone", "empty", "cut", "flipped", "garbage")),
]  # fmt: skip


@pytest.fixture(scope="module")
def words(smoke: str, quick: list[str]) -> list[str]:
    return ["run", smoke, *quick, "method=none", "seeds=[0,1,2,3,4]", "train.epochs=1", "train.ema=0.5"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([*words, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def run(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def content(run: Path) -> dict[str, bytes]:
    """Files of the students."""
    kept = (".safetensors", "teaching.json", "entry.json")
    paths = [path for path in sorted(run.glob("none/seed*/*")) if path.name.endswith(kept)]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def test_the_same_student_is_the_same_file(run: Path, whole: Path, words: list[str], tmp_path: Path) -> None:
    """Of one recipe and seed, in two folders."""
    assert main([*words, "seeds=[0]", "--out", str(tmp_path / "other"), "--quiet"]) == 0
    for name in ("student.safetensors", "student-best.safetensors", "student-ema.safetensors"):
        one, other = (folder / "none" / "seed0" / name for folder in (whole, tmp_path / "other"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("name", "harm"), CASES)
def test_what_is_not_as_it_was_written_is_noticed(run: Path, name: str, harm: str) -> None:
    folder, told = run / "none" / "seed0", []
    recipe = load_recipe(str(run / "recipe.yaml"))
    room: Any = SimpleNamespace(context=SimpleNamespace(runtime=Runtime("cpu"), recipe=recipe))
    asked = (room, recipe.arms()[0], 0, folder, told.append)
    assert read_back(*asked) == json.loads((folder / "entry.json").read_text())
    assert told == []
    HARMS[harm](folder / name)
    assert read_back(*asked) is None
    why = SAID.get(harm, "is not what was written (its checksum differs)")
    text = f"{folder / name} {why}; it is made again from its last checkpoint"
    assert told == [{"event": "note", "text": text}]


def test_it_is_made_again_without_a_training_step(
    run: Path, whole: Path, words: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmed = [("student.safetensors", "gone"), ("student-best.safetensors", "flipped"), ("entry.json", "garbage")]
    for seed, (name, harm) in enumerate(harmed):  # the other two are whole
        HARMS[harm](run / "none" / f"seed{seed}" / name)
    monkeypatch.setattr(StepRunner, "step", lambda *_: pytest.fail("it was trained"))
    assert main([*words, "--out", str(run), "--resume"]) == 0
    assert capsys.readouterr().err.count("made again from its last checkpoint") == len(harmed)
    assert content(run) == content(whole)
    made, before = (json.loads((folder / "summary.json").read_text())["entries"] for folder in (run, whole))
    assert made == before


def test_without_a_checkpoint_it_is_trained_again(run: Path, whole: Path, words: list[str], capsys: Any) -> None:
    """As runs of earlier versions are: they have no checksums either."""
    harmed = ["gone", "empty", "cut", "another"]
    for seed in range(5):
        folder = run / "none" / f"seed{seed}"
        (folder / "SHA256SUMS").unlink()
        shutil.rmtree(folder / "checkpoints")
        if seed < len(harmed):
            HARMS[harmed[seed]](folder / "student.safetensors")
    assert main([*words, "--out", str(run), "--resume"]) == 0
    assert capsys.readouterr().err.count("there is no checkpoint: it is trained again") == len(harmed)
    for seed in range(len(harmed)):
        expected, found = (load_file(d / "none" / f"seed{seed}" / "student.safetensors") for d in (whole, run))
        assert all(torch.equal(value, found[key]) for key, value in expected.items())


@pytest.mark.parametrize("harm", [*OF_WEIGHTS, "garbage"])
def test_other_verbs_say_it_in_one_sentence(run: Path, harm: str, tmp_path: Path, capsys: Any) -> None:
    seed = run / "none" / "seed0"
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    HARMS[harm](seed / "student.safetensors")
    HARMS["cut"](seed / "teaching.json")
    HARMS["garbage"](seed / "entry.json")
    for code, words in (
        (2, ["evaluate", str(seed)]),
        (2, ["predict", str(seed), str(tmp_path)]),
        (2, ["export", str(seed), str(tmp_path / "ship" / "s.safetensors")]),
        (0, ["compare", str(run)]),
        (0, ["report", str(run)]),
    ):
        capsys.readouterr()
        assert main(words) == code, words
        said = capsys.readouterr().err
        assert "should not happen" not in said
        if code:
            assert said.startswith("error: ")
            assert said.count("\n") == 1
            assert "student.safetensors" in said
    assert not (tmp_path / "ship").exists()


def test_a_mentor_that_is_not_what_was_written_is_made_again(tmp_path: Path, smoke: str, capsys: Any) -> None:
    mentors = "mentors=[" + ",".join(f"{{name: m{i}, model: convnet4}}" for i in range(5)) + "]"
    words = [
        "run", smoke, mentors, "method=average", "train.epochs=1", "mentor_train.epochs=1", "workers=1", "threads=1",
        "data.options.train=100", "data.options.test=40", "student.samples=60", f"cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    folder = tmp_path / "cache" / "mentors"
    assert main([*words, "--out", str(tmp_path / "first"), "--quiet"]) == 0

    def kept() -> dict[str, bytes]:
        paths = [*folder.glob("*/mentor.safetensors"), *folder.glob("*.npy*")]
        return {str(path): path.read_bytes() for path in paths}

    before = kept()
    weights, logits = sorted(folder.glob("*/mentor.safetensors")), sorted(folder.glob("*-val.npy"))
    assert (len(weights), len(logits)) == (5, 5)
    for path, harm in zip(weights, OF_WEIGHTS, strict=True):
        HARMS[harm](path)
    for path, harm in zip(logits, ["gone", "empty", "cut", "flipped", "garbage"], strict=True):
        HARMS[harm](path)
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "second")]) == 0
    said = capsys.readouterr().err
    assert said.count("it is made again from its last checkpoint") == 5
    assert said.count("is asked again") == 4  # what is gone is no damage
    assert kept() == before
    shutil.rmtree(weights[0].parent / "checkpoints")
    cut(weights[0])
    assert main([*words, "--out", str(tmp_path / "third")]) == 0
    assert "there is no checkpoint: it is trained again" in capsys.readouterr().err
    assert kept() == before
