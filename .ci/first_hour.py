"""Plays docs/first-hour.md from its text, as somebody does who has only the wheel: `make first-hour` (minutes).

Builds the sdist and the wheel and looks into them; then, in an empty folder, carries out every block of the page in its
order, in the environments that the page makes. At the end the answers of the exported files, which the cards gave in
environments without this program, are compared with those of `classroomkd predict`.

Settings: TORCH, what `pip install` is given for torch (the Makefile's); FIRST_HOUR, a folder to keep.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

import documents  # noqa: E402
from documents import Block  # noqa: E402

PAGE = ROOT / "docs" / "first-hour.md"
FROM_GIT = f"classroomkd[vision,onnx] @ git+{documents.PROJECT}"
TORCH = os.environ.get("TORCH", "torch==2.13.0")
SHIPPED = ("recipes/smoke.yaml", "recipes/own-images.yaml", "recipes/recipe.schema.json", "examples/own_modules.py")
TOLERANCE = 1e-4  # of a probability: predict writes six digits
PIXELS = 0.05  # of a joint: both round


def main() -> int:
    """Everything, in order; the exit code."""
    start = time.monotonic()
    kept = os.environ.get("FIRST_HOUR")
    work = Path(kept) if kept else Path(tempfile.mkdtemp(prefix="first-hour-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        wheel = build(work / "built")
        desk = work / "desk"
        desk.mkdir()
        for block in documents.blocks(PAGE):
            print(f"--- {block} ({time.monotonic() - start:.0f} s)", flush=True)
            play(block, desk, wheel)
        compare_classes(desk)
        compare_joints(desk)
    finally:
        if not kept:
            shutil.rmtree(work, ignore_errors=True)
    print(f"the first hour works ({time.monotonic() - start:.0f} s)")
    return 0


def run(words: list[str], folder: Path, **env: str) -> str:
    """Run a program, and give back what it prints; stops with all it said where it fails."""
    outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    whole = {**outside, "OMP_WAIT_POLICY": "PASSIVE", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **env}
    done = subprocess.run(words, cwd=folder, env=whole, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(words)[:300]} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


# --- the wheel --------------------------------------------------------------------------------------------------------


def build(place: Path) -> Path:
    """The wheel, built from the sdist, which is built from the files of the checkout; both hold what they should."""
    copy, env = place / "source", place / "env"
    listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    run([sys.executable, "-m", "venv", str(env)], place)
    run([str(env / "bin" / "pip"), "install", "-q", "build"], place)
    run([str(env / "bin" / "python"), "-m", "build", "-o", str(place / "dist"), str(copy)], place)
    (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    recipes = {name for name in listed if name.startswith(("recipes/", "examples/"))}
    assert recipes >= set(SHIPPED)
    assert {f"classroomkd/shipped/{name}" for name in recipes} <= inside, "the wheel lacks recipes or examples"
    assert recipes | {"setup.py", "constraints.txt", "docs/first-hour.md"} <= source, "the sdist is not whole"
    assert not [name for name in inside if "/tests/" in name or "__pycache__" in name]
    print(f"{wheel.name}: {len(inside)} files, {wheel.stat().st_size / 1e6:.1f} MB; {sdist.name}: {len(source)} files")
    return wheel


# --- the page ---------------------------------------------------------------------------------------------------------


def play(block: Block, desk: Path, wheel: Path) -> None:
    """Carry out one block in the desk's folder."""
    bin_ = desk / ".venv" / "bin"
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    if block.said.startswith("into "):
        documents.put_into(desk / block.said.removeprefix("into "), block.text)
    elif block.language == "python":
        run([str(bin_ / "python"), "-c", block.text], desk)
    elif block.language == "sh":
        text = block.text.replace(FROM_GIT, f"{wheel}[vision,onnx]").replace(
            "pip install torch==2.13.0 ", f"pip install {TORCH} "
        )
        assert wheel.name in text or "git+" not in text
        text = re.sub(r"\bpip install ", "pip install -q ", text).replace(
            "python3 -m venv", f"{sys.executable} -m venv"
        )
        text = re.sub(
            r"^(\S+)/bin/pip install .*torchvision.*$",
            lambda found: f"{found[0]}\n{sys.executable} {__file__} --declare {found[1]}",
            text, flags=re.MULTILINE,
        )  # fmt: skip
        said = run(["bash", "-euo", "pipefail", "-c", text], desk, PATH=path)
        print("".join(f"    {line}\n" for line in said.splitlines()[-12:]), end="")
    else:
        raise SystemExit(f"{block}: what is to be done with '{block.language}'?")


def declare(env: Path) -> None:
    """Mend an environment whose torchvision was built for CUDA and whose torch was not, as docs/install.md says.

    A registry without download.pytorch.org has no other torchvision; somebody with it gets one that fits.
    """
    python = env / "bin" / "python"
    tried = subprocess.run([python, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return
    assert "operator torchvision::nms does not exist" in tried.stderr, tried.stderr[-2000:]
    print("this registry's torchvision is built for CUDA: its two missing operators are declared")
    place = run([str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], env).strip()
    (Path(place) / "sitecustomize.py").write_text(
        "import torch\n\n_library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "for _name in ('nms', 'qnms'):\n"
        "    _library.define(f'{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
    )


# --- the answers ------------------------------------------------------------------------------------------------------


def asked(desk: Path, folder: str, script: str, photo: str, answer: str) -> object:
    """What the lines of a card answer about another picture, or several, in the environment that the page made."""
    place = desk / folder
    text = (place / script).read_text()
    assert '"photo.jpg"' in text
    lines = text.replace('"photo.jpg"', photo).splitlines()[:-1]  # the last is the page's own print
    (place / "again.py").write_text("\n".join([*lines, "import json", f"print(json.dumps({answer}))"]) + "\n")
    return json.loads(
        run([str(desk / folder.partition("/")[0] / "env" / "bin" / "python"), "again.py"], place).splitlines()[-1]
    )


def compare_classes(desk: Path) -> None:
    """The exported files' answers are those of predict, for every picture."""
    with (desk / "classes.csv").open() as file:
        predicted = list(csv.DictReader(file))
    assert len(predicted) == 16, predicted
    files = ", ".join(json.dumps(str(desk / row["file"])) for row in predicted)
    right = sum(Path(row["file"]).parent.name == row["class"] for row in predicted)
    for folder in ("with-timm", "with-onnx"):
        names, best = asked(desk, folder, "ask.py", files, "[list(names), probabilities.max(1).tolist()]")
        assert names == [row["class"] for row in predicted], folder
        worst = max(abs(p - float(row["probability"])) for p, row in zip(best, predicted, strict=True))
        assert worst < TOLERANCE, f"{folder}: probabilities differ by {worst}"
        print(f"{folder}: {len(names)} pictures, the classes of predict, probabilities to {worst:.1e}")
    assert right >= 8, f"only {right} of 16 pictures are named rightly: the student has learned nothing"


def compare_joints(desk: Path) -> None:
    """The exported graph's joints are those of predict, for every person, as far as either is sure of them."""
    predicted = json.loads((desk / "joints.json").read_text())
    pictures = sorted((desk / "people" / "val2017").glob("*.png"))
    assert len(predicted) == len(pictures) == 12
    worst, count = 0.0, 0
    for picture in pictures:
        (theirs,) = [row for row in predicted if str(row["image_id"]).lstrip("0") == picture.stem.lstrip("0")]
        (joints,) = asked(desk, "with-onnx", "ask_pose.py", json.dumps(str(picture)), "joints.tolist()")
        flat = theirs["keypoints"]
        for joint, (x, y, score) in enumerate(joints):
            if score > 0.05 and abs(score - flat[3 * joint + 2]) < 0.01:
                worst = max(worst, abs(x - flat[3 * joint]), abs(y - flat[3 * joint + 1]))
                count += 1
    assert count > 6 * len(pictures), f"{count} joints could be compared"
    assert worst < PIXELS, f"joints differ by {worst} pixels"
    print(f"with-onnx: {count} joints of {len(pictures)} people, those of predict to {worst:.3f} pixels")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--declare"]:
        declare(Path(sys.argv[2]).absolute())
        sys.exit(0)
    sys.exit(main())
