"""Arms of several trainings, through the command line: folders, files, cost, resume, and what stays to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.report.records import read_run
from classroomkd.report.summary import load_summary

PUPPETS = {"source": "puppets", "options": {"train": 60, "test": 30, "image_size": 32}}
PEERS = "peers=[{name: b, model: convnet4, train: {lr: 0.01}}]"
ONE = "{label: one, stages: [{name: only, method: none, epochs: 2}]}"
TWO = """{label: two, stages: [
    {name: pre, method: none, trainees: all, epochs: 2}, {name: mutual, method: dml, epochs: 1}]}"""
ANEW = """{label: anew, stages: [
    {name: pre, method: none, epochs: 1}, {name: mutual, method: dml, epochs: 1, start: fresh}]}"""
ARMS = f"methods=[none, dml, {ONE}, {TWO}, {ANEW}]"


@pytest.fixture(scope="module")
def words(smoke: str, quick: list[str]) -> list[str]:
    return ["run", smoke, *quick, "mentors=[]", "train.epochs=2", "seeds=[0]", "train.log_every=1"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    out = tmp_path_factory.mktemp("stages") / "run"
    assert main([*words, PEERS, ARMS, "--out", str(out), "--quiet"]) == 0
    return out


def entry(out: Path, method: str) -> dict[str, Any]:
    return next(e for e in json.loads((out / "summary.json").read_text())["entries"] if e["method"] == method)


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


def test_an_arm_of_one_stage_is_the_plain_arm_to_the_bit(out: Path) -> None:
    for name in ("student", "student-best"):
        assert same(out / "one" / "seed0" / f"{name}.safetensors", out / "none" / "seed0" / f"{name}.safetensors")
    one, plain = entry(out, "one"), entry(out, "none")
    assert (one["test_last"], one["steps"]) == (plain["test_last"], plain["steps"])
    assert [row["name"] for row in one["stages"]] == ["only"]
    assert not (out / "one" / "seed0" / "stages").exists()


def test_several_trainees_of_a_method_without_peers_learn_each_alone(out: Path) -> None:
    """The student among them learns what it learns by itself."""
    folder = out / "two" / "seed0" / "stages" / "pre"
    assert same(folder / "student.safetensors", out / "none" / "seed0" / "student.safetensors")
    terms = lines(folder, "train")[-1]["terms"]
    assert set(terms) == {"supervised", "b.supervised"}


def test_the_last_stage_is_the_arms_student_and_the_others_lie_below_it(out: Path) -> None:
    folder = out / "two" / "seed0"
    for place in (folder, folder / "stages" / "pre"):
        for name in ("student.safetensors", "student-best.safetensors", "peers/b.safetensors", "entry.json"):
            assert (place / name).is_file()
    made = json.loads((out / "summary.json").read_text())
    arm = next(arm for arm in made["arms"] if arm["label"] == "two")
    assert [(s["name"], s["method"], s["epochs"], s["start"]) for s in arm["stages"]] == [
        ("pre", "none", 2, "fresh"), ("mutual", "dml", 1, "pre"),
    ]  # fmt: skip
    assert (arm["method"], arm["peers"]) == ("none then dml", ["b"])
    assert main(["evaluate", str(folder), "--json"]) == 0


def test_a_stage_begins_from_the_one_before_or_afresh(out: Path, words: list[str], tmp_path: Path) -> None:
    """A stage that begins afresh begins as any arm of its seed, and draws another order than the first."""
    more = [*words, PEERS, "train.epochs=1", "train.lr=1e-9", "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*more, f"methods=[none, {TWO}, {ANEW}]"]) == 0
    runs = tmp_path / "run"
    start = load_file(runs / "none" / "seed0" / "student.safetensors")
    for label in ("two", "anew"):
        found = load_file(runs / label / "seed0" / "student.safetensors")
        for key, value in start.items():
            if "running" not in key and "num_batches" not in key:
                assert torch.allclose(value, found[key], atol=1e-6), (label, key)
    trained = load_file(out / "two" / "seed0" / "student.safetensors")
    assert any(not torch.allclose(value, trained[key], atol=1e-3) for key, value in start.items())
    first = lines(runs / "anew" / "seed0" / "stages" / "pre", "train")[0]["loss"]
    assert first != lines(runs / "anew" / "seed0", "train")[0]["terms"]["supervised"]  # another order


def test_running_statistics_go_on(out: Path) -> None:
    folder = out / "two" / "seed0"
    counts = [
        next(int(v) for k, v in load_file(place / "student.safetensors").items() if "num_batches" in k)
        for place in (folder / "stages" / "pre", folder)
    ]
    assert counts[1] > counts[0] > 0
    anew = load_file(out / "anew" / "seed0" / "student.safetensors")
    assert next(int(v) for k, v in anew.items() if "num_batches" in k) == counts[1] - counts[0]


def test_the_cost_of_all_stages_is_the_arms(out: Path) -> None:
    found, alone, together = entry(out, "two"), entry(out, "none"), entry(out, "dml")
    assert found["steps"] == sum(row["steps"] for row in found["stages"]) == alone["steps"] + together["steps"] // 2
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in found["stages"]), abs=0.01)
    pre, mutual = found["stages"]
    assert (pre["name"], pre["method"], pre["epochs"], pre["trainees"]) == ("pre", "none", 2, ["student", "b"])
    assert 0 <= pre["test_last"] <= 1
    mean = (pre["steps"] * pre["step_ms"] + mutual["steps"] * mutual["step_ms"]) / found["steps"]
    assert found["step_ms"] == pytest.approx(mean, abs=1e-3)
    assert found["cost_ratio"] == pytest.approx(mean / found["floor_ms"], abs=1e-2)
    assert {v["name"] for v in found["variants"]} == {"student", "b", "ensemble"}


def test_a_stage_is_found_where_it_is_named_alone(out: Path, tmp_path: Path, capsys: Any) -> None:
    folder = out / "two" / "seed0"
    for name in ("student", "b"):
        words = ["export", str(folder / "stages" / "pre"), str(tmp_path / f"{name}.safetensors"), "--network", name]
        assert main(words) == 0
    assert same(tmp_path / "student.safetensors", folder / "stages" / "pre" / "student.safetensors")
    cut = tmp_path / "run"
    shutil.copytree(out, cut)
    for path in (cut / "two" / "seed0").glob("*.safetensors"):
        path.unlink()
    capsys.readouterr()
    assert main(["evaluate", str(cut / "two" / "seed0")]) == 2  # as when the last stage is not over yet
    assert "holds no student.safetensors; a student appears there" in capsys.readouterr().err


def test_the_page_shows_stages_on_the_curve_and_in_a_table(out: Path) -> None:
    summary = load_summary(out)
    log = next(log for log in read_run(summary) if log.label == "two")
    assert log.stages == (("pre", 0.0), ("mutual", 2.0))
    assert list(log.accuracy[0].x) == [1, 2, 3]
    assert list(log.trainees["b"].x) == [1, 2, 3]
    page = (out / "report.html").read_text()
    part = page[page.index('id="learning"') :].partition("</section>")[0]
    assert "a dashed line begins a stage" in part
    assert part.count(">pre</td>") == 2
    assert "student, b" in part


@pytest.mark.parametrize("place", ["", "stages/pre"])
def test_a_damaged_file_of_a_stage_is_made_again(out: Path, words: list[str], capsys: Any, place: str) -> None:
    file = out / "two" / "seed0" / place / "peers" / "b.safetensors"
    before = file.read_bytes()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    capsys.readouterr()
    assert main([*words, PEERS, ARMS, "--out", str(out), "--resume"]) == 0
    assert "it is made again from its last checkpoint" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert entry(out, "two")["stages"]


def test_a_run_that_ended_between_stages_goes_on_in_the_next(out: Path, words: list[str], tmp_path: Path) -> None:
    """To the bit, without the first stage being trained again."""
    cut = tmp_path / "run"
    shutil.copytree(out, cut)
    folder = cut / "two" / "seed0"
    for path in folder.iterdir():
        if path.name != "stages":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = (folder / "stages" / "pre" / "metrics.jsonl").stat().st_mtime_ns
    assert main([*words, PEERS, ARMS, "--out", str(cut), "--resume", "--quiet"]) == 0
    assert (folder / "stages" / "pre" / "metrics.jsonl").stat().st_mtime_ns == before
    for name in ("student.safetensors", "peers/b.safetensors"):
        assert same(folder / name, out / "two" / "seed0" / name)
    assert entry(cut, "two")["steps"] == entry(out, "two")["steps"]


@pytest.mark.parametrize(("old", "new"), [("all, epochs: 2", "all, epochs: 3"), ("start: fresh", "start: pre")])
def test_a_folder_made_with_other_stages_is_not_gone_on_with(
    out: Path, words: list[str], capsys: Any, old: str, new: str
) -> None:
    assert main([*words, PEERS, ARMS.replace(old, new), "--out", str(out), "--resume"]) == 2
    assert f"the arm '{'two' if 'epochs' in old else 'anew'}' differ(s)" in capsys.readouterr().err


def test_a_dry_run_shows_the_stages_and_what_they_cost(words: list[str], capsys: Any) -> None:
    capsys.readouterr()
    assert main([*words, PEERS, ARMS, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    arms = {arm["label"]: arm for arm in found["arms"]}
    stages = ["one, stage only", "two, stage pre", "two, stage mutual", "anew, stage pre", "anew, stage mutual"]
    assert list(arms) == ["none", "dml", *stages]
    assert arms["two, stage pre"]["x_floor"] > 1.3
    assert [arms[name]["epochs"] for name in ("none", *stages)] == [2, 2, 2, 1, 1, 1]
    assert found["students"] == 5
    two = found["stages"][1]
    assert (two["label"], [stage["epochs"] for stage in two["stages"]]) == ("two", [2, 1])
    assert two["steps"] == found["steps"] == arms["none"]["steps"] * 3 // 2
    assert two["steps_alone"] > two["steps"]
    assert main([*words, PEERS, ARMS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "'two': 2 stage(s) of so many epochs: pre (none) 2, mutual (dml) 1; 12 steps in all" in said
    assert "'anew': 2 stage(s) of so many epochs: pre (none) 1, mutual (dml) 1 from fresh; 8 steps in all" in said
    together = "'dml', 'two, stage pre', 'two, stage mutual' and 'anew, stage mutual' train 2 networks"
    assert said.replace("\n", " ").count(f"note: {together}") == 1


def test_a_stage_that_starts_from_a_file_of_another_network_is_refused(
    out: Path, words: list[str], tmp_path: Path, capsys: Any
) -> None:
    file = out / "two" / "seed0" / "peers" / "b.safetensors"
    arm = f"method={{label: x, stages: [{{name: only, method: none, epochs: 1, start: {file}}}]}}"
    capsys.readouterr()
    assert main([*words, arm, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "arm 'x, stage only': start: checkpoint" in said
    assert "4x3x3x3, not 8x3x3x3" in said
    assert not (tmp_path / "run").exists()
    right = arm.replace(str(file), str(out / "none" / "seed0" / "student.safetensors"))
    assert main([*words, right, "--out", str(tmp_path / "run"), "--quiet"]) == 0


def test_a_stage_that_diverges_is_named_and_the_stages_before_it_stay(
    words: list[str], tmp_path: Path, capsys: Any
) -> None:
    arm = (
        "methods=[{label: x, stages: [{name: pre, method: none, trainees: all, epochs: 1}, "
        "{name: loud, method: {name: dml, weight: 1e40}, epochs: 1}]}]"
    )
    run = [*words, PEERS, arm, "--out", str(tmp_path / "run"), "--quiet"]
    capsys.readouterr()
    assert main(run) == 1
    assert "x · seed 0: stage 'loud': training stopped" in capsys.readouterr().err
    folder = tmp_path / "run" / "x" / "seed0"
    assert (folder / "stages" / "pre" / "entry.json").exists()
    assert (folder / "diverged.json").exists()
    assert not (folder / "entry.json").exists()
    assert main([*run, "--resume"]) == 1
    assert "in an earlier attempt" in capsys.readouterr().err


def test_pose_has_stages_without_a_line_of_its_own(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "task": "pose",
        "data": {
            "source": "puppets", "size": 48, "views": "person",
            "options": {"train": 40, "test": 20, "image_size": 64, "metric": "PCK@0.2"},
        },
        "student": "simcc_tiny",
        "peers": [{"name": "b", "model": "simcc_tiny"}],
        "mentors": [{"name": "self", "from": "pre"}],
        "method": {"stages": [
            {"name": "pre", "method": "none", "trainees": "all", "epochs": 1},
            {"name": "again", "method": ["dml", {"name": "kd", "mentor": "self-student"}], "epochs": 1},
        ]},
        "train": {"batch_size": 12, "optimizer": "sgd", "lr": 0.002},
        "device": "cpu", "threads": 1, "workers": 1, "check_mentors": "off",
    }  # fmt: skip
    (tmp_path / "pose.yaml").write_text(json.dumps(recipe))
    assert main(["run", str(tmp_path / "pose.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    made = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["name"] for row in made["entries"][0]["stages"]] == ["pre", "again"]


def test_stages_from_python_with_networks_that_are_handed_over(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, b = (ck.models.create("convnet4", num_classes=10) for _ in range(2))
    stages = [
        {"name": "pre", "method": "none", "trainees": "all", "epochs": 1},
        {"name": "again", "method": ["dml", {"name": "kd", "mentor": "self"}], "epochs": 1, "start": "fresh"},
    ]
    run = ck.distill(
        student, {"self": {"from": "pre.b"}}, PUPPETS, {"label": "two", "stages": stages}, peers={"b": b},
        out=tmp_path / "run", device="cpu", threads=1,
    )  # fmt: skip
    (entry,) = run.summary["entries"]
    assert [row["name"] for row in entry["stages"]] == ["pre", "again"]
    assert json.loads((run.folder / "two" / "seed0" / "teaching.json").read_text())["mentors"] == ["self"]


TWICE = """method={label: amtml, stages: [
  {name: learn, method: {amtml: {taps: ["@stage:-1"]}}, epochs: 1},
  {name: teach, method: {amtml: {adapter: frozen, hint_weight: 0}}, epochs: 1}
]}"""


def test_what_a_method_has_learned_goes_on_frozen_in_a_later_stage(
    smoke: str, quick: list[str], tmp_path: Path
) -> None:
    """AMTML's two stages; and again, where the second is made anew from the files of the first."""
    words = [
        "run",
        smoke,
        *quick,
        "mentors=[{name: a, model: convnet4}, {name: b, model: convnet4}]",
        TWICE,
        "seeds=[0]",
    ]
    out = tmp_path / "run"
    assert main([*words, "train.lr=0.05", "bank=off", "--out", str(out), "--quiet"]) == 0
    folder = out / "amtml" / "seed0"
    learned = torch.load(folder / "stages" / "learn" / "checkpoints" / "last.pt", weights_only=True)["method"]
    assert learned["latent.mixing"].any()
    first = load_file(folder / "student.safetensors")
    for name in ("entry.json", "checkpoints/last.pt"):
        (folder / name).unlink()
    assert main([*words, "train.lr=0.05", "bank=off", "--out", str(out), "--quiet", "--resume"]) == 0
    assert all(torch.equal(value, first[key]) for key, value in load_file(folder / "student.safetensors").items())

    (folder / "stages" / "learn" / "checkpoints" / "last.pt").unlink()
    for name in ("entry.json", "checkpoints/last.pt"):
        (folder / name).unlink()
    assert main([*words, "train.lr=0.05", "bank=off", "--out", str(out), "--quiet", "--resume"]) != 0


SELVES = """methods=[none, {label: two, stages: [{name: pre, method: none, epochs: 1},
    {name: again, method: {kd: {mentor: self-student}}, epochs: 1}]}%s]"""
WIDER = """, {label: wide, stages: [{name: pre, method: none, trainees: all, epochs: 1},
    {name: again, method: [dml, {kd: {mentor: self-b}}], epochs: 1}]}"""


def test_an_arm_whose_stage_leaves_more_selves_is_added_to_a_run(words: list[str], tmp_path: Path, capsys: Any) -> None:
    """The recipe then has a self that the first arm has not; the first student stays, and another self is refused."""
    run = ["mentors=[{name: self, from: pre}]", "--out", str(tmp_path / "run"), "--quiet"]
    quick = [*words, "train.epochs=1"]
    assert main([*quick, SELVES % "", *run]) == 0
    before = (tmp_path / "run" / "two" / "seed0" / "student.safetensors").read_bytes()
    assert main([*quick, SELVES % WIDER, PEERS, *run, "--resume"]) == 0
    assert entry(tmp_path / "run", "wide")["stages"]
    assert (tmp_path / "run" / "two" / "seed0" / "student.safetensors").read_bytes() == before
    capsys.readouterr()
    other = "mentors=[{name: self-student, from: pre.student}, {name: more, from: pre.student}]"
    assert main([*quick, SELVES % "", other, *run[1:], "--resume"]) == 2
    assert "the arm 'two' differ(s)" in capsys.readouterr().err
