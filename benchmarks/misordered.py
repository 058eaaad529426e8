"""A folder of photographs' size and a mentor whose classes are shuffled: who trains there, and who diverges.

    python benchmarks/misordered.py [--out DIR] [--seeds 0,1,2,3,4] [--epochs 8] [--lr 0.05] [--bound 0]

Eight classes of 150 drawn figures as files, a timm student (mobilenetv3_small_050), three mentors of which one has its
classes in another order. Every arm at the default rate, without a warm-up of the rate. Prints for each arm how many
seeds diverged (stopped, or ended at chance) and the test accuracy of the last weights, and writes that to
DIR/misordered.json. Takes up where it was cut.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classroomkd.cli.run import carry_out
from classroomkd.data import puppets
from classroomkd.errors import RunStopped
from classroomkd.recipe import make_recipe

CLASSES, EACH, SIDE = 8, 150, 48
MENTORS = ("convnet8", "dwnet16", "convnet16")
ARMS: list[Any] = [
    "none",
    "average",
    {"name": "classroomkd", "label": "classroomkd sample"},
    {"name": "classroomkd", "rule": "batch", "label": "classroomkd batch"},
]


def draw(folder: Path) -> None:
    """A sub-folder a class, ``EACH`` pictures in each."""
    names, random = puppets.CLASSES[:CLASSES], np.random.default_rng(5)
    found = puppets.scenes(5, np.arange(EACH * len(puppets.CLASSES)), image_size=SIDE, hard=0.3)
    tints = random.uniform(-1, 1, (CLASSES, 3))
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(found.images[found.labels == place]):
            # A class has a light of its own, which varies: a network that is new to pictures finds it in few epochs.
            lit = image.transpose(1, 2, 0) + 40 * (tints[place] + random.normal(0, 0.4, 3))
            Image.fromarray(lit.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i:03d}.png")


def recipe(out: Path, mentors: list[Any], methods: list[Any], **more: Any) -> Any:
    return make_recipe(
        {
            "name": "misordered",
            "data": {"source": f"imagefolder:{out / 'pictures'}", "size": SIDE, "views": "crop"},
            "student": "timm:mobilenetv3_small_050",
            "mentors": mentors,
            "methods": methods,
            "mentor_train": {"epochs": 12, "batch_size": 32, "optimizer": "adamw", "lr": 5e-3, "schedule": "cosine"},
            "bank": "views=4",
            "cache": str(out / "cache"),
            "device": "cpu",
            "workers": 1,
            "threads": 1,
            "check_mentors": "off",
            **more,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "misordered")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--bound", type=float, help="of classroomkd with native weights; 0: without, as in version 1")
    given = parser.parse_args()
    out, seeds = given.out.resolve(), [int(s) for s in given.seeds.split(",")]
    if not (out / "pictures").exists():
        draw(out / "pictures")
    names = sorted(puppets.CLASSES[:CLASSES])
    alone = recipe(out, list(MENTORS), ["average"], train={"epochs": 1, "schedule": "constant"})
    trained = carry_out(alone, out / "mentors", resume=(out / "mentors").exists(), quiet=True).summary["mentors"]
    mentors = [{"name": m["name"], "model": m["model"], "checkpoint": m["weights"]} for m in trained]
    mentors[-1] |= {"name": "shuffled", "classes": [*names[3:], *names[:3]]}
    rows = []
    arms = list(ARMS)
    if given.bound is not None:
        native = {"normalise": "native", "floor": 1}  # as in versions 1 and 2, whose weights sum to more than 1
        arms[2] = {**arms[2], **native, "bound": given.bound, "label": f"classroomkd sample, bound {given.bound:g}"}
    for place, arm in enumerate(arms):
        made = recipe(
            out,
            mentors,
            [arm],
            seeds=seeds,
            train={"epochs": given.epochs, "batch_size": 32, "lr": given.lr, "schedule": "cosine", "log_every": 5},
        )
        bound = f"-bound{given.bound:g}" if arm is not ARMS[place] else ""
        folder = out / f"arm{place}-{given.epochs}-{given.lr}{bound}"
        done = carry_out(made, folder, resume=folder.exists(), quiet=True)
        scores = {e["seed"]: e["test_last"] for e in done.summary["entries"]}
        at_chance = [s for s, score in scores.items() if score < 1.5 / CLASSES]
        rows.append(
            {
                "arm": arm if isinstance(arm, str) else arm["label"],
                "seeds": seeds,
                "diverged": len(at_chance) + len(done.failures),
                "test": [round(scores.get(s, float("nan")), 4) for s in seeds],
                "failures": done.failures,
            }
        )
        print(rows[-1], flush=True)
    shown = {"mentors": [(m["name"], m["accuracy"]) for m in done.summary["mentors"]], "rows": rows}
    (out / "misordered.json").write_text(json.dumps(shown, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except RunStopped as error:
        raise SystemExit(str(error)) from error
