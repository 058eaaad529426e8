"""Networks that learn together, through the command line: files, scores, resume, and what does not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classroomkd.cli.app import main

PEERS = "peers=[{name: b, model: convnet4, copies: 2, train: {lr: 0.01}}, {name: c, model: dwnet8}]"
ARMS = "methods=[none,dml,{name: dml, order: gauss_seidel, peers: [b-2], label: turns}]"


@pytest.fixture(scope="module")
def words(smoke: str, quick: list[str]) -> list[str]:
    return ["run", smoke, *quick, "mentors=[]", "train.epochs=2", "train.ema=0.5", "seeds=[0]"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    out = tmp_path_factory.mktemp("peers") / "run"
    assert main([*words, PEERS, ARMS, "--out", str(out), "--quiet"]) == 0
    return out


def entry(out: Path, method: str) -> dict[str, Any]:
    return next(e for e in json.loads((out / "summary.json").read_text())["entries"] if e["method"] == method)


def arm(out: Path, peers: tuple[str, ...]) -> tuple[str, Path]:
    arms = json.loads((out / "summary.json").read_text())["arms"]
    found = next(a for a in arms if tuple(a.get("peers", ())) == peers)
    return found["label"], out / found["folder"] / "seed0"


def test_every_trainee_and_the_ensemble_has_its_scores_and_files(out: Path) -> None:
    label, folder = arm(out, ("b-1", "b-2", "c"))
    own = entry(out, label)
    found = own["variants"]
    assert [(v["name"], v["kind"]) for v in found] == [
        *((name, kind) for name in ("student", "b-1", "b-2", "c") for kind in ("trainee", "ema")),
        ("ensemble", "ensemble"),
    ]  # fmt: skip
    assert found[0]["test_last"] == own["test_last"]
    assert found[1]["test_last"] == own["test_ema"]
    for variant in found:
        assert 0 <= variant["test_last"] <= 1
        assert variant["file"] is None or (folder / variant["file"]).is_file()
    assert found[-1]["file"] is None
    files = {path.name for path in (folder / "peers").glob("*.safetensors")}
    assert files == {f"{name}{kind}.safetensors" for name in ("b-1", "b-2", "c") for kind in ("", "-best", "-ema")}
    assert "variants" not in entry(out, "none")


def test_copies_begin_from_different_weights_and_learn(out: Path) -> None:
    _, folder = arm(out, ("b-1", "b-2", "c"))
    one, other = (load_file(folder / "peers" / f"b-{number}.safetensors") for number in (1, 2))
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_none_beside_peers_is_none_without(out: Path, words: list[str], tmp_path: Path) -> None:
    assert main([*words, "method=none", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    for name in ("student", "student-best", "student-ema"):
        one, other = (load_file(run / "none" / "seed0" / f"{name}.safetensors") for run in (out, tmp_path / "run"))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("harm", ["gone", "flipped"])
def test_a_damaged_peer_is_made_again(out: Path, words: list[str], capsys: Any, harm: str) -> None:
    label, folder = arm(out, ("b-2",))
    file = folder / "peers" / "b-2.safetensors"
    before = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    capsys.readouterr()
    assert main([*words, PEERS, ARMS, "--out", str(out), "--resume"]) == 0
    assert "it is made again from its last checkpoint" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert entry(out, label)["variants"]


def test_a_folder_made_with_other_peers_is_not_gone_on_with(out: Path, words: list[str], capsys: Any) -> None:
    other = PEERS.replace("dwnet8", "convnet8")
    assert main([*words, other, ARMS, "--out", str(out), "--resume"]) == 2
    label, _ = arm(out, ("b-1", "b-2", "c"))
    assert f"the arm '{label}' differ(s)" in capsys.readouterr().err


def test_a_peer_can_be_a_student_or_a_mentor_of_another_run(out: Path, words: list[str], tmp_path: Path) -> None:
    _, folder = arm(out, ("b-2",))
    file = folder / "peers" / "b-2.safetensors"
    mentors = f"mentors=[{{name: before, model: convnet4, weights: {file}}}]"
    more = [*words, mentors, "method={name: tfkd, teacher: self}", "train.epochs=1", "check_mentors=off"]
    assert main([*more, "--out", str(tmp_path / "run"), "--quiet"]) == 0


def test_a_dry_run_measures_all_trainees(words: list[str], capsys: Any) -> None:
    capsys.readouterr()
    assert main([*words, PEERS, ARMS, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arms"][0]["x_floor"] <= 1.5 < found["arms"][1]["x_floor"]
    assert [note.partition(":")[0] for note in found["notes"] if "networks" in note] == [
        "'dml peers=b-1,b-2,c' trains 4 networks", "'turns' trains 2 networks",
    ]  # fmt: skip


def test_a_peer_is_exported_with_its_own_scores(out: Path, tmp_path: Path, capsys: Any) -> None:
    label, folder = arm(out, ("b-2",))
    words = ["export", str(folder), str(tmp_path / "b.safetensors"), "--network", "b-2", "--which", "best"]
    assert main(words) == 0
    assert load_file(tmp_path / "b.safetensors").keys() == load_file(folder / "peers" / "b-2.safetensors").keys()
    card = (tmp_path / "b.md").read_text()
    own = next(v for v in entry(out, label)["variants"] if (v["name"], v["kind"]) == ("b-2", "trainee"))
    assert "trained beside the student, as `b-2`" in card
    assert f"{100 * own['test_best']:.1f}% (test, best epoch)" in card
    assert "test, averaged" not in card  # the student's
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--network", "b-2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(own["test_last"])
    assert main(["evaluate", str(out), "--network", "c"]) == 0  # only one arm has it


def test_a_network_that_is_none_is_named_with_those_that_are(out: Path, tmp_path: Path, capsys: Any) -> None:
    _, folder = arm(out, ("b-1", "b-2", "c"))
    words = ["export", str(folder), str(tmp_path / "x.safetensors"), "--network"]
    assert main([*words, "d"]) == 2
    assert "there are student, b-1, b-2, c" in capsys.readouterr().err
    assert main(["export", str(out / "none"), str(tmp_path / "x.safetensors"), "--network", "b-1"]) == 2
    assert "nothing was trained beside the student" in capsys.readouterr().err


def test_the_page_shows_trainees_beside_their_ensemble(out: Path) -> None:
    label, _ = arm(out, ("b-2",))
    page = (out / "report.html").read_text()
    part = page[page.index('id="trainees"') :].partition("</section>")[0]
    found = entry(out, label)["variants"]
    members = [v["test_last"] for v in found if v["kind"] == "trainee"]
    gain = 100 * (found[-1]["test_last"] - sum(members) / len(members))
    assert f"{abs(gain):.1f}" in part
    assert f"differ on {100 * found[-1]['disagreement']:.1f}% of the test" in part
    assert part.count("<table") == 2
    assert "Pairs of trainees that differ" in part


@pytest.mark.parametrize(
    ("method", "sentence"),
    [("dml", "no mentor is asked: this is the student's own step"), ("none", "the relative cost is 1 by definition")],
)
def test_the_bench_says_what_it_timed(words: list[str], capsys: Any, method: str, sentence: str) -> None:
    peers = ["peers=[convnet4]"] * (method == "dml")
    capsys.readouterr()
    assert main(["bench", *words[1:], *peers, f"method={method}", "--rounds", "2"]) == 0
    assert sentence in " ".join(capsys.readouterr().out.split())
