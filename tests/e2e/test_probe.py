"""``classroomkd probe``: features judged by neighbours and a linear classifier, and beside those of the mentors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from colours import Colours
from unlabelled import Channels, photos, small

import classroomkd as ck
from classroomkd._sums import damage
from classroomkd.cli.app import main
from classroomkd.errors import UserError
from classroomkd.run import probing

RECIPE = """
data: {source: puppets, options: {train: 60, test: 30}}
student: convnet8
mentors:
  - {name: slim, model: convnet8}
  - {name: other, model: convnet8}
mentor_train: {epochs: 1}
methods: [average, none]
seeds: [0, 1]
train: {epochs: 1, batch_size: 30}
device: cpu
workers: 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("probe")
    (root / "recipe.yaml").write_text(RECIPE)
    assert main(["run", str(root / "recipe.yaml"), "--out", str(root / "run"), "--quiet"]) == 0
    return root / "run"


def found(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    code = main(["probe", *words, "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    result: dict[str, Any] = json.loads(said.out)
    return result


def test_a_run_is_probed_whole_and_its_summary_keeps_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = found(capsys, str(run), "--neighbours", "5")
    students = {(row["method"], row["seed"]) for row in result["students"]}
    assert students == {("average", 0), ("none", 0), ("average", 1), ("none", 1)}
    for row in result["students"]:
        assert set(row["figures"]) == {
            "k-NN", "linear classifier", "agreement with the vote", "agreement with slim", "agreement with other",
            "neighbours shared with slim", "neighbours shared with other",
        }  # fmt: skip
        assert all(0 <= value <= 1 for value in row["figures"].values())
    assert [row["name"] for row in result["mentors"]] == ["slim", "other"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["probe"] == result
    assert damage(run / "summary.json") is None
    assert main(["compare", str(run)]) == 0
    assert "k-NN (probe)" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "5 nearest images" in page
    assert page.count("k-NN (probe)") == 0  # they have a section of their own


def test_what_a_probe_has_found_survives_a_resumed_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = found(capsys, str(run))
    (run / "none" / "seed1" / "student.safetensors").unlink()
    assert main(["run", str(run.parent / "recipe.yaml"), "--out", str(run), "--resume", "--quiet"]) == 0
    assert json.loads((run / "summary.json").read_text())["probe"] == result


def test_one_student_on_data_of_other_classes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "summary.json").read_bytes()
    result = found(capsys, str(run / "none" / "seed0"), "--data", "digits")
    assert result["fitted"] + result["scored"] < 1797
    sums = run / "none" / "seed0" / "SHA256SUMS"
    sums.rename(sums.with_suffix(".away"))  # a file without a checksum is used, and said
    try:
        assert main(["probe", str(run / "none" / "seed0"), "--data", "digits"]) == 0
    finally:
        sums.with_suffix(".away").rename(sums)
    assert "stands in no SHA256SUMS" in capsys.readouterr().err
    (row,) = result["students"]
    assert row["figures"]["k-NN"] > 0.3  # of ten classes, with features that have hardly been trained
    assert (run / "summary.json").read_bytes() == before


def test_without_a_label_there_is_agreement_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = found(capsys, str(run / "none" / "seed0"), "--data", f"images:{photos(tmp_path / 'photos', 30)}")
    assert (result["fitted"], result["scored"]) == (0, 30)  # all of them
    assert "k-NN" not in result["students"][0]["figures"]
    assert set(result["mentors"][0]["figures"]) == {"agreement with the vote"}


def test_mentors_that_are_gone_are_left_out_and_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((run / "summary.json").read_text())
    file = Path(next(m["weights"] for m in summary["mentors"] if m["name"] == "slim"))
    file.rename(file.with_suffix(".away"))
    try:
        assert main(["probe", str(run / "none" / "seed0")]) == 0
    finally:
        file.with_suffix(".away").rename(file)
    said = capsys.readouterr()
    assert "note: mentor 'slim' is left out" in said.err
    assert "other" in said.out


def test_a_pose_student_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(tmp_path)]) == 2
    assert "holds no student.safetensors" in capsys.readouterr().err
    small = ["task=pose", "data={source: puppets, options: {train: 30, test: 20}}", "student=simcc_tiny"]
    words = [*small, "mentors=[]", "method=none", "train.epochs=1", "mentor_train=null"]
    assert main(["run", "smoke", *words, "--out", str(tmp_path / "pose"), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["probe", str(tmp_path / "pose")]) == 2
    assert "is a student of pose; a probe judges students of classes" in capsys.readouterr().err


def test_from_python_with_networks_that_were_handed_over(tmp_path: Path) -> None:
    mentors = {"sure": Channels(6.0), "unsure": Channels(0.7)}
    run = ck.distill(
        small(), mentors, f"images:{photos(tmp_path / 'photos')}", "average", out=tmp_path / "run",
        cache=str(tmp_path / "cache"), epochs=1, batch_size=16, device="cpu",
    )  # fmt: skip
    result = run.probe(neighbours=3)
    assert result["mentors"][0]["figures"]["agreement with the vote"] == 1.0
    assert {"agreement with sure", "neighbours shared with sure"} < set(result["students"][0]["figures"])
    labelled = run.probe(Colours(60))
    assert labelled["mentors"][0]["figures"]["k-NN"] == 1.0  # its features are the colours
    assert run.summary["probe"] == labelled


@pytest.mark.parametrize(
    ("part", "label", "message"),
    [
        ("test", -1, "the training part of 'puppets' has labels and the test part has none"),
        ("train", -1, "the test part of 'puppets' has labels and the training part has none"),
        ("train", 1, "all of one class"),
    ],
)
def test_labels_that_cannot_be_fitted_are_refused(part: str, label: int, message: str) -> None:
    images = ck.data.load({"source": "puppets", "options": {"train": 30, "test": 20}})
    old = getattr(images, part)
    changed = replace(images, **{part: replace(old, target=torch.full_like(old.target, label))})
    with pytest.raises(UserError, match=message):
        probing.samples_of(changed)


def test_shared_neighbours_are_those_of_both() -> None:
    torch.manual_seed(0)
    mine = torch.randn(40, 5)
    assert probing.shared_neighbours(mine, mine @ torch.linalg.qr(torch.randn(5, 5))[0] * 3, 4) == 1.0  # turned, scaled
    by_hand = []
    other = torch.randn(40, 7)
    for k in range(40):
        near = [
            set(
                torch.nn.functional.cosine_similarity(x, x[k : k + 1])
                .index_fill(0, torch.tensor([k]), -2)
                .topk(4)
                .indices.tolist()
            )
            for x in (mine, other)
        ]
        by_hand.append(len(near[0] & near[1]) / 4)
    assert probing.shared_neighbours(mine, other, 4) == pytest.approx(sum(by_hand) / 40)
    assert probing.shared_neighbours(mine[:1], other[:1], 4) == 1.0
