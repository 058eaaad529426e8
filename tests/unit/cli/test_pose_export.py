"""A pose student's file: what loading it gives, its card, and its ONNX graph; ONNX of classes, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classroomkd._compat import installed
from classroomkd.cli.app import main
from classroomkd.data.skeleton import COCO
from classroomkd.errors import RunStopped, UserError
from classroomkd.export import export_student, graph, load_student
from classroomkd.export.graph import export_onnx
from classroomkd.tasks.files import files_of

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
    assert pose(silent) == (1.4, 1.0)


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
def test_the_cards_lines_run(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "ship" / "student.safetensors"
    export_student(request.getfixturevalue(kind), target)
    card = target.with_suffix(".md").read_text()
    assert "left_shoulder–right_shoulder" in card
    assert "enlarged 1.25 times" in card
    told = ("96 bins over x, then 128 over y", "divided by 2") if kind == "simcc" else ("a heatmap a joint", "DARK")
    assert all(words in card for words in told)
    monkeypatch.chdir(target.parent)
    scope: dict[str, Any] = {}
    exec(card.split("```python")[1].split("```")[0], scope)
    assert scope["joints"].shape == (1, 17, 3)


# --- ONNX -------------------------------------------------------------------------------------------------------------


def _run(path: Path, pixels: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["pixels"]
    assert session.get_inputs()[0].shape[1:] == list(pixels.shape[1:])
    assert isinstance(session.get_inputs()[0].shape[0], str)  # any batch
    return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


@pytest.mark.slow  # torch's exporter takes half a minute
@onnx
@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_joints_out_of_an_onnx_file(kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: Any) -> None:
    import onnx

    source: Path = request.getfixturevalue(kind)
    target = tmp_path / "student.onnx"
    assert main(["export", str(source), "--to", str(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["output"] == "joints"
    assert told["difference"] < 1e-2
    student = load_student(source)
    assert student.pose is not None
    for batch in (1, 7):
        pixels = torch.randn(batch, 3, 64, 48, generator=torch.Generator().manual_seed(11))
        with torch.no_grad():
            ours = student.pose.coding.decode(student.module(pixels))
        theirs = _run(target, pixels)
        assert theirs.shape == (batch, 17, 3)
        assert ((ours - theirs).abs() < 1e-2).float().mean() > 0.98
    proto = onnx.load(target)
    about = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(about["skeleton"])["joints"] == list(COCO.joints)
    assert about["output"] == "joints"
    assert str(Path(graph.__file__).parent) not in str(proto)  # no paths of whoever wrote it
    assert not any(len(node.metadata_props) for node in proto.graph.node)


@pytest.mark.slow  # torch's exporter takes half a minute
@onnx
def test_classes_out_of_an_onnx_file(classifier: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "student.onnx"
    assert main(["export", str(classifier), str(target)]) == 0
    assert "pixels -> logits, any batch" in capsys.readouterr().out
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        ours = load_student(classifier).module(pixels)
    assert torch.allclose(ours, _run(target, pixels), atol=1e-4)
    assert main(["export", str(classifier), "--to", str(target)]) == 2
    assert main(["export", str(classifier), "--to", str(target), "--force", "--decode", "inside"]) == 2
    assert "--decode is for pose" in capsys.readouterr().err


def test_decoding_outside_gives_the_answer_itself(simcc: Path) -> None:
    student = load_student(simcc)
    pixels = torch.randn(2, 3, 64, 48)
    own = files_of("pose").graph(student, "outside")
    assert own.output == "answer"
    assert torch.equal(own.module(pixels), student.module(pixels))
    read = files_of("pose").graph(student, None)
    assert read.output == "joints"
    assert student.pose is not None
    assert torch.equal(read.module(pixels), student.pose.coding.decode(student.module(pixels)))


def test_without_the_packages(simcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "installed", lambda name: name == "onnx")
    with pytest.raises(UserError, match=r'needs onnxscript, not installed here: pip install "classroomkd\[onnx\]"'):
        export_student(simcc, tmp_path / "x.onnx")


class _Proto:
    """As much of an ONNX file as the exporter touches."""

    class _Opset:
        version = 20

    class _Entries(list[Any]):
        def add(self) -> Any:
            self.append(type("Entry", (), {})())
            return self[-1]

    def __init__(self) -> None:
        self.metadata_props, self.opset_import = self._Entries(), [self._Opset()]

    def SerializeToString(self) -> bytes:  # noqa: N802
        return b"graph"


def test_a_graph_that_answers_otherwise_is_not_written(
    simcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, target = load_student(simcc), tmp_path / "x.onnx"
    assert student.pose is not None
    coding = student.pose.coding
    monkeypatch.setattr(graph, "installed", lambda name: True)
    monkeypatch.setattr(graph, "_traced", lambda *args: _Proto())

    def answering(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        monkeypatch.setattr(graph, "_session", lambda content: lambda x: change(coding.decode(student.module(x))))

    answering(lambda joints: joints)
    assert export_onnx(student, target).difference == 0
    assert target.read_bytes() == b"graph"
    target.unlink()
    answering(lambda joints: joints + torch.tensor([0.0, 0.5, 0.0]))
    with pytest.raises(RunStopped, match=r"otherwise than torch: 0\.5 apart"):
        export_onnx(student, target)
    answering(lambda joints: joints[:1])
    with pytest.raises(RunStopped, match=r"answers \(1, 17, 3\) where torch answers \(2, 17, 3\)"):
        export_onnx(student, target)
    assert not target.exists()


@pytest.mark.slow  # torch's exporter takes half a minute
@onnx
def test_a_network_that_cannot_be_traced(simcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not today\nand more")

    student = replace(load_student(simcc), module=Moody())
    with pytest.raises(UserError, match=r"simcc_tiny cannot be written as ONNX: .*"):
        export_onnx(student, tmp_path / "x.onnx", decode="outside")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.pt2"], "export to '.pt2' is not in this version: name the target *.safetensors or *.onnx"),
        (["x.onnx", "--to", "y.onnx"], "say once where to"),
        ([], "say once where to"),
        (["x.onnx", "--decode", "maybe"], "--decode maybe: choose one of inside, outside"),
        (["x.safetensors", "--decode", "inside"], "--decode is for ONNX"),
    ],
)
def test_mistakes(words: list[str], message: str, simcc: Path, tmp_path: Path, capsys: Any) -> None:
    paths = [str(tmp_path / w) if "." in w else w for w in words]
    assert main(["export", str(simcc), *paths]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
