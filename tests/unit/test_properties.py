"""Whatever a recipe, an override, a command line, a manifest or an annotation file says: taken, or refused in words.

Hypothesis looks for a value that ends in anything but a ``UserError``. The same few hundred values are tried here each
time; ``make fuzz`` (``tests/fuzz.py``) goes on with others for ten minutes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from spoiling import json_values, spoilt, spoilt_text

from classroomkd import data, tasks
from classroomkd.bank.manifest import Manifest, Span, differences
from classroomkd.cli.app import main
from classroomkd.data.skeleton import from_category
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe, recipe_yaml
from classroomkd.recipe.yaml_source import read_yaml
from classroomkd.report import load_summary
from classroomkd.tasks.pose.boxes import boxes_in
from classroomkd.tasks.pose.results import read_results

LONG = "CLASSROOMKD_FUZZ" in os.environ  # the long form is running
EXAMPLES = settings(
    max_examples=100 if LONG else 60,
    deadline=None,
    derandomize=not LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ROOT = Path(__file__).resolve().parents[2]

RECIPE: dict[str, Any] = {
    "data": {"source": "puppets", "size": 32, "views": "crop_flip", "options": {"train": 30}},
    "student": {"model": "convnet8", "taps": {"@stage:-1": "layer2"}},
    "mentors": [
        "convnet4",
        {"name": "b", "model": "vgg8", "mean": [0.1], "std": [0.2], "train": {"epochs": 3, "milestones": [2]}},
    ],
    "methods": ["none", ["kd", {"average": {"temperature": 2}}], {"name": "classroomkd", "tau": 3}],
    "train": {"epochs": 10, "lr": 0.1, "milestones": [0.5], "ema": 0.99, "precision": "fp32"},
    "mentor_train": {"epochs": 4},
    "seeds": [0, 1],
    "bank": "views=2",
    "device": "cpu",
}
WORDS = (
    "kd", "resnet8", "puppets", "auto", "cifar100:x", "py:a:b", "timm:x", "off", "views=3", "exact,top=2", "pose",
    "classification", "name", "model", "train", "source", "checkpoint", "label", "methods", "mentors", "task", "crop",
)  # fmt: skip
TARGETS = ("method", "methods", "mentors.0", "mentors.b.model", "data.source", "train.lr", "seeds", ".", "a.b", "name")


def told(act: Callable[[], object]) -> None:
    """Do it; it may refuse, in words."""
    sentence = "taken"
    try:
        act()
    except UserError as error:
        sentence = str(error)
    assert sentence.strip()
    assert "Traceback" not in sentence
    assert "object at 0x" not in sentence


@EXAMPLES
@given(spoilt(RECIPE, WORDS))
def test_recipes(mapping: Any) -> None:
    """A recipe that is taken survives being written down."""

    def act() -> None:
        recipe = make_recipe(mapping)
        assert make_recipe(read_yaml(recipe_yaml(recipe), "x")[0].plain()) == recipe
        assert len({arm.slug for arm in recipe.arms()}) == len(recipe.arms())

    told(act)


@EXAMPLES
@given(spoilt_text((ROOT / "recipes" / "smoke.yaml").read_text()))
def test_texts_of_recipes(text: str) -> None:
    told(lambda: read_yaml(text, "r.yaml")[0].plain())


@EXAMPLES
@given(
    st.lists(
        st.builds("{}={}".format, st.sampled_from(TARGETS) | st.text(max_size=8), st.sampled_from(WORDS) | st.text())
        | st.text(max_size=12),
        min_size=1,
        max_size=3,
    )
)
def test_overrides(words: list[str]) -> None:
    told(lambda: make_recipe(RECIPE, words))


TYPED = (
    "run", "list", "inspect", "report", "compare", "evaluate", "predict", "export", "bank", "init", "bench", "--out",
    "--dry-run", "--resume", "--quiet", "--which", "--top", "3", "x=y", "nowhere", ".", "", "-", "--", "info", "models",
)  # fmt: skip


@EXAMPLES
@given(
    st.lists(st.sampled_from(TYPED) | st.text(max_size=5), max_size=4).filter(
        lambda words: "smoke" not in words and "demo" not in words
    )
)
def test_command_lines(words: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(words)
    assert code in (0, 1, 2), (words, code)
    assert "Traceback" not in err.getvalue(), words
    assert "--debug" not in err.getvalue(), (words, err.getvalue())  # what is said of a mistake of ours


MANIFEST = {
    **asdict(
        Manifest(
            {"mentor": "a", "weights": "0" * 64, "data": {"name": "x"}}, "logits", 2, 10, "dense float16 (3,)",
            (Span(0, 5, "rows-00000.bin", "sums-00000.bin"), Span(5, 10, "rows-00001.bin", "sums-00001.bin")),
            {"torch": "2"},
        )
    )
}  # fmt: skip


@EXAMPLES
@given(spoilt(MANIFEST, ("dense float16 (3,)", "rows-00000.bin", "../x")))
def test_manifests(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "manifest.json").write_text(json.dumps(content))

        def act() -> None:
            manifest = Manifest.read(folder)
            assert manifest.views >= 1
            differences(manifest, Manifest({}, "logits", 1, 1, "x"))

        told(act)


SUMMARY: dict[str, Any] = {
    "schema": 1, "name": "x", "task": "classification", "metric": "accuracy", "seeds": [0], "classes": ["a", "b"],
    "arms": [{"label": "none", "folder": "none", "method": [["none", {}]]}],
    "entries": [{"method": "none", "seed": 0, "test_last": 0.5, "test_best": 0.6, "best_epoch": 1, "steps": 4,
                 "seconds": 1.0, "cost_ratio": 1.0}],
    "mentors": [{"name": "m", "accuracy": 0.7, "per_class": [0.5, None]}],
    "data": {"name": "x", "notes": []},
}  # fmt: skip


@EXAMPLES
@given(spoilt(SUMMARY))
def test_summaries(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "summary.json").write_text(json.dumps(content))
        told(lambda: load_summary(name))


def scene(first: int, pictures: int) -> dict[str, Any]:
    """COCO annotations of two people on each picture of 40 x 30."""
    numbers = range(first, first + pictures)
    points = [value for k in range(3) for value in (8.0 + 3 * k, 6.0 + 4 * k, 2)]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in numbers],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": 1, "bbox": [4, 3, 20, 22], "area": 300,
             "iscrowd": 0, "keypoints": points}
            for i in numbers for k in range(2)
        ],
        "categories": [
            {"id": 1, "name": "person", "keypoints": ["nose", "left_hip", "right_hip"], "skeleton": [[1, 2]]}
        ],
    }  # fmt: skip


PEOPLE = from_category(scene(1, 1)["categories"][0])


def people(folder: Path, train: Any) -> str:
    (folder / "annotations").mkdir()
    (folder / "images").mkdir()
    (folder / "annotations" / "people_train.json").write_text(json.dumps(train))
    (folder / "annotations" / "people_val.json").write_text(json.dumps(scene(101, 2)))
    for number in (1, 2, 3, 101, 102):
        Image.fromarray(np.full((30, 40, 3), number, np.uint8)).save(folder / "images" / f"{number}.png")
    return f"coco-keypoints:{folder}"


@EXAMPLES
@given(spoilt(scene(1, 3), ("nose", "left_hip", "./1.png", "1", "C:\\1.png")))
def test_annotations(train: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        source = people(Path(name), train)
        told(lambda: data.load({"source": source, "size": [32, 24]}, task="pose"))


@EXAMPLES
@given(spoilt([{"image_id": 1, "bbox": [1, 2, 10, 12], "score": 0.5, "category_id": 1},
               {"file_name": "2.png", "bbox": [1, 2, 10, 12]}]) | spoilt(scene(1, 3)))  # fmt: skip
def test_boxes(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people(folder, scene(1, 3))
        (folder / "boxes.json").write_text(json.dumps(content))
        files = sorted((folder / "images").iterdir())
        told(lambda: boxes_in(folder / "boxes.json", files, folder / "images", PEOPLE))


@EXAMPLES
@given(spoilt([{"image_id": 1, "category_id": 1, "keypoints": [1, 2, 0.5] * 3, "score": 0.5}]))
def test_results(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "results.json"
        path.write_text(json.dumps(content))
        told(lambda: read_results(path, {1, 2}, 3))


SECTION = {"source": "digits", "size": 32, "val_fraction": 0.1, "limit": 50}
SOURCES = ("puppets", "imagefolder:nowhere", "coco-keypoints:nowhere", "stretch")


@EXAMPLES
@given(st.sampled_from(sorted(tasks.names())), spoilt(SECTION, SOURCES) | json_values)
def test_data(task: str, section: Any) -> None:
    told(lambda: data.load(section, task=task))


PROPERTIES = [value for name, value in sorted(globals().items()) if name.startswith("test_")]


def test_there_are_properties() -> None:
    """The long form finds them by this list."""
    assert len(PROPERTIES) >= 10
