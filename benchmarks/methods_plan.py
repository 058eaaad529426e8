"""What ``methods.py`` trains, and in which order: the arms of the tables, their tuning, and what is there already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from classroomkd import methods
from classroomkd.errors import UserError
from classroomkd.recipe import Recipe, load_recipe

HERE = Path(__file__).parent
VALUES = {"temperature": (2, 4, 8), "tau": (2, 4, 12), "lr": (0.025, 0.05, 0.1)}
FACTORS = (0.1, 1, 10)  # of the default, for the other knobs
TUNING_SEED, TUNING_EPOCHS, AT_ONCE = 100, 2, 6
Entry = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """A row of the table.

    ``knob`` is the option that is tuned, of the last entry; ``a+b`` are two that are scaled together. ``total`` is what
    the native weights sum to over the mentors: ``one`` (matched is the same), ``other`` (matched is trained too), or
    ``""`` (no weights over mentors). ``changes`` to the recipe put it into run folders of its own.
    """

    name: str  # letters, digits and single blanks
    entries: tuple[Entry, ...]
    knob: str = "temperature"
    total: str = ""
    changes: tuple[str, ...] = ()
    strength: str = "native"

    @property
    def label(self) -> str:
        return self.name if self.strength == "native" else f"{self.name} {self.strength}"

    @property
    def versions(self) -> dict[str, int]:
        """Its methods' versions by name."""
        table = methods.entries()
        return {entry["name"]: table[entry["name"]].version for entry in self.entries}

    @property
    def stored(self) -> str:
        """What its students are stored under: the label, and from version 2 on the methods' versions, so that
        students of an older rule are not taken for today's."""
        versions = list(self.versions.values())
        return self.label if max(versions) == 1 else f"{self.label} v{'v'.join(map(str, versions))}"

    def candidates(self) -> list[Entry]:
        """The values of the knob that are tried, as options."""
        if self.knob in VALUES:
            return [{self.knob: value} for value in VALUES[self.knob]]
        last, keys = self.entries[-1], self.knob.split("+")
        fields = methods.options_model(last["name"]).model_fields
        if unknown := [key for key in keys if key not in fields]:
            raise UserError(f"method '{last['name']}' has no option '{unknown[0]}' to tune")
        return [{key: float(f"{f * last.get(key, fields[key].default):g}") for key in keys} for f in FACTORS]

    def spec(self, options: Entry, label: str) -> list[Entry]:
        """What a recipe's grid holds for it."""
        matched = {} if self.strength == "native" else {"strength": self.strength}
        filled = [{**entry, **matched} for entry in self.entries]
        filled[-1] |= options
        filled[0]["label"] = label
        return filled


def _arm(name: str, knob: str = "temperature", total: str = "", **options: Any) -> Arm:
    return Arm(name, ({"name": name.split()[0], **options},), knob, total)


_CHAIN = [
    {"name": "resnet20", "model": "resnet20", "train": {"epochs": 30}},
    {"name": "resnet14", "model": "resnet14", "train": {"epochs": 10}, "taught_by": "resnet20"},
]
ALONE = _arm("none", "lr")
_NATIVE: tuple[Arm, ...] = (  # the most important first
    _arm("average", total="one"),
    _arm("classroomkd sample", "tau", "other", rule="sample"),
    _arm("mmkd paper", "feature_weight", "one", rule="paper"),
    _arm("camkd paper", "feature_weight", "one", rule="paper"),
    _arm("kd best", total="other"),
    _arm("ebkd paper", total="one", rule="paper"),
    _arm("aekd paper", total="other", rule="paper"),
    _arm("amtml paper", total="one", rule="paper"),
    _arm("fitnet", "weight"),
    _arm("dkd", total="one"),
    _arm("dist", total="other"),
    _arm("at", "weight"),
    _arm("classroomkd batch", "tau", "other", rule="batch"),
    _arm("classroomkd rank", "tau", "other", rule="rank"),
    _arm("crd", "weight"),
    _arm("rkd", "weight"),
    _arm("sp", "weight"),
    _arm("dtkd", total="one"),
    _arm("average with hints", "feature_weight", "one", feature_weight=100.0),
    _arm("random", total="one"),
    _arm("mmkd reference", "feature_weight", "one", rule="reference"),
    _arm("camkd reference", "feature_weight", "other", rule="reference"),
    _arm("ebkd reference", total="other", rule="reference"),
    _arm("aekd reference", total="one", rule="reference"),
    _arm("aekd mgda", total="one", rule="mgda"),
    _arm("amtml reference", total="other", rule="reference"),
    _arm("aekd features", "feature_weight", "other", features=True),
    _arm("camkd with dist", "feature_weight", "one", divergence="dist"),
    Arm("classroomkd with at", ({"name": "classroomkd"}, {"name": "at"}), "weight", "other"),
    # Mentors of its own: an assistant between a large mentor and the student.
    replace(_arm("takd", total="other"), changes=(f"mentors={json.dumps(_CHAIN)}",)),
)
ARMS = (*_NATIVE, *(replace(arm, strength="matched") for arm in _NATIVE if arm.total == "other"))


@dataclass(frozen=True)
class Batch:
    """Students of one run folder: every (arm, label, options) with every seed."""

    folder: str
    seeds: tuple[int, ...]
    students: tuple[tuple[Arm, str, Entry], ...]
    changes: tuple[str, ...] = ()


@dataclass
class Bench:
    """What is in the benchmark's folder, and how a recipe for more of it is made."""

    out: Path
    source: str = ""
    quick: tuple[str, ...] = ()
    troubles: dict[str, str] = field(default_factory=dict)  # label -> why it cannot be trained in this sitting

    def recipe(self, grid: Sequence[Any], *changes: str) -> Recipe:
        """The base recipe with these arms."""
        source = [f"data.source={self.source}"] if self.source else []
        own = [f"methods={json.dumps(list(grid))}", f"cache={self.out / 'cache'}"]
        return load_recipe(HERE / "methods.yaml", [*source, *self.quick, *own, *changes])

    def entries(self, folder: str, label: str) -> dict[int, Entry]:
        """Finished students by seed."""
        files = (self.out / folder / label.replace(" ", "-")).glob("seed*/entry.json")
        return dict(sorted((int(f.parent.name[4:]), json.loads(f.read_text())) for f in files))

    def options(self, folder: str, label: str) -> list[list[Any]] | None:
        """``[[method, options], ...]`` that an arm's students were trained with; a version above 1 is a third."""
        file = self.out / folder / label.replace(" ", "-") / "arm.json"
        return json.loads(file.read_text()) if file.exists() else None

    def about(self) -> dict[str, Any]:
        """Machine, data and mentors, as the last run with mentors saw them."""
        made: dict[str, Any] = {}
        for folder in ("tune", "students"):
            if not (self.out / folder / "summary.json").exists():
                continue
            summary = json.loads((self.out / folder / "summary.json").read_text())
            environment = json.loads((self.out / folder / "environment.json").read_text())
            keys = ("name", "model", "accuracy", "val_accuracy", "parameters", "samples")
            made = {
                "environment": {k: v for k, v in environment.items() if k != "command"},
                "data": {k: summary["data"][k] for k in ("name", "student_train", "val", "test")},
                "student": summary["student"],
                "mentors": [{k: m[k] for k in keys} for m in summary["mentors"]] or made.get("mentors", []),
                "answer_seconds": sum(m["answer_seconds"] for m in summary["mentors"]),
            }
        return made

    def failures(self) -> dict[str, str]:
        """``folder/label/seed`` -> why that student could not be finished; it is not tried again."""
        file = self.out / "failures.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def missing(self, batch: Batch) -> list[tuple[Arm, str, Entry]]:
        """Students of a batch with a seed that is neither there nor known to fail."""
        failed = self.failures()

        def lacks(label: str) -> bool:
            there = self.entries(batch.folder, label)
            return any(s not in there and f"{batch.folder}/{label}/{s}" not in failed for s in batch.seeds)

        return [s for s in batch.students if s[1] not in self.troubles and lacks(s[1])]

    def chosen(self, arm: Arm) -> int | None:
        """Place of the candidate that is best on the validation part; None where none was finished."""
        scores = [self.entries(*tuned(arm, i)).get(TUNING_SEED, {}).get("val_last") for i in range(3)]
        known = [i for i, score in enumerate(scores) if score is not None]
        return max(known, key=lambda i: scores[i]) if known else None

    def dearest(self, arms: Sequence[Arm]) -> tuple[float, str] | None:
        """The largest step cost over the student alone among native arms, from their tuning, and whose it is."""
        costs = []
        for arm in (arm for arm in arms if arm.strength == "native"):
            found = [e["cost_ratio"] for i in range(3) for e in self.entries(*tuned(arm, i)).values()]
            costs += [(sorted(found)[len(found) // 2], arm.label)] if found else []
        return max(costs, default=None)


def place(stage: str, arm: Arm) -> str:
    """The run folder of an arm's students; recipes that differ in more than methods have their own."""
    return f"{stage}-{arm.name.replace(' ', '-')}" if arm.changes else stage


def tuned(arm: Arm, i: int) -> tuple[str, str]:
    """Folder and label of a candidate."""
    if arm.name == ALONE.name:
        return f"tune-none-{VALUES['lr'][i]}", "none"
    return place("tune", arm), f"{arm.stored} {i}"


def longer(rate: float, epochs: int) -> str:
    return f"none-{rate}-epochs{epochs}"


def plan(
    bench: Bench, arms: Sequence[Arm], seeds: Sequence[int], epochs: int, alone: bool = True, size: int = AT_ONCE
) -> Iterator[Batch]:
    """What to train, in order; asks for the next batch only when the last one is there (choices depend on it)."""
    short = f"train.epochs={min(TUNING_EPOCHS, epochs)}"
    every, only = tuple(seeds), ((ALONE, "none", {}),)
    rate: float | None = None
    if alone:
        for i, lr in enumerate(VALUES["lr"]):
            yield Batch(tuned(ALONE, i)[0], (TUNING_SEED,), only, (f"train.lr={lr}", short))
        if (best := bench.chosen(ALONE)) is not None:
            rate = VALUES["lr"][best]
            yield Batch(f"none-{rate}", every, only, (f"train.lr={rate}",))
    for strength in ("native", "matched"):
        table = [arm for arm in arms if arm.strength == strength]
        for seed in seeds:
            for group in _groups(table, size):
                changes = group[0].changes
                tries = [
                    (arm, tuned(arm, i)[1], c)
                    for arm in group
                    if arm.label not in bench.troubles
                    for i, c in enumerate(arm.candidates())
                ]
                for start in range(0, len(tries), size):
                    some = tuple(tries[start : start + size])
                    yield Batch(place("tune", group[0]), (TUNING_SEED,), some, (*changes, short))
                ready = [(arm, best) for arm in group if (best := bench.chosen(arm)) is not None]
                students = tuple((arm, arm.stored, arm.candidates()[best]) for arm, best in ready)
                yield Batch(place("students", group[0]), (seed,), students, changes)
        if strength == "native" and rate is not None and (top := bench.dearest(ARMS)):
            more = round(epochs * top[0])
            yield Batch(longer(rate, more), every, only, (f"train.lr={rate}", f"train.epochs={more}"))


def _groups(arms: Sequence[Arm], size: int) -> Iterator[list[Arm]]:
    """Neighbours that fit into one run."""
    group: list[Arm] = []
    for arm in arms:
        if group and (len(group) == size or arm.changes != group[0].changes):
            yield group
            group = []
        group.append(arm)
    if group:
        yield group
