"""One flipped bit anywhere in a run folder or its cache: nothing wrong is used, and nothing wrong stays as a result."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from classroomkd.cli.app import main
from classroomkd.report import read_metrics
from classroomkd.train.step import StepRunner

SIZES = [
    "data.options.train=100", "data.options.test=40", "student.samples=60", "train.epochs=2", "mentor_train.epochs=1",
    "train.batch_size=16", "train.log_every=2", "workers=1", "threads=1", "bank=views=2", "seeds=[0]",
    "mentors=[{name: big, model: convnet8}]", "methods=[none,classroomkd]",
]  # fmt: skip
CLOCKS = {
    "seconds", "data_wait", "x_floor", "crc", "created", "command", "cost_ratio", "step_ms", "floor_ms",
    "answer_seconds", "gradient_ratio", "weights", "forwards", "torchelastic", "bank", "name",
}  # fmt: skip
# Written over by each run and each report; nothing reads them.
WRITTEN_OVER = {"report.html", ".lock"}


class Place(NamedTuple):
    """A folder with ``run`` and ``cache``, and what is typed to go on with the run."""

    root: Path
    words: list[str]

    def copy(self, root: Path) -> Place:
        shutil.copytree(self.root, root)
        return Place(root, [word.replace(str(self.root), str(root)) for word in self.words])


def place(root: Path, smoke: str) -> Place:
    words = ["run", smoke, *SIZES, f"cache={root / 'cache'}", "--out", str(root / "run")]
    return Place(root, words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, smoke: str) -> Place:
    made = place(tmp_path_factory.mktemp("flips") / "finished", smoke)
    assert main([*made.words, "--quiet"]) == 0
    return made


@pytest.fixture(scope="module")
def unfinished(finished: Place, tmp_path_factory: pytest.TempPathFactory, smoke: str) -> Place:
    """Told to stop in the second student's second epoch."""
    made = place(tmp_path_factory.mktemp("flips") / "unfinished", smoke)
    steps, step = 0, StepRunner.step

    def counted(self: StepRunner, batch: Any) -> None:
        nonlocal steps
        step(self, batch)
        steps += self.classroom.method.needs.mentors > 0
        if steps == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepRunner, "step", counted)
        assert main([*made.words, "--quiet"]) == 75
    assert {p.name for p in (made.root / "run/classroomkd/seed0/checkpoints").glob("last*")} == {"last.pt", "last-1.pt"}
    return made


def cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: cleaned(item) for key, item in value.items() if key not in CLOCKS}
    return [cleaned(item) for item in value] if isinstance(value, list) else value


def results(run: Path) -> dict[str, Any]:
    """What a run is for: students, their records, the summary; without clocks."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".safetensors":
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        elif path.name in ("entry.json", "teaching.json", "summary.json", "arm.json", "data.json"):
            found[name] = cleaned(json.loads(path.read_text()))
        elif path.name == "metrics.jsonl":
            found[name] = [cleaned(line) for line in read_metrics(path)]
        elif path.name == "recipe.yaml":
            found[name] = path.read_text().replace(str(run.parent), "")
    return found


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def bits(root: Path, count: int, seed: int) -> list[tuple[Path, int]]:
    """As many of every file, below ``root``, of whatever size; other ones for another seed."""
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.stat().st_size and p.name not in WRITTEN_OVER]
    draw = random.Random(seed)
    draw.shuffle(files)
    return [(path, draw.randrange(8 * path.stat().st_size)) for path in (files * (count // len(files) + 1))[:count]]


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def asked(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        out, err = capsys.readouterr()
        assert "should not happen" not in err
        return code, out, err

    return asked


COUNTS = [pytest.param(3, 0, id="some"), pytest.param(150, 1, id="many", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("count", "seed"), COUNTS)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_resumed(
    state: str, count: int, seed: int, request: pytest.FixtureRequest, finished: Place, tmp_path: Path, say: Say
) -> None:
    """It ends in a sentence, or with the results of a run that nothing happened to."""
    whole: Place = request.getfixturevalue(state)
    expected = results(finished.root / "run")
    for number, (path, bit) in enumerate(bits(whole.root, count, seed)):
        made = whole.copy(tmp_path / str(number))
        harmed = made.root / path.relative_to(whole.root)
        flip(harmed, bit)
        wrong = harmed.read_bytes()
        code, _, err = say(*made.words, "--resume")
        where = f"{path.relative_to(whole.root)}, bit {bit}: exit {code}, {err}"
        if code:
            assert code == 2, where
            named = harmed.name in err or str(harmed.parent) in err  # of a bank, its folder
            assert named or (harmed.name == "SHA256SUMS" and "checksum" in err), where
            assert harmed.read_bytes() == wrong, where
        else:
            got = results(made.root / "run")
            name = str(path.relative_to(whole.root)).removeprefix("run/")
            if path.name == "metrics.jsonl" and name in got:  # a line is lost, and named where it is left out
                said = err + (made.root / "run" / "report.html").read_text()
                assert "damaged, and left out" in said or got[name] == expected[name], where
                assert len(got[name]) >= len(expected[name]) - 3, where
                got[name] = expected[name]
            assert got == expected, where
        shutil.rmtree(made.root)


@pytest.mark.parametrize(("count", "seed"), COUNTS)
def test_read(finished: Place, count: int, seed: int, tmp_path: Path, say: Say) -> None:
    """By verbs that only read: a sentence that names the file, or what they say of the whole run."""
    student = ("classroomkd", "seed0")

    def asked(root: Path) -> list[tuple[int, str, str]]:
        run = root / "run"
        seen = [say("evaluate", str(run.joinpath(*student)), "--json"), say("compare", str(run), "--json")]
        seen.append(say("report", str(run)))
        page = (run / "report.html").read_text() if seen[-1][0] == 0 else ""
        seen.append((seen[-1][0], page, seen[-1][2]))
        return [(code, out.replace(str(root), ""), err) for code, out, err in seen]

    whole = finished.copy(tmp_path / "whole")
    expected = [out for _, out, _ in asked(whole.root)]
    for number, (path, bit) in enumerate(bits(finished.root / "run", count, seed)):
        made = finished.copy(tmp_path / str(number))
        harmed = made.root / path.relative_to(finished.root)
        flip(harmed, bit)
        for (code, out, err), right in zip(asked(made.root), expected, strict=True):
            where = f"{path.relative_to(finished.root)}, bit {bit}: exit {code}, {err}"
            assert code in (0, 2), where
            named = harmed.name if harmed.name != "SHA256SUMS" else "its checksum differs"
            assert out == right or named in err + out or (code == 2 and not out), where
        shutil.rmtree(made.root)
