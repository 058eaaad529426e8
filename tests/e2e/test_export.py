"""What an export replaces: what an export wrote, what ``--force`` names, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageOps

from classroomkd import models
from classroomkd._compat import installed
from classroomkd.cli.app import main
from classroomkd.errors import RunStopped, UserError
from classroomkd.export import export_student, load_student, write
from classroomkd.export.card import card_of
from classroomkd.export.graph import Made
from classroomkd.export.lines import Form, carry_out, pixels_of_picture
from classroomkd.export.pictures import fitted, opened
from classroomkd.export.resizing import prepend_resize
from classroomkd.export.write import ship
from classroomkd.models.checkpoints import read_checkpoint
from classroomkd.tasks.classification.files import ClassificationFiles


@pytest.fixture
def student(finished: Path) -> Path:
    return finished / "none" / "seed0" / "student.safetensors"


@pytest.mark.parametrize("force", [False, True])
def test_a_card_replaces_no_file_of_the_users(
    tmp_path: Path, student: Path, force: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# My project\n")
    assert main(["export", str(student), str(tmp_path / "README.safetensors"), *["--force"] * force]) == 2
    said = capsys.readouterr().err
    assert f"{readme} exists already, and the model card of README.safetensors would replace it; name another" in said
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    assert readme.read_text() == "# My project\n"


def test_a_card_of_an_export_is_replaced(tmp_path: Path, student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "small.safetensors"
    for force in ([], ["--force"]):
        assert main(["export", str(student), str(target), *force]) == 0
        assert "classroomkd export" in (tmp_path / "small.md").read_text().splitlines()[-1]
    assert main(["export", str(student), str(target)]) == 2
    assert "add --force" in capsys.readouterr().err
    (tmp_path / "small.md").write_text((tmp_path / "small.md").read_text() + "My notes.\n")
    assert main(["export", str(student), str(target), "--force"]) == 2


def test_from_python(tmp_path: Path, student: Path) -> None:
    target = tmp_path / "weights.safetensors"
    target.write_text("mine")
    with pytest.raises(UserError, match=r"weights\.safetensors exists already, and no export wrote it"):
        export_student(student, target)
    assert target.read_text() == "mine"
    export_student(student, target, force=True)
    export_student(student, target)  # its own
    (tmp_path / "link.safetensors").symlink_to(target)
    before = target.read_bytes()
    for force in (False, True):
        with pytest.raises(UserError, match="link"):
            export_student(student, tmp_path / "link.safetensors", force=force)
    assert target.read_bytes() == before


# --- the card, and the check that carries its lines out ---------------------------------------------------------------


def saved(path: Path, model: str, side: int = 32, **about: str) -> Path:
    """A student with random weights, whose answers differ from picture to picture."""
    torch.manual_seed(0)
    network = models.resolve(model, 5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(0.02)
    known = {"mean": [0.4, 0.45, 0.5], "std": [0.2, 0.25, 0.3], "shape": [3, side, side]}
    metadata = {
        "model": model, "classes": json.dumps(["a", 'b "x"', "c`", "d", "e"]), "preprocessing": json.dumps(known),
        "method": "none", "seed": "0", "data": "photos", **about,
    }  # fmt: skip
    models.save_checkpoint(network, path, metadata)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of several shapes, one turned by its note."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(1)
    for number, size in enumerate(((80, 60), (33, 90), (32, 32), (20, 17), (31, 64), (200, 150))):
        turned = Image.Exif()
        turned[0x0112] = 6 if number == 1 else 1
        ending = "jpg" if number % 2 else "png"
        picture = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        picture.save(tmp_path / "photos" / f"{number}.{ending}", exif=turned)
    return tmp_path / "photos"


LIBRARIES = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name.partition(":")[0]), reason="is not installed"))
    for name in ("timm:resnet10t", "torchvision:squeezenet1_1")
]


@pytest.mark.parametrize("model", LIBRARIES)
def test_the_lines_of_a_library_give_what_predict_gives(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a word of this package in them."""
    source, target = saved(tmp_path / "s.safetensors", model), tmp_path / "ship" / "student.safetensors"
    assert main(["export", str(source), str(target), "--images", str(photos), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["difference"] < 1e-4
    assert f"the same on 6 pictures of {photos} and 3 drawn ones" in told["tried"]
    card = target.with_suffix(".md").read_text()
    lines = card.split("```python\n")[1].split("```")[0]
    assert "classroomkd" not in lines
    assert f"import {model.partition(':')[0]}\n" in lines
    files = [str(path) for path in sorted(photos.iterdir())]
    scope = carry_out(card, target.name, {'"student.safetensors"': str(target), '["photo.jpg"]': files})
    assert main(["predict", str(target), str(photos), "--json", "--top", "5"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["classes"][0] for row in rows] == scope["names"]
    for row, mine in zip(rows, scope["probabilities"], strict=True):
        order = [scope["classes"].index(name) for name in row["classes"]]
        assert mine[order] == pytest.approx(row["probabilities"], abs=1e-4)


def test_what_a_card_says(finished: Path, student: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.safetensors"
    export_student(student, target)
    card = target.with_suffix(".md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == head["license_of_the_data"] == "not known: fill in"
    assert (head["pipeline_tag"], head["datasets"]) == ("image-classification", ["puppets"])
    entry = json.loads((finished / "summary.json").read_text())["entries"][0]
    assert f"- accuracy: {entry['test_last']:.1%} (test, last weights), {entry['val_last']:.1%} (validation" in card
    assert "- mentors: broad (convnet16, " in card
    assert hashlib.sha256((finished / "recipe.yaml").read_bytes()).hexdigest()[:16] in card
    assert "- method: `none`, seed 0, weights: last" in card
    shutil.copy(student, tmp_path / "alone.safetensors")
    export_student(tmp_path / "alone.safetensors", tmp_path / "lone.safetensors")
    assert "the file lay in no run folder" in (tmp_path / "lone.md").read_text()


def test_the_runs_own_pictures_are_taken(student: Path, photos: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["export", str(student), str(tmp_path / "a.safetensors")]) == 0
    assert "8 pictures of the run's test part and 3 drawn ones" in capsys.readouterr().out
    run = tmp_path / "run" / "none" / "seed0"
    run.mkdir(parents=True)
    shutil.copy(student, run)
    (tmp_path / "run" / ".lock").touch()  # a recipe alone is no run
    (tmp_path / "run" / "recipe.yaml").write_text(f"data: {{source: 'imagefolder:{photos}'}}\n")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "b.safetensors")]) == 0
    assert "6 pictures of the run's data and 3 drawn ones" in capsys.readouterr().out
    (tmp_path / "run" / "recipe.yaml").write_text("data: {source: 'imagefolder:/nowhere'}\n")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "c.safetensors")]) == 0
    assert "5 drawn pictures (the run's data cannot be read; --images names some)" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    words = ["export", str(student), str(tmp_path / "d.safetensors"), "--images", str(tmp_path / "empty")]
    assert main(words) == 2
    assert "there is no picture there" in capsys.readouterr().err


def test_what_answers_otherwise_is_not_written(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.safetensors"
    state, about = read_checkpoint(student, what="student")
    for key in ("mean", "weights", "lines"):
        target = tmp_path / "ship" / f"{key}.safetensors"
        with monkeypatch.context() as patch:
            if key == "lines":
                patch.setattr(ClassificationFiles, "lines", lambda self, student, form: "names = probabilities = 1 / 0")
                message = r"says? |the lines of the card of lines\.safetensors"
            else:
                changed = dict(about)
                if key == "mean":
                    known = json.loads(about["preprocessing"])
                    changed["preprocessing"] = json.dumps(known | {"mean": [0.0, 0.0, 0.0]})
                weights = {k: v * 2 if key == "weights" and v.is_floating_point() else v for k, v in state.items()}
                models.save_checkpoint(weights, other, changed)
                content = other.read_bytes()
                patch.setitem(write._MAKERS, ".safetensors", lambda *args: Made(content))  # noqa: B023
                message = r"answers otherwise than the student: .*nothing was written"
            with pytest.raises(RunStopped, match=message):
                export_student(student, target)
        assert not target.parent.exists()


def test_every_format_keeps_its_card(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(write._MAKERS, ".onnx", lambda *args: Made(b"classroomkd"))
    monkeypatch.setattr(write, "installed", lambda name: False)  # so that it is not tried
    for name, card in (("s.safetensors", "s.md"), ("s.onnx", "s.onnx.md"), ("t.onnx", "t.md"), ("s.onnx", "s.onnx.md")):
        found = ship(student, Form(tmp_path / name))
        assert found.card == tmp_path / card
        assert f'"{name}"' in found.card.read_text()
        assert (found.difference is None) == name.endswith(".onnx")
    assert '"s.safetensors"' in (tmp_path / "s.md").read_text()


# --- graphs -----------------------------------------------------------------------------------------------------------

onnx = pytest.mark.skipif(
    not all(map(installed, ("onnx", "onnxscript", "onnxruntime"))), reason="needs onnx, onnxscript and onnxruntime"
)


@onnx
def test_an_onnx_file_takes_uint8_pixels(photos: Path, tmp_path: Path, capsys: Any) -> None:
    import onnxruntime

    source, target = saved(tmp_path / "s.safetensors", "convnet4"), tmp_path / "ship" / "student.onnx"
    assert main(["export", str(source), str(target), "--images", str(photos)]) == 0
    assert "images -> logits, probabilities, any batch, opset " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    assert isinstance(taken.shape[0], str)
    assert [found.name for found in session.get_outputs()] == ["logits", "probabilities"]
    student = load_student(source)
    for batch in (1, 7):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 3, 32, 32), np.uint8)
        logits, probabilities = session.run(None, {"images": images})
        np.testing.assert_allclose(probabilities, student(images).probabilities, atol=1e-5)
        np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), probabilities, atol=1e-6)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(student.classes)
    assert (about["input"], about["output"], about.get("task", "")) == ("images", "logits", "")
    assert "onnxruntime" in target.with_suffix(".md").read_text()
    # From the file alone: evaluate and predict.
    for name in student.classes[:2]:
        (tmp_path / "own" / name).mkdir(parents=True)
        for path in photos.iterdir():
            shutil.copy(path, tmp_path / "own" / name)
    scores = []
    for file in (source, target):
        assert main(["evaluate", str(file), "--data", f"imagefolder:{tmp_path / 'own'}", "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert scores[0]["samples"] == 12
    assert scores[0]["per_class"] == scores[1]["per_class"]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], abs=1e-5)
    told = load_student(target)(sorted(photos.iterdir()))
    assert told.names == student(sorted(photos.iterdir())).names
    assert main(["export", str(target), str(tmp_path / "again.safetensors")]) == 2
    assert "is an ONNX file" in capsys.readouterr().err


@onnx
@pytest.mark.parametrize("rule", ["crop", "letterbox", "stretch"])
def test_a_graph_that_resizes(rule: str, photos: Path, tmp_path: Path) -> None:
    """The sizes are Pillow's to the pixel; the resampling is the runtime's, a grey level or two apart."""
    import onnxruntime
    from onnx import TensorProto, helper

    student = replace(load_student(saved(tmp_path / "s.safetensors", "convnet4")), resize=rule)
    node = helper.make_node("Identity", ["images"], ["fitted"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", 3, 32, 32]) for name in ("images", "fitted")
    ]
    proto = helper.make_model(
        helper.make_graph([node], "fit", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    prepend_resize(proto, student, "images")
    used = {name for node in proto.graph.node for name in node.input}
    assert used.issuperset(constant.name for constant in proto.graph.initializer)  # onnxruntime warns of others
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for path in sorted(photos.iterdir()):
        whole = np.asarray(opened(path).convert("RGB")).transpose(2, 0, 1)
        (mine,) = session.run(None, {"images": np.stack([whole, whole])})
        theirs = fitted(student, path)
        assert mine.shape == (2, 3, 32, 32)
        assert np.abs(mine[0].astype(int) - theirs).max() <= 3, path
        assert np.abs(mine[0].astype(int) - theirs).mean() < 0.6, path


def test_a_rule_that_no_graph_follows(tmp_path: Path) -> None:
    student = load_student(saved(tmp_path / "s.safetensors", "convnet4"))  # of before the rule was written: pad
    with pytest.raises(UserError, match="brought to their size by resize: pad, which is not written as a graph"):
        prepend_resize(None, student, "images")
    with pytest.raises(UserError, match="with one square size"):
        prepend_resize(None, replace(student, size=None, shape=(3, 32, 48)), "images")


@pytest.mark.parametrize("rule", ["crop", "letterbox", "stretch", "pad"])
@pytest.mark.parametrize("shape", [(32, 32), (40, 56)])
def test_the_pixels_of_the_cards_are_those_of_predict(
    rule: str, shape: tuple[int, int], photos: Path, tmp_path: Path
) -> None:
    student = replace(load_student(saved(tmp_path / "s.safetensors", "convnet4")), resize=rule, shape=(3, *shape))
    scope: dict[str, Any] = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(pixels_of_picture(student), scope)
    if student.side is None:  # it takes pictures of its own shape
        files = [photos / "own.png"]
        Image.effect_noise(shape[::-1], 60).convert("RGB").save(files[0])
    else:
        rng, files = np.random.default_rng(4), sorted(photos.iterdir())
        for _ in range(40):
            wide, tall = (int(side) for side in rng.integers(5, 150, 2))
            files.append(photos / f"{wide}x{tall}.png")
            Image.fromarray(rng.integers(0, 256, (tall, wide, 3), np.uint8)).save(files[-1])
    for path in files:
        np.testing.assert_array_equal(scope["pixels"](path), fitted(student, path), err_msg=path.name)


@pytest.mark.parametrize("options", [{}, {"raw": True}, {"with_resize": True}])
def test_what_a_card_says_of_its_lines_holds_for_every_graph(tmp_path: Path, options: dict[str, bool]) -> None:
    known = {"mean": [0.4, 0.45, 0.5], "std": [0.2, 0.25, 0.3], "shape": [3, 32, 32], "resize": "crop"}
    source = saved(tmp_path / "s.safetensors", "convnet4", preprocessing=json.dumps(known))
    card = card_of(load_student(source), source, Form(Path("g.onnx"), **options))
    assert "`resize: crop`, as the lines below do it" in card  # by Pillow, or in the graph
    assert "\n\n\ndef pixels" in card
    assert ("SIZE" in card) == ("with_resize" not in options)


@pytest.mark.slow  # torch's exporter
@onnx
def test_forms_of_one_student(photos: Path, tmp_path: Path, capsys: Any) -> None:
    known = {"mean": [0.4, 0.45, 0.5], "std": [0.2, 0.25, 0.3], "shape": [3, 32, 32], "resize": "crop"}
    source = saved(tmp_path / "s.safetensors", "convnet4", preprocessing=json.dumps(known))
    student, files = load_student(source), sorted(photos.iterdir())
    wanted = student(files)
    for name, options, taken in (("r.onnx", ["--raw"], "pixels"), ("w.onnx", ["--with-resize"], "images"),
                                 ("p.pt2", [], "images"), ("q.pt2", ["--raw"], "pixels")):  # fmt: skip
        words = ["export", str(source), str(tmp_path / name), "--images", str(photos), "--json", *options]
        assert main(words) == 0, capsys.readouterr().err
        told = json.loads(capsys.readouterr().out)
        assert told["input"] == taken
        if name == "w.onnx":
            assert "but for its resampling, which is not Pillow's: the same class for" in told["tried"]
            assert told["difference"] > 0
        else:
            assert told["difference"] < 1e-4
        if name.endswith(".onnx"):
            found = load_student(tmp_path / name)(files)
            assert torch.allclose(found.probabilities, wanted.probabilities, atol=1e-4)
