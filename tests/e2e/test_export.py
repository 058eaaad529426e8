"""What an export replaces: what an export wrote, what ``--force`` names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from classroomkd.cli.app import main
from classroomkd.errors import UserError
from classroomkd.export import export_student


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
