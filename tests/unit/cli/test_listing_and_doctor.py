"""``classroomkd list`` and ``classroomkd doctor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from classroomkd.cli import doctor as doctor_module
from classroomkd.cli.app import main
from classroomkd.cli.doctor import Check, examine
from classroomkd.cli.listing import KINDS, format_table
from classroomkd.errors import UserError


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


# --- list -------------------------------------------------------------------------------------------------------------


def test_every_list_as_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        rows = json.loads(said(capsys, "list", kind, "--json"))
        table = said(capsys, "list", kind)
        key = "pattern" if kind == "data" else "name"
        assert rows
        assert all(row[key] in table for row in rows), kind
    together = json.loads(said(capsys, "list", "--json"))
    assert list(together) == list(KINDS)


def test_methods_say_how_faithful_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in json.loads(said(capsys, "list", "methods", "--json"))}
    assert set(rows["classroomkd"]) >= {"name", "summary", "status", "tasks", "rules"}
    assert "reconstructed" in rows["classroomkd"]["status"]
    assert rows["none"]["status"] == "baseline"
    assert "reconstructed" in said(capsys, "list", "methods")


def test_recipes_are_listed_with_their_first_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes" / "deep").mkdir(parents=True)
    (tmp_path / "recipes" / "deep" / "mine.yaml").write_text("# A try with\n# two lines. And more.\ndata: x\n")
    monkeypatch.chdir(tmp_path)
    rows = {row["name"]: row for row in json.loads(said(capsys, "list", "recipes", "--json"))}
    assert rows["deep/mine"] == {
        "name": "deep/mine",
        "path": "recipes/deep/mine.yaml",
        "summary": "A try with two lines",
    }
    assert "smoke" in rows  # those of the source checkout


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(capsys, "list", "schema"))["title"] == "classroomkd recipe"


def test_tables_fit_the_terminal_and_leave_out_empty_columns() -> None:
    rows = [{"name": "a", "empty": "", "count": 12345, "text": "word " * 30}, {"name": "long name", "text": "x"}]
    lines = format_table(rows, ["name", "empty", "count", "text"], width=60).splitlines()
    assert lines[0].split() == ["NAME", "COUNT", "TEXT"]
    assert max(map(len, lines)) <= 60
    assert "12,345" in lines[1]
    assert lines[2].startswith(" " * lines[0].index("TEXT") + "word")


# --- doctor -----------------------------------------------------------------------------------------------------------


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_doctor_on_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = json.loads(said(capsys, "doctor", "--json", "--cache", str(tmp_path / "not yet" / "made")))
    checks = {check["name"]: check for check in told["checks"]}
    assert told["ok"] is True
    for name in ("python", "classroomkd", "torch", "packages", "cpu", "threads", "disk", "cache", "OMP_WAIT_POLICY"):
        assert name in checks
        assert set(checks[name]) == {"name", "state", "found", "remedy"}
    assert checks["torch"]["found"].endswith("build")
    assert not (tmp_path / "not yet").exists()  # looking changes nothing


def test_doctor_prints_the_command_for_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = doctor_module._version
    missing = ("timm", "scikit-learn", "onnx", "onnxruntime", "pycocotools")
    monkeypatch.setattr(doctor_module, "_version", lambda name: None if name in missing else found(name))
    out = said(capsys, "doctor")
    torch = str(found("torch")).partition("+")[0]
    assert "missing  timm" in out
    assert f"-m pip install torch=={torch} torchvision timm\n" in out  # or pip would replace torch
    assert f"-m pip install torch=={torch} scikit-learn\n" in out
    assert "missing  onnxruntime" in out
    everything = "torchvision timm scikit-learn onnx onnxruntime pycocotools"
    assert f"-m pip install torch=={torch} {everything}\n" in out  # all at once, in one line
    assert "everything a run needs is here" in out


def test_doctor_ends_with_one_when_something_required_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_library.py").write_text("raise ImportError('libx.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor_module, "REQUIRED", {"broken_library": "safetensors", "no_such_library": "nosuch"})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "broken   safetensors" in out
    assert "but ImportError: libx.so: cannot open shared object file" in out
    assert "--force-reinstall --no-deps safetensors" in out
    assert "broken   nosuch" in out
    assert "a run cannot work before what is broken is mended" in out


def test_doctor_without_torch_says_so_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = doctor_module._version
    monkeypatch.setattr(doctor_module, "_version", lambda name: None if name == "torch" else found(name))
    checks = by_name(examine(tmp_path))
    assert checks["torch"].state == "broken"
    assert "pip install torch==2.13.0" in checks["torch"].remedy
    assert "timm" not in checks
    assert "disk" in checks


def test_doctor_survives_a_broken_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from classroomkd import _compat

    def broken(wanted_by: str = "") -> Any:
        raise UserError("torchvision is installed but cannot be imported")

    monkeypatch.setattr(_compat, "import_torchvision", broken)
    checks = by_name(examine(tmp_path))
    assert (checks["torchvision"].state, checks["torchvision"].found) == (
        "missing",
        "torchvision is installed but cannot be imported",
    )
    assert checks["cpu"].state == "ok"


def test_doctor_on_a_full_or_closed_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil
    import tempfile

    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: real._replace(free=1024**2))
    assert by_name(examine(tmp_path))["disk"].state == "note"

    def refuse(dir: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    closed = by_name(list(doctor_module._disk(tmp_path)))["cache"]
    assert (closed.state, closed.remedy) == ("broken", "choose a folder you may write: cache=DIR")


def test_doctor_looks_into_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cifar100").mkdir()
    monkeypatch.setenv("CLASSROOMKD_DATA", str(tmp_path))
    (check,) = doctor_module._data()
    assert (check.state, check.found) == ("ok", f"{tmp_path}: cifar100")
    monkeypatch.setenv("CLASSROOMKD_DATA", str(tmp_path / "gone"))
    (check,) = doctor_module._data()
    assert check.state == "note"
    assert "no such folder" in check.found
