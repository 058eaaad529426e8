"""Every file that a run, a cache or a student's file keeps, damaged in every way: one sentence, from every verb."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import safetensors
from safetensors.torch import load_file, save_file

from classroomkd import bank
from classroomkd.cli.app import main
from classroomkd.errors import UserError
from classroomkd.report import load_summary, result_rows
from classroomkd.report.context import ReportContext
from classroomkd.report.records import read_run
from classroomkd.report.sections import settings
from classroomkd.report.style import page_ink

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """A bit of every fiftieth byte."""
    content = bytearray(path.read_bytes())
    for at in range(7, len(content), 50):
        content[at] ^= 1 << at % 8
    path.write_bytes(content)


def written(text: str | bytes) -> Damage:
    def damage(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def values(change: Callable[[Any], Any]) -> Damage:
    """Every value of a JSON file (its leaves) replaced."""

    def through(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: through(item) for key, item in value.items()}
        return [through(item) for item in value] if isinstance(value, list) else change(value)

    def damage(path: Path) -> None:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        records = [json.loads(line) for line in lines]
        for record in records if path.suffix == ".jsonl" else ():
            del record["crc"]  # as lines of earlier versions: their values alone tell
        path.write_text("\n".join(json.dumps(through(record)) for record in records) + "\n")

    return damage


ANY: dict[str, Damage] = {
    "empty": written(""), "cut": cut, "flipped": flipped, "bytes": written(bytes(range(256))), "folder": folder,
    "pipe": pipe,
}  # fmt: skip
TEXT: dict[str, Damage] = ANY | {
    "list": written("[]"), "mapping": written("{}"), "number": written("3"), "null": written("null"),
    "deep": written("[" * 99_999), "deeper": written("[" * 500 + "]" * 500), "huge": written("9" * 9_999),
    "large": written("1" + "0" * 400),
    "mark": written('{"schema": "\\ud800", "name": "\\ud800"}'), "nan": written("NaN"),
}  # fmt: skip
JSON: dict[str, Damage] = TEXT | {
    "texts": values(lambda value: "x"), "numbers": values(lambda value: 10**18), "negative": values(lambda value: -1.5),
    "none": values(lambda value: None), "nans": values(lambda value: float("nan")), "lists": values(lambda value: []),
    "mappings": values(lambda value: {"a": 1}), "truths": values(lambda value: True),
}  # fmt: skip


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """As one of an earlier version, without checksums: what the values say alone tells."""
    shutil.copytree(finished, tmp_path / "run")
    for sums in (tmp_path / "run").rglob("SHA256SUMS"):
        sums.unlink()
    return tmp_path / "run"


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A verb's exit code and what it says; whatever is not a sentence fails."""

    def asked(*words: Any) -> tuple[int, str]:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        assert "should not happen" not in said.err, said.err
        assert "--debug" not in said.err, said.err
        return code, said.err

    return asked


def each(table: dict[str, dict[str, Damage]], first: Collection[str] | None = None) -> list[Any]:
    """Every file with every kind of damage; if ``first`` names some, the other kinds in the slow tests."""
    return [
        pytest.param(
            name, kind, id=f"{name}-{key}", marks=() if first is None or key in first else pytest.mark.slow,
        ) for name, kinds in table.items() for key, kind in kinds.items()
    ]  # fmt: skip


FEW = ("cut", "flipped", "pipe", "deep", "texts", "nans")  # of the bytes, of the file, of JSON's shape and values


OPENED = {"recipe.yaml": TEXT, "data.json": JSON, "none/arm.json": JSON}


@pytest.mark.parametrize(("name", "damage"), each(OPENED, FEW))
def test_a_run_that_is_gone_on_with(
    run: Path, quick: list[str], smoke: str, name: str, damage: Damage, ask: Callable[..., tuple[int, str]]
) -> None:
    before = sorted(run.rglob("*"))
    damage(run / name)
    words = [smoke, *quick, "methods=[none,classroomkd]", "seeds=[0,1]", "--out", run, "--resume", "--quiet"]
    code, said = ask("run", *words)
    assert code == 2
    assert str(run) in said
    assert sorted(run.rglob("*")) == before


READ = {
    "summary.json": JSON, "none/seed0/metrics.jsonl": JSON, "none/seed0/teaching.json": JSON, "environment.json": JSON,
    "recipe.yaml": TEXT,
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), each(READ))
def test_what_a_report_reads(run: Path, name: str, damage: Damage) -> None:
    """What it is made of, without drawing it."""
    damage(run / name)
    try:
        summary = load_summary(run)
    except UserError:
        assert name == "summary.json"
        return
    for log in read_run(summary):
        assert all(str(run) in text for text in log.trouble)
        assert (
            log.trouble or log.label != "none" or "seed0" not in name or name.endswith("jsonl") or log.teaching is None
        )
    settings(ReportContext.of(summary, page_ink()))
    result_rows(summary)


PAGES = [
    pytest.param(name, kind, marks=() if (name == "summary.json") == (kind == "numbers") else pytest.mark.slow)
    for name in READ for kind in ("texts", "numbers", "flipped") if kind in READ[name]
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), PAGES)
def test_a_report(run: Path, name: str, kind: str, ask: Callable[..., tuple[int, str]]) -> None:
    READ[name][kind](run / name)
    for words in (["report", run], ["compare", run]):
        code, said = ask(*words)
        assert code in ((0, 2) if name == "summary.json" else (0,)), said
        assert code == 0 or name in said


@pytest.mark.parametrize(
    ("name", "damage"), each({"recipe.yaml": TEXT, "data.json": JSON, "none/seed0/student.safetensors": ANY})
)
def test_a_student_that_is_scored(run: Path, name: str, damage: Damage, ask: Callable[..., tuple[int, str]]) -> None:
    damage(run / name)
    code, said = ask("evaluate", run / "none" / "seed0")
    assert code == 2
    assert str(run) in said


METADATA = {
    "classes": ["", "[", "{}", "3", '["a", "a"]', "[1]", "[]", "[" * 9999],
    "preprocessing": ["", "[]", "{}", '{"mean": [0.5], "std": [1.0], "shape": [3, 32, 32]}',
                      '{"mean": [0.1, 0.1, 0.1], "std": [0.0, 1, 1], "shape": [3, 32, 32]}',
                      '{"mean": [NaN, 0.1, 0.1], "std": [1, 1, 1], "shape": [3, 32, 32]}',
                      '{"mean": [0.1, 0.1, 0.1], "std": [1, 1, 1], "shape": [3, 32]}',
                      '{"mean": [0.1, 0.1, 0.1], "std": [1, 1, 1], "shape": [3, 65000, 65000]}',
                      '{"mean": [0.1, 0.1, 0.1], "std": [1, 1, 1]}', '{"mean": "a", "std": "b", "shape": "c"}'],
    "data_size": ["{}", "-1", "[", '"32"', "9" * 99],
    "model": ["", "no_such_net"],
    "task": ["", "singing", "pose"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, listed in METADATA.items() for value in listed])
def test_a_students_metadata(
    run: Path, tmp_path: Path, key: str, value: str, ask: Callable[..., tuple[int, str]]
) -> None:
    path = run / "none" / "seed0" / "student.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        about = file.metadata() | {key: value}
    save_file(load_file(path), path, about)
    (tmp_path / "photo.png").write_bytes(b"")
    for words in (
        ["evaluate", path],
        ["predict", path, tmp_path / "photo.png"],
        ["export", path, tmp_path / "x.safetensors"],
    ):
        code, said = ask(*words)
        assert code == 2
        assert str(path) in said or repr(value) in said or value in said
    assert not (tmp_path / "x.safetensors").exists()


@pytest.fixture(scope="module")
def banked(tmp_path_factory: pytest.TempPathFactory, quick: list[str], smoke: str) -> Path:
    """A cache with trained mentors and their answers."""
    place = tmp_path_factory.mktemp("banked")
    words = ["run", smoke, *quick, f"cache={place / 'cache'}", "method=classroomkd", "bank=views=2", "--quiet"]
    assert main([*words, "--out", str(place / "run")]) == 0
    return place / "cache"


CODECS = ["fp16 (99999999999999,)", "top-5 of 99999999999999", "top-2 of 10 knowing 0-99999999999", "fp16 ()", "zip"]


@pytest.mark.parametrize("damage", JSON.values(), ids=JSON)
def test_a_manifest(banked: Path, tmp_path: Path, damage: Damage, ask: Callable[..., tuple[int, str]]) -> None:
    shutil.copytree(banked, tmp_path / "cache")
    store = min((tmp_path / "cache" / "bank").iterdir())
    damage(store / "manifest.json")
    for words in (["info"], ["verify"], ["verify", "--repair"], ["gc", "--dry-run", "--keep-days", "30"]):
        code, said = ask("bank", words[0], tmp_path / "cache", *words[1:])
        assert code == (0 if words[0] == "gc" else code)
        assert code in (0, 1, 2)
        assert store.name in said or code == 0
    assert ask("bank", "merge", tmp_path / "cache", "--into", tmp_path / "other")[0] in (0, 1, 2)


@pytest.mark.parametrize("codec", CODECS)
def test_a_manifest_of_an_answer_that_is_too_large(banked: Path, tmp_path: Path, codec: str) -> None:
    shutil.copytree(banked, tmp_path / "cache")
    store = min((tmp_path / "cache" / "bank").iterdir())
    made = json.loads((store / "manifest.json").read_text())
    for change in ({"codec": codec}, {"views": 10**18}, {"samples": 10**18}, {"views": True}):
        (store / "manifest.json").write_text(json.dumps(made | change))
        with pytest.raises(UserError, match="bank"):
            bank.info(store)


CACHED = {"mentors/*-val.npy": ANY, "mentors/*-filled.json": JSON, "mentors/*/mentor.safetensors": ANY}


@pytest.mark.parametrize(("name", "damage"), each(CACHED, FEW))
def test_a_cache(
    banked: Path,
    quick: list[str],
    smoke: str,
    tmp_path: Path,
    name: str,
    damage: Damage,
    ask: Callable[..., tuple[int, str]],
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(banked, cache)
    path = min(cache.glob(name))
    damage(path)
    words = [
        "run",
        smoke,
        *quick,
        f"cache={cache}",
        "method=classroomkd",
        "bank=views=2",
        "--out",
        tmp_path / "run",
    ]
    code, said = ask(*words)
    assert code in (0, 1, 2)
    said = " ".join(said.split())  # sentences are wrapped
    assert path.name in said
    assert "again" in said if code == 0 else ("remove" in said or "again" in said or "name a" in said)
