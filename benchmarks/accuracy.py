"""What a bank does to accuracy: ``views=8`` and ``exact`` against mentors online, on a CIFAR-100 part; row 12.

    python benchmarks/accuracy.py --data DIR                   # DIR holds CIFAR-100; hours; can be cut, goes on there
    python benchmarks/accuracy.py --data DIR --minutes 60 --banks "exact,views=8"
    python benchmarks/accuracy.py --data DIR --banks "views=8,views=8,top=5,views=8,top=2"    # what top-k costs
    python benchmarks/accuracy.py --smoke                      # does it run?

The setting of ``methods.yaml`` (20 classes, resnet8, four mentors) on a quarter of its images and with more epochs: a
bank of eight views differs from online training only once views come again, so there must be many times eight. Accuracy
of the last weights, paired by seed: the same first weights, the same order of samples. It is judged on the 2,000 test
images and on the 7,500 images of these classes that the limit left out, which neither student nor mentors have seen.

``exact`` shows the views of online training and teaches with the same answers, rounded to half precision (steps whose
online answers are rounded too are identical to the bit: row 12's second figure). So ``views=8`` is compared with both;
while online training, which is four times dearer, has fewer seeds, the row is that against ``exact``. Two seeds at a
time are finished in all settings of ``--banks``. How many seeds was fixed at 30 after the first four. Two more
settings keep 5 and 2 of the 20 logits of every answer, for ``docs/scale.md``. Writes ``results/accuracy.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from classroomkd import bank, data
from classroomkd._files import atomic_write_text
from classroomkd.cli.run import carry_out
from classroomkd.data import Part
from classroomkd.errors import UserError
from classroomkd.export.student import load_student
from classroomkd.recipe import load_recipe
from classroomkd.report import paired, spread
from classroomkd.train.inputs import Inputs
from classroomkd.train.scoring import answers

HERE = Path(__file__).resolve().parent
BANKS = ("exact", "views=8", "off")
TOPS = ("views=8,top=5", "views=8,top=2")
TRIED = "views=8"
SCORE = "unseen.json"
SMOKE = (
    'data={"source": "puppets", "options": {"train": 200, "test": 100}}',
    "data.limit=150",
    'mentors=[{"name": "big", "model": "resnet8"}, {"name": "wide", "model": "convnet4"}]',
    "mentor_train.epochs=1",
    "check_mentors=off",
    "workers=1",
)


def named(banks: str) -> list[str]:
    """The settings of ``--banks``; a comma before ``top`` belongs to one."""
    return [said.strip() for said in re.split(r",(?!top=)", banks)]


def finished(out: Path, setting: str, method: str) -> dict[int, Path]:
    """The folders of the finished students of one setting, by seed."""
    folders = [file.parent for file in (out / setting / method).glob("seed*/entry.json")]
    return dict(sorted((int(folder.name.removeprefix("seed")), folder) for folder in folders))


def unseen(recipe: Path) -> list[Part]:
    """The test part, and what ``data.limit`` left out of the two parts that a run trains and chooses on."""
    spec = load_recipe(str(recipe)).data
    some, all_ = data.load(spec), data.load(load_recipe(str(recipe), ["data.limit=null"]).data)
    seen = torch.cat([some.train.ids, some.val.ids])
    spare = [part.subset((~torch.isin(part.ids, seen)).nonzero().flatten()) for part in (all_.train, all_.val)]
    return [some.test, *(part for part in spare if len(part))]


def judge(out: Path, method: str) -> None:
    """Score the finished students that have no ``unseen.json`` yet, on what no one was taught on."""
    for setting in (*BANKS, *TOPS):
        todo = [folder for folder in finished(out, setting, method).values() if not (folder / SCORE).exists()]
        parts = unseen(out / setting / "recipe.yaml") if todo else []
        for folder in todo:
            student = load_student(folder / "student.safetensors")
            inputs = Inputs(student.mean, student.std, torch.device("cpu"))
            told = [answers(student.module, part, inputs) for part in parts]
            right = sum(int((logits.argmax(1) == target).sum()) for logits, target in told)
            images = sum(map(len, parts))
            atomic_write_text(folder / SCORE, json.dumps({"accuracy": right / images, "images": images}) + "\n")


def scores(out: Path, setting: str, method: str) -> dict[int, float]:
    """Accuracy by seed of the students of one setting that were judged."""
    files = {seed: folder / SCORE for seed, folder in finished(out, setting, method).items()}
    return {seed: json.loads(file.read_text())["accuracy"] for seed, file in files.items() if file.exists()}


def left_out(out: Path, setting: str) -> float | None:
    """The mean probability at T = 1 outside the kept logits, over the mentors' stores of a setting with ``top``."""
    form = f"top-{setting.rpartition('=')[2]} of "
    found = [about for about in map(bank.info, bank.stores(out / "cache" / "bank")) if about.codec.startswith(form)]
    shares = [about.left_out for about in found if about.left_out is not None]
    return statistics.fmean(shares) if shares else None


def collect(out: Path, method: str) -> dict[str, Any]:
    """The content of the results file, from what is in the folder."""
    found = {setting: scores(out, setting, method) for setting in (*BANKS, *TOPS)}
    files = [out / setting / "recipe.yaml" for setting in found]
    trained = [load_recipe(str(file)) for file in files if file.exists()]
    rows: dict[str, dict[str, Any]] = {}
    differences = {}
    for setting, by_seed in found.items():
        about = spread(by_seed.values())
        told = {str(seed): accuracy for seed, accuracy in by_seed.items()}
        rows[setting] = {"n": about.n, "mean": about.mean, "sd": about.sd, "accuracy": told}
    for setting in TOPS:
        rows[setting]["left_out"] = left_out(out, setting)
    for setting, base in ((TRIED, "off"), (TRIED, "exact"), ("exact", "off"), *((top, TRIED) for top in TOPS)):
        gap = paired(found[setting], found[base])
        differences[f"{setting} less {base}"] = {"n": gap.n, "mean": gap.mean, "low": gap.low, "high": gap.high}
    return {
        "command": "python benchmarks/accuracy.py --data DIR",
        "method": method,
        "epochs": sorted({recipe.train.epochs for recipe in trained}),
        "images": sorted({recipe.data.limit or 0 for recipe in trained}),
        "judged_on": sorted({json.loads(file.read_text())["images"] for file in out.glob(f"*/{method}/seed*/{SCORE}")}),
        "rows": rows,
        "differences": differences,
    }


def teach(out: Path, setting: str, seeds: Sequence[int], words: Sequence[str]) -> None:
    """Train what is missing of some seeds in one setting."""
    recipe = load_recipe(str(HERE / "methods.yaml"), [*words, f"bank={setting}", f"seeds={list(seeds)}"])
    folder = out / setting
    outcome = carry_out(recipe, folder, resume=folder.exists())
    for failure in outcome.failures:
        print(f"{setting}: {failure}", file=sys.stderr)


def main(words: list[str] | None = None) -> None:
    """Seed by seed, all settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of CIFAR-100")
    parser.add_argument("--out", type=Path, help="where students, mentors and answers are kept; runs/accuracy")
    parser.add_argument("--method", default="classroomkd")
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--images", type=int, default=2500, help="to train and validate on, by class alike; 2500")
    parser.add_argument("--banks", default=",".join(BANKS), help="by comma; the three without top")
    parser.add_argument("--seeds", default=",".join(map(str, range(30))), help="by comma; 0 to 29")
    parser.add_argument("--minutes", type=float, help="start nothing new after so long")
    parser.add_argument("--collect", action="store_true", help="write the results file and train nothing")
    parser.add_argument("--smoke", action="store_true", help="drawn images, two epochs: does it run?")
    given = parser.parse_args(words)
    if not given.smoke and not given.data and not given.collect:
        parser.error("--data is needed")
    out = given.out or HERE.parent / "runs" / ("accuracy-smoke" if given.smoke else "accuracy")
    epochs = 2 if given.smoke else given.epochs
    source = list(SMOKE) if given.smoke else [f"data.source=cifar100:{given.data}", f"data.limit={given.images}"]
    changes = [*source, f"methods=[{given.method}]", f"train.epochs={epochs}", f"cache={out / 'cache'}"]
    file = (out if given.smoke or given.out else HERE / "results") / "accuracy.json"
    out.mkdir(parents=True, exist_ok=True)
    started, seeds = time.monotonic(), [int(seed) for seed in given.seeds.split(",")]
    try:
        for start in range(0, 0 if given.collect else len(seeds), 2):
            pair = seeds[start : start + 2]  # two cores
            for setting in named(given.banks):
                lacking = [seed for seed in pair if seed not in finished(out, setting, given.method)]
                spent = (time.monotonic() - started) / 60
                if not lacking or (given.minutes is not None and spent > given.minutes):
                    continue
                print(f"[{spent:.0f} min] bank={setting}, seeds {lacking}", file=sys.stderr, flush=True)
                teach(out, setting, lacking, changes)
    except UserError as error:
        sys.exit(f"error: {error}")
    finally:
        judge(out, given.method)
        file.parent.mkdir(exist_ok=True)
        made = collect(out, given.method)
        atomic_write_text(file, json.dumps(made, indent=1) + "\n")
    for which, gap in made["differences"].items():
        if gap["low"] is not None:
            low, mean, high = (100 * gap[key] for key in ("low", "mean", "high"))
            print(f"{which}: {mean:+.2f} [{low:+.2f}, {high:+.2f}] points, n = {gap['n']}")


if __name__ == "__main__":
    main()
