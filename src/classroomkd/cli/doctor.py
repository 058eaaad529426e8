"""``classroomkd doctor``: what is installed and works, which devices there are, what is missing and what brings it."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from classroomkd import __version__
from classroomkd.cli.options import JsonOutput
from classroomkd.errors import UserError

__all__ = ["Check", "doctor", "examine"]

LEAST_PYTHON = (3, 11)
LITTLE_SPACE = 2 * 1024**3  # bytes; a run with a bank of CIFAR-100 answers needs about this much


class Check(NamedTuple):
    """One finding. ``state`` is ``ok``, ``note`` (worth knowing), ``missing`` (an extra) or ``broken`` (required)."""

    name: str
    state: str
    found: str
    remedy: str = ""


# module -> distribution, of what the core needs besides torch
REQUIRED = {
    "numpy": "numpy",
    "lightning_fabric": "lightning-fabric",
    "pydantic": "pydantic",
    "yaml": "PyYAML",
    "typer": "typer",
    "rich": "rich",
    "safetensors": "safetensors",
    "PIL": "Pillow",
    "altair": "altair",
    "vl_convert": "vl-convert-python",
}


def doctor(
    as_json: JsonOutput = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="The cache folder to test, if not the default.")
    ] = None,
) -> int:
    """What is installed and works, which devices there are, and the commands that bring what is missing.

    Ends with 1 when something that every run needs is broken, else with 0.
    """
    checks = examine(cache or Path("runs") / ".cache" / "classroomkd")
    healthy = all(check.state != "broken" for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": healthy, "checks": [check._asdict() for check in checks]}, indent=1))
        return 0 if healthy else 1
    width = max(len(check.name) for check in checks)
    for check in checks:
        typer.echo(f"{check.state:<8} {check.name:<{width}}  {check.found}")
        if check.remedy:
            typer.echo(f"{'':<{9 + width}}  -> {check.remedy}")
    typer.echo("\neverything a run needs is here" if healthy else "\na run cannot work before what is broken is mended")
    return 0 if healthy else 1


def examine(cache: Path) -> list[Check]:
    """All findings. A check that itself fails is a finding too."""
    checks: list[Check] = []
    for check in (_python, _required, _torch):
        checks += _safely(check)
    if checks[-1].state != "broken":  # without torch each of these would only say so again
        extras = [found for check in (_torchvision, _timm, _sklearn, _onnx, _pycocotools) for found in _safely(check)]
        checks += [*extras, *_together(extras)]
        for check in (_devices, _threads):
            checks += _safely(check)
    return checks + _safely(_data) + _safely(lambda: _disk(cache))


def _safely(check: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(check())
    except Exception as error:  # an installation can be broken in any way
        name = getattr(check, "__name__", "check").strip("_<>")
        return [Check(name, "broken", f"{type(error).__name__}: {error}", "see the message; reinstall what it names")]


# --- commands ---------------------------------------------------------------------------------------------------------


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _pip(*packages: str) -> str:
    """The install command; the torch that is here is named, or pip would replace a CPU build by the newest CUDA one."""
    torch = _version("torch")
    pinned = [f"torch=={torch.partition('+')[0]}"] if torch and "torch" not in packages else []
    return " ".join([_interpreter(), "-m pip install", *pinned, *packages])


def _interpreter() -> str:
    """The running Python as one would type it from here."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# --- the checks -------------------------------------------------------------------------------------------------------


def _python() -> Iterator[Check]:
    text = f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"
    old = sys.version_info < LEAST_PYTHON
    yield Check("python", "broken" if old else "ok", text, "install Python 3.11 or newer" if old else "")
    yield Check("classroomkd", "ok", f"{__version__} ({Path(__file__).parents[1]})")


def _torch() -> Iterator[Check]:
    if _version("torch") is None:
        yield Check("torch", "broken", "not installed", f"{_interpreter()} -m pip install torch==2.13.0")
        return
    import torch

    builds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    build = next((f"{name} {version}" for name, version in builds.items() if version), "CPU")
    yield Check("torch", "ok", f"{torch.__version__}, {build} build")


def _required() -> Iterator[Check]:
    versions: list[str] = []
    for module, distribution in REQUIRED.items():
        version = _version(distribution)
        try:
            importlib.import_module(module)
        except Exception as error:
            remedy = _pip(distribution if version is None else f"--force-reinstall --no-deps {distribution}")
            text = "not installed" if version is None else f"{version}, but {type(error).__name__}: {error}"
            yield Check(distribution, "broken", text, remedy)
        else:
            versions.append(f"{distribution} {version or 'of unknown version'}")
    yield Check("packages", "ok", ", ".join(versions))


def _extra(packages: tuple[str, ...], use: str, load: Callable[[], Any]) -> Check:
    """The last of ``packages``, which is optional: absent, broken or working."""
    name = packages[-1]
    version, problem = _version(name), ""
    if version is None:
        problem = f"not installed; {use} need it"
    else:
        try:
            load()
        except UserError as error:
            problem = str(error)
    return Check(name, "missing", problem, _pip(*packages)) if problem else Check(name, "ok", str(version))


def _torchvision() -> Iterator[Check]:
    from classroomkd import _compat

    check = _extra(("torchvision",), "models called torchvision:NAME", _compat.import_torchvision)
    if check.state == "ok" and _compat._keep:
        declared = "built for CUDA beside a CPU torch: its missing operators are declared"
        check = check._replace(found=f"{check.found}, {declared}")
    yield check


def _timm() -> Iterator[Check]:
    from classroomkd import _compat

    yield _extra(("torchvision", "timm"), "models called timm:NAME", _compat.import_timm)


def _sklearn() -> Iterator[Check]:
    yield _extra(("scikit-learn",), "classroomkd probe, and the data called digits", _importer("sklearn"))


def _onnx() -> Iterator[Check]:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        yield _extra((name,), "files of classroomkd export … FILE.onnx", _importer(name))


def _pycocotools() -> Iterator[Check]:
    yield _extra(("pycocotools",), "scores of classroomkd evaluate --official", _importer("pycocotools"))


def _importer(name: str) -> Callable[[], Any]:
    """Imports a module; whatever keeps it from being imported is what is wrong with it."""

    def load() -> Any:
        try:
            return importlib.import_module(name)
        except Exception as error:  # a library can be broken in any way
            raise UserError(f"cannot be imported: {type(error).__name__}: {error}") from error

    return load


def _together(extras: Sequence[Check]) -> Iterator[Check]:
    """One command for everything optional that is missing."""
    missing = [check.name for check in extras if check.state == "missing"]
    if len(missing) > 1:
        both = ["torchvision"] if "timm" in missing and "torchvision" not in missing else []
        yield Check("extras", "note", f"{len(missing)} are missing; all at once:", _pip(*both, *missing))


def _devices() -> Iterator[Check]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cpu", "ok", f"{cores} core{'s' if cores > 1 else ''} for this process")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Check(f"cuda:{index}", "ok", f"{properties.name}, {properties.total_memory / 1024**3:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple GPU")
    elif not torch.cuda.is_available():
        cpu_build = torch.version.cuda is None and torch.version.hip is None
        why = "this torch is a CPU build" if cpu_build else "torch sees none; check the driver with nvidia-smi"
        yield Check("gpu", "note", f"none: {why}; everything works on the CPU, slower")


def _threads() -> Iterator[Check]:
    import torch

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    settings = ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
    yield Check("threads", "ok", f"{torch.get_num_threads()} in torch{f' ({settings})' if settings else ''}")
    policy = os.environ.get("OMP_WAIT_POLICY")
    passive = policy is not None and policy.lower() == "passive"
    text = policy or "not set: waiting threads spin and take time from jobs that run side by side"
    remedy = "" if passive else "export OMP_WAIT_POLICY=PASSIVE"
    yield Check("OMP_WAIT_POLICY", "ok" if passive else "note", text, remedy)


def _data() -> Iterator[Check]:
    from classroomkd.recipe.paths import DATA_VARIABLE

    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        text = "not set; relative data folders are looked for in the current folder and beside the recipe"
        yield Check(DATA_VARIABLE, "note", text)
    elif not Path(folder).expanduser().is_dir():
        yield Check(DATA_VARIABLE, "note", f"{folder}: no such folder", f"export {DATA_VARIABLE}=DIR, or unset it")
    else:
        held = sorted(entry.name for entry in Path(folder).expanduser().iterdir())
        more = f" and {len(held) - 6} more" if len(held) > 6 else ""
        yield Check(DATA_VARIABLE, "ok", f"{folder}: {', '.join(held[:6])}{more}")


def _disk(cache: Path) -> Iterator[Check]:
    """Whether the cache (or the nearest folder above it that exists) can be written, and the space there."""
    place = cache.absolute()
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    remedy = "free some space, or give another disk: cache=DIR and --out DIR" if free < LITTLE_SPACE else ""
    yield Check("disk", "note" if remedy else "ok", f"{free / 1024**3:.1f} GiB free at {place}", remedy)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0")
    except OSError as error:
        yield Check("cache", "broken", f"{cache}: {error.strerror}", "choose a folder you may write: cache=DIR")
    else:
        yield Check("cache", "ok", f"{cache} can be written")
