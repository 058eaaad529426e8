"""The multi-teacher family from a recipe to a student: classes, compositions, stored features, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import classroomkd as ck
from classroomkd import methods
from classroomkd._compat import installed
from classroomkd.cli.app import main
from classroomkd.data.puppets import CLASSES
from classroomkd.train.loop import Training

SGD = ["train.optimizer=sgd", "train.lr=0.05", "mentor_train.optimizer=adamw", "mentor_train.lr=0.005"]
PAIR = "mentors=[{name: a, model: convnet8}, {name: b, model: dwnet8}]"


@pytest.fixture(scope="module")
def pair(quick: list[str], smoke: str) -> list[str]:
    """Two mentors of two families, trained once for all tests."""
    return ["run", smoke, *quick, PAIR, "mentor_train.epochs=1", "check_mentors=off", "--quiet"]


def student(out: Path, arm: str) -> dict[str, torch.Tensor]:
    return load_file(out / arm / "seed0" / "student.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """To the bit, as is promised of two runs on one machine; from one machine to another nothing is."""
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def terms(out: Path, arm: str) -> set[str]:
    lines = (out / arm / "seed0" / "metrics.jsonl").read_text().splitlines()
    return {name for line in map(json.loads, lines) if line["kind"] == "train" for name in line["terms"]}


def test_mentor_that_knows_some_classes(tmp_path: Path, pair: list[str], capsys: Any) -> None:
    """In its own order; where it does not know the class the other one teaches alone."""
    torch.manual_seed(0)
    ck.models.save_checkpoint(ck.models.create("convnet4", num_classes=3), tmp_path / "some.safetensors")
    knows = ["star", "stand", "t_pose"]

    def mentors(classes: list[str]) -> str:
        some = f"{{name: some, model: convnet4, checkpoint: {tmp_path / 'some.safetensors'}, classes: {classes}}}"
        return f"mentors=[{some}, {{name: a, model: convnet8}}]"

    words = [*pair, "train.epochs=1", "methods=[camkd,fitnet]", "methods.camkd.feature_weight=1"]
    assert main([*words, mentors(knows), "--out", str(tmp_path / "run")]) == 0
    taught = json.loads((tmp_path / "run" / "camkd" / "seed0" / "teaching.json").read_text())
    assert taught["mentors"] == ["some", "a"]
    some, other = ({c: rows[i] for i, c in enumerate(CLASSES)} for rows in taught["weight"])
    for label in CLASSES:
        assert (some[label] > 0) == (label in knows), label
        assert some[label] + other[label] == pytest.approx(1.0, abs=1e-3), label
    capsys.readouterr()
    wrongs = ((knows[:2], "the checkpoint has 3 classes"), (["star", "stand", "tpose"], "did you mean 't_pose'"))
    for wrong, said in wrongs:
        assert main([*words, mentors(wrong), "--out", str(tmp_path / "other")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_composition_from_yaml(tmp_path: Path, pair: list[str], smoke: str) -> None:
    """Methods are added up; one that counts nothing changes nothing, to the bit."""
    grid = """methods:
  - classroomkd
  - [classroomkd, {at: {weight: 10, taps: ["@stage:-1"]}}]
  - [{name: classroomkd, label: deaf}, {at: {weight: 0, taps: ["@stage:-1"]}}]
"""
    text = "".join(line for line in Path(smoke).read_text().splitlines(True) if not line.startswith("method:"))
    (tmp_path / "both.yaml").write_text(text + grid)
    out = tmp_path / "run"
    # Online: with a bank the arm that reads maps would ask beside it, and its answers would not be rounded.
    assert main(["run", str(tmp_path / "both.yaml"), *pair[2:], "bank=off", "--out", str(out)]) == 0
    made = json.loads((out / "summary.json").read_text())
    alone, both, deaf = [arm["folder"] for arm in made["arms"]]
    assert made["arms"][1]["method"] == "classroomkd+at"
    assert terms(out, alone) == {"supervised", "distilled"}
    assert terms(out, both) == terms(out, deaf) == {"supervised", "distilled", "at.attention"}
    assert same(student(out, deaf), student(out, alone))
    assert not same(student(out, both), student(out, alone))


def test_weighting_of_one_with_the_divergence_of_another(tmp_path: Path, pair: list[str]) -> None:
    """CA-MKD's weights with DIST's divergence, written in two ways; and the weights do matter."""
    arms = [
        "{name: camkd, divergence: dist, feature_weight: 0}",
        "{name: weighted, weighting: confidence, divergence: dist}",
        "{name: average, divergence: dist}",
        "{name: camkd, label: kl, feature_weight: 0}",
    ]
    out = tmp_path / "run"
    assert main([*pair, "train.epochs=1", f"methods=[{', '.join(arms)}]", "--out", str(out)]) == 0
    camkd, weighted, average, kl = [a["folder"] for a in json.loads((out / "summary.json").read_text())["arms"]]
    assert same(student(out, camkd), student(out, weighted))
    assert not same(student(out, camkd), student(out, average))
    assert not same(student(out, camkd), student(out, kl))


def test_stored_features_teach_what_online_ones_do(tmp_path: Path, pair: list[str]) -> None:
    """One view of every image: the bank holds all there is to ask, in half precision."""
    arms = "methods=[none,{name: fitnet, tap: '@stage:-1', weight: 1},{name: camkd, feature_weight: 1}]"
    folders = {bank: tmp_path / bank for bank in ("off", "views=1")}
    for bank, out in folders.items():
        slow = ["train.optimizer=sgd", "train.lr=0.01", "mentor_train.optimizer=adamw", "mentor_train.lr=0.005"]
        assert main([*pair, "data.views=none", "train.epochs=1", *slow, f"bank={bank}", arms, "--out", str(out)]) == 0
    banks = [json.loads((out / "summary.json").read_text())["bank"] for out in folders.values()]
    assert banks[0] is None
    assert banks[1] is not None
    online, stored = ({arm: student(out, arm) for arm in ("none", "fitnet", "camkd")} for out in folders.values())
    assert same(online["none"], stored["none"])
    for arm in ("fitnet", "camkd"):
        assert apart(online[arm], stored[arm]) < 0.02 * apart(online[arm], online["none"]), arm


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The distance between two students."""
    return float(torch.cat([(v.double() - b[k].double()).flatten() for k, v in a.items()]).norm())


def test_mmkd_goes_on_to_the_same_bits(tmp_path: Path, pair: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut between two meta steps, with the buffer half renewed: nets, their Adam and the buffer come back."""
    method = "method={name: mmkd, meta_every: 3, buffer: 24, feature_weight: 1}"
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*pair, *SGD, method, "--out", str(whole)]) == 0
    real = Training._checkpoint

    def then_die(self: Training) -> None:
        real(self)
        if self.progress.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_checkpoint", then_die)
    assert main([*pair, *SGD, method, "--out", str(cut)]) == 130
    monkeypatch.undo()
    assert not (cut / "mmkd" / "seed0" / "entry.json").exists()
    assert main([*pair, *SGD, method, "--out", str(cut), "--resume"]) == 0
    assert same(student(whole, "mmkd"), student(cut, "mmkd"))


def test_a_folder_from_before_a_key_was_there(tmp_path: Path, pair: list[str], capsys: Any) -> None:
    """Keys and options that have come since count as their defaults; what was another recipe still is."""
    out = tmp_path / "run"
    run = [*pair, "train.epochs=1", "method=average", "--out", str(out)]
    assert main(run) == 0
    recipe, arm = out / "recipe.yaml", out / "average" / "arm.json"
    stored, ((name, options, version),) = yaml.safe_load(recipe.read_text()), json.loads(arm.read_text())
    for key in ("divergence", "feature_weight", "tap", "projector"):  # as before this family was there
        del options[key], stored["method"][0][key]
    for section, key in (
        (stored["data"], "unreadable"),
        (stored["train"], "label_smoothing"),
        (stored["mentors"][0], "note"),
    ):
        del section[key]

    def written(options: dict[str, Any]) -> None:
        """Both files as they would stand in a folder of an earlier version, without checksums."""
        recipe.write_text(yaml.safe_dump(stored))
        arm.write_text(json.dumps([[name, options, version]]))
        for folder in (out, arm.parent):
            (folder / "SHA256SUMS").unlink(missing_ok=True)

    written(options)
    before = (out / "average" / "seed0" / "student.safetensors").stat().st_mtime_ns
    assert main([*run, "--resume"]) == 0
    assert (out / "average" / "seed0" / "student.safetensors").stat().st_mtime_ns == before
    written({**options, "temperature": 2.0})
    capsys.readouterr()
    assert main([*run, "--resume"]) == 2
    assert "the arm 'average'" in capsys.readouterr().err
    stored["mentors"][0]["model"] = "convnet16"
    written(options)
    assert main([*run, "--resume"]) == 2
    assert "mentors differ(s)" in capsys.readouterr().err


def test_what_a_network_lacks_is_said_once_with_the_arms_that_want_it(
    quick: list[str], smoke: str, capsys: Any
) -> None:
    run = ["run", smoke, *quick, PAIR, "--dry-run"]
    grid = "methods=[none,{name: fitnet, tap: '@stage:9'},{name: sp, tap: '@stage:9'}]"
    assert main([*run, grid]) == 2
    said = capsys.readouterr().err
    assert said.count("@stage:9") == 1
    assert "arms 'fitnet', 'sp': the student has" in said


def test_a_tap_that_nobody_reads_is_pointed_out(quick: list[str], smoke: str, capsys: Any) -> None:
    words = [
        "student.taps={'@stage:-1': stage2, '@stage:-2': stage1}",
        "mentors.b.taps={last: stage3}",
        "method=fitnet",
    ]
    assert main(["run", smoke, *quick, PAIR, *words, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "student.taps.@stage:-1 has no effect: the methods read @stage:-2" in said
    assert "mentors.b.taps.last has no effect" in said
    assert "@stage:-2 has no effect" not in said


@pytest.mark.skipif(not installed("torchvision"), reason="torchvision is not installed")
def test_networks_that_cannot_be_built_like_others(quick: list[str], smoke: str, capsys: Any) -> None:
    """Names are checked without memory for weights, which RegNet does not bear; AlexNet wants more pixels."""
    run = ["run", smoke, *quick, "method={name: fitnet, tap: '@stage:-1'}", "--dry-run"]
    assert main([*run, "mentors=[{name: reg, model: 'torchvision:regnet_y_400mf'}]"]) == 0
    capsys.readouterr()
    assert main([*run, PAIR, "student=torchvision:alexnet"]) == 2
    said = capsys.readouterr().err
    assert said.count("Output size is too small") == 1
    assert "Set data.size" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=mmkd", "train.optimizer=adamw", "train.lr=0.001"], "arm 'mmkd': its virtual steps are SGD's"),
        (["method={name: kd, schedule: {warmup: 3}}"], "schedule 'warmup': its options are a mapping, not 3"),
        (["method={name: kd, schedule: {decay: {epochs: 3}, until: {epoch: 2}}}"], "schedule: one at a time"),
    ],
)
def test_what_cannot_be_is_said_before_any_training(
    tmp_path: Path, quick: list[str], smoke: str, words: list[str], said: str, capsys: Any
) -> None:
    assert main(["run", smoke, *quick, *words, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_version_of_a_method_is_not_gone_on_with(
    tmp_path: Path, pair: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arm without a version was made with the first; the summary says which one made it."""
    table, out = methods.entries(), tmp_path / "run"
    monkeypatch.setitem(table, "average", table["average"]._replace(version=1))
    run = [*pair, "train.epochs=1", "method=average", "--out", str(out)]
    assert main(run) == 0
    assert json.loads((out / "summary.json").read_text())["arms"][0]["version"] == {"average": 1}
    monkeypatch.setitem(table, "average", table["average"]._replace(version=2))
    capsys.readouterr()
    assert main([*run, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "'average' was made with version 1 of average, this is 2" in said
    assert "choose another --out" in said
    newer = tmp_path / "newer"
    assert main([*run[:-1], str(newer)]) == 0
    assert main([*run[:-1], str(newer), "--resume"]) == 0
    assert json.loads((newer / "summary.json").read_text())["arms"][0]["version"] == {"average": 2}
    monkeypatch.setitem(table, "average", table["average"]._replace(version=1))
    capsys.readouterr()
    assert main([*run[:-1], str(newer), "--resume"]) == 2
    assert "version 2 of average, this is 1" in capsys.readouterr().err
