"""The command line's frame: finding verbs, exit codes, and messages without tracebacks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import typer

from classroomkd import __version__
from classroomkd.cli import app
from classroomkd.cli.app import VERBS, main
from classroomkd.cli.options import resume_with
from classroomkd.errors import RunStopped, UserError

Raising = Callable[[BaseException], None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a function in place of the verbs."""

    def put(function: Callable[..., Any], name: str = "work") -> None:
        module = types.ModuleType("classroomkd_test_verb")
        module.__spec__ = __import__("importlib.machinery", fromlist=["x"]).ModuleSpec(module.__name__, None)
        module.function = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(app, "VERBS", {name: (f"{module.__name__}:function", "Does the work.")})

    return put


@pytest.fixture
def raising(verb: Callable[..., None]) -> Raising:
    """A verb that fails in a given way."""

    def put(error: BaseException) -> None:
        def function() -> None:
            """Fail."""
            raise error

        verb(function)

    return put


def test_help_names_every_verb_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "Usage: classroomkd" in out
        for name in ("list", "doctor"):
            assert VERBS[name][1].partition(":")[0][:30] in out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"classroomkd {__version__}\n"


def test_help_list_and_version_import_no_torch() -> None:
    code = """
import sys
from classroomkd.cli.app import main
for words in (["--help"], ["--version"], ["list"], ["list", "--json"], ["list", "schema"], ["nonsense"]):
    main(words)
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "timm", "torchvision", "lightning_fabric"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_verb_that_exists_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in app._present():
        assert main([name, "--help"]) == 0, name
        out, err = capsys.readouterr()
        assert out.startswith(f"Usage: classroomkd {name}"), name
        assert err == ""


def test_a_missing_module_hides_its_verb_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(app.VERBS, "ghost", ("classroomkd.cli.no_such_module:ghost", "Is not there."))
    assert main(["--help"]) == 0
    assert "ghost" not in capsys.readouterr().out
    assert main(["list", "tasks"]) == 0
    assert main(["ghost"]) == 2
    assert "there is no command 'ghost'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lst"], "error: there is no command 'lst' (did you mean 'list'?); there are "),
        (["my.yaml", "seeds=3"], "error: 'my.yaml' is a recipe; write classroomkd run my.yaml"),
        (["list", "mdels"], "error: there is no list of 'mdels' (did you mean 'models'?); there are methods, models"),
        (["list", "--jsn"], "error: no such option: --jsn"),
        (["list", "models", "data"], "error: got unexpected extra argument"),
        (["--nonsense"], "error: no such option: --nonsense"),
        (["list", "--nonsense"], "see: classroomkd list --help"),
    ],
)
def test_mistakes_on_the_command_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2


def test_settings_of_the_recipe_take_no_dashes(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def run(recipe: str) -> None:
        """Run."""

    verb(run, "run")
    assert main(["run", "a.yaml", "--method.tau=8"]) == 2
    assert "settings of the recipe are written without dashes: method.tau=8" in capsys.readouterr().err
    assert main(["run", "a.yaml", "--seeds=[0,1]"]) == 2
    assert "without dashes: seeds=[0,1]" in capsys.readouterr().err
    assert main(["run", "a.yaml", "--train.lr", "3"]) == 2
    assert "without dashes: train.lr=VALUE" in capsys.readouterr().err
    assert main(["run"]) == 2
    assert "missing argument" in capsys.readouterr().err


def test_arguments_reach_the_verb_and_its_number_is_the_exit_code(verb: Callable[..., None]) -> None:
    seen: list[Any] = []

    def work(name: str, rest: Annotated[list[str] | None, typer.Argument()] = None, big: bool = False) -> int:
        """Work."""
        seen.extend([name, rest, big])
        return 7

    verb(work)
    assert main(["work", "a", "--big", "k=v", "--debug", "x=[1, 2]"]) == 7
    assert seen == ["a", ["k=v", "x=[1, 2]"], True]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("the data is odd; mend it"), 2, "error: the data is odd; mend it\n"),
        (RunStopped("the loss is not finite"), 1, "error: the loss is not finite\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "error: the disk is full; free some space\n"),
        (PermissionError(errno.EACCES, "No entry", "/x"), 1, "error: No entry: /x; --debug shows where\n"),
        (MemoryError(), 1, "error: out of memory; lower train.batch_size, and raise train.accumulate by as much\n"),
        (KeyError("q"), 1, "error: KeyError: 'q' (not your mistake: this should not happen; --debug shows where)\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted; nothing was left half-written\n"),
        (typer.Abort(), 130, "\ninterrupted; nothing was left half-written\n"),
        (typer.Exit(3), 3, ""),
        (SystemExit(4), 4, ""),
        (SystemExit(None), 0, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)  # fmt: skip
def test_what_goes_wrong(
    error: BaseException, code: int, message: str, raising: Raising, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error)
    assert main(["work"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", message)


def test_out_of_memory_on_a_gpu_is_recognised(raising: Raising, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))
    assert main(["work"]) == 1
    assert capsys.readouterr().err.startswith("error: out of memory; lower train.batch_size")


@pytest.mark.parametrize("words", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    words: list[str], raising: Raising, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(UserError("odd"))
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith("error: odd\n")


def test_debug_after_a_double_dash_belongs_to_the_verb(verb: Callable[..., None]) -> None:
    seen: list[str] = []

    def work(words: list[str]) -> None:
        """Work."""
        seen.extend(words)

    verb(work)
    assert main(["work", "--", "--debug"]) == 0
    assert seen == ["--debug"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (RunStopped("x"), 1), (OSError(errno.ENOSPC, "No space left on device"), 1)],
)
def test_what_to_type_to_go_on(
    error: BaseException, code: int, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        """Work."""
        resume_with("classroomkd run a.yaml --out runs/a --resume")
        raise error

    verb(work)
    assert main(["work"]) == code
    assert "classroomkd run a.yaml --out runs/a --resume" in capsys.readouterr().err

    def later() -> None:
        """Work."""
        raise error

    verb(later)
    assert main(["work"]) == code
    assert "--resume" not in capsys.readouterr().err  # an earlier call's command is forgotten


def test_a_reader_that_leaves_ends_the_program_quietly() -> None:
    command = [sys.executable, "-m", "classroomkd", "list", "schema"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert error == b""


def test_a_terminal_without_the_right_letters_does_not_stop_the_program() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "classroomkd", "list", "schema"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
