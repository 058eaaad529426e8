"""Trainees as they were after a stage, as mentors of a later one; and a chain of assistants said with stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classroomkd.cli.app import main
from classroomkd.run import students as teaching

PEERS = "peers=[{name: b, model: convnet4}]"
MENTORS = "mentors=[{name: big, model: convnet16}, {name: self, from: pre}]"
BORN = """{label: born, stages: [
    {name: pre, method: none, trainees: all, epochs: 1},
    {name: again, method: {name: kd, mentor: self-student}, epochs: 1, start: fresh}]}"""
ARMS = f"""methods=[
  none, {{name: kd, mentor: big}}, {BORN},
  {{label: both, stages: [
    {{name: pre, method: {{name: kd, mentor: big}}, epochs: 1}}, {{name: all, method: average, epochs: 1}}]}},
  {{label: ctsl, stages: [
    {{name: pre, method: none, trainees: all, epochs: 1}},
    {{name: mutual, method: ctslmkt, epochs: 1, start: fresh}}]}},
  {{label: judged, stages: [
    {{name: pre, method: none, epochs: 1}}, {{name: all, method: {{name: classroomkd, rule: sample}}, epochs: 1}}]}}
]"""


@pytest.fixture(scope="module")
def words(smoke: str, quick: list[str]) -> list[str]:
    return [
        "run",
        smoke,
        *quick,
        "check_mentors=off",
        "train.epochs=1",
        "seeds=[0]",
        "train.log_every=1",
        "bank=exact",
        "mentor_precision=fp32",
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    out = tmp_path_factory.mktemp("selves") / "run"
    assert main([*words, PEERS, MENTORS, ARMS, "--out", str(out), "--quiet"]) == 0
    return out


def taught(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "teaching.json").read_text())["mentors"]
    return found


def test_a_stage_has_the_selves_of_its_trainees_behind_the_mentors(out: Path) -> None:
    for label, mentors in (
        ("born", ["big", "self-student", "self-b"]),
        ("both", ["big", "self-student"]),
        ("judged", ["big", "self-student"]),
        ("ctsl", ["big", "self-student", "self-b"]),
        ("kd", ["big"]),
    ):
        assert taught(out / label / "seed0") == mentors, label
    assert taught(out / "both" / "seed0" / "stages" / "pre") == ["big"]
    made = json.loads((out / "summary.json").read_text())
    assert [mentor["name"] for mentor in made["mentors"]] == ["big"]
    assert made["bank"]["online"] == [
        "born, stage again", "both, stage all", "ctsl, stage mutual", "judged, stage all",
    ]  # fmt: skip
    assert all(entry["val_last"] is not None for entry in made["entries"])


def test_everybody_is_taught_by_its_own_self(out: Path) -> None:
    """ctslmkt knows whose self a mentor is, beside mentors of the run; the record is the student's."""
    lines = [json.loads(line) for line in (out / "ctsl" / "seed0" / "metrics.jsonl").read_text().splitlines()]
    line = [line for line in lines if line["kind"] == "train"][-1]
    assert line["mentors"]["active"] == [0, 1, 0]
    assert {"self", "b.self", "response", "b.response"} <= set(line["terms"])
    assert line["terms"]["self"] != line["terms"]["b.self"]


def test_the_self_of_a_seed_is_its_own_and_is_not_stored(
    out: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network that teaches has the weights of the stage's file, frozen, before and after."""
    seen: dict[str, dict[str, torch.Tensor]] = {}
    real = teaching._finish

    def finish(networks: Any, arm: Any, seed: int, classroom: Any, *rest: Any) -> Any:
        if arm.title == "born, stage again":
            mentor = classroom.mentors.mentors[1]
            assert not mentor.training
            assert not any(p.requires_grad for p in mentor.parameters())
            x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
            seen[str(seed)] = {"answer": mentor(x).prediction}
            network = networks.student(0)
            network.load_state_dict(load_file(tmp_path / f"run/born/seed{seed}/stages/pre/student.safetensors"))
            with torch.no_grad():
                assert torch.allclose(network.eval()(x), seen[str(seed)]["answer"], atol=1e-5)
        return real(networks, arm, seed, classroom, *rest)

    monkeypatch.setattr(teaching, "_finish", finish)
    cache = tmp_path / "cache"
    more = ["--out", str(tmp_path / "run"), "--quiet", f"cache={cache}", "seeds=[0,1]"]
    assert main([*words, PEERS, MENTORS, f"methods=[{BORN}]", *more]) == 0
    assert not torch.equal(seen["0"]["answer"], seen["1"]["answer"])
    assert {path.name.partition("-")[0] for path in (cache / "bank").iterdir() if path.is_dir()} == {"big"}


def test_a_chain_of_assistants_can_be_stages(words: list[str], tmp_path: Path, capsys: Any) -> None:
    """The assistant of a stage is to the bit what a run teaches whose student it is.

    ``taught_by`` trains one assistant a run, from a seed of its name, on its own part and with its own section; a stage
    trains one a seed of the run, as its students are trained. So the two are not the same network.
    """
    start = tmp_path / "start"
    assert main([*words, "mentors=[]", "student=convnet4", "method=none", "--out", str(start), "--quiet"]) == 0
    file = start / "none" / "seed0" / "student.safetensors"
    big, weights = "{name: big, model: convnet16}", f"weights: {file}"
    alone = [
        *words,
        "seeds=[0]",
        f"mentors=[{big}]",
        f"student={{model: convnet4, samples: 60, {weights}}}",
        "method=kd",
    ]
    assert main([*alone, "--out", str(tmp_path / "alone"), "--quiet"]) == 0
    arm = (
        "methods=[{label: chain, stages: [{name: assist, method: kd, trainees: middle, epochs: 1}, "
        "{name: teach, method: takd, epochs: 1}]}]"
    )
    chain = [
        *words, "seeds=[0]", f"mentors=[{big}, {{name: middle-after, from: assist.middle}}]",
        f"peers=[{{name: middle, model: convnet4, {weights}}}]", arm,
    ]  # fmt: skip
    out = tmp_path / "chain"
    assert main([*chain, "--out", str(out), "--quiet"]) == 0
    folder = out / "chain" / "seed0"
    one = load_file(folder / "stages" / "assist" / "peers" / "middle.safetensors")
    other = load_file(tmp_path / "alone" / "kd" / "seed0" / "student.safetensors")
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert not (folder / "stages" / "assist" / "student.safetensors").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    said = [line["mentors"] for line in lines if line["kind"] == "train"][-1]
    assert (taught(folder), said["active"]) == (["big", "middle-after"], [0, 1])
    made = json.loads((out / "summary.json").read_text())
    assert made["bank"]["kind"] == "exact"  # the teacher's answers, for the assistant
    assert made["mentors"][0]["forwards"] == 0 or made["mentors"][0]["name"] == "big"
    (entry,) = made["entries"]
    assert [row["trainees"] for row in entry["stages"]] == [["middle"], ["student"]]
    capsys.readouterr()
    assert main([*chain, "--out", str(out), "--resume"]) == 0
    assert "made again" not in capsys.readouterr().err
    damaged = folder / "stages" / "assist" / "peers" / "middle.safetensors"
    before = damaged.read_bytes()
    damaged.unlink()
    assert main([*chain, "--out", str(out), "--resume"]) == 0
    assert "made again from its last checkpoint" in capsys.readouterr().err
    assert damaged.read_bytes() == before


def test_a_dry_run_counts_the_selves(words: list[str], capsys: Any) -> None:
    capsys.readouterr()
    assert main([*words, PEERS, MENTORS, ARMS, "--dry-run", "--json"]) == 0
    arms = {arm["label"]: arm for arm in json.loads(capsys.readouterr().out)["arms"]}
    assert arms["both, stage all"]["mentor_forwards"] == 2
    assert arms["born, stage again"]["mentor_forwards"] == 1
    assert arms["both, stage all"]["x_floor_bank"] is None
    assert arms["both, stage pre"]["x_floor_bank"] is not None
