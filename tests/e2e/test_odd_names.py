"""Names that mean something to a program: brackets, blanks, ``#``, ``:``, bytes that are no text. They are kept."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classroomkd.cli.app import main

ODD = "photos #2, 100% = é: [x] $HOME"
CLASSES = (b"[red]c", b"caf\xe9", b"cup [a]", b"cup [b]")


def fill(root: Path) -> Path:
    """Four classes; a file's name in each is no text, and so is one class's."""
    for row, name in enumerate(CLASSES):
        folder = os.fsencode(root) + b"/" + name
        try:
            os.makedirs(folder)
        except OSError:
            pytest.skip("names are text here")
        for number in range(8):
            pixels = np.random.default_rng(10 * row + number).integers(0, 60, (16, 16, 3), dtype=np.uint8) + 40 * row
            with open(folder + b"/\xe9%d.png" % number, "wb") as file:
                Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
        with open(folder + b"/\xe8.png", "wb") as file:
            file.write(b"no picture")
    return root


def test_odd_names_from_a_folder_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / ODD)
    (tmp_path / "photos").mkdir()  # what is left of the name where a program takes # for a comment
    out = "run #1: [y]"
    (tmp_path / "a.yaml").write_text("data: puppets\nstudent: convnet4\nmethod: none\n")
    run = [
        "run", "a.yaml", f"data.source=imagefolder:{ODD}", "data.unreadable=skip", "data.size=32",
        "mentors=[{name: '[big] one', model: convnet4}]", "methods=[none, {name: average, label: '[bold] arm'}]",
        "seeds=[0]", "train.epochs=1", "train.batch_size=8", "workers=1", "--out", out,
    ]  # fmt: skip
    for words in (run, [*run, "--resume"], ["report", out], ["compare", out]):
        assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    for name in ("[big] one", "[bold] arm"):
        assert name in said.out
    assert "4 unreadable images skipped: [red]c/\ufffd.png, caf\ufffd/\ufffd.png" in said.err
    student = str(Path(out, "none", "seed0"))
    assert main(["evaluate", student]) == 0
    table = capsys.readouterr().out
    for name in ("[red]c", "caf\ufffd", "cup [a]", "cup [b]"):
        assert name in table
    for target in ("answers.csv", "answers.jsonl"):
        assert main(["predict", student, ODD, "--out", target]) == 0
    assert "skipped" in capsys.readouterr().err
    with open("answers.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    assert f"{ODD}/cup [a]/\ufffd3.png" in [row["file"] for row in rows]
    lines = Path("answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["file"] for line in lines] == [row["file"] for row in rows]
    assert main(["export", student, "--to", "students #1.safetensors"]) == 0
    own = [*run[:-2], "--out", "second", "student.checkpoint=students #1.safetensors", "methods=none", "mentors=[]"]
    assert main([*own, "--dry-run"]) in (0, 2)  # a student with a head of its own may be refused, not its path
    assert "there is no such file" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "bench"])
def test_places_whose_names_are_no_text_are_refused_before_any_work(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(
        "data: {source: puppets, options: {train: 60, test: 20}}\nstudent: convnet4\nmethod: none\n"
    )
    out = ["--out", "out\udce9"] if verb == "run" else ["cache=cache\udce9"]
    for words in (out, ["data=imagefolder:caf\udce9"], ["student.checkpoint=caf\udce9.pth"]):
        assert main([verb, "a.yaml", *words]) == 2
        said = capsys.readouterr().err
        assert "holds bytes that are no text (UTF-8)" in said
        assert "\ufffd" in said
        assert said.count("\n") == 1
