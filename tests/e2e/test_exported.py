"""``export: NAME``: which of the networks that learned together is exported, asked and shown in tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import classroomkd as ck
from classroomkd.cli.app import main

PEERS = "peers=[{name: b, model: dwnet8}, {name: t, model: convnet8, role: teacher}]"
ARMS = "methods=[none,dml,{name: kdml, label: taught}]"


@pytest.fixture(scope="module")
def words(smoke: str, quick: list[str]) -> list[str]:
    return ["run", smoke, *quick, "mentors=[]", PEERS, ARMS, "train.epochs=2", "train.ema=0.5", "seeds=[0]"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    out = tmp_path_factory.mktemp("exported") / "run"
    assert main([*words, "export=b", "--out", str(out), "--quiet"]) == 0
    return out


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def entry(out: Path, method: str) -> dict[str, Any]:
    return next(e for e in summary(out)["entries"] if e["method"] == method)


def variant(out: Path, method: str, name: str, kind: str = "trainee") -> dict[str, Any]:
    return next(v for v in entry(out, method)["variants"] if (v["name"], v["kind"]) == (name, kind))


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def test_the_entry_has_the_scores_of_who_is_exported(out: Path) -> None:
    for arm in ("dml", "taught"):
        own, its = entry(out, arm), variant(out, arm, "b")
        assert own["exported"] == "b"
        for key in ("test_last", "test_best", "val_last", "val_best", "best_epoch"):
            assert own[key] == its[key], key
        assert own["test_ema"] == variant(out, arm, "b", "ema")["test_last"]
    assert "exported" not in entry(out, "none")
    assert (
        json.loads((out / "dml" / "seed0" / "entry.json").read_text())["test_last"]
        == (variant(out, "dml", "student")["test_last"])
    )  # what a student's folder says is its own, whoever is exported


@pytest.mark.parametrize("which", ["last", "best", "ema"])
def test_the_verbs_take_it_where_nobody_names_another(out: Path, tmp_path: Path, which: str) -> None:
    folder, kind = out / "dml" / "seed0", "" if which == "last" else f"-{which}"
    for name, file in ((None, f"peers/b{kind}"), ("student", f"student{kind}"), ("b", f"peers/b{kind}")):
        target = tmp_path / f"{name}.safetensors"
        more = ["--network", name] if name else []
        assert main(["export", str(folder), str(target), "--which", which, *more]) == 0
        assert same(target, folder / f"{file}.safetensors")


def test_an_arm_that_does_not_train_it_has_its_student(out: Path, tmp_path: Path) -> None:
    assert main(["export", str(out / "none"), str(tmp_path / "x.safetensors")]) == 0
    assert same(tmp_path / "x.safetensors", out / "none" / "seed0" / "student.safetensors")


def test_evaluate_and_predict_are_about_it(out: Path, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(out / "taught"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(entry(out, "taught")["test_last"])
    assert main(["evaluate", str(out / "taught"), "--network", "student", "--json"]) == 0
    own = json.loads(capsys.readouterr().out)["accuracy"]
    assert own == pytest.approx(variant(out, "taught", "student")["test_last"])
    assert ck.load_student(out / "taught").metadata["peer"] == "b"


def test_of_several_the_best_on_validation_is_taken_whatever_the_test_part_says(out: Path, tmp_path: Path) -> None:
    import shutil

    from classroomkd.export.find import find_student

    copied = tmp_path / "run"
    shutil.copytree(out, copied)
    told = summary(copied)
    for row, (val, test) in zip(told["entries"], ((0.2, 0.9), (0.4, 0.1), (0.3, 0.8)), strict=True):
        row |= {"val_last": val, "test_last": test}
    (copied / "summary.json").write_text(json.dumps(told))
    (copied / "SHA256SUMS").unlink()
    taken = [find_student(copied, say=lambda text: None)]
    told["entries"][1]["test_last"] = 1.0
    (copied / "summary.json").write_text(json.dumps(told))
    taken.append(find_student(copied, say=lambda text: None))
    assert taken == [copied / "dml" / "seed0" / "peers" / "b.safetensors"] * 2


def test_the_card_has_the_scores_of_its_own_network(out: Path, tmp_path: Path) -> None:
    for name in ("student", "b"):
        target = tmp_path / f"{name}.safetensors"
        assert main(["export", str(out / "dml"), str(target), "--network", name]) == 0
        card = target.with_suffix(".md").read_text()
        assert f"{100 * variant(out, 'dml', name)['test_last']:.1f}% (test, last weights)" in card
        assert ("trained beside the student" in card) == (name == "b")


def test_tables_and_page_say_whose_scores_they_show(out: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(["compare", str(out), "--json"]) == 0
    rows = {row["arm"]: row for row in json.loads(capsys.readouterr().out)}
    sizes = {one["name"]: one["parameters"] for one in summary(out)["peers"]}
    assert rows["dml"]["exported"] == "b"
    assert rows["dml"]["parameters"] == sizes["b"] != rows["none"]["parameters"]
    assert main(["compare", str(out)]) == 0
    assert "the scores are those of a peer, which is exported: dml (b), taught (b)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert "trainee, exported" in (out / "report.html").read_text()


def test_another_may_be_exported_when_the_run_goes_on_and_nothing_is_trained_again(
    out: Path, words: list[str], tmp_path: Path, capsys: Any
) -> None:
    import shutil

    copied = tmp_path / "run"
    shutil.copytree(out, copied)
    before = (copied / "dml" / "seed0" / "metrics.jsonl").read_bytes()
    assert main([*words, "export=t", "--out", str(copied), "--resume", "--quiet"]) == 0
    assert (copied / "dml" / "seed0" / "metrics.jsonl").read_bytes() == before
    assert entry(copied, "taught")["test_last"] == variant(copied, "taught", "t")["test_last"]
    assert "exported" not in entry(copied, "dml")  # it has no such trainee
    assert entry(copied, "dml")["test_last"] == variant(copied, "dml", "student")["test_last"]


def test_a_name_that_is_none_is_refused_before_any_work(words: list[str], tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main([*words, "export=c", "--out", str(tmp_path / "run")]) == 2
    assert "there is no trainee 'c'" in (said := " ".join(capsys.readouterr().err.split()))
    assert "there are student, b, t" in said
    assert not (tmp_path / "run").exists()


def test_from_python_it_is_the_student_that_a_run_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    peer = ck.models.create("convnet8", num_classes=10)
    keys: dict[str, Any] = {
        "data": {"source": "puppets", "options": {"train": 60, "test": 20, "image_size": 32}},
        "epochs": 1, "device": "cpu", "threads": 1,
    }  # fmt: skip
    student = ck.models.create("convnet4", num_classes=10)
    run = ck.distill(student, [], method="dml", peers={"b": peer}, export="b", out=tmp_path / "run", **keys)
    file = tmp_path / "run" / "dml" / "seed0" / "peers" / "b.safetensors"
    stored = load_file(file)
    for given in (run.student(), run.student(arm="dml", seed=0)):
        assert all(torch.equal(value, stored[key]) for key, value in given.state_dict().items())
    assert run.accuracy == [run.summary["entries"][0]["variants"][1]["test_last"]]
    assert "best: dml, seed 0" in repr(run)
    run.export(tmp_path / "x.safetensors")
    assert same(tmp_path / "x.safetensors", file)
