"""Imports go one way: a floor imports only from floors below it, and no modules import each other in a circle."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import classroomkd

SOURCE = Path(classroomkd.__file__).parent

# From the ground up; a module belongs to the longest prefix that fits. What stands on one line is one floor.
FLOORS = (
    ("errors", "__init__"),
    ("_printable", "_renamed", "_pieces", "_section", "_compat", "_files", "_foreign", "_limits", "_splitmix"),
    ("_locks", "_stored", "_sums", "_terminal"),
    ("functional",),
    ("taps",),
    ("classroom",),
    ("data",),
    ("models",),
    ("methods",),
    ("bank",),
    ("tasks",),  # the table, what is known without torch, and each task's own maths
    ("recipe",),
    ("train",),
    ("run.context",),
    (
        "tasks.runner",
        "tasks.classification.naming",
        "tasks.classification.runner",
        "tasks.pose.runner",
        "tasks.pose.naming",
        "tasks.pose.agreement",
        "tasks.pose.reading",
    ),
    ("run",),
    ("export",),
    ("report",),
    (  # students of a task in their files, and what the verbs do with them
        "tasks.requests",
        "tasks.files",
        "tasks.probe",
        "tasks.inspection",
        "tasks.classification.card",
        "tasks.file_inspection",
        "tasks.classification.files",
        "tasks.pose.card",
        "tasks.pose.files",
        "tasks.pose.evaluate",
        "tasks.pose.asking",
        "tasks.pose.predict",
        "tasks.pose.boxes",
        "tasks.pose.prediction_samples",
    ),
    ("_handed",),  # the arguments of distill
    ("api",),
    ("engine",),  # old names
    ("cli", "__main__"),
)

# (importing module, imported module): what still goes up. It only gets shorter.
UPWARD: set[tuple[str, str]] = set()

# Circles that are still there: the modules of each. They only get fewer.
CIRCLES: tuple[set[str], ...] = ()


def modules() -> dict[str, Path]:
    """Name below ``classroomkd`` to file; a package is its ``__init__``."""
    names = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


def imports(path: Path, known: dict[str, Path]) -> dict[str, int]:
    """Modules of ours that a file imports anywhere in it, for types too, with the first line."""
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import out, from classroomkd"
            where = (node.module or "").removeprefix("classroomkd").removeprefix(".")
            if not (node.module or "").startswith("classroomkd"):
                continue
            found = [f"{where}.{a.name}".removeprefix(".") for a in node.names]
            found = [name if name in known else where or "__init__" for name in found]
        elif isinstance(node, ast.Import):
            found = [a.name.removeprefix("classroomkd.") for a in node.names if a.name.startswith("classroomkd.")]
        else:
            continue
        for name in found:
            lines.setdefault(name, node.lineno)
    return lines


def floor(module: str) -> int:
    """The floor a module stands on."""
    fits = [
        (len(prefix), number)
        for number, prefixes in enumerate(FLOORS)
        for prefix in prefixes
        if module == prefix or module.startswith(prefix + ".")
    ]
    assert fits, f"{module} stands on no floor; give it one in {Path(__file__).name}"
    return max(fits)[1]


def test_imports_go_down() -> None:
    known = modules()
    upward = {
        (name, other): f"{path}:{line}: {name} imports {other}, which stands above it"
        for name, path in known.items()
        for other, line in imports(path, known).items()
        if floor(other) > floor(name)
    }
    new = [text for pair, text in upward.items() if pair not in UPWARD]
    assert not new, "\n".join(new)
    assert set(upward) == UPWARD, "what no longer goes up leaves the list"


def test_no_modules_import_each_other() -> None:
    known = modules()
    graph = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    for circle in CIRCLES:
        for name in circle:
            graph[name] -= circle
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        lines = [
            f"{known[name]}:{imports(known[name], known)[other]}: {name} imports {other}"
            for other, name in pairwise(error.args[1])
        ]
        raise AssertionError("a circle of imports\n" + "\n".join(lines)) from None


def test_lint_needs_no_extra() -> None:
    """mypy says the same with an extra and without it: whatever is not a dependency is skipped by name."""
    settings = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(settings.read_text())
    skipped = {
        module.removesuffix(".*") for entry in project["tool"]["mypy"]["overrides"] for module in entry["module"]
    }
    installed = {package(re.split(r"[<>=]", line, maxsplit=1)[0]) for line in project["project"]["dependencies"]}
    known = set(sys.stdlib_module_names) | installed | skipped | {"classroomkd", "__future__"}
    foreign = {
        (name.partition(".")[0], f"{path.relative_to(SOURCE)}:{node.lineno}")
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert sorted(entry for entry in foreign if entry[0] not in known) == []


def package(distribution: str) -> str:
    """What a distribution is imported as."""
    spelt = {
        "pillow": "PIL",
        "pyyaml": "yaml",
        "lightning-fabric": "lightning_fabric",
        "vl-convert-python": "vl_convert",
    }
    return spelt.get(distribution.lower(), distribution)
