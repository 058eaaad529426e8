"""A folder of pictures, none labelled: mentors teach, and what came of it is judged by their vote."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colours import Colours
from PIL import Image
from unlabelled import Channels, photos, small

import classroomkd as ck
from classroomkd.cli.app import main
from classroomkd.errors import UserError
from classroomkd.functional import disagreement, vote, vote_entropy
from classroomkd.run import to_label
from classroomkd.train.scoring import calibration_error

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.05, "device": "cpu"}


def mentors() -> dict[str, Any]:
    return {"sure": Channels(6.0), "unsure": Channels(0.7)}


def listed(run: ck.Run) -> list[dict[str, str]]:
    return list(csv.DictReader((run.folder / "to_label.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> ck.Run:
    """A run on pictures alone."""
    root = tmp_path_factory.mktemp("unlabelled")
    source = f"images:{photos(root / 'photos')}"
    return ck.distill(small(), mentors(), source, out=root / "run", seeds=(0, 1), cache=str(root / "cache"), **SHORT)


def test_one_call_on_a_folder_of_pictures(taught: ck.Run) -> None:
    summary = taught.summary
    assert summary["metric"] == summary["val_metric"] == "agreement"
    assert summary["data"]["classes"] == ["0", "1", "2"]
    assert summary["data"]["labelled"] == 0
    assert summary["data"]["vote"]
    assert "mentors_vote" not in summary  # it is what the students are scored against
    assert [(m["name"], m["accuracy"], m["val_accuracy"]) for m in summary["mentors"]] == [
        ("sure", 1.0, 1.0), ("unsure", 1.0, 1.0),
    ]  # fmt: skip
    for entry in summary["entries"]:
        assert entry["val_best"] is None
        assert entry["test_best"] == entry["test_last"]
        assert set(entry["test_metrics"]) == {"agreement with sure", "agreement with unsure", "calibration error"}
        assert entry["test_metrics"]["agreement with sure"] == entry["test_last"]
        assert 0 <= entry["test_metrics"]["calibration error"] <= 1
    folder = taught.folder / "classroomkd" / "seed0"
    assert (folder / "student.safetensors").exists()
    assert not (folder / "student-best.safetensors").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if line["kind"] == "val"]) == SHORT["epochs"]


def test_the_student_is_scored_by_the_vote(taught: ck.Run) -> None:
    images = ck.data.load(f"images:{taught.folder.parent / 'photos'}")
    pixels, _, _ = images.test.batch(torch.arange(len(images.test)))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.mean, images.std))
    inputs = (pixels / 255 - mean) / std
    with torch.no_grad():
        vote = torch.stack([m(inputs).softmax(-1) for m in mentors().values()]).mean(0).argmax(-1)
        logits = taught.student("classroomkd", 1)(inputs)
    mine = logits.argmax(-1)
    entry = next(e for e in taught.summary["entries"] if e["seed"] == 1)
    assert entry["test_last"] == pytest.approx(float((mine == vote).double().mean()))
    assert entry["test_metrics"]["calibration error"] == pytest.approx(calibration_error(logits, vote), abs=1e-3)


def test_the_words_say_what_was_measured(taught: ck.Run, capsys: pytest.CaptureFixture[str]) -> None:
    page = taught.report().read_text()
    assert "Agreement with the mentors' vote on 12 test" in page.replace("&#x27;", "'")
    assert main(["compare", str(taught.folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "agreement: agreement with the mentors' vote; no accuracy" in said
    assert "calibration error" in said
    assert "accuracy %" not in said
    assert "agreement" in str(taught)
    assert f"classroomkd predict {taught.folder}" in str(taught)


def test_labels_for_the_test_part_alone_make_it_accuracy(tmp_path: Path) -> None:
    for k in range(3):
        photos(tmp_path / "known" / f"class{k}", 9)  # of any colours
    source = {"train": f"images:{photos(tmp_path / 'photos')}", "test": f"imagefolder:{tmp_path / 'known'}"}
    run = ck.distill(small(), mentors(), source, "average", out=tmp_path / "run", cache=str(tmp_path / "c"), **SHORT)
    assert (run.summary["metric"], run.summary["val_metric"]) == ("accuracy", "agreement")
    (entry,) = run.summary["entries"]
    assert "test_metrics" not in entry
    assert entry["val_best"] is None
    assert run.summary["mentors_vote"] == pytest.approx(1 / 3)
    assert "their vote, together" in run.report().read_text()
    assert run.summary["mentors"][0]["val_accuracy"] == 1.0
    assert run.summary["mentors"][0]["accuracy"] == pytest.approx(1 / 3)


def test_labels_for_validation_alone_choose_the_epoch(tmp_path: Path) -> None:
    for k in range(3):
        photos(tmp_path / "known" / f"class{k}", 9)
    source = {"train": f"images:{photos(tmp_path / 'photos')}", "val": f"imagefolder:{tmp_path / 'known'}"}
    run = ck.distill(
        small(),
        mentors(),
        source,
        "average",
        out=tmp_path / "run",
        cache=str(tmp_path / "c"),
        check_mentors="off",
        **SHORT,
    )
    assert (run.summary["metric"], run.summary["val_metric"]) == ("agreement", "accuracy")
    (entry,) = run.summary["entries"]
    assert entry["val_best"] is not None
    assert (run.folder / "average" / "seed0" / "student-best.safetensors").exists()


def test_an_assistant_that_needs_labels_is_refused_without_any(tmp_path: Path) -> None:
    helper = {"model": "convnet8", "taught_by": {"mentors": ["sure"], "method": {"name": "dkd"}}}
    with pytest.raises(UserError, match=r"mentors\.2\.taught_by: 'dkd' needs labels by its rule"):
        ck.distill(
            small(),
            {**mentors(), "help": helper},
            f"images:{photos(tmp_path / 'photos')}",
            out=tmp_path / "run",
            **SHORT,
        )


def test_a_mentor_that_says_other_things_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = f"images:{photos(tmp_path / 'photos')}"
    wrong = {**mentors(), "turned": Channels(0.3, (1, 2, 0))}
    run = ck.distill(
        small(),
        wrong,
        source,
        "average",
        out=tmp_path / "run",
        cache=str(tmp_path / "c"),
        check_mentors="error",
        **SHORT,
    )
    assert "mentor 'turned' agrees with the mentors' vote on 0.0% of the validation images" in caplog.text
    assert [m["accuracy"] for m in run.summary["mentors"]] == [1.0, 1.0, 0.0]


def test_without_anybody_to_judge_by_it_is_refused(tmp_path: Path) -> None:
    for k in range(3):
        photos(tmp_path / "known" / f"class{k}", 9)
    source = {"train": f"imagefolder:{tmp_path / 'known'}", "test": f"images:{photos(tmp_path / 'photos')}"}
    with pytest.raises(UserError, match="no image of the test part has a label, and there is no mentor"):
        ck.distill(small(), {}, source, "none", out=tmp_path / "run", **SHORT)
    run = ck.distill(small(), mentors(), source, "none", out=tmp_path / "run", cache=str(tmp_path / "c"), **SHORT)
    assert run.summary["metric"] == "agreement"
    assert run.summary["mentors"][0]["accuracy"] == 1.0


def recipe_of(folder: Path) -> Path:
    """Two networks whose files name their classes teach on pictures alone."""
    files = [folder / f"m{k}.safetensors" for k in range(2)]
    for file in files:
        network = ck.models.create("convnet8", 3)
        ck.models.save_checkpoint(network, file, {"classes": json.dumps(["red", "green", "blue"])})
    mentors: list[dict[str, Any]] = [{"name": f.stem, "model": "convnet8", "weights": str(f)} for f in files]
    recipe = {
        "data": f"images:{photos(folder / 'photos')}",
        "student": "convnet8",
        "mentors": [*mentors, {"name": "help", "model": "convnet8", "taught_by": ["m0", "m1"]}],
        "method": "classroomkd",
        "train": {"epochs": 2, "batch_size": 16},
        "device": "cpu",
        "threads": 1,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder / "recipe.yaml"


@pytest.mark.slow
def test_workers_score_by_the_same_vote(tmp_path: Path) -> None:
    recipe, made = recipe_of(tmp_path), []
    for workers in (1, 2):
        words = [f"cache={tmp_path / f'cache{workers}'}", f"workers={workers}", "seeds=[0,1]"]
        assert main(["run", str(recipe), *words, "--out", str(tmp_path / f"run{workers}"), "--quiet"]) == 0
        made.append(json.loads((tmp_path / f"run{workers}" / "summary.json").read_text()))
    one, two = made
    for key in ("test_last", "val_last", "test_metrics"):
        assert [e[key] for e in one["entries"]] == [e[key] for e in two["entries"]]
    assert one["data"] == two["data"]
    assert one["unlabelled"] == two["unlabelled"]
    assert one["unlabelled"]["first"][0]["name"].endswith(".png")


def test_the_verbs_on_pictures_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(tmp_path)
    cache = f"cache={tmp_path / 'cache'}"
    assert main(["run", str(recipe), "--dry-run", cache]) == 0
    assert "agreement" in capsys.readouterr().out
    assert main(["bench", str(recipe), cache, "--rounds", "2"]) == 0
    out = tmp_path / "run"
    assert main(["run", str(recipe), cache, "workers=1", "--out", str(out), "--quiet"]) == 0
    first = json.loads((out / "summary.json").read_text())
    assert main(["run", str(recipe), cache, "workers=1", "--out", str(out), "--quiet", "--resume"]) == 0
    again = json.loads((out / "summary.json").read_text())
    assert first["entries"] == again["entries"]
    assert all(0 <= m["val_accuracy"] <= 1 for m in first["mentors"])
    assert [m["samples"] for m in first["mentors"]] == [None, None, 43]
    assert first["data"] == again["data"]
    capsys.readouterr()
    assert main(["export", str(out), str(tmp_path / "ship" / "student.safetensors")]) == 0
    assert "- agreement with the mentors' vote: " in next((tmp_path / "ship").glob("*.md")).read_text()
    assert main(["evaluate", str(out)]) == 2
    assert "has a label: there is nothing to score; `classroomkd predict` says" in capsys.readouterr().err


def test_pictures_to_label_next_are_listed(taught: ck.Run) -> None:
    found = taught.summary["unlabelled"]
    rows = listed(taught)
    assert found["pictures"] == found["rows"] == len(rows) == taught.summary["data"]["student_train"]
    assert list(rows[0]) == ["name", "class", "disagreement", "entropy", "vote", "says sure", "says unsure"]
    apart = [float(row["disagreement"]) for row in rows]
    assert apart == sorted(apart, reverse=True)
    assert found["first"] == rows[:12]
    pixels = torch.from_numpy(np.array(Image.open(taught.folder.parent / "photos" / rows[0]["name"])))
    images = ck.data.load(f"images:{taught.folder.parent / 'photos'}")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.mean, images.std))
    logits = torch.stack([m(((pixels.permute(2, 0, 1) / 255 - mean) / std)[None]) for m in mentors().values()])
    assert float(disagreement(logits)) == pytest.approx(apart[0], abs=1e-2)
    assert rows[0]["vote"] == str(int(vote(logits).argmax()))
    assert float(rows[0]["entropy"]) == pytest.approx(float(vote_entropy(vote(logits))), abs=1e-2)
    assert found["unknown"] == sum(float(row["entropy"]) > 0.8 for row in rows)


def test_the_list_becomes_labels(taught: ck.Run, tmp_path: Path) -> None:
    rows = listed(taught)
    for row in rows[:9]:
        row["class"] = ("red", "green", "blue")[int(row["name"].partition(".")[0]) % 3]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    labels = {"file": str(tmp_path / "labels.csv")}
    images = ck.data.load({"source": f"images:{taught.folder.parent / 'photos'}", "labels": labels})
    assert sum(int(part.labelled.sum()) for part in (images.train, images.val, images.test)) == 9


def test_the_page_says_what_mentors_do_not_know(taught: ck.Run) -> None:
    page = taught.report().read_text()
    assert 'id="labels"' in page
    found = taught.summary["unlabelled"]
    assert f"{found['pictures']} pictures, none of them labelled" in page
    assert found["first"][0]["name"] in page


def test_a_list_that_would_take_too_long_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_label, "SHARE", 0.0)
    monkeypatch.setattr(to_label, "LEAST", 0.0)
    source = f"images:{photos(tmp_path / 'photos')}"
    settings = {**SHORT, "eval_batch_size": 16, "outliers": 0.5}
    arguments = {"out": tmp_path / "run", "cache": str(tmp_path / "c"), **settings}
    run = ck.distill(small(), mentors(), source, "average", **arguments)
    assert "to_label.csv was not written: asking the mentors about 43 pictures would take too long" in caplog.text
    assert "unlabelled" not in run.summary
    assert "nothing is known of them here" in run.report().read_text()
    monkeypatch.setattr(to_label, "LEAST", 60.0)
    run = ck.distill(small(), mentors(), source, "average", resume=True, **arguments)
    assert (run.summary["unlabelled"]["bound"], run.summary["unlabelled"]["bound_is"]) == (0.5, "train.outliers")
    for name, damaged in (("to_label.csv", "damaged"), ("summary.json", '{"unlabelled": {"pictures": 99}}')):
        (run.folder / name).write_text(damaged)
        run = ck.distill(small(), mentors(), source, "average", resume=True, **arguments)
        assert len(listed(run)) == run.summary["unlabelled"]["pictures"] == 43


def test_the_mentors_vote_is_scored_on_labels(tmp_path: Path) -> None:
    turned = Channels(0.3, (1, 2, 0))  # wrong everywhere, and less sure than the one that is right
    run = ck.distill(
        small(), {"sure": Channels(6.0), "turned": turned}, {"train": Colours(30), "test": Colours(9)}, "average",
        out=tmp_path / "run", cache=str(tmp_path / "c"), check_mentors="off", **SHORT,
    )  # fmt: skip
    assert [mentor["accuracy"] for mentor in run.summary["mentors"]] == [1.0, 0.0]
    assert run.summary["mentors_vote"] == 1.0
