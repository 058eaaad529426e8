"""The commands and Python blocks of docs/ work from top to bottom, and so do the examples."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import documents
from documents import PAGES, ROOT, Reader, classroomkd

from classroomkd import methods
from classroomkd.methods import table

pytestmark = pytest.mark.slow
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
PAGES_OF_DOCS = [*PAGES[1:], ROOT / "CONTRIBUTING.md"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    documents.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("my_nets", "my_data", "my_method"):  # what the documents' files are called
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_page_works_from_top_to_bottom(page: Path, desk: Path) -> None:
    reader = Reader()
    for block in documents.blocks(page):
        reader.carry_out(block)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples(
    example: Path, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    shares = [float(x) for x in re.findall(r"(\d+\.\d)%", capsys.readouterr().out)]
    if example.name == "plain_loop.py":
        assert len(shares) == 5
        assert shares[0] > 60, "a mentor on drawn figures"
        assert max(shares[3:]) > shares[2], "mentors help a student with few labels"
    elif example.name == "own_modules.py":
        assert len(shares) == 3
        assert shares[0] > 70
        assert shares[2] > 45, "chance is a third"
        assert (desk / "runs" / "own-modules" / "report.html").is_file()


def test_every_example_is_named_somewhere() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for example in (ROOT / "examples").glob("*.py"):
        assert f"examples/{example.name}" in text


def test_the_plug_in_of_the_documents(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and the entry point of python.md, as an installed package would bring them."""
    page = documents.blocks(ROOT / "docs" / "python.md")
    (desk / "my_method.py").write_text(next(b.text for b in page if b.said == "file my_method.py"))
    points = next(b.text for b in page if b.language == "toml")
    value = re.search(r'^surest = "(.*)"$', points, re.MULTILINE)
    assert value is not None
    about = desk / "my_methods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{table.GROUP}]\nsurest = {value[1]}\n")
    monkeypatch.syspath_prepend(str(desk))
    table.entries.cache_clear()
    try:
        assert "surest" in methods.names()
        code, said = classroomkd(
            ["run", "smoke", "method=surest", "method.temperature=2", "--out", "runs/surest", "--quiet"]
        )
        assert code == 0, said
        assert "temperature: 2" in (desk / "runs" / "surest" / "recipe.yaml").read_text()
        code, said = classroomkd(["run", "smoke", "method=surest", "method.temprature=2", "--out", "runs/b", "--quiet"])
        assert code == 2
        assert "temperature" in said
    finally:
        monkeypatch.undo()
        table.entries.cache_clear()


def test_two_processes_as_runs_md_says(desk: Path) -> None:
    """The torchrun line, in earnest: into a new folder, with mentors to train."""
    blocks = documents.blocks(ROOT / "docs" / "runs.md")
    words = next(w for b in blocks if b.language == "sh" for w in documents.commands(b.text) if w[0] == "torchrun")
    quick = next(more for known, more in documents.QUICK if re.match(known, "run smoke"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    process = subprocess.Popen(
        [*launcher, *words[1:], *quick, "--quiet"], env=ENV, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=150)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the ranks too, should they wait for each other
    assert process.returncode == 0, said[-3000:]
    assert (desk / "runs" / "ranks" / "classroomkd" / "seed0" / "student.safetensors").is_file()
