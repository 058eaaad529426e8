"""The bank in whole runs: what is stored teaches like what is asked, and what is damaged is never used."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from banked import furthest, run, student
from safetensors.torch import load_file

from classroomkd.bank import FillOnMissCache, RowStore
from classroomkd.bank.locks import storing
from classroomkd.cli.app import main


@pytest.fixture(scope="module")
def firsts(tmp_path_factory: pytest.TempPathFactory, quick: list[str], smoke: str) -> Path:
    """A folder for each bank, with a first run and the cache that it filled."""
    home = tmp_path_factory.mktemp("firsts")
    for bank in ("views=2", "exact"):
        run(home / bank / "first", smoke, quick, f"bank={bank}")
    return home


@pytest.fixture
def stored(firsts: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Brings ``first`` and ``cache`` of a bank into the test's folder, and gives the run's summary."""

    def bring(bank: str = "views=2") -> dict[str, Any]:
        shutil.copytree(firsts / bank, tmp_path, dirs_exist_ok=True)
        made: dict[str, Any] = json.loads((tmp_path / "first" / "summary.json").read_text())
        return made

    return bring


def test_exact_is_online_in_the_stored_precision(
    tmp_path: Path, stored: Callable[..., dict[str, Any]], quick: list[str], smoke: str
) -> None:
    first = stored("exact")
    online = run(tmp_path / "online", smoke, quick, "bank=off")
    again = run(tmp_path / "again", smoke, quick, "bank=exact")
    assert online["bank"] is None
    assert first["bank"]["kind"] == "exact"
    # Every sample, epoch and mentor once, but for views that came twice; then never again.
    assert 0.9 * 3 * 60 * 3 < first["entries"][0]["mentor_answers"] <= 3 * 60 * 3
    assert again["entries"][0]["mentor_answers"] == 0
    assert furthest(student(tmp_path / "first"), student(tmp_path / "again")) == 0
    assert furthest(student(tmp_path / "online"), student(tmp_path / "first")) < 0.02
    run(tmp_path / "none", smoke, quick, "methods=[{name: none, label: classroomkd}]")
    assert furthest(student(tmp_path / "none"), student(tmp_path / "first")) > 0.05


@pytest.mark.parametrize("bank", ["views=2", "exact"])
def test_damaged_answers_are_asked_again(
    tmp_path: Path, stored: Callable[..., dict[str, Any]], quick: list[str], smoke: str, bank: str
) -> None:
    stored(bank)
    rows = sorted((tmp_path / "cache" / "bank").glob("*/rows-*"))
    assert len(rows) == 3
    content = bytearray(rows[0].read_bytes())
    filled = next(i for i, byte in enumerate(content) if byte)
    content[filled] ^= 4
    rows[0].write_bytes(bytes(content))
    rows[1].write_bytes(rows[1].read_bytes()[: len(content) // 2])
    made = run(tmp_path / "again", smoke, quick, f"bank={bank}")
    assert furthest(student(tmp_path / "first"), student(tmp_path / "again")) == 0
    if bank == "exact":
        assert 0 < made["entries"][0]["mentor_answers"] <= 3 * 60
    else:
        assert [m["forwards"] > 0 for m in made["mentors"]].count(True) == 2


def test_auto_takes_the_fewest_answers(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    words = ["run", smoke, *quick, "--out", str(tmp_path / "run"), "--dry-run", "--json"]
    for more, kind in (
        (["train.epochs=3"], "exact"),
        (["train.epochs=300"], "views=8"),
        (["train.epochs=3", "data.views=resized_crop"], "off"),
        (["train.epochs=30", "data.views=resized_crop"], "views=8"),
        (["train.epochs=30", "data.views=flip"], "exact"),
        (["method=none"], "off"),
        (["method=fitnet", "train.epochs=30"], "off"),
        (["methods=[fitnet,kd]", "train.epochs=3"], "exact"),
        (["methods=[fitnet,kd]", "train.epochs=30"], "views=8"),
    ):
        capsys.readouterr()
        assert main([*words, *more]) == 0
        bank = json.loads(capsys.readouterr().out)["bank"]
        assert bank["kind"] == kind, (more, bank)
        if kind != "off":
            assert bank["mentor_answers_once"] <= bank["mentor_answers_online"]
            assert bank["bytes"] > 0
            assert bank["total"]["all trainings"] > 0


def test_an_arm_that_reads_maps_leaves_the_bank_to_the_others(tmp_path: Path, quick: list[str], smoke: str) -> None:
    """Also where both read one place: what is stored of it is a vector, and the map is asked for."""
    arms = "methods=[{name: fitnet, tap: '@stage:-1', label: maps}, {name: rkd, tap: '@stage:-1', label: classroomkd}]"
    made = run(tmp_path / "run", smoke, quick, "bank=auto", arms, "train.epochs=2")
    assert made["failures"] == []
    assert made["bank"]["kind"] == "exact"
    maps, other = sorted(made["entries"], key=lambda e: e["method"] != "maps")
    assert "mentor_answers" not in maps
    assert other["mentor_answers"] > 0
    stores = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "bank").glob("*/manifest.json")]
    assert all(re.fullmatch(r"fp16 \(\d+,\)", s["codec"]) for s in stores)
    assert {s["kind"] for s in stores} == {"logits", "@stage:-1"}
    run(tmp_path / "online", smoke, quick, "bank=off", arms, "train.epochs=2")
    for label, most in (("maps", 0.0), ("classroomkd", 0.02)):
        weights = [load_file(tmp_path / out / label / "seed0" / "student.safetensors") for out in ("run", "online")]
        assert furthest(*weights) <= most


def test_slabs_too_large_to_hold_teach_the_same(
    tmp_path: Path, stored: Callable[..., dict[str, Any]], quick: list[str], smoke: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored()
    monkeypatch.setattr("classroomkd.run.mentor_cache.SLAB_MOST", 0)
    told: list[tuple[int | None, ...]] = []
    begin = FillOnMissCache.begin
    monkeypatch.setattr(FillOnMissCache, "begin", lambda self, *shown: told.append(shown) or begin(self, *shown))
    made = run(tmp_path / "rows", smoke, quick, "bank=views=2")
    assert made["entries"][0]["mentor_answers"] == 0
    assert furthest(student(tmp_path / "first"), student(tmp_path / "rows")) == 0
    assert set(told[0][:2]) == {0, 1}
    assert told == [told[0], *(told[0][epoch:] for epoch in range(3))]  # once for the probe


def test_top_k_teaches_and_says_what_it_keeps(
    tmp_path: Path, stored: Callable[..., dict[str, Any]], quick: list[str], smoke: str, capsys: Any
) -> None:
    stored()
    run(tmp_path / "top", smoke, quick, "bank=views=2,top=9")  # nine of ten: the tenth is what is left
    assert furthest(student(tmp_path / "first"), student(tmp_path / "top")) < 0.05
    words = ["bank=views=2,top=3", f"cache={tmp_path / 'cache'}", f"name={tmp_path.name}"]
    assert main(["bank", "fill", smoke, *quick, *words]) == 0
    said = " ".join(capsys.readouterr().err.split())
    shares = re.findall(r"top-3 leaves out (\S+)% of the probability \(T = 1\) that mentor '\w+' gives", said)
    assert len(shares) == 3
    assert all(30 < float(share) < 70 for share in shares)  # seven of ten, were they alike
    out = str(tmp_path / "many")
    assert main(["run", smoke, *quick, "bank=views=2,top=10", "--out", out, "--dry-run"]) == 2
    assert "keeps them all" in capsys.readouterr().err


def test_workers_share_an_exact_bank(tmp_path: Path, quick: list[str], smoke: str) -> None:
    words = [w for w in quick if not w.startswith("workers")]
    made = run(tmp_path / "two", smoke, words, "bank=exact", "workers=2", "seeds=[0,1]")
    alone = run(tmp_path / "alone", smoke, quick, "bank=exact", f"cache={tmp_path / 'other'}", "seeds=[0,1]")
    assert all(e["mentor_answers"] > 0 for e in made["entries"])
    assert sum(e["mentor_answers"] for e in alone["entries"]) <= sum(e["mentor_answers"] for e in made["entries"])
    for seed in (0, 1):
        assert furthest(student(tmp_path / "two", seed), student(tmp_path / "alone", seed)) == 0


def test_two_machines_fill_and_a_third_teaches(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    words = [*quick, "train.epochs=3", "methods=[classroomkd]", "bank=views=4"]
    caches = [tmp_path / name for name in ("one", "two", "both")]
    for k, cache in enumerate(caches[:2]):
        # The second machine has the mentors' weights, as if they had been given as checkpoints.
        if k:
            shutil.copytree(caches[0] / "mentors", cache / "mentors")
        fill = ["bank", "fill", smoke, *words, f"cache={cache}", "--shard", f"{k}/2", "--quiet"]
        assert main(fill) == 0
        assert main(["bank", "info", str(cache), "--json"]) == 0
        told = json.loads(capsys.readouterr().out.partition("\n")[2])
        assert [(s["rows"], s["wanted"]) for s in told] == [(4 * 30, 4 * 60)] * 3
    assert main(["bank", "merge", *map(str, caches[:2]), "--into", str(caches[2])]) == 0
    shutil.copytree(caches[0] / "mentors", caches[2] / "mentors")
    assert main(["bank", "verify", str(caches[2])]) == 0
    assert "240 rows good, 0 not there, 0 damaged" in capsys.readouterr().out
    made = run(tmp_path / "taught", smoke, words, f"cache={caches[2]}")
    assert [m["forwards"] for m in made["mentors"]] == [0, 0, 0]
    alone = run(tmp_path / "alone", smoke, words, f"cache={tmp_path / 'own'}")
    assert [m["forwards"] for m in alone["mentors"]] == [240, 240, 240]
    assert furthest(student(tmp_path / "taught"), student(tmp_path / "alone")) < 1e-3
    rows = next((caches[2] / "bank").glob("*/rows-*"))
    rows.write_bytes(b"\x01" + rows.read_bytes()[1:])
    assert main(["bank", "verify", str(caches[2])]) == 1
    assert "1 of 3 stores are damaged" in capsys.readouterr().err
    assert main(["bank", "verify", str(caches[2]), "--repair"]) == 0
    assert main(["bank", "gc", str(caches[2]), "--keep-days", "0"]) == 0
    assert "0 stores stay" in capsys.readouterr().out
    assert main(["bank", "info", str(caches[2])]) == 2
    assert "holds no stored answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--shard", "2/2"], "k from 0 to K-1"), (["bank=off"], "nothing would be stored"), (["bank=views=0"], "views=V")],
)
def test_filling_refuses_what_makes_no_sense(
    quick: list[str], smoke: str, words: list[str], said: str, capsys: Any
) -> None:
    assert main(["bank", "fill", smoke, *quick, *words, "--quiet"]) == 2
    assert said in capsys.readouterr().err


def test_damage_in_a_large_bank_stops_the_run_and_resuming_mends_it(
    tmp_path: Path,
    stored: Callable[..., dict[str, Any]],
    quick: list[str],
    smoke: str,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored()
    rows = next((tmp_path / "cache" / "bank").glob("*/rows-*"))
    rows.write_bytes(bytes([rows.read_bytes()[0] ^ 1]) + rows.read_bytes()[1:])
    monkeypatch.setattr("classroomkd.run.mentor_cache.CHECK_MOST", 0)
    run(tmp_path / "again", smoke, quick, "bank=views=2", code=1)
    assert "1 stored answer in" in capsys.readouterr().err
    made = run(tmp_path / "again", smoke, quick, "bank=views=2", "--resume")
    assert sorted(m["forwards"] for m in made["mentors"]) == [0, 0, 1]
    assert furthest(student(tmp_path / "first"), student(tmp_path / "again")) == 0


def test_damage_in_a_bank_that_cannot_be_written_is_mended_where_it_can(
    tmp_path: Path,
    stored: Callable[..., dict[str, Any]],
    quick: list[str],
    smoke: str,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored()
    rows = next((tmp_path / "cache" / "bank").glob("*/rows-*"))
    rows.write_bytes(bytes([rows.read_bytes()[0] ^ 1]) + rows.read_bytes()[1:])
    with monkeypatch.context() as patch:
        # As where the bank's folder is open to all and the stores are somebody else's.
        access = os.access
        patch.setattr(os, "access", lambda path, mode: Path(path).parent.name != "bank" and access(path, mode))
        run(tmp_path / "again", smoke, quick, "bank=views=2", code=1)
        said = capsys.readouterr().err.replace("\n", " ")
        assert f"1 stored answer in {rows.parent} is missing or damaged, and the store cannot be written here" in said
        words = re.search(r"classroomkd (bank verify \S+ --repair)", said)
    assert words is not None
    assert main(words[1].split()) == 0
    assert "119 rows good, 0 not there, 1 damaged and now forgotten" in capsys.readouterr().out
    assert main(["bank", "fill", smoke, *quick, "bank=views=2", f"cache={tmp_path / 'cache'}", "--quiet"]) == 0
    made = run(tmp_path / "again", smoke, quick, "bank=views=2", "--resume")
    assert furthest(student(tmp_path / "first"), student(tmp_path / "again")) == 0
    assert made["failures"] == []


def test_a_disk_that_fills_during_training_stops_one_student(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = RowStore.write, []

    def full(self: RowStore, *args: torch.Tensor) -> None:
        calls.append(1)
        with storing(self.folder):
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *args)

    monkeypatch.setattr(RowStore, "write", full)
    made = run(tmp_path / "run", smoke, quick, "bank=exact", "seeds=[0,1]", code=1)
    said = capsys.readouterr().err
    assert "no space left for" in said
    assert "to go on: classroomkd run" in said
    assert [e["seed"] for e in made["entries"]] == [1]
    made = run(tmp_path / "run", smoke, quick, "bank=exact", "seeds=[0,1]", "--resume")
    assert [e["seed"] for e in made["entries"]] == [0, 1]


def test_a_mentor_is_found_by_name_when_its_answers_are_stored(tmp_path: Path, quick: list[str], smoke: str) -> None:
    name = run(tmp_path / "off", smoke, quick, "bank=off")["mentors"][0]["name"]
    made = run(tmp_path / "kd", smoke, quick, "bank=views=2", f"methods=[{{name: kd, mentor: {name}}}]")
    assert made["failures"] == []
    assert len(made["entries"]) == 1
