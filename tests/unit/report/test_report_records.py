from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_run import ARMS, fake_run

from classroomkd.report import load_summary
from classroomkd.report.records import POINTS, read_arm, read_run, thin


def write(folder: Path, records: list[dict[str, object]], teaching: dict[str, object] | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if teaching:
        (folder / "teaching.json").write_text(json.dumps(teaching))


def train(step: int, active: list[float | None], none_active: float | None = 0.0) -> dict[str, object]:
    said = {"active": active, "weight": active, "temperature": [1.0, None], "none_active": none_active}
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": 1.0, "mentors": said}


def summary_of(root: Path, seeds: list[int]) -> object:
    raw = {
        "schema": 1,
        "data": {"classes": ["a", "b", "c"]},
        "mentors": [{"name": "m"}, {"name": "n"}],
        "arms": [{"label": "x", "folder": "x", "method": "classroomkd"}],
        "entries": [{"method": "x", "seed": seed, "test_last": 0.5} for seed in seeds],
    }
    root.mkdir(exist_ok=True)
    (root / "summary.json").write_text(json.dumps(raw))
    return load_summary(root)


def test_means_over_seeds(tmp_path: Path) -> None:
    teaching = {
        "mentors": ["m", "n"],
        "classes": ["a", "b", "c"],
        "count": [1, 2, 3],
        "test_per_class": [0.1, 0.2, None],
    }
    for seed, share in ((0, 0.2), (1, 0.6)):
        table = [[share] * 3, [None, 0.0, 1.0]]
        curve = [{"kind": "val", "step": s, "epoch": s / 10, "accuracy": share} for s in (10, 20)]
        records = [train(10, [share, 0.0]), train(20, [share, None], None), *curve]
        write(
            tmp_path / "x" / f"seed{seed}", records, teaching | {"active": table, "weight": table, "temperature": table}
        )
    summary = summary_of(tmp_path, [0, 1])
    log = read_arm(summary, summary.arms[0])
    assert log.activity is not None
    assert log.activity.mentors == ("m", "n")
    np.testing.assert_allclose(log.activity.active, [[0.4, 0.4], [0.0, np.nan]])
    np.testing.assert_allclose(log.activity.x, [1, 2])
    np.testing.assert_allclose(log.activity.none_active, [0.0, np.nan])
    assert log.teaching is not None
    np.testing.assert_allclose(log.teaching.active, [[0.4] * 3, [np.nan, 0, 1]])
    assert log.teaching.seeds == 2
    np.testing.assert_allclose(log.per_class[1], [0.1, 0.2, np.nan])
    assert log.mean_accuracy is not None
    np.testing.assert_allclose(log.mean_accuracy.y, [0.4, 0.4])
    assert set(log.accuracy) == {0, 1}


def test_seeds_in_progress_count_only_while_none_has_finished(tmp_path: Path) -> None:
    for seed, value in ((0, 0.2), (1, 0.8)):
        write(tmp_path / "x" / f"seed{seed}", [{"kind": "val", "step": 1, "epoch": 1, "accuracy": value}])
    (tmp_path / "x" / "seed-notes").mkdir()
    assert set(read_run(summary_of(tmp_path, []))[0].accuracy) == {0, 1}
    assert set(read_run(summary_of(tmp_path, [1]))[0].accuracy) == {1}


def test_damage_is_named_and_left_out(tmp_path: Path) -> None:
    good = [{"kind": "val", "step": 1, "epoch": 1, "accuracy": 0.5}]
    for seed in (0, 1, 2):
        write(
            tmp_path / "x" / f"seed{seed}",
            good,
            {"mentors": ["m"], "active": [[0.1]], "weight": "?", "temperature": [[1]]},
        )
    (tmp_path / "x" / "seed1" / "metrics.jsonl").write_text("garbage\n{}\n")
    (tmp_path / "x" / "seed2" / "teaching.json").write_text('{"mentors": [')
    log = read_run(summary_of(tmp_path, [0, 1, 2, 3]))[0]
    assert set(log.accuracy) == {0, 2}  # what is whole of a seed is shown
    assert [Path(text.split(":")[0]).parent.name for text in log.trouble] == ["seed0", "seed1", "seed1", "seed2"]
    assert "weight" in log.trouble[0]
    assert "lines 1, 2 damaged, and left out" in log.trouble[1]
    assert "cut off or damaged at line 1" in log.trouble[3]
    assert log.teaching is None


def test_lines_are_thinned(tmp_path: Path) -> None:
    fake = fake_run(tmp_path / "r", seeds=[0], arms=ARMS[-1:], epochs=500, steps_an_epoch=4, log_every=2)
    log = read_run(load_summary(fake))[0]
    assert log.activity is not None
    assert log.activity.active.shape == (4, POINTS)
    assert len(log.accuracy[0]) == POINTS
    assert log.activity.x[0] < 3
    assert log.activity.x[-1] > 497


@pytest.mark.parametrize("points", [1, 299, 300, 301, 1000])
def test_thin_keeps_the_mean(points: int) -> None:
    values = np.arange(points, dtype=float)
    found = thin(np.stack([values, values * 2]), 300)
    assert found.shape == (2, min(points, 300))
    assert found[0].mean() == pytest.approx(values.mean(), rel=0.01)
    assert np.all(np.diff(found[1]) > 0)


def test_a_record_of_one_step_does_not_stand_beside_one_of_ten(tmp_path: Path) -> None:
    """Records end at every tenth step and at the end of an epoch of 13: step 39 and 40 are one point."""
    shares = {10: 0.2, 13: 0.2, 20: 0.2, 26: 0.2, 30: 0.2, 39: 0.1, 40: 0.9, 50: 0.2}
    write(tmp_path / "x" / "seed0", [train(step, [share, 0.5]) for step, share in shares.items()])
    summary = summary_of(tmp_path, [0])
    log = read_arm(summary, summary.arms[0])
    assert log.activity is not None
    np.testing.assert_allclose(log.activity.x, [1.0, 2.0, 2.6, 3.0, 3.9, 5.0])
    assert log.activity.active[0, -1] == pytest.approx((0.9 * 1 + 0.2 * 10) / 11)
    np.testing.assert_allclose(log.activity.active[1], 0.5)
    assert np.all(np.diff(log.activity.x) > 0)
