"""``RESULTS.md``, plots, ``results.csv``, and the figures in README and docs, from ``results/``.

python -m benchmarks.evidence render
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.evidence import marks, plots
from benchmarks.evidence.cells import PLAIN, mentor_cell
from benchmarks.evidence.mentors import MENTORS
from benchmarks.evidence.protocol import MARGIN, Table, table
from benchmarks.evidence.results import Store
from benchmarks.evidence.study import DEFAULTS, Panel, Study, load_study, study_names
from benchmarks.evidence.words import against, cost, gain, score, setting

__all__ = ["rendered", "write"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROTOCOL = (
    "Test accuracy in % of the last weights, mean ± standard deviation over the seeds. Differences are paired "
    "by seed, in points, with a 95 % t-interval. **▲ ▼**: told from 0 by Holm's test over the column at 5 %. "
    f"**≈**: equal within ± {100 * MARGIN:g} points (two one-sided tests at 5 %). Everything else is "
    "undecided, which is not equal. *In the same time*: against the student alone for as long, at its best "
    "length up to there: with mentors that are *owned* already, and with mentors that had to be trained for "
    "it (*paid*: their training and answers counted). Cost: a step over the student's alone, with stored "
    "answers. *Best*: the weights that were best on the validation part, for comparison; nothing is chosen on "
    "the test part. Unless a table says that nothing was tuned, every arm that is tuned had the same number of "
    "candidates, tried on the validation part with seeds of their own; the learning rate is the best of the student "
    "alone, for all."
)


def rendered(store: Store | None = None) -> dict[Path, str]:
    """File and text of everything that is made from the results; a plot's text is its SVG."""
    store = store or Store()
    files: dict[Path, str] = {}
    lines = [
        "# What was found",
        "",
        "`python -m benchmarks.evidence render` wrote this from `results/`.",
        "",
        PROTOCOL,
        "",
    ]
    tables: dict[str, Table] = {}
    for name in study_names():
        study = load_study(name)
        found = {panel.name: table(name, study, panel, store) for panel in study.panels}
        if not any(each.lines for each in found.values()):
            continue
        tables |= {f"{name}/{panel}": each for panel, each in found.items()}
        titled = {panel.title: found[panel.name] for panel in study.panels if found[panel.name].lines}
        lines += [f"## {study.title}", "", study.answers, "", f"`python -m benchmarks.evidence run {name}`", ""]
        svg = plots.forest(titled)
        if svg is not None:
            files[HERE / "figures" / f"{name}.svg"] = svg
            lines += [f"![{study.title}: every arm against the student alone](figures/{name}.svg)", ""]
        for panel in study.panels:
            if found[panel.name].lines:
                drawn = plots.curves(name, study, panel, store)
                if drawn is not None:
                    files[HERE / "figures" / f"{name}-{panel.name}.svg"] = drawn
                lines += list(_section(name, study, panel, found[panel.name], store))
        if study.summary is not None:
            lines += [*study.summary(found), ""]
    files[HERE / "RESULTS.md"] = "\n".join(lines).rstrip() + "\n"
    files[HERE / "results.csv"] = _every_student(store)
    return files | marks.filled(ROOT, tables)


def write(store: Store | None = None) -> None:
    """Write what :func:`rendered` says, and remove plots that nobody asks for any more."""
    files = rendered(store)
    for old in (HERE / "figures").glob("*.svg"):
        if old not in files:
            old.unlink()
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _section(name: str, study: Study, panel: Panel, found: Table, store: Store) -> Iterator[str]:
    yield from (f"### {panel.title}", "", _mentors(study, panel, store), "")
    yield from (_where(found), "")
    if found.lacking:
        yield from (f"Not complete (fewer than {len(study.seeds)} seeds): {', '.join(found.lacking)}.", "")
    head = ["arm", "n", "test %", "best", "vs alone"]
    if study.base:
        head.append(f"vs {study.base}")
    head += ["same time, owned", "paid", "cost", "setting"]
    yield "| " + " | ".join(head) + " |"
    yield "|:---|" + "---:|" * (len(head) - 2) + ":---|"
    for line in found.lines:
        cells = [line.name, str(len(line.scores)), score(line), score(line, "best"), against(line.alone)]
        if study.base:
            cells.append(against(line.base))
        cells += [gain(line.given), gain(line.paid), cost(line), setting(line.setting)]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield from _together(found)
    for line in found.lines:
        for seed, why in line.failures.items():
            yield from (f"- {line.name}, seed {seed}, has no student: {why}", "")
    file = f"{name}-{panel.name}.svg"
    yield from (f"[Learning curves on the validation part](figures/{file})", "")


def _together(found: Table) -> Iterator[str]:
    """Networks that were trained together: each of them, and their ensemble beside its members."""
    lines = [(line.name, line.together) for line in found.lines if line.together is not None]
    if not lines:
        return
    yield from (
        "Networks that were trained together, test %; *ensemble*: their mean probabilities, teachers left out.",
        "",
    )
    yield "| arm | each | teacher | ensemble | over its members | two differ on |"
    yield "|:---|---:|---:|---:|---:|---:|"
    for name, own in lines:
        each, teachers = (
            " · ".join(f"{100 * x:.1f}" for x in part.values()) or "–" for part in (own.members, own.teachers)
        )
        whole = "–" if own.ensemble is None else f"{100 * own.ensemble:.1f}"
        differ = "–" if own.disagreement is None else f"{100 * own.disagreement:.1f} %"
        yield f"| {name} | {each} | {teachers} | {whole} | {gain(own.more)} | {differ} |"
    yield ""


def _mentors(study: Study, panel: Panel, store: Store) -> str:
    """Who the mentors are, and how good."""
    said = []
    for mentor in (MENTORS[name] for name in panel.mentors or study.mentors):
        entry = store.students(mentor_cell(mentor)).get(0)
        said.append(
            mentor.name
            + ("" if entry is None else " shuffled" if mentor.shuffled else f" {100 * entry['test_last']:.1f}")
        )
    return f"Mentors, test %: {', '.join(said)}. Seeds: {len(study.seeds)}. {_tuned(study, panel)}"


def _tuned(study: Study, panel: Panel) -> str:
    """Where the settings are from."""
    if panel.tuned == DEFAULTS or study.tune is None:
        return "Nothing was tuned: every arm at its defaults and at the study's rate."
    if panel.tuned:
        return f"Settings and rate as chosen for {panel.tuned}."
    return f"Tuned on the validation part, seeds {', '.join(map(str, study.tune.seeds))}."


def _where(found: Table) -> str:
    """Where on its curve the student alone stands."""
    points = ", ".join(f"{share:g}: {100 * sum(s.values()) / len(s):.1f}" for share, s in found.curve.items())
    if found.converged is None:
        return f"The student alone by share of the epochs: {points}. How far it has converged was not measured."
    said = "**converged**" if found.converged else "**not converged**: what follows compares trainings of this length"
    return f"The student alone by share of the epochs: {points}; from 1 to 1.5 {gain(found.gain)}: {said}."


def _of_stages(entry: list[Any], at: int) -> str:
    """What stands at a place of ``[name, options, version]``; of an arm's stages, one after the other."""
    if not isinstance(entry[0], dict):
        return str(entry[at])
    return " then ".join(str(stage["method"][at]) for stage in entry)


def _every_student(store: Store) -> str:
    """A line for every student there is."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    scores = ["test_last", "test_best", "val_last", "unseen", "seconds"]
    out.writerow(["study", "key", "student", "methods", "versions", "seed", *scores])
    for study, key, content in store:
        recipe = content["recipe"]
        methods, versions = ("+".join(_of_stages(entry, at) for entry in recipe["methods"]) for at in (0, 2))
        for seed, e in content["students"].items():
            model = recipe.get("student", {}).get("model", PLAIN["student"])
            out.writerow([study, key, model, methods, versions, seed, *(e.get(score, "") for score in scores)])
    return text.getvalue()
