"""``classroomkd VERB …``: finds the verb, runs it, and turns what goes wrong into one message and an exit code.

Exit codes: 0 done; 2 a mistake in what was asked; 1 the work could not be finished; 75 stopped by SIGTERM or SIGHUP,
to be gone on with; 130 interrupted by the user; 141 the reader of our output went away. Only the verb that is called
is imported.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from classroomkd import __version__
from classroomkd._printable import REPLACED, printable_streams
from classroomkd.cli.options import interrupted, resume_with
from classroomkd.errors import Diverged, Interrupted, RunStopped, StoppedElsewhere, UserError, did_you_mean
from classroomkd.train.allocator import claim_process

__all__ = ["VERBS", "main"]

PROGRAM = "classroomkd"

# verb -> (module:function, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("classroomkd.cli.demo:demo", "Mentors teach a small network, on drawn figures; minutes, no download."),
    "init": ("classroomkd.cli.init:init", "Look at your data and write a recipe for them, with comments."),
    "run": ("classroomkd.cli.run:run", "Run a recipe: train the mentors, teach the student, write the report."),
    "bank": ("classroomkd.cli.bank:app", "Mentors' stored answers: fill, info, verify, merge, gc."),
    "bench": ("classroomkd.cli.bench:bench", "Where the time of a recipe's step goes, and what a bank would save."),
    "evaluate": ("classroomkd.cli.evaluate:evaluate", "Score a student on data."),
    "probe": ("classroomkd.cli.probe:probe", "Judge students by their features and by their mentors' vote."),
    "compare": ("classroomkd.cli.compare:compare", "Compare runs: mean, spread, paired differences, cost."),
    "predict": ("classroomkd.cli.predict:predict", "What the images of a folder show: classes, or people's joints."),
    "report": ("classroomkd.cli.report:report", "Write a run's report page again."),
    "export": ("classroomkd.cli.export:export", "Write a student for use elsewhere."),
    "inspect": (
        "classroomkd.cli.inspect_:inspect",
        "A model's size, cost and taps; what a file or a run folder holds.",
    ),
    "list": ("classroomkd.cli.listing:list_", "Methods, models, data, recipes, examples and tasks at hand."),
    "doctor": (
        "classroomkd.cli.doctor:doctor",
        "What is installed and works, and the commands that bring what is missing.",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code and raises nothing.

    Args:
        argv: the words after the program's name; None for the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # the program itself, not a call from somebody's Python
        claim_process()
    words, debug = _without_debug(words)
    # Before torch is loaded: waiting OpenMP threads sleep instead of spinning, which on shared cores costs a multiple.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    resume_with(None)
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a sign (±) gets a ? instead of a traceback
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=REPLACED)
    with printable_streams():
        return _run(words, debug)


def _run(words: list[str], debug: bool) -> int:
    try:
        with _all_ranks():
            code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _reader_left()
    except BaseException as error:
        if debug:
            traceback.print_exc()
        _leave_in_time()
        return _explain(error, words, debug)


def _leave_in_time() -> None:
    """Where a rank stopped, what others owe it may keep the interpreter from ending: then the system ends it."""
    if os.environ.get("WORLD_SIZE", "1") != "1" and hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)


def _all_ranks() -> contextlib.AbstractContextManager[Any]:
    """Under torchrun what goes wrong on one rank ends all, and is told once."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return contextlib.nullcontext()
    from classroomkd.train.ranks import together

    return together()


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """``--debug`` may stand anywhere before a ``--``."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return [*kept, *words[end:]], len(kept) < end


# --- finding the verb -------------------------------------------------------------------------------------------------


def _dispatch(words: list[str]) -> int:
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in _present():
        raise UserError(_no_such_verb(verb))
    command: Any = typer.main.get_command(_app(verb))
    # Not command.main(): it would turn an interrupt and a closed pipe into its own messages.
    with command.make_context(PROGRAM, words or ["--help"]) as context:
        code = command.invoke(context)
    return code if isinstance(code, int) else 0


def _no_such_verb(verb: str) -> str:
    near = did_you_mean(verb, _present())
    if near or not verb.endswith((".yaml", ".yml")):
        return f"there is no command '{verb}'{near}; there are {', '.join(_present())}"
    return f"'{verb}' is a recipe; write {PROGRAM} run {verb}"


def _present() -> list[str]:
    """The verbs whose module exists; found without importing it."""
    return [verb for verb, (target, _) in VERBS.items() if importlib.util.find_spec(target.partition(":")[0])]


def _app(verb: str | None) -> typer.Typer:
    """The application with every verb named and only the one that is called loaded."""
    app = typer.Typer(
        name=PROGRAM,
        help="Teach one small vision model from many trained ones.",
        epilog=f"Start with: {PROGRAM} demo. Help on a command: {PROGRAM} COMMAND --help",
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for name in _present():
        target, summary = VERBS[name]
        loaded = _load(target) if name == verb else _stub
        if isinstance(loaded, typer.Typer):  # a verb with verbs of its own
            app.add_typer(loaded, name=name, short_help=summary)
            continue
        app.command(name, help=(loaded.__doc__ or "") if name == verb else summary, short_help=summary)(loaded)
    return app


def _load(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loaded


def _stub() -> None:
    raise AssertionError("a verb that was not loaded has been called")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of errors; also after the command.")
    ] = False,
) -> None:
    """Options of the program itself; ``--debug`` has been taken out of the words before (:func:`main`)."""


# --- what went wrong --------------------------------------------------------------------------------------------------


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone: the exit code says it, too
        print(message, file=sys.stderr, flush=True)


def _explain(error: BaseException, words: Sequence[str], debug: bool) -> int:
    """Print one message about ``error`` and return the exit code."""
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    if isinstance(error, StoppedElsewhere):
        return error.exit_code
    again = interrupted()
    if isinstance(error, KeyboardInterrupt | typer.Abort | Interrupted):
        text = "interrupted" if isinstance(error, typer.Abort) else str(error) or "interrupted"
        by_signal = isinstance(error, Interrupted)  # else by Ctrl-C, which the terminal has shown on this line
        _say(
            "\n" * (not by_signal) + f"{text}; " + (f"to go on: {again}" if again else "nothing was left half-written")
        )
        return 75 if by_signal else 130
    if isinstance(error, UserError):
        _say(f"error: {error}")
        return 2
    if isinstance(error, Diverged):  # going on would repeat it
        _say(f"error: {error}")
        return 1
    if isinstance(error, RunStopped):
        _say(f"error: {error}" + (f"\nto go on: {again}" if again else ""))
        return 1
    if hasattr(error, "format_message"):  # what the parser of the command line found wrong
        _say(f"error: {_usage(error, words)}")
        return 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _say("error: the disk is full; free some space" + (f", then: {again}" if again else ""))
        return 1
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        _say("error: out of memory; lower train.batch_size, and raise train.accumulate by as much")
        return 1
    where = "" if debug else "; --debug shows where"
    if isinstance(error, OSError) and error.strerror:
        _say(f"error: {error.strerror}: {error.filename}{where}")
    else:
        _say(f"error: {type(error).__name__}: {error} (not your mistake: this should not happen{where})")
    return 1


def _usage(error: Any, words: Sequence[str]) -> str:
    """The parser's complaint, with the remedy."""
    message = str(error.format_message()).rstrip(".")
    message = message[:1].lower() + message[1:]
    option = getattr(error, "option_name", "")
    bare = str(option).lstrip("-")
    verb = next((word for word in words if not word.startswith("-")), "")
    given = next((word for word in words if word.lstrip("-").partition("=")[0] == bare and word.startswith("-")), "")
    if given and (verb in ("run", "demo")) and ("=" in given or "." in bare):
        value = given.lstrip("-") if "=" in given else f"{bare}=VALUE"
        message += f"; settings of the recipe are written without dashes: {value}"
    return f"{message}\nsee: {PROGRAM} {verb + ' ' if verb in VERBS else ''}--help"


def _reader_left() -> int:
    """The program that read our output has ended (``… | head``): end quietly, as if killed by SIGPIPE."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
    return 141
