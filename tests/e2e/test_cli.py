"""The command line from end to end, in this process, on the embedded data."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from classroomkd import methods
from classroomkd.cli.app import main
from classroomkd.data import puppets
from classroomkd.export.lines import carry_out
from classroomkd.recipe import load_recipe
from classroomkd.report import load_summary
from classroomkd.train.loop import Training


def weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118


def same_weights(a: Path, b: Path) -> bool:
    """To the bit, as is promised of two runs on one machine; from one machine to another nothing is."""
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def test_run_folder_is_complete(finished: Path) -> None:
    for name in ("recipe.yaml", "environment.json", "summary.json", "report.html"):
        assert (finished / name).is_file(), name
    for arm in ("none", "classroomkd"):
        for seed in (0, 1):
            folder = finished / arm / f"seed{seed}"
            for name in ("student.safetensors", "student-best.safetensors", "metrics.jsonl", "teaching.json"):
                assert (folder / name).is_file(), name
            with safe_open(folder / "student.safetensors", "pt") as file:
                about = file.metadata()
                assert json.loads(about["classes"])[0] == "stand"
                assert "mean" in json.loads(about["preprocessing"])
                assert not any("mentor" in k or "method" in k for k in file.keys())  # noqa: SIM118
    made = summary(finished)
    assert made["schema"] == 1
    assert [(e["method"], e["seed"]) for e in made["entries"]] == [
        ("none", 0), ("none", 1), ("classroomkd", 0), ("classroomkd", 1),
    ]  # fmt: skip
    for entry in made["entries"]:
        assert {"test_last", "test_best", "best_epoch", "steps", "seconds", "cost_ratio"} <= set(entry)
        assert 0 <= entry["test_last"] <= 1
        assert entry["steps"] == 2 * 4
    assert [m["name"] for m in made["mentors"]] == ["broad", "slim", "arms"]
    assert made["mentors"][2]["samples"] < made["mentors"][0]["samples"]
    assert any("more labels" in note for note in made["data"]["notes"])
    assert load_summary(finished).name == "smoke"


def test_quiet_hides_progress_and_nothing_else(smoke: str, quick: list[str], tmp_path: Path, capsys: Any) -> None:
    """A mentor that has learned nothing is worth a warning, whoever wants to see bars."""
    words = ["run", smoke, *quick, "methods=[none,average]", "mentor_train.epochs=1", "mentor_train.lr=1e-9"]
    words.append(f"cache={tmp_path / 'cache'}")
    assert main([*words, "--out", str(tmp_path / "loud")]) == 0
    loud = capsys.readouterr().err.splitlines()
    assert main([*words, "--out", str(tmp_path / "quiet"), "--quiet"]) == 0
    quiet = capsys.readouterr().err.splitlines()
    assert quiet == [line for line in loud if line.startswith(("note: ", "data: ", "warning: "))]
    assert any(line.startswith("warning: mentor 'slim' has accuracy") for line in quiet)
    assert any(" none · seed 0: " in line for line in loud)


def test_a_quiet_plan_says_its_notes(smoke: str, quick: list[str], tmp_path: Path, capsys: Any) -> None:
    words = ["run", smoke, *quick, "methods=[none]", "--dry-run"]
    notes = load_recipe(smoke, words[2:-1]).notes()
    assert main([*words, "--out", str(tmp_path / "run"), "--quiet", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["students"] == 1
    assert notes
    assert [line for line in captured.err.splitlines() if line.startswith("note: ")] == [f"note: {n}" for n in notes]
    assert "measuring" not in captured.err


def test_arms_differ_at_the_end(finished: Path) -> None:
    none, taught = (finished / arm / "seed0" / "student.safetensors" for arm in ("none", "classroomkd"))
    assert not same_weights(none, taught)


def test_existing_folder_is_refused_and_resumed(finished: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    grid = ["methods=[none,classroomkd]", "--out", str(finished)]
    before = (finished / "none" / "seed0" / "student.safetensors").stat().st_mtime_ns
    assert main(["run", smoke, *quick, *grid, "seeds=[0,1]", "--quiet"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["run", smoke, *quick, *grid, "seeds=[0,1]", "--resume", "--quiet"]) == 0
    assert (finished / "none" / "seed0" / "student.safetensors").stat().st_mtime_ns == before
    assert main(["run", smoke, *quick, *grid, "seeds=[0,1]", "train.lr=0.5", "--resume", "--quiet"]) == 2
    assert "train.lr" in capsys.readouterr().err


def test_interrupted_run_goes_on_to_the_same_bits(
    tmp_path: Path, quick: list[str], smoke: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["run", smoke, *quick, "--out", str(whole), "--quiet"]) == 0
    real = Training._checkpoint

    def then_die(self: Training) -> None:
        real(self)
        if self.progress.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_checkpoint", then_die)
    capsys.readouterr()
    assert main(["run", smoke, *quick, "--out", str(cut), "--quiet"]) == 130
    assert f"--out {cut} --resume" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["run", smoke, *quick, "--out", str(cut), "--resume", "--quiet"]) == 0
    name = Path("classroomkd") / "seed0" / "student.safetensors"
    assert same_weights(whole / name, cut / name)


# What a method wants beside its name: virtual steps are SGD's, an assistant is a mentor that another one taught.
CHAIN = "mentors=[{name: big, model: convnet16}, {name: middle, model: convnet8, taught_by: big}]"
PEER, TEACHER = "{name: b, model: convnet4}", "{name: t, model: convnet8, role: teacher}"
SGD = ["train.optimizer=sgd", "train.lr=0.05"]
WANTS = {
    "ctslmkt": [f"peers=[{PEER}]", "method={name: ctslmkt, selves: {student: broad, b: slim}}"],
    "dml": [f"peers=[{PEER}]"],
    "kdml": [f"peers=[{PEER}, {TEACHER}]"],
    "mmkd": SGD,
    "takd": [CHAIN],
}


def test_every_method_by_name(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    names = list(methods.names())
    words = [*quick, "train.epochs=1", f"methods=[{','.join(names)}]", f"peers=[{PEER}, {TEACHER}]", CHAIN, *SGD]
    assert main(["run", smoke, *words, "--out", str(tmp_path / "run"), "--quiet", "--json"]) == 0
    assert [entry["method"] for entry in json.loads(capsys.readouterr().out)["entries"]] == names


ALONE = [pytest.param(n, marks=() if n in ("kd", "ctslmkt") else pytest.mark.slow) for n in methods.names()]


@pytest.mark.parametrize("name", ALONE)
def test_a_method_alone_by_name(tmp_path: Path, quick: list[str], smoke: str, name: str, capsys: Any) -> None:
    out = tmp_path / "run"
    words = [*quick, "train.epochs=1", f"method={name}", *WANTS.get(name, [])]
    assert main(["run", smoke, *words, "--out", str(out), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["method"] == name


def test_held_out_credibility_and_fixed_views(tmp_path: Path, quick: list[str], smoke: str) -> None:
    out = tmp_path / "run"
    grid = "methods=[{name: classroomkd, credibility: held_out}, {name: classroomkd, credibility: calibrated}]"
    words = [*quick, f"cache={tmp_path / 'cache'}"]  # one that nobody has filled
    assert main(["run", smoke, *words, grid, "bank=views=2", "train.ema=0.9", "--out", str(out), "--quiet"]) == 0
    made = summary(out)
    assert made["bank"]["forwards"] > 0
    assert all("test_ema" in e for e in made["entries"])


@pytest.mark.slow  # tests/e2e/test_bank.py has two workers, too
def test_workers_give_the_same_students(tmp_path: Path, finished: Path, quick: list[str], smoke: str) -> None:
    out = tmp_path / "side-by-side"
    words = [w for w in quick if not w.startswith("workers")]
    assert (
        main(
            [
                "run",
                smoke,
                *words,
                "workers=2",
                "methods=[none,classroomkd]",
                "seeds=[0,1]",
                "--out",
                str(out),
                "--quiet",
            ]
        )
        == 0
    )
    for arm in ("none", "classroomkd"):
        name = Path(arm) / "seed1" / "student.safetensors"
        assert same_weights(out / name, finished / name)


def test_one_bad_arm_does_not_cost_the_others(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    out = tmp_path / "run"
    code = main(
        ["run", smoke, *quick, "methods=[none,{name: average, weight: 1e40}]", "--out", str(out), "--quiet"]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code == 1
    assert "not finite" in said
    assert "Traceback" not in said
    assert [e["method"] for e in summary(out)["entries"]] == ["none"]
    assert (out / "none" / "seed0" / "student.safetensors").exists()
    assert (out / "report.html").exists()


def test_options_that_act_on_nothing_are_named(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    idle = ["method={name: classroomkd, fixed_temperature: 3, gate: none, soft: 0.1}"]
    assert main(["run", smoke, *quick, *idle, "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "fixed_temperature acts only with mentoring: false" in said
    assert "soft acts only with gate: soft" in said


def test_dry_run_does_nothing(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    out = tmp_path / "run"
    assert main(["run", smoke, *quick, "methods=[none,classroomkd]", "--out", str(out), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert 2.9 < plan["arms"][1]["mentor_forwards"] < 3  # of three mentors; a few views come twice
    assert plan["arms"][1]["x_floor"] > 0
    assert main(["run", smoke, *quick, "--dry-run"]) == 0
    assert "mult" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=clasroomkd"], "did you mean 'classroomkd'"),
        (["student=resnet9"], "did you mean"),
        (["data=pupets"], "did you mean 'puppets'"),
        (["train.epoch=3"], "epochs"),
        (["train.lr=fast"], "train.lr"),
        (["mentors.0.checkpoint=nowhere.pth"], "nowhere.pth"),
        (["method.tau=-1"], "tau"),
        (["mentors=[]"], "mentor"),
        (["mentors.2.train.classes=[arms]"], "no class 'arms'"),
        (["student=py:os.path:join"], "--trust-code"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(
    tmp_path: Path, quick: list[str], smoke: str, capsys: Any, words: list[str], expected: str
) -> None:
    assert main(["run", smoke, *quick, *words, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
    assert len(said.splitlines()) < 24
    assert not (tmp_path / "run" / "classroomkd").exists()


def test_checkpoints_of_another_network_or_other_classes(
    tmp_path: Path, finished: Path, quick: list[str], smoke: str, capsys: Any
) -> None:
    file = finished / "classroomkd" / "seed0" / "student.safetensors"
    run = ["run", smoke, *quick, "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*run, f"mentors=[{{name: old, model: convnet16, checkpoint: {file}}}]"]) == 2
    said = capsys.readouterr().err
    assert "old" in said
    assert "shape" in said
    mentor = f"name: old, model: convnet8, checkpoint: {file}"
    assert main([*run, "data=digits", f"mentors=[{{{mentor}}}]"]) == 2  # as many, but others
    assert "is none of them" in capsys.readouterr().err
    assert (
        main([*run, "data=digits", f"mentors=[{{{mentor}, classes: ['0','1','2','3','4','5','6','7','8','9']}}]"]) == 0
    )
    for label in ("a", "b", "c"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (32, 32), (i * 9, 20 * i, 5)).save(tmp_path / "photos" / label / f"{i}.png")
    own = [f"data=imagefolder:{tmp_path / 'photos'}", f"mentors=[{{name: old, model: convnet8, checkpoint: {file}}}]"]
    other = ["run", smoke, *[w for w in quick if "options" not in w], *own, "student.samples=null"]
    assert main([*other, "--out", str(tmp_path / "other"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "10 classes" in said
    assert "3" in said
    assert not (tmp_path / "other").exists()  # nothing was begun


def test_a_full_disk_keeps_what_was_made(
    tmp_path: Path, quick: list[str], smoke: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from classroomkd.train import checkpoint

    def full(path: Path, state: object, keep: int = 1) -> None:
        from classroomkd._files import writing

        with writing(path):
            raise OSError(28, "No space left on device")

    out = tmp_path / "run"
    assert main(["run", smoke, *quick, "methods=[none]", "--out", str(out), "--quiet"]) == 0
    monkeypatch.setattr(checkpoint, "save", full)
    assert main(["run", smoke, *quick, "methods=[none,average]", "--out", str(out), "--resume", "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "no space left" in said
    assert "Traceback" not in said
    monkeypatch.undo()
    assert [e["method"] for e in summary(out)["entries"]] == ["none"]
    assert main(["run", smoke, *quick, "methods=[none,average]", "--out", str(out), "--resume", "--quiet"]) == 0
    assert [e["method"] for e in summary(out)["entries"]] == ["none", "average"]


def test_mentor_near_chance_warns_or_stops(tmp_path: Path, quick: list[str], smoke: str, capsys: Any) -> None:
    bad = ["mentors=[{name: noise, model: convnet4, train: {epochs: 1, label_noise: 1.0, samples: 20}}]"]
    assert main(["run", smoke, *quick, *bad, "--out", str(tmp_path / "a")]) == 0
    assert "(the largest class alone)" in capsys.readouterr().err
    assert main(["run", smoke, *quick, *bad, "check_mentors=error", "--out", str(tmp_path / "b"), "--quiet"]) == 2
    assert "noise" in capsys.readouterr().err


def test_evaluate_agrees_with_the_summary(finished: Path, capsys: Any) -> None:
    folder = finished / "classroomkd" / "seed1"
    assert main(["evaluate", str(folder), "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    entry = next(e for e in summary(finished)["entries"] if e["method"] == "classroomkd" and e["seed"] == 1)
    assert score["accuracy"] == pytest.approx(entry["test_last"])
    assert main(["evaluate", str(finished)]) == 0
    assert "holds 4 students; this is" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--data", "digits"]) == 2
    assert "class '0' (and 9 more) of the data 'digits' is not among the student's 10" in capsys.readouterr().err


def test_predict_a_folder(finished: Path, tmp_path: Path, capsys: Any) -> None:
    images = puppets.scenes(0, np.arange(100, 106), image_size=32, hard=0.1).images.transpose(0, 2, 3, 1)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "in" / ("deep" if i % 2 else ".") / f"{i}.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"not an image")
    student = str(finished / "classroomkd" / "seed0")
    out = tmp_path / "out.csv"
    assert main(["predict", student, str(tmp_path / "in"), "--out", str(out), "--top", "2"]) == 0
    assert "broken.jpg" in capsys.readouterr().err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {r["class_1"] for r in rows} <= set(puppets.CLASSES)
    assert main(["predict", student, str(tmp_path / "in"), "--json"]) == 0
    lines = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
    assert len(lines) == 6
    assert main(["predict", student, str(tmp_path / "nowhere")]) == 2
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"nothing")
    capsys.readouterr()
    assert main(["predict", student, str(tmp_path / "bad")]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert "x.png" in told.err
    for label in puppets.CLASSES:
        folder = tmp_path / "own" / label
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(images[i % 6]).save(folder / f"{i}.png")
    assert main(["evaluate", student, "--data", f"imagefolder:{tmp_path / 'own'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 60  # all of it, not a split-off part


def test_export_and_read_back(finished: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "ship" / "student.safetensors"
    assert main(["export", str(finished / "classroomkd" / "seed0"), str(target)]) == 0
    assert target.exists()
    card = target.with_suffix(".md").read_text()
    assert "convnet8" in card
    photo = tmp_path / "photo.png"
    Image.new("RGB", (50, 40), (90, 20, 90)).save(photo)
    scope = carry_out(card, target.name, {f'"{target.name}"': str(target), '"photo.jpg"': str(photo)})
    assert scope["student"].module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert scope["probabilities"].shape == (1, 10)
    assert main(["export", str(finished / "classroomkd" / "seed0"), str(target)]) == 2
    assert main(["export", str(finished / "classroomkd" / "seed0"), str(tmp_path / "s.pth")]) == 2
    capsys.readouterr()


def test_compare_and_report(finished: Path, capsys: Any) -> None:
    assert main(["compare", str(finished), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["arm"] for r in rows] == ["none", "classroomkd"]
    assert main(["compare", str(finished)]) == 0
    assert main(["compare", str(finished), "--markdown"]) == 0
    assert main(["report", str(finished), "--json"]) == 0
    capsys.readouterr()
    page = (finished / "report.html").read_text()
    assert "<script src=" not in page
    assert "broad" in page


def test_inspect_lists_taps(capsys: Any) -> None:
    assert main(["inspect", "resnet8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 83_892
    assert {"name", "type", "output_shape", "parameters"} <= set(found["taps"][0])
    assert main(["inspect", "resnet8", "--classes", "10"]) == 0
    assert main(["inspect", "resnet8", "--shape", "32"]) == 2
    assert main(["inspect", "resnet9"]) == 2
    capsys.readouterr()


def test_list_and_doctor(capsys: Any) -> None:
    for what in ("methods", "models", "data", "recipes"):
        assert main(["list", what, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
    assert main(["doctor", "--json"]) == 0
    capsys.readouterr()
