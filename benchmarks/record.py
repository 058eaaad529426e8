"""The tool for refactorings: what short runs give, bit by bit, recorded from one source tree and compared with another.

    PYTHONPATH=src python benchmarks/record.py record FILE          # before the change
    PYTHONPATH=src python benchmarks/record.py compare FILE         # after it; exit code 1 where anything differs
    python benchmarks/record.py compare FILE OTHER                  # two recorded files, without running anything

Cases (``--only CASE,...``): ``smoke`` (``recipes/smoke.yaml``); ``demo`` and ``demo-pose`` with one seed; ``methods``
and ``methods-pose``, every method and rule of the table in one grid of two epochs on drawn figures: with a bank and one
process, and with mentors online and two workers. About three minutes of CPU in all, one thread a process.

Kept are the students' and the trained mentors' tensors, ``metrics.jsonl``, ``teaching.json`` and ``summary.json``
without what is measured by a clock or names a place, and the names of the run folder's files. Only the command line of
``classroomkd`` is used, so that any tree can be recorded: the one on ``PYTHONPATH``, else the installed one. FILE is a
safetensors file: tensors as ``case/arm/seed0/file/tensor``, everything else as JSON in its metadata. Bits depend on the
machine and on the version of torch: record and compare on the same ones.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

CASES = ("smoke", "demo", "demo-pose", "methods", "methods-pose")
SMOKE = Path(__file__).resolve().parents[1] / "recipes" / "smoke.yaml"
SERIAL = ["threads=1", "workers=1", "device=cpu"]
# Measured by a clock, or about the place and time of a run.
MEASURED = {"x_floor", "relative_cost", "cost_ratio", "data_wait", "seconds", "created", "command", "weights", "crc"}
MEASURED_ENDS = ("_seconds", "_ms")

GRID: dict[str, Any] = {
    "train": {
        "epochs": 2, "batch_size": 16, "optimizer": "sgd", "lr": 0.01, "weight_decay": 5e-4, "schedule": "cosine",
        "ema": 0.9, "log_every": 1,
    },
    "mentor_train": {"epochs": 6, "optimizer": "adamw", "lr": 5e-3, "ema": None},
    "device": "cpu",
    "threads": 1,
}  # fmt: skip
GRIDS: dict[str, dict[str, Any]] = {
    "methods": {
        **GRID,
        "task": "classification",
        "data": {"source": "puppets", "options": {"train": 90, "test": 40, "image_size": 32, "hard": 0.1}},
        "student": "convnet8",
        "mentors": [
            {"name": "large", "model": "convnet16"},
            {"name": "assistant", "model": "dwnet8", "taught_by": "large"},
        ],
        "bank": "views=2",
        "workers": 1,
    },
    "methods-pose": {
        **GRID,
        "task": "pose",
        "data": {
            "source": "puppets",
            "options": {"train": 90, "test": 40, "image_size": 48, "hard": 0.1},
            "size": 32,
            "views": "person",
        },
        "student": "simcc_tiny",
        "mentors": [
            {"name": "maps", "model": "heatmap_tiny"},
            {"name": "assistant", "model": "simcc_tiny", "taught_by": "maps"},
        ],
        "bank": "off",
        "workers": 2,
    },
}


class Case(NamedTuple):
    """One case. Keys are paths in the run folder; ``mentors/NAME/mentor.safetensors`` are the mentors'.

    Attributes:
        files: names of the run folder's files.
        documents: lines of ``metrics.jsonl``, or a JSON file as a list of one; arms in the recipe's order.
        tensors: by file, in the order of the state dict.
    """

    files: list[str]
    documents: dict[str, list[Any]]
    tensors: dict[str, dict[str, Tensor]]


class Failed(Exception):
    """A command did not end well."""


def classroomkd(work: Path, *arguments: str) -> str:
    """What the command line prints, run in ``work``.

    Raises:
        Failed: it ended with another exit code than 0.
    """
    return python(work, "-m", "classroomkd", *arguments)


def python(work: Path, *arguments: str) -> str:
    """As :func:`classroomkd`, of the interpreter."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    if places := [str(Path(p).resolve()) for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]:
        env["PYTHONPATH"] = os.pathsep.join(places)
    ended = subprocess.run([sys.executable, *arguments], cwd=work, env=env, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failed(f"python {' '.join(arguments)}: exit code {ended.returncode}\n{ended.stderr[-3000:]}")
    return ended.stdout


def arms(work: Path, task: str) -> list[Any]:
    """An arm for every method of the table that does the task and every rule of it, and one of two methods."""
    found: list[Any] = []
    for row in json.loads(classroomkd(work, "list", "methods", "--json")):
        if task in row["tasks"] and not row.get("peers"):  # those that train several networks need some beside them
            rules = [{"rule": rule, "label": f"{row['name']} {rule}"} for rule in row.get("rules") or ()]
            found += [{"name": row["name"], **rule} for rule in rules or [{}]]
    return [*found, ["kd", "at"]]


def run_case(name: str, work: Path) -> Case:
    """Run one case in ``work`` and read what it gave."""
    out, shared = work / name, f"cache={work / 'cache'}"
    start = ["--out", str(out), "--quiet"]
    if name == "smoke":
        classroomkd(work, "run", str(SMOKE), *SERIAL, shared, *start)
    elif name in ("demo", "demo-pose"):
        task = "pose" if name == "demo-pose" else "classify"
        classroomkd(work, "demo", "--task", task, "seeds=0", *SERIAL, shared, *start)
    else:
        recipe = work / f"{name}.yaml"
        grid = GRIDS[name]
        recipe.write_text(yaml.safe_dump({**grid, "methods": arms(work, grid["task"])}, sort_keys=False))
        classroomkd(work, "run", str(recipe), shared, *start)
    return read_case(out, work)


def read_case(out: Path, work: Path) -> Case:
    """What a run folder holds."""
    summary = json.loads((out / "summary.json").read_text())
    order = [arm["folder"] for arm in summary["arms"]]
    students = [p for p in out.glob("*/seed*") if p.is_dir()]
    students.sort(key=lambda p: (order.index(p.parent.name) if p.parent.name in order else len(order), p.name))
    documents: dict[str, list[Any]] = {}
    tensors: dict[str, dict[str, Tensor]] = {}
    for mentor in summary["mentors"]:
        path = Path(mentor.get("weights") or "")
        if path.is_file():  # mentors the run trained; its folder in the cache has a name that is not compared
            tensors[f"mentors/{mentor['name']}/{path.name}"] = read_tensors(path)
    for folder in students:
        short = folder.relative_to(out).as_posix()
        for path in sorted(folder.glob("*.safetensors")):
            tensors[f"{short}/{path.name}"] = read_tensors(path)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        documents[f"{short}/metrics.jsonl"] = [cleaned(json.loads(line), work) for line in lines]
        if (folder / "teaching.json").exists():
            text = (folder / "teaching.json").read_text()
            documents[f"{short}/teaching.json"] = [cleaned(json.loads(text), work)]
    documents["summary.json"] = [cleaned(summary, work)]
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    return Case(files, documents, tensors)


def cleaned(value: Any, work: Path) -> Any:
    """Without what is measured, and without the folder of this recording."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in MEASURED and not k.endswith(MEASURED_ENDS)}
        return {k: cleaned(v, work) for k, v in kept.items()}
    if isinstance(value, list):
        return [cleaned(v, work) for v in value]
    return value.replace(str(work), "WORK") if isinstance(value, str) else value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors in the order of the state dict, which a checkpoint beside it tells; else in the file's."""
    found = load_file(path)
    for checkpoint in sorted((path.parent / "checkpoints").glob("*.pt")):
        with contextlib.suppress(Exception):  # the format is not this tool's to know
            names = state_order(torch.load(checkpoint, weights_only=True, map_location="cpu"), found)
            if names is not None:
                return {name: found[name] for name in names}
    return found


def state_order(inside: Any, names: Collection[str]) -> list[str] | None:
    """The order in which some mapping of a checkpoint has all these names, alone or behind a common prefix."""
    parts = inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list | tuple) else ()
    if isinstance(inside, dict):
        one = next(iter(names))
        for prefix in (key.removesuffix(one) for key in inside if isinstance(key, str) and key.endswith(one)):
            if all(prefix + name in inside for name in names):
                return [key.removeprefix(prefix) for key in inside if key.removeprefix(prefix) in names]
    return next((order for part in parts if (order := state_order(part, names)) is not None), None)


# --- the file


def save(path: Path, cases: dict[str, Case]) -> None:
    """Write a record, whole or not at all."""
    tensors, rest = {}, {}
    for name, case in cases.items():
        tensors |= {f"{name}/{file}/{key}": t for file, state in case.tensors.items() for key, t in state.items()}
        order = {file: list(state) for file, state in case.tensors.items()}
        rest[name] = {"files": case.files, "documents": case.documents, "order": order}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, part, {"record": json.dumps({"torch": torch.__version__, "cases": rest})})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Case]:
    """A record."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["record"])
    tensors, cases = load_file(path), {}
    if about["torch"] != torch.__version__:
        print(f"note: {path} was recorded with torch {about['torch']}; this is {torch.__version__}")
    for name, rest in about["cases"].items():
        states = {f: {key: tensors[f"{name}/{f}/{key}"] for key in keys} for f, keys in rest["order"].items()}
        cases[name] = Case(rest["files"], rest["documents"], states)
    return cases


# --- comparing


def compare_cases(old: Case, new: Case) -> list[str]:
    """What differs, one sentence each and the first of its kind; none where all is equal."""
    return [*compare_files(old, new), *compare_documents(old, new), *compare_tensors(old, new)]


def compare_files(old: Case, new: Case) -> Iterator[str]:
    """Files that only one of them has."""
    for what, names in (
        ("missing", [n for n in old.files if n not in new.files]),
        ("new", [n for n in new.files if n not in old.files]),
    ):
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            yield f"files {what}: {', '.join(names[:8])}{more}"


def compare_documents(old: Case, new: Case) -> Iterator[str]:
    """Keys that came, went or were renamed; the first value that differs, and where else there are others."""
    renamed: dict[tuple[str, str], set[str]] = {}  # by (kind of document, key that went): new keys of the same values
    came: dict[tuple[str, str], None] = {}
    first, unlike = None, dict.fromkeys(name for name in (*old.documents, *new.documents))
    for name in list(unlike):
        before, after = old.documents.get(name), new.documents.get(name)
        if json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True):
            del unlike[name]
            continue
        if before is None or after is None:
            first = first or f"{name}: {'only in the new one' if before is None else 'missing'}"
            continue
        kind = name.rpartition("/")[2]
        for number, (was, now) in enumerate(zip(before, after, strict=False)):
            was, now = fields(was), fields(now)
            fresh = {key: values for key, values in now.items() if key not in was}
            came |= {(kind, key): None for key in fresh}
            for key in (key for key in was if key not in now):
                same = {other for other, values in fresh.items() if values == was[key]}
                renamed[kind, key] = renamed.get((kind, key), same) & same
            if first is None and (said := first_value(was, now)) is not None:
                first = f"{place(name, number, before[number])}: {said}"
        if first is None and len(before) != len(after):
            first = f"{name}: {len(before)} lines -> {len(after)}"
    for (kind, key), others in renamed.items():
        yield f"{kind}: key {key} " + (f"is now {' or '.join(sorted(others))} (same values)" if others else "is gone")
    known = {(kind, other) for (kind, _), others in renamed.items() for other in others}
    for kind, key in came:
        if (kind, key) not in known:
            yield f"{kind}: key {key} is new"
    if first is not None:
        yield f"first value: {first}"
    if unlike and first is None and not renamed and not came:
        yield f"documents have another shape: {next(iter(unlike))}"
    if unlike:
        yield f"documents that differ: {len(unlike)} of {len(old.documents)}: {short(list(unlike))}"


def fields(document: Any, key: str = "") -> dict[str, list[str]]:
    """By dotted key the values as they are written, in order; lists are walked through."""
    found: dict[str, list[str]] = {}
    if not isinstance(document, dict | list):
        return {key: [json.dumps(document)]}
    dotted = {k: f"{key}.{k}" if key else str(k) for k in document} if isinstance(document, dict) else {}
    parts = document.items() if isinstance(document, dict) else ((None, v) for v in document)
    for k, value in parts:
        for path, values in fields(value, dotted.get(k, key)).items():
            found.setdefault(path, []).extend(values)
    return found


def first_value(was: dict[str, list[str]], now: dict[str, list[str]]) -> str | None:
    """The first value of a common key that differs."""
    for key in was:
        if key in now and was[key] != now[key]:
            if len(was[key]) != len(now[key]):
                return f"{key}: {len(was[key])} values -> {len(now[key])}"
            i = next(i for i, (a, b) in enumerate(zip(was[key], now[key], strict=True)) if a != b)
            return f"{key}{f'[{i}]' if len(was[key]) > 1 else ''}: {was[key][i]} -> {now[key][i]}"
    return None


def place(name: str, number: int, line: Any) -> str:
    """Where in a document: arm, seed and step."""
    arm, _, rest = name.partition("/")
    seed, _, file = rest.partition("/")
    where = f"arm {arm}, seed {seed.removeprefix('seed')}, {file}" if file else name
    if not file.endswith(".jsonl"):
        return where
    return f"{where} line {number + 1} ({line.get('kind')}, step {line.get('step')})"


def compare_tensors(old: Case, new: Case) -> Iterator[str]:
    """The first tensor that differs, and which files there are others in."""
    first, unlike = None, []
    for file, before in old.tensors.items():
        after = new.tensors.get(file, {})
        said = [f"{key}: {text}" for key in before if (text := tensor_difference(before[key], after.get(key)))]
        said += [f"{key}: new" for key in after if key not in before]
        if said:
            unlike.append(file)
            first = first or f"{file}, {said[0]}; {len(said)} of {len(before)} tensors of this file"
    unlike += [file for file in new.tensors if file not in old.tensors]
    if first is not None:
        yield f"first tensor: {first}"
    if unlike:
        yield f"tensor files that differ: {len(unlike)} of {len(old.tensors)}: {short(unlike)}"


def tensor_difference(old: Tensor, new: Tensor | None) -> str | None:
    """In bits, so that NaN equals NaN and 0 is not -0."""
    if new is None:
        return "missing"
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"{old.dtype} {tuple(old.shape)} -> {new.dtype} {tuple(new.shape)}"
    a, b = (x.contiguous().reshape(-1) for x in (old, new))
    width = a.element_size()
    differ = (a.view(torch.uint8).reshape(-1, width) != b.view(torch.uint8).reshape(-1, width)).any(1)
    if not differ.any():
        return None
    most = (a[differ].double() - b[differ].double()).abs().nan_to_num(nan=float("inf")).max()
    return f"{int(differ.sum())} of {a.numel()} elements differ, by at most {float(most):.3g}"


def short(names: Sequence[str], most: int = 6) -> str:
    """The first names; of students the arm and seed alone."""
    plain = list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))
    return ", ".join(plain[:most]) + (f" and {len(plain) - most} more" if len(plain) > most else "")


def report(old: dict[str, Case], new: dict[str, Case], failed: dict[str, str] | None = None) -> int:
    """Print what differs by case; the exit code."""
    failed, wrong = failed or {}, 0
    for name in dict.fromkeys((*old, *new, *failed)):
        if name in failed:
            said = [f"could not be run: {failed[name]}"]
        elif name in old and name in new:
            said = compare_cases(old[name], new[name])
        else:
            said = [f"only in the {'old' if name in old else 'new'} record"]
        wrong += bool(said)
        for sentence in said:
            print(f"{name}: {sentence}")
    students = sum(name.endswith(".jsonl") for case in old.values() for name in case.documents)
    tensors = sum(len(state) for case in old.values() for state in case.tensors.values())
    what = f"{len(old)} cases, {students} students, {tensors:,} tensors"
    print(f"{wrong} of {len(old)} cases differ ({what})" if wrong else f"equal: {what}")
    return int(bool(wrong))


# --- the command


def run_cases(names: Sequence[str], keep: Path | None) -> tuple[dict[str, Case], dict[str, str]]:
    """What each case gave, and why the others could not be run."""
    found, failed = {}, {}
    with tempfile.TemporaryDirectory() if keep is None else contextlib.nullcontext(keep) as folder:
        work = Path(folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        source = python(work, "-c", "import classroomkd; print(classroomkd.__file__)").strip()
        print(f"running {Path(source).parent}", file=sys.stderr)
        for name in names:
            start = time.monotonic()
            try:
                found[name] = run_case(name, work)
            except Failed as error:
                failed[name] = str(error)
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return found, failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("other", type=Path, nargs="?", help="compare: another record, in place of running")
    parser.add_argument("--only", help=f"of {', '.join(CASES)}; compare: those of the file")
    parser.add_argument("--keep", type=Path, help="a new or empty folder for the run folders")
    given = parser.parse_args(arguments)
    only = given.only.split(",") if given.only else None
    if unknown := [name for name in only or () if name not in CASES]:
        parser.error(f"--only: there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if given.keep is not None and given.keep.exists() and any(given.keep.iterdir()):
        parser.error(f"--keep: {given.keep} is not empty")
    if given.what == "record":
        if given.other is not None:
            parser.error("record takes one file")
        found, failed = run_cases(only or CASES, given.keep)
        if failed:
            print("\n".join(failed.values()), file=sys.stderr)
            return 1
        save(given.file, found)
        return 0
    old = {name: case for name, case in load(given.file).items() if only is None or name in only}
    if given.other is not None:
        new = {name: case for name, case in load(given.other).items() if only is None or name in only}
        return report(old, new)
    return report(old, *run_cases(list(old), given.keep))


if __name__ == "__main__":
    sys.exit(main())
