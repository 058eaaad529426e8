"""Reading and carrying out the fenced blocks of Markdown files, for ``test_readme.py`` and ``slow/test_docs.py``.

A comment line directly above a block says what is special about it:

- ``<!-- block: continues -->``        goes on in the namespace of the file's previous Python block
- ``<!-- block: file my_nets.py -->``  becomes that file in the working folder, where later blocks find it
- ``<!-- block: needs accelerate -->`` is skipped where that package is not installed
- ``<!-- block: into recipe.yaml -->`` is YAML that goes into that file: its sections in place of those there
- ``<!-- block: elsewhere -->``        needs environments of its own: ``make first-hour`` carries it out
- ``<!-- block: shown only -->``       is not carried out (an error message, a line that needs another machine)
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
import yaml
from PIL import Image

from classroomkd.cli.app import PROGRAM, _app, main
from classroomkd.data import puppets
from classroomkd.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "https://github.com/classroomkd/classroomkd"  # what README's links begin with: PyPI shows it, too
RAW = PROJECT.replace("github.com", "raw.githubusercontent.com")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What the commands of the documents are changed by, so that they take seconds: verb and recipe -> further words.
QUICK: list[tuple[str, list[str]]] = [
    (
        r"(run|bench|bank fill) (recipes/)?smoke",
        [
            "data.options.train=100",
            "data.options.test=40",
            "student.samples=60",
            "train.epochs=1",
            "mentor_train.epochs=1",
        ],
    ),
    (
        r"run (recipes/)?(own-images|mine)",
        ["student=convnet4", "mentors=[convnet8,dwnet8]", "data.size=32", "train.epochs=2", "train.warmup_epochs=0"],
    ),
    (
        r"demo --task pose",
        [
            "data.options.train=60",
            "data.options.test=20",
            "student.samples=40",
            "train.epochs=1",
            "mentor_train.epochs=1",
            "mentors.2.train.epochs=1",
            "mentors.2.train.samples=20",
            "seeds=[0]",
        ],
    ),
    (
        r"run (recipes/)?pose/(coco|lsp|mpii)",
        [
            "student=simcc_tiny",
            "mentors=[simcc_tiny,heatmap_tiny]",
            "data.size=[32,32]",
            "train.epochs=1",
            "train.batch_size=12",
            "train.warmup_epochs=0",
            "methods=[average,classroomkd]",
            "seeds=[0]",
            "device=cpu",
        ],
    ),
    (
        r"run (recipes/)?pose/puppets",
        [
            "data.options.train=60",
            "data.options.test=20",
            "student.samples=40",
            "train.epochs=1",
            "mentor_train.epochs=1",
            "mentors.2.train.epochs=1",
            "mentors.2.train.samples=20",
            "methods=[none,classroomkd]",
            "seeds=[0]",
        ],
    ),
    (
        r"demo",
        ["data.options.train=100", "data.options.test=40", "student.samples=60", "train.epochs=1", "seeds=[0,1]"]
        + [f"mentors.{m}.train.epochs=1" for m in range(4)],
    ),
    (
        r"run (recipes/)?without-labels",
        [
            "data.options.train=200",
            "data.options.test=40",
            "train.epochs=1",
            "mentor_train.epochs=1",
            "methods=[votes,classroomkd]",
            "seeds=[0]",
        ],
    ),
    (r"run \S*own_recipe", ["train.epochs=1"]),
    (r"run (recipe|pose)\.yaml", ["train.epochs=2", "methods=[average]"]),
]
ALWAYS = ["workers=1", "threads=1", "cache=cache"]  # for the verbs that train
HARMLESS = ("apt-get", "git", "source", "cd", "pip", "python", "python3", "export")  # not carried out


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins at, and what the comment above it says."""

    page: Path
    line: int
    language: str
    text: str
    said: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, lines = [], page.read_text().splitlines()
    start, language = None, ""
    for number, line in enumerate(lines):
        fence = re.match(r"^```(\w*)$", line)
        if start is None and fence:
            start, language = number, fence[1]
        elif start is not None and line == "```":
            said = re.match(r"^<!-- block: (.*) -->$", lines[start - 1] if start else "")
            text = "\n".join(lines[start + 1 : number]) + "\n"
            found.append(Block(page, start + 1, language, text, said[1] if said else ""))
            start = None
    assert start is None, f"{page}: the block at line {start} is not closed"
    return found


# --- carrying out -----------------------------------------------------------------------------------------------------


def furnish(folder: Path) -> None:
    """What the documents take for granted in the working folder: some images of three kinds, and some people."""
    draw = np.random.default_rng(0)
    for name, count in (("photos", 14), ("new-photos", 2)):
        for kind, level in (("cat", 40), ("dog", 120), ("owl", 200)):
            (folder / name / kind).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(draw.normal(level, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / kind / f"{i}.png")
    people(folder / "coco", {"train": 24, "val": 6})
    (folder / "crops").mkdir()  # people of whom nobody has said where their joints are
    for i, pixels in enumerate(puppets.scenes(1, np.arange(20), image_size=64, hard=0.3).images):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / "crops" / f"{i}.png")


def people(folder: Path, counts: dict[str, int]) -> None:
    """Drawn figures, laid out and annotated as COCO's people are."""
    (folder / "annotations").mkdir(parents=True)
    first = 1
    for part, count in counts.items():
        drawn = puppets.scenes(0, np.arange(first, first + count), image_size=64, hard=0.3)
        listed: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        (folder / f"{part}2017").mkdir()
        for i in range(count):
            number, name = first + i, f"{first + i:012d}.jpg"
            Image.fromarray(drawn.images[i].transpose(1, 2, 0)).save(folder / f"{part}2017" / name, quality=95)
            joints, box = drawn.joints[i].astype(np.float64), drawn.boxes[i].astype(np.float64)
            joints[:, :2] = np.where(joints[:, 2:] > 0, joints[:, :2] - 0.5, 0)  # pixel centres at whole numbers
            listed["images"].append({"id": number, "file_name": name, "width": 64, "height": 64})
            listed["annotations"].append(
                {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box.tolist()}
                | {"area": float(0.53 * box[2] * box[3]), "keypoints": joints.ravel().tolist()}
            )
        category = {"id": 1, "name": "person", "keypoints": list(puppets.JOINTS)}
        file = folder / "annotations" / f"person_keypoints_{part}2017.json"
        file.write_text(json.dumps({**listed, "categories": [category]}))
        first += count


class Reader:
    """Carries out the blocks of one page from top to bottom, as a reader would, in the current folder."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.done: list[str] = []

    def carry_out(self, block: Block) -> None:
        """Run, load or parse one block; raises when it does not work."""
        if block.said in ("shown only", "elsewhere"):
            return
        if block.said.startswith("into "):
            put_into(Path(block.said.removeprefix("into ")), block.text)
            return
        if block.said.startswith("needs ") and importlib.util.find_spec(block.said.removeprefix("needs ")) is None:
            return
        if block.said.startswith("file "):
            Path(block.said.removeprefix("file ")).write_text(block.text)
            return
        how = {
            "python": self.python,
            "sh": self.shell,
            "yaml": recipe,
            "json": lambda b: json.loads(b.text),
            "toml": lambda b: tomllib.loads(b.text),
            "text": lambda b: None,
        }
        assert block.language in how, f"{block}: blocks are {', '.join(how)}, not '{block.language}'"
        how[block.language](block)

    def python(self, block: Block) -> None:
        """Run a Python block in a namespace of its own, unless it continues."""
        if block.said != "continues":
            self.names = {"__name__": "__document__"}
        torch.manual_seed(0)
        sys.path.insert(0, str(Path.cwd()))
        try:
            exec(compile(block.text, str(block), "exec"), self.names)
        finally:
            sys.path.remove(str(Path.cwd()))

    def shell(self, block: Block) -> None:
        """Run the lines that begin with classroomkd in this process; look at the others."""
        for words in commands(block.text):
            self.line(block, words)
            self.done.append(" ".join(words))

    def line(self, block: Block, words: list[str]) -> None:
        """One command."""
        program = words[0]
        if program == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets, f"{block}: make has no {words[1]}"
        elif program == "cp":
            source = Path(words[1]) if Path(words[1]).exists() else ROOT / words[1]
            shutil.copy(source, words[2])
        elif program == "torchrun":
            at = words.index("classroomkd")
            assert words[at - 1] == "-m", f"{block}: torchrun … -m classroomkd"
            self.line(block, [*words[at:], "--dry-run"])
        elif program == "classroomkd":
            code, said = classroomkd(words[1:])
            assert code == 0, f"{block}: {' '.join(words)} ended with {code}: {said}"
        else:
            assert program in HARMLESS, f"{block}: what is '{program}'?"
            for word in words[1:]:
                if word.endswith(".py"):
                    assert (ROOT / word).is_file(), f"{block}: there is no {word}"


class Skimmer(Reader):
    """Carries out a block by itself, within a second or two: runs are planned only, other verbs' words are parsed."""

    def line(self, block: Block, words: list[str]) -> None:
        """One command, which may need what an earlier block has made."""
        if words[0] != "classroomkd" or words[1] == "init":  # which takes no second, and what it writes is needed
            super().line(block, words)
        elif words[1] == "run":
            super().line(block, words if "--dry-run" in words else [*words, "--dry-run"])
        else:
            understood(words[1 : words.index(">") if ">" in words else None])


def put_into(file: Path, text: str) -> None:
    """Keys of YAML in place of those in a file; mappings are joined."""
    there, new = yaml.safe_load(file.read_text()), yaml.safe_load(text)
    for key, value in new.items():
        joined = isinstance(value, dict) and isinstance(there.get(key), dict)
        there[key] = {**there[key], **value} if joined else value
    file.write_text(yaml.safe_dump(there, sort_keys=False))


def understood(words: list[str]) -> None:
    """Raises what the command line's parser has against these words; nothing is carried out."""
    command: Any = typer.main.get_command(_app(words[0]))
    context = command.make_context(PROGRAM, words)
    while hasattr(command, "resolve_command"):  # down to the verb's own options
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block as words: comments dropped, continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.match(r"^[A-Z_]+=", words[0]):  # OMP_NUM_THREADS=1 classroomkd …
            words = words[1:]
        if words:
            yield words


def classroomkd(words: list[str]) -> tuple[int, str]:
    """Run the command line in this process with what makes it quick; its exit code and what it said on stderr."""
    target = None
    if ">" in words:
        at = words.index(">")
        words, target = words[:at], Path(words[at + 1])
    line = " ".join(words)
    if words[0] in ("run", "demo", "bench") or words[:2] == ["bank", "fill"]:
        always = [w for w in ALWAYS if not re.search(rf"\b{w.partition('=')[0]}=", line)]
        words = [*words, *next((more for known, more in QUICK if re.match(known, line)), []), *always]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    if target is not None:
        target.write_text(out.getvalue())
    return code, err.getvalue()


BASE = {"data": "puppets", "student": "resnet8", "mentors": "[resnet20]", "method": "classroomkd"}
POSE = {**BASE, "student": "simcc_tiny", "mentors": "[heatmap_tiny]"}


def recipe(block: Block) -> Any:
    """Load a YAML block as a recipe; a fragment is completed, and the files it names are made up."""
    for name in re.findall(r"[\w/-]+\.(?:safetensors|pth)", block.text):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for name in re.findall(r"(?:imagefolder|cifar100|fashion-mnist|coco-keypoints|mpii):([\w/-]+)", block.text):
        Path(name).mkdir(parents=True, exist_ok=True)
    keys: dict[str, Any] = yaml.safe_load(block.text)
    task = keys.get("task", "")
    base = POSE if "pose" in (task, isinstance(task, dict) and task.get("name")) else BASE
    lacking = [k for k in base if k not in keys and not (k == "method" and "methods" in keys)]
    text = "".join(f"{key}: {base[key]}\n" for key in lacking) + block.text
    file = Path(f"block-{block.line}.yaml")
    file.write_text(text)
    return load_recipe(file, trust_code=True)


# --- links ------------------------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return kept.replace(" ", "-")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page."""
    return {slug(m) for m in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)}


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or headings of the project that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        ours = re.sub(rf"^({PROJECT}/(blob|tree)/main|{RAW}/main)/", f"{ROOT}/", target)
        if re.match(r"^[a-z]+://|^mailto:", ours):
            continue
        path, _, anchor = ours.partition("#")
        file = (page.parent / path).resolve() if path else page
        known = file.exists() and (not anchor or file.suffix != ".md" or anchor in anchors(file))
        if not known:
            broken.append(target)
    return broken


def table_after(page: Path, heading: str) -> list[dict[str, str]]:
    """The first table below a heading, as one mapping a row (cells without backticks)."""
    text = page.read_text()
    rows = []
    for line in text[text.index(f"\n{heading}\n") :].splitlines()[2:]:
        if line.startswith("#"):
            break
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif rows:
            break
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
