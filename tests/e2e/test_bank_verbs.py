"""The bank's verbs and the room it takes: what they say where something is short, broken or far too much."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from classroomkd import distill
from classroomkd.cli.app import main
from classroomkd.errors import UserError


def test_room_for_all_mentors_is_asked_for_before_anything_is_made(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, features = tmp_path / "cache", "methods=[{name: rkd, tap: '@stage:-1'}]"
    given = [smoke, *quick, f"cache={cache}"]
    all_mentors = 3 * 2 * 60 * (2 * 10 + 4)
    free = shutil.disk_usage(tmp_path)
    for verb, out in ((["bank", "fill"], []), (["run"], ["--out", str(tmp_path / "run")])):
        for more, room in (
            (["bank=views=2"], all_mentors - 1),
            (["bank=views=2", features], all_mentors),
            (["bank=exact"], 99),
        ):
            monkeypatch.setattr(shutil, "disk_usage", lambda path, room=room: free._replace(free=room))
            assert main([*verb, *given, *more, *out]) == 2
            said = capsys.readouterr().err.replace("\n", " ")
            assert "these answers take" in said
            if len(more) == 1 and "views" in more[0]:
                assert f"take {all_mentors / 1024:.2f} KiB, " in said
            assert not (cache / "bank").exists()
            assert not (tmp_path / "run").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=all_mentors))
    assert main(["bank", "fill", *given, "bank=views=2", "--quiet"]) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=0))
    assert main(["bank", "fill", *given, "bank=views=2", "--quiet"]) == 0  # what is there takes no more


def test_what_is_wrong_with_one_store_hides_no_other(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    assert main(["bank", "fill", smoke, *quick, "bank=views=2", f"cache={cache}", "--quiet"]) == 0
    cut, gone, whole = sorted((cache / "bank").iterdir())
    rows = cut / "rows-00000.bin"
    rows.write_bytes(rows.read_bytes()[:-1])
    (gone / "manifest.json").write_text("{")
    capsys.readouterr()
    assert main(["bank", "info", str(cache), "--json"]) == 2
    told = capsys.readouterr()
    found = {Path(store["folder"]): store for store in json.loads(told.out)}
    assert found[whole]["rows"] == 120
    for store in (cut, gone):
        assert found[store]["error"] in told.err
    assert f"run classroomkd bank verify {cut} --repair" in told.err
    for verb in ("info", "verify"):
        assert main(["bank", verb, str(cache)]) == 2
        told = capsys.readouterr()
        assert whole.name.replace("-", "")[:4] in told.out.replace("-", "")
        assert f"{gone / 'manifest.json'} is damaged" in told.err

    monkeypatch.chdir(whole)  # the store itself
    assert main(["bank", "info", ".", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["folder"] == str(whole)
    assert main(["bank", "merge", ".", "--into", str(tmp_path / "new")]) == 0
    assert [p.name for p in (tmp_path / "new" / "bank").iterdir()] == [whole.name]
    assert main(["bank", "gc", ".", "--keep-days", "nan"]) == 2
    assert main(["bank", "gc", ".", "--keep-days", "0"]) == 0
    assert "0 stores stay" in capsys.readouterr().out
    assert not whole.exists()


def test_filling_exact_ahead_says_what_it_costs(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    words = ["bank", "fill", smoke, *quick, f"cache={tmp_path}", "data.options.train=30", "student.samples=10"]
    assert main([*words, "train.epochs=3"]) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "exact filled ahead stores all 81 views, 810 answers a mentor; a run asks at most 30 of them" in said
    assert main([*words, "train.epochs=90", "bank=exact"]) == 0
    assert "filled ahead" not in capsys.readouterr().err


def test_the_plan_counts_the_bytes_that_the_stores_take(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any
) -> None:
    words = [smoke, *quick, "bank=views=2", "methods=[{name: rkd, tap: '@stage:-1'}]", f"cache={tmp_path}"]
    assert main(["run", *words, "--dry-run", "--json", "--quiet"]) == 0
    planned = json.loads(capsys.readouterr().out)["bank"]["bytes"]
    assert main(["bank", "fill", *words, "--shard", "0/2", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["bank", "info", str(tmp_path), "--json"]) == 0
    stores = json.loads(capsys.readouterr().out)
    assert len(stores) == 2 * 3
    assert sum(store["nbytes"] for store in stores) == planned


def test_room_is_asked_for_from_python_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=0))
    data = {"source": "puppets", "options": {"train": 40, "test": 20}}
    with pytest.raises(UserError, match="these answers take"):
        distill(
            "convnet8",
            ["convnet8"],
            data,
            "average",
            out=tmp_path / "run",
            bank="views=2",
            cache=str(tmp_path / "cache"),
        )
    assert not (tmp_path / "run").exists()
