"""A pose student's file: what loading it gives, its card, and its ONNX graph; ONNX of classes, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classroomkd._compat import installed
from classroomkd.cli.app import main
from classroomkd.data.keypoints.annotation_file import boxed
from classroomkd.data.keypoints.crops import Canvas, crop, render
from classroomkd.data.keypoints.people import Picture
from classroomkd.data.skeleton import COCO
from classroomkd.data.views.keypoints import PersonViews
from classroomkd.errors import RunStopped, UserError
from classroomkd.export import export_student, graph, load_student
from classroomkd.export.lines import Form, carry_out
from classroomkd.tasks.files import files_of
from classroomkd.tasks.pose import card
from classroomkd.tasks.pose.card import crop_lines
from classroomkd.tasks.pose.decoded import Decoded
from classroomkd.tasks.pose.predict import own_flip_test
from classroomkd.train.inputs import Inputs

onnx = pytest.mark.skipif(
    not all(map(installed, ("onnx", "onnxscript", "onnxruntime"))), reason="needs onnx, onnxscript and onnxruntime"
)
Saved = Callable[..., Path]


def test_a_pose_student_says_what_its_answers_mean(simcc: Path, heatmap: Path) -> None:
    for path, kind in ((simcc, "simcc"), (heatmap, "heatmap")):
        student = load_student(path)
        assert (student.task, student.shape, student.size, student.classes) == ("pose", (3, 64, 48), None, COCO.joints)
        assert student.pose is not None
        assert student.pose.skeleton == COCO
        assert student.pose.coding.kind == kind
        assert student.pose.coding.size == student.pose.canvas.size == (64, 48)
        answer = student.module(torch.zeros(2, 3, 64, 48))
        assert tuple(answer.shape[1:]) == student.pose.coding.answer_shape
        assert student.pose.coding.decode(answer).shape == (2, 17, 3)


def test_how_persons_were_cropped(student_with: Saved, tmp_path: Path) -> None:
    def pose(path: Path) -> tuple[float, float]:
        found = load_student(path).pose
        assert found is not None
        return found.padding, found.canvas.scale

    said = student_with(tmp_path / "said.safetensors", "simcc_tiny", crop=json.dumps({"padding": 1.5, "canvas": 2}))
    assert pose(said) == (1.5, 2.0)
    run = tmp_path / "run" / "none" / "seed0"
    run.mkdir(parents=True)
    silent = student_with(run / "student.safetensors", "simcc_tiny")
    assert pose(silent) == (1.25, 1.0)
    (tmp_path / "run" / "recipe.yaml").write_text("data: {source: puppets, options: {padding: 1.4}}\n")
    (tmp_path / "run" / ".lock").touch()
    assert pose(silent) == (1.4, 1.0)


def test_a_graph_that_decodes_itself_has_no_flip_test(student_with: Saved, crowd: Path, tmp_path: Path) -> None:
    crop = json.dumps({"padding": 1.25, "canvas": 1, "flip_test": True})
    flips = load_student(student_with(tmp_path / "flips.safetensors", "heatmap_tiny", crop=crop))
    assert flips.pose is not None
    assert flips.pose.flip_test
    picture = crowd / "images" / "000100.png"
    assert torch.equal(flips(picture), flips(picture, flip_test=True))
    assert not torch.equal(flips(picture), flips(picture, flip_test=False))
    export_student(tmp_path / "flips.safetensors", tmp_path / "ship.safetensors")
    reads = load_student(student_with(tmp_path / "reads.safetensors", "heatmap_tiny", crop=crop, output="joints"))
    assert reads.pose is not None
    assert not own_flip_test(tmp_path / "reads.safetensors", reads.pose)
    assert isinstance(reads.pose.coding, Decoded)
    assert not reads.pose.flip_test


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coding": None}, "is not a pose student of this package: its metadata lacks coding"),
        ({"skeleton": None, "coding": None}, "lacks skeleton, coding"),
        ({"classes": None}, "is not a student of this package: its metadata lacks classes"),
        ({"task": "depth"}, "its task is 'depth', which this version does not know: pip install -U classroomkd"),
    ],
)
def test_files_that_lack_something(student_with: Saved, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = student_with(tmp_path / "odd.safetensors", "simcc_tiny", **changes)
    with pytest.raises(UserError, match=message):
        load_student(path)


@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_the_cards_lines_run(kind: str, request: pytest.FixtureRequest, crowd: Path, tmp_path: Path) -> None:
    target = tmp_path / "ship" / "student.safetensors"
    export_student(request.getfixturevalue(kind), target)
    card = target.with_suffix(".md").read_text()
    assert "left_shoulder–right_shoulder" in card
    assert "enlarged 1.25 times" in card
    told = ("96 bins over x, then 128 over y", "divided by 2") if kind == "simcc" else ("a heatmap a joint", "DARK")
    assert all(words in card for words in told)
    picture = str(crowd / "images" / "000100.png")
    scope = carry_out(card, target.name, {f'"{target.name}"': str(target), '"photo.jpg"': picture})
    assert scope["joints"].shape == (1, 17, 3)


# --- the crop of the card ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_cards_crop_is_the_one_that_students_see(simcc: Path, scale: float) -> None:
    student = load_student(simcc)
    assert student.pose is not None
    pose = replace(student.pose, canvas=Canvas((64, 48), scale))
    scope: dict[str, Any] = {"np": np}
    exec(crop_lines(replace(student, answers=pose)), scope)
    rng, views = np.random.default_rng(0), PersonViews("none", skeleton=COCO, canvas=pose.canvas, view_seed=0)
    for _ in range(20):
        height, width = (int(side) for side in rng.integers(20, 300, 2))
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        low, size = rng.uniform(-10, (width / 2, height / 2)), rng.uniform(12, (width + 20, height + 20))
        mine, origin, step = scope["crop"](picture, [*low, *size])
        region = boxed(np.array([[*low, *size]]), [Picture(0, "", height, width)], np.zeros(1, np.int64))
        wanted_origin, wanted_step = crop(region, (64, 48), pose.padding)
        assert np.allclose(origin, wanted_origin[0])
        assert np.isclose(step, wanted_step[0])
        canvas = render(picture, wanted_origin[0], float(wanted_step[0]), pose.canvas)
        theirs = views.eval_view(torch.from_numpy(canvas)[None], torch.zeros(1, 17, 3))[0][0].numpy()
        apart = np.abs(mine.astype(int) - theirs)
        assert apart.max() <= 1  # sums in another order, where they end at a half
        assert (apart > 0).mean() < 1e-3


# --- graphs -----------------------------------------------------------------------------------------------------------


def _asked(path: Path, **given: torch.Tensor) -> list[torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(given)
    pixels = next(iter(given.values()))
    assert session.get_inputs()[0].shape[1:] == list(pixels.shape[1:])
    assert isinstance(session.get_inputs()[0].shape[0], str)  # any batch
    return [torch.from_numpy(found) for found in session.run(None, {k: v.numpy() for k, v in given.items()})]


@pytest.mark.slow  # torch's exporter takes half a minute
@onnx
@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_joints_out_of_an_onnx_file(
    kind: str, request: pytest.FixtureRequest, crowd: Path, tmp_path: Path, capsys: Any
) -> None:
    import onnx

    source: Path = request.getfixturevalue(kind)
    target = tmp_path / "student.onnx"
    assert main(["export", str(source), "--to", str(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["input"], told["output"]) == ("crops", "joints")
    assert told["difference"] < 1e-1
    student = load_student(source)
    assert student.pose is not None
    for batch in (1, 7):
        crops = torch.randint(
            0, 256, (batch, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(11)
        )
        with torch.no_grad():
            pixels = Inputs(student.mean, student.std, torch.device("cpu"))(crops)
            ours = student.pose.coding.decode(student.module(pixels))
        (theirs,) = _asked(target, crops=crops)
        assert theirs.shape == (batch, 17, 3)
        assert ((ours - theirs).abs() < 1e-2).float().mean() > 0.98
    proto = onnx.load(target)
    about = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(about["skeleton"])["joints"] == list(COCO.joints)
    assert (about["input"], about["output"]) == ("crops", "joints")
    assert json.loads(about["crop"]) == {"padding": 1.25, "canvas": 1.0}
    assert str(Path(graph.__file__).parent) not in str(proto)  # no paths of whoever wrote it
    assert not any(len(node.metadata_props) for node in proto.graph.node)
    own = load_student(target)
    picture, boxes = crowd / "images" / "000100.png", [[5, 4, 50, 55], [0, 0, 60, 60]]
    apart = (own(picture, boxes) - student(picture, boxes)).abs()
    assert (apart < 5e-2).float().mean() > 0.95
    data = f"coco-keypoints:{crowd / 'people.json'}@{crowd / 'images'}"
    assert main(["evaluate", str(target), "--data", data, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(source), "--data", data, "--json"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert said["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.02)
    assert said["samples"] == theirs["samples"]
    assert main(["evaluate", str(target), "--data", data, "--flip-test"]) == 2
    assert "this graph decodes joints itself" in capsys.readouterr().err
    assert main(["predict", str(target), str(crowd / "images"), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 24
    card = target.with_suffix(".md").read_text()
    assert "def crop(picture, box):" in card
    assert 'session.run(None, {"crops": np.stack(crops)})' in card


@pytest.mark.slow  # torch's exporter takes half a minute
@onnx
def test_graphs_of_other_forms(simcc: Path, tmp_path: Path) -> None:
    student = load_student(simcc)
    assert student.pose is not None
    pixels = torch.randn(3, 3, 64, 48)
    with torch.no_grad():
        answer = student.module(pixels)
    export_student(simcc, tmp_path / "raw.onnx", raw=True)
    (joints,) = _asked(tmp_path / "raw.onnx", pixels=pixels)
    assert ((joints - student.pose.coding.decode(answer)).abs() < 1e-2).float().mean() > 0.98
    export_student(simcc, tmp_path / "bare.onnx", raw=True, decode="outside")
    assert torch.allclose(_asked(tmp_path / "bare.onnx", pixels=pixels)[0], answer, atol=1e-3)
    export_student(simcc, tmp_path / "student.pt2", decode="outside")
    assert (tmp_path / "student.md").exists()


def test_decoding_outside_gives_the_answer_itself(simcc: Path) -> None:
    student = load_student(simcc)
    pixels = torch.randn(2, 3, 64, 48)
    own = files_of("pose").graph(student, "outside")
    assert (own.input, own.output) == ("crops", "answer")
    assert torch.equal(own.module(pixels), student.module(pixels))
    read = files_of("pose").graph(student, None)
    assert read.output == "joints"
    assert student.pose is not None
    assert torch.equal(read.module(pixels), student.pose.coding.decode(student.module(pixels)))


def test_without_the_packages(simcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "installed", lambda name: name == "onnx")
    with pytest.raises(UserError, match=r'needs onnxscript, not installed here: pip install "classroomkd\[onnx\]"'):
        export_student(simcc, tmp_path / "x.onnx")


def test_a_file_that_answers_otherwise_is_not_written(
    simcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = load_student(simcc)

    def answering(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        def carried(text: str, name: str, places: dict[str, Any]) -> dict[str, Any]:
            return {"joints": change(right(places['"photo.jpg"'], places[card._BOXES]))}

        monkeypatch.setattr(card, "carry_out", carried)

    answering(lambda joints: joints)
    export_student(simcc, tmp_path / "x.safetensors")
    for change, message in (
        (lambda joints: joints + torch.tensor([0.0, 0.5, 0.0]), r"otherwise than the student: of the joints 100\.0%"),
        (lambda joints: joints[:1], r"answers \(1, 17, 3\) where the student answers \(2, 17, 3\)"),
    ):
        answering(change)
        with pytest.raises(RunStopped, match=message):
            export_student(simcc, tmp_path / "y.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"x.safetensors", "x.md"}


@pytest.mark.slow  # torch's exporter takes half a minute
@onnx
def test_a_network_that_cannot_be_traced(simcc: Path, tmp_path: Path) -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not today\nand more")

    student = replace(load_student(simcc), module=Moody())
    with pytest.raises(UserError, match=r"simcc_tiny cannot be written as ONNX: .*"):
        graph.onnx_file(student, Form(tmp_path / "x.onnx", "outside"))
    with pytest.raises(UserError, match=r"simcc_tiny cannot be written as a program of torch\.export: .*not today"):
        graph.program_file(student, Form(tmp_path / "x.pt2", "outside"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.pth"], "export to '.pth' is not in this version: name the target *.safetensors, *.onnx or *.pt2"),
        (["x.onnx", "--to", "y.onnx"], "say once where to"),
        ([], "say once where to"),
        (["x.onnx", "--decode", "maybe"], "--decode maybe: choose one of inside, outside"),
        (["x.safetensors", "--decode", "inside"], "--decode is for ONNX"),
        (["x.safetensors", "--raw"], "--raw is for ONNX"),
        (["x.safetensors", "--with-resize"], "--with-resize is for ONNX"),
        (["x.pt2", "--with-resize"], "--with-resize is for ONNX"),
        (["x.onnx", "--raw", "--with-resize"], "--raw takes normalised floats"),
        (["x.safetensors", "--images", "none"], "--images none does not exist"),
    ],
)
def test_mistakes(words: list[str], message: str, simcc: Path, tmp_path: Path, capsys: Any) -> None:
    paths = [str(tmp_path / w) if "." in w else w for w in words]
    assert main(["export", str(simcc), *paths]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
