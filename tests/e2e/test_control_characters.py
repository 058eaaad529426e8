"""Control characters in names of classes, files, mentors and arms reach no terminal, no page and no picture."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from rich.table import Table

import classroomkd
from classroomkd._printable import printable
from classroomkd._terminal import Console
from classroomkd.cli.app import main

CLASSES = ["a\x1b[31mred\x1b[2J", "b\u202egpj.exe", "c\x9b1A[red]:smile:"]
MENTOR, LABEL = "big\x1b]0;title\x07", "kd\r\u2066turned"


def clean(text: str) -> None:
    odd = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t\u200d"}
    assert not odd, sorted(map(ascii, odd))


def test_what_is_written_out() -> None:
    assert printable("plain: é ü 漢字 👩\u200d🔬\n\t") == "plain: é ü 漢字 👩\u200d🔬\n\t"
    assert printable("\x1b[31m") == "\\x1b[31m"
    assert printable("a\u202eb\x00\x7f\u2028\udc80\U000e0041") == "a\\u202eb\\x00\\x7f\\u2028\\udc80\\U000e0041"
    assert printable({"a\x1b": ["\x9b", 1, None]}) == {"a\\x1b": ["\\x9b", 1, None]}
    every = printable("".join(map(chr, range(0x11_0000))))
    assert not {c for c in every if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - {"\n", "\t"}


def test_a_console_keeps_its_own_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name\x1b[2J")
    table.add_row("[red]x[/red] \x1b[31m :smile:", style="bold")
    Console(force_terminal=True, width=80, color_system="standard").print(table)
    shown = capsys.readouterr().out
    assert "\x1b[1m" in shown  # bold is rich's own
    assert "\x1b[2J" not in shown
    assert "\x1b[31m" not in shown
    assert "[red]x[/red] \\x1b[31m :smile:" in shown
    lengths = {len(line) for line in shown.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()}
    assert len(lengths) == 1  # laid out as wide as it is shown


def test_no_other_console_is_made() -> None:
    for path in Path(classroomkd.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "rich.console" not in text or "Console(" not in text or path.name == "_terminal.py", path


def test_from_images_to_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, label in enumerate(CLASSES):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(14):
            picture = Image.new("RGB", (32, 32), (80 * number, 10 * k, 90))
            picture.save(tmp_path / "photos" / label / f"{k}\x1b[1m.png")
    (tmp_path / "photos" / CLASSES[0] / "broken\x1b[5m.png").write_bytes(b"nothing")
    recipe = {
        "data": {"source": f"imagefolder:{tmp_path / 'photos'}", "unreadable": "skip"}, "student": "convnet4",
        "mentors": [{"name": MENTOR, "model": "convnet4"}],
        "methods": ["none", {"name": "kd", "label": LABEL}], "train": {"epochs": 1, "batch_size": 8}, "threads": 1,
        "workers": 1,
    }  # fmt: skip
    (tmp_path / "a.yaml").write_text(json.dumps(recipe))  # which is YAML, too
    run = tmp_path / "run"
    student = str(run / "none" / "seed0")
    for code, words in (
        (0, ["run", str(tmp_path / "a.yaml"), "--dry-run", "--out", str(run)]),
        (0, ["run", str(tmp_path / "a.yaml"), "--out", str(run)]),
        (2, ["run", str(tmp_path / "a.yaml"), "--out", str(tmp_path / "x"), "method.\x1b[2J=1"]),
        (0, ["bench", str(tmp_path / "a.yaml"), "--rounds", "2"]),
        (0, ["evaluate", student, "--part", "all"]),
        (0, ["evaluate", student, "--json"]),
        (0, ["predict", student, str(tmp_path / "photos"), "--json"]),
        (0, ["compare", str(run)]),
        (0, ["compare", str(run), "--markdown"]),
        (0, ["compare", str(run), "--json"]),
        (0, ["report", str(run), "--picture", str(tmp_path / "a.svg")]),
        (0, ["export", student, str(tmp_path / "ship" / "s.safetensors")]),
        (2, ["evaluate", str(tmp_path / "no\x1b[2Jthing")]),
        (2, ["list", "meth\x1b[2Jods"]),
    ):
        capsys.readouterr()
        assert main(words) == code, capsys.readouterr().err
        out, err = capsys.readouterr()
        clean(out)
        clean(err)
    clean((run / "report.html").read_text())
    clean((tmp_path / "a.svg").read_text())
    assert "a\\x1b[31mred" in (run / "report.html").read_text()
    clean((tmp_path / "ship" / "s.md").read_text())
    assert json.loads((run / "summary.json").read_text())["data"]["classes"] == CLASSES  # files keep the names
    assert main(["predict", student, str(tmp_path / "photos")]) == 0
    assert f"photos/{CLASSES[0]}/0\x1b[1m.png" in capsys.readouterr().out  # CSV, for a program
