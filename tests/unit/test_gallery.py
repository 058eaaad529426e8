"""What a run keeps of persons for the page, on untrained networks."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import models
from classroomkd.recipe import Recipe, load_recipe
from classroomkd.report.gallery_file import NAME, read_gallery
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.tasks.pose import prediction_samples as gallery
from classroomkd.tasks.pose.prediction_samples import write_prediction_samples

ARMS = ["none", "average"]


def recipe(folder: Path, **more: Any) -> Recipe:
    made = {
        "schema": 1, "name": "g", "task": "pose", "data": {"source": "puppets", "options": {"train": 20, "test": 30}},
        "student": {"model": "simcc_tiny"}, "mentors": [{"name": "sage", "model": "simcc_tiny"}],
        "methods": ARMS, "seeds": [3, 4], "device": "cpu", "train": {"epochs": 1}, **more,
    }  # fmt: skip
    (folder / "r.yaml").write_text(json.dumps(made))
    return load_recipe(folder / "r.yaml")


def opened(recipe: Recipe, out: Path) -> Networks:
    return Networks(open_context(recipe, out))


def finish(networks: Networks, out: Path, seeds: tuple[int, ...] = (4, 3)) -> list[dict[str, Any]]:
    """Untrained students as if taught, and one mentor who knows everything but the last joint."""
    entries = []
    for arm in networks.context.recipe.arms():
        for seed in seeds:
            network = networks.student(seed + len(arm.label))
            models.save_checkpoint(network, out / arm.slug / f"seed{seed}" / "student.safetensors", {"model": "x"})
            entries.append({"method": arm.label, "seed": seed, "test_last": 0.1, "val_last": 0.1})
    listed = [{"label": arm.label, "folder": arm.slug, "method": arm.label} for arm in networks.context.recipe.arms()]
    summary = {"schema": 1, "task": "pose", "metric": "AP_gtbox", "arms": listed, "entries": entries}
    (out / "summary.json").write_text(json.dumps(summary))
    said = networks.task_runner.coding.ideal(networks.context.data.test.target)  # type: ignore[attr-defined]
    said[:, -1] = -torch.inf
    np.save(out / f"key-{networks.context.data.test.digest()}.npy", said.numpy())
    gone = {"name": "gone", "val_logits": str(out / "other-val.npy")}
    return [{"name": "sage", "val_logits": str(out / "key-val.npy")}, gone]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Networks, Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("gallery")
    networks = opened(recipe(out), out)
    return networks, out, finish(networks, out)


def test_persons_are_kept_with_what_everybody_says(run: tuple[Networks, Path, list[dict[str, Any]]]) -> None:
    networks, out, mentors = run
    assert (
        write_prediction_samples(networks, out, networks.context.recipe.arms(), mentors)
        == out / gallery.NAME
        == out / NAME
    )
    assert (out / NAME).stat().st_size < 1_500_000
    kept = read_gallery(out)
    assert kept is not None
    assert [(who.kind, who.name) for who in kept.who] == [
        ("student", "none"),
        ("student", "average"),
        ("mentor", "sage"),
    ]
    assert (kept.headline, kept.seed, kept.metric, kept.right_by, kept.test) == (
        "average",
        3,
        "AP_gtbox",
        "PCK@0.2",
        30,
    )
    assert [person.chosen for person in kept.persons] == ["worst"] * 12 + ["random"] * 12
    assert len({person.id for person in kept.persons}) == 24
    errors = [person.error for person in kept.persons if person.error is not None]
    assert errors[:12] == sorted(errors[:12], reverse=True)
    assert min(errors[:12]) >= max(errors[12:])
    for person in kept.persons:
        sage, truth = person.answers[2], person.truth
        assert sage.joints[-1] is None
        known = [k for k in range(16) if truth[k][2] > 0]
        assert sage.of == sage.right == len(known)
        assert sage.oks is not None
        assert sage.oks > 0.9
        for k in known:
            place = sage.joints[k]
            assert place is not None
            assert np.allclose(place[:2], np.clip(truth[k][:2], 0, 64), atol=0.26)
        picture = Image.open(io.BytesIO(base64.b64decode(person.crop.partition(",")[2])))
        assert picture.size == (kept.size[1], kept.size[0])


def test_crops_are_those_of_the_persons(run: tuple[Networks, Path, list[dict[str, Any]]]) -> None:
    networks, out, mentors = run
    write_prediction_samples(networks, out, networks.context.recipe.arms(), mentors)
    person = json.loads((out / NAME).read_text())["persons"][5]
    place = networks.context.data.test.ids.tolist().index(person["id"])
    pixels, target, _ = networks.context.data.test.batch(torch.tensor([place]))
    shown, moved = networks.context.base_views.eval_view(pixels, target)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(person["crop"].partition(",")[2]))), dtype=float)
    assert np.abs(picture - shown[0].permute(1, 2, 0).numpy()).mean() < 6
    assert np.allclose(person["truth"], moved[0].numpy(), atol=0.006)


def test_the_same_run_keeps_the_same(run: tuple[Networks, Path, list[dict[str, Any]]]) -> None:
    networks, out, mentors = run
    write_prediction_samples(networks, out, networks.context.recipe.arms(), mentors)
    first = (out / NAME).read_bytes()
    write_prediction_samples(networks, out, networks.context.recipe.arms(), mentors)
    assert (out / NAME).read_bytes() == first


def test_another_seed_where_the_first_has_not_finished(tmp_path: Path) -> None:
    networks = opened(recipe(tmp_path, task={"name": "pose", "flip_test": True}), tmp_path)
    finish(networks, tmp_path, seeds=(4,))
    (tmp_path / "none" / "seed4" / "student.safetensors").unlink()
    assert write_prediction_samples(networks, tmp_path, networks.context.recipe.arms(), []) is not None
    kept = read_gallery(tmp_path)
    assert kept is not None
    assert (kept.seed, kept.flip_test, [who.name for who in kept.who]) == (4, True, ["average"])


def test_nothing_for_classes_or_without_students(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"schema": 1}')
    networks = opened(recipe(tmp_path), tmp_path)
    assert write_prediction_samples(networks, tmp_path, networks.context.recipe.arms(), []) is None
    plain = opened(
        recipe(tmp_path, task="classification", student={"model": "resnet8"}, mentors=[], methods=["none"]), tmp_path
    )
    assert write_prediction_samples(plain, tmp_path, plain.context.recipe.arms(), []) is None
    assert not (tmp_path / NAME).exists()


def test_large_crops_are_made_smaller_until_they_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 3, 256, 192), dtype=np.uint8)
    made = gallery._crops(np.concatenate([noise, noise, noise]))
    assert sum(map(len, made)) <= gallery.LIMIT * 4 / 3 + 24 * 40
