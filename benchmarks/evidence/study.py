"""What a study is: data, student, mentors, arms, tuning budget, seeds, and what it is to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from classroomkd import methods
from classroomkd.errors import UserError, did_you_mean

__all__ = ["Arm", "Mentor", "Panel", "Study", "Tune", "load_study", "study_names"]

Options = Mapping[str, Any]

# Candidates of what is tuned, by its name; other options are tried at a tenth, at one and at ten times their default.
VALUES: dict[str, tuple[Any, ...]] = {
    "temperature": (1, 2, 4),
    "tau": (1, 3, 12),
    "train.weight_decay": (2e-4, 5e-4, 2e-3),
}
FACTORS = (0.1, 1, 10)


@dataclass(frozen=True)
class Mentor:
    """A mentor that the bench trains once, from labels alone.

    Args:
        name: in recipes and tables.
        model: of the zoo.
        data, train: of the recipe it is trained by, as a student alone.
        shuffled: its classes are named in another order than it learned them: sure of itself, and wrong.
        taught_by: the mentor it is an assistant of; the run trains it then, as ``data`` and ``train`` of the study say.
        recipe: more keys of the recipe it is trained by, such as ``task``.
        made_from: the stage of an arm whose networks, frozen, it is; nobody trains it beforehand.
    """

    name: str
    model: str
    data: Options
    train: Options
    shuffled: bool = False
    taught_by: str = ""
    recipe: Options = field(default_factory=dict)
    made_from: str = ""


@dataclass(frozen=True)
class Arm:
    """A row of the tables.

    Args:
        name: in tables.
        entries: methods of the recipe's grid; several are added up. One with ``stages`` in place of a name is trained
            in stages, whose methods are mappings. Empty: the student alone.
        knob: what is tuned: an option of the last entry (``a+b``: two that are scaled together), or a key of the recipe
            with a dot (``train.lr``). Empty: nothing, the defaults are taken.
        values: its candidates; empty: those of ``VALUES``, or ``FACTORS`` times the default.
        changes: keys of the recipe with a dot that this arm has of its own.
        mentors: names of the mentors it takes; None: the study's.
        assistants: it takes the assistants of its mentors, too; the run trains them, on the student's data.
        tuned_as: the arm whose choice it takes over, in a panel that takes over its choices; empty: its own name.
    """

    name: str
    entries: tuple[Options, ...] = ()
    knob: str = "temperature"
    values: tuple[Any, ...] = ()
    changes: Options = field(default_factory=dict)
    mentors: tuple[str, ...] | None = None
    assistants: bool = False
    tuned_as: str = ""

    @property
    def alone(self) -> bool:
        """Whether nobody teaches."""
        return all(entry.get("name") == "none" for entry in self.entries)

    @property
    def grid(self) -> tuple[Options, ...]:
        """Its methods; ``none`` for the student alone."""
        return self.entries or ({"name": "none"},)

    def candidates(self) -> tuple[Options, ...]:
        """The values of the knob, as options or keys; one empty mapping where nothing is tuned."""
        if not self.knob:
            return ({},)
        keys = self.knob.split("+")
        if self.values or self.knob in VALUES:
            return tuple(dict.fromkeys(keys, value) for value in self.values or VALUES[self.knob])
        last = self.grid[-1]
        known = methods.defaults(last["name"])
        if unknown := [key for key in keys if key not in known]:
            raise UserError(f"arm '{self.name}': method '{last['name']}' has no option '{unknown[0]}' to tune")
        return tuple({key: float(f"{f * last.get(key, known[key]):g}") for key in keys} for f in FACTORS)

    def set(self, chosen: Options) -> Arm:
        """This arm with a candidate in it, and nothing left to tune; a rate of its own stays."""
        options = {key: value for key, value in chosen.items() if "." not in key}
        changes = {
            key: v for key, v in chosen.items() if "." in key and (key, key in self.changes) != ("train.lr", True)
        }
        entries = (*self.grid[:-1], {**self.grid[-1], **options})
        return replace(self, entries=entries, knob="", values=(), changes={**self.changes, **changes})


DEFAULTS = "-"


@dataclass(frozen=True)
class Panel:
    """A table of a study: the same arms under other conditions.

    Args:
        name: letters, digits and minus.
        title: what stands over its table.
        changes: keys of the recipe with a dot, which differ from the study's.
        mentors: in place of the study's.
        tuned: the panel whose choices are taken over (``PANEL``, or ``STUDY/PANEL``); ``DEFAULTS``: nothing is chosen,
            every arm is at its defaults and at the study's rate; empty: its own choices are made.
        curve: shares of the epochs for which the student alone is trained, too. The table is converged where it gains
            less than 0.3 points from 1 to 1.5.
        arms: names of those it has, the student alone among them; None: all of the study.
        alone: keys with a dot that the student alone has of its own: the labelled images without the others.
    """

    name: str
    title: str
    changes: Options = field(default_factory=dict)
    mentors: tuple[str, ...] | None = None
    tuned: str = ""
    curve: tuple[float, ...] = (0.5, 1.5, 3)
    arms: tuple[str, ...] | None = None
    alone: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Tune:
    """The tuning budget, the same for every arm: candidates in ``Arm.candidates``, chosen on the validation part.

    Args:
        seeds: that are used for nothing else.
        rates: learning rates that the student alone tries first; the best is everybody's.
    """

    seeds: tuple[int, ...] = (100, 101)
    rates: tuple[float, ...] = (0.02, 0.05, 0.1)


Judge = Callable[[Path, Any], Mapping[str, Any]]
Summary = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class Study:
    """One question, and the trainings that answer it.

    Args:
        title: over its section.
        answers: the question, and what would answer it which way.
        data: the recipe's ``data:``; the source without its folder, or with the place within the folder of all data
            after a colon (``fashion-mnist:fashion-mnist``).
        student: the recipe's ``student:``.
        mentors: names in ``mentors.MENTORS``.
        arms: rows; the first is the student alone.
        train: the recipe's ``train:``.
        panels: tables.
        tune: the tuning budget; None: every arm at its defaults, and the study's own rate.
        seeds: of every arm; paired.
        recipe: more keys of the recipe.
        base: the arm that others are compared with beside the student alone; empty: none.
        judge: more scores of a finished student, from its folder and recipe.
        summary: paragraphs under the study's tables, from the tables by panel.
        order: its place in the queue; smaller is sooner.
    """

    title: str
    answers: str
    data: Options
    student: Any
    mentors: tuple[str, ...]
    arms: tuple[Arm, ...]
    train: Options
    panels: tuple[Panel, ...]
    tune: Tune | None = field(default_factory=Tune)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    recipe: Options = field(default_factory=dict)
    base: str = "average"
    judge: Judge | None = None
    summary: Summary | None = None
    order: int = 100

    def panel(self, name: str) -> Panel:
        """The panel of that name."""
        found = [panel for panel in self.panels if panel.name == name]
        if not found:
            raise UserError(f"there is no panel '{name}'{did_you_mean(name, [panel.name for panel in self.panels])}")
        return found[0]

    def within(self, panel: Panel) -> tuple[Arm, ...]:
        """The arms of a panel, in the study's order."""
        return tuple(arm for arm in self.arms if panel.arms is None or arm.name in panel.arms)


STUDIES = Path(__file__).resolve().parent / "studies"


def study_names() -> list[str]:
    """Every study, in the order of the queue."""
    names = [file.stem for file in STUDIES.glob("*.py") if not file.stem.startswith("_")]
    return sorted(names, key=lambda name: (load_study(name).order, name))


@cache
def load_study(name: str) -> Study:
    """The ``STUDY`` of ``studies/NAME.py``.

    Raises:
        UserError: there is no such file.
    """
    if not name.isidentifier() or not (STUDIES / f"{name}.py").is_file():
        known = sorted(file.stem for file in STUDIES.glob("[a-z]*.py"))
        raise UserError(f"there is no study '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}")
    found: Study = import_module(f"benchmarks.evidence.studies.{name}").STUDY
    return found
