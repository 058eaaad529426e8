"""Figures in README and docs: what stands between two marks is written by ``render``.

    <!-- evidence: WHAT PLACE [ARM, ARM …] -->…<!-- /evidence -->

``WHAT`` is ``score``, ``gain`` (against the student alone), ``base`` (against the study's base arm), ``vote`` (of the
panel's mentors) or ``decision`` within a paragraph, and ``table`` or ``rows`` on lines of their own. ``PLACE`` is
STUDY/PANEL; for ``rows`` a method's name. What is not measured yet is said so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.evidence.protocol import Compared, Line, Table, compared, holm
from benchmarks.evidence.study import load_study
from benchmarks.evidence.words import against, cost, gain, score
from classroomkd import methods
from classroomkd.errors import UserError, did_you_mean

__all__ = ["filled", "pages"]

MARK = re.compile(r"(<!-- evidence: (\w+) (\S+)((?: [^>]*?)?) -->)(.*?)(<!-- /evidence -->)", re.S)
BEGUN = re.compile(r"<!-- /?evidence\b.*")
NOTHING = "not measured yet"
Tables = Mapping[str, Table]


def pages(root: Path) -> list[Path]:
    """Where marks may stand."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def filled(root: Path, tables: Tables) -> dict[Path, str]:
    """File and text of every page that has marks.

    Raises:
        UserError: a mark asks for what is not there; names the page and the mark.
    """
    texts = {page: page.read_text() for page in pages(root)}
    return {page: _page(tables, page.relative_to(root), text) for page, text in texts.items() if BEGUN.search(text)}


def _page(tables: Tables, page: Path, text: str) -> str:
    """A page with its marks filled. One that is written in another way, or not closed, is refused, not passed over."""
    rest = MARK.sub(lambda found: found[5], text)
    if (wrong := BEGUN.search(rest)) is not None:
        raise UserError(f"{page}: {wrong[0]}: a mark is <!-- evidence: WHAT PLACE ARMS -->…<!-- /evidence -->")
    return MARK.sub(partial(_fill, tables, page), text)


def _fill(tables: Tables, page: Path, found: re.Match[str]) -> str:
    opening, what, place, rest, _, closing = found.groups()
    if what not in WRITERS:
        raise UserError(f"{page}: {opening}: '{what}' is not one of {', '.join(WRITERS)}")
    try:
        return opening + WRITERS[what](tables, place, _arms(place, rest)) + closing
    except UserError as error:
        raise UserError(f"{page}: {opening}: {error}") from error


def _arms(place: str, text: str) -> list[str]:
    """The arms named, a comma between; a study's own names may have commas, too."""
    study, _, panel = place.partition("/")
    known = [arm.name for arm in load_study(study).arms] if panel else []
    words = [word.strip() for word in text.split(",") if word.strip()]
    found = []
    while words:
        length = next((n for n in range(len(words), 0, -1) if ", ".join(words[:n]) in known), 1)
        found.append(", ".join(words[:length]))
        words = words[length:]
    return found


def _table(tables: Tables, place: str, arms: Sequence[str]) -> Table:
    """The table of a panel, with these arms in its study; empty where nothing is measured."""
    name, _, panel = place.partition("/")
    study = load_study(name)
    study.panel(panel)
    known = [arm.name for arm in study.arms]
    if unknown := [arm for arm in arms if arm not in known]:
        raise UserError(f"study '{name}' has no arm '{unknown[0]}'{did_you_mean(unknown[0], known)}")
    return tables.get(place) or Table((), {}, None, known)


def _line(tables: Tables, place: str, arms: Sequence[str]) -> Line | None:
    if len(arms) != 1:
        raise UserError("one arm is wanted")
    return _table(tables, place, arms).line(arms[0])


def _score(tables: Tables, place: str, arms: Sequence[str]) -> str:
    line = _line(tables, place, arms)
    return NOTHING if line is None else score(line)


def _gain(tables: Tables, place: str, arms: Sequence[str]) -> str:
    return _difference(_line(tables, place, arms), "alone")


def _base(tables: Tables, place: str, arms: Sequence[str]) -> str:
    return _difference(_line(tables, place, arms), "base")


def _difference(line: Line | None, other: str) -> str:
    compared: Compared | None = getattr(line, other, None)
    return NOTHING if compared is None else gain(compared.difference)


def _short(tables: Tables, place: str, arms: Sequence[str]) -> str:
    """A table of the arms named, or of all, the best on top."""
    found, base = _table(tables, place, arms), load_study(place.partition("/")[0]).base
    lines = [line for line in found.lines if not arms or line.name in arms]
    if not lines:
        return f"\n\n{NOTHING}\n\n"
    made = [f"| arm | test % | vs student alone | vs {base} | step |", "|:---|---:|---:|---:|---:|"]
    made += [
        f"| {_called(line)} | {score(line)} | {against(line.alone)} | {against(line.base)} | {cost(line)} |"
        for line in lines
    ]
    return "\n\n" + "\n".join(made) + "\n\n"


def _called(line: Line) -> str:
    return "student alone" if line.name == "none" else line.name


def _decision(tables: Tables, place: str, arms: Sequence[str]) -> str:
    """Who is on top, who cannot be told from it, who is no better than the student alone, and who is not there yet."""
    found = _table(tables, place, arms)
    lines = [line for line in found.lines if len(line.scores) > 1]
    taught = [line for line in lines if line.name != "none" and (not arms or line.name in arms)]
    if not taught:
        return NOTHING
    top = taught[0]
    apart = [compared(top.scores, line.scores) for line in taught[1:]]
    told = holm([each.p for each in apart])
    near = [line.name for line, p in zip(taught[1:], told, strict=True) if p is None or p >= 0.05]
    gains = [line.name for line in taught if line.alone is not None and line.alone.verdict == "gain"]
    losses = [line.name for line in taught if line.alone is not None and line.alone.verdict == "loss"]
    said = [f"On top: {top.name}, {score(top)} %, {_gain(tables, place, [top.name])} points above the student alone."]
    said.append(f"Not told from it: {'; '.join(near)}." if near else "Every other one is told from it.")
    rest = [line.name for line in taught if line.name not in gains and line.name not in losses]
    if rest:
        said.append(f"Not shown to be above the student alone: {'; '.join(rest)}.")
    if losses:
        said.append(f"Below the student alone: {'; '.join(losses)}.")
    if lacking := [name for name in found.lacking if not arms or name in arms]:
        said.append(f"Still to come: {'; '.join(lacking)}.")
    return " ".join(said)


def _rows(tables: Tables, place: str, arms: Sequence[str]) -> str:
    """Every line of a method, study by study."""
    if place not in methods.entries():
        raise UserError(f"there is no method '{place}'{did_you_mean(place, methods.entries())}")
    made = ["| study | arm | n | test % | vs student alone | vs base | step |", "|:---|:---|---:|---:|---:|---:|---:|"]
    for key, found in tables.items():
        name, _, panel = key.partition("/")
        study = load_study(name)
        for line in found.lines:
            if place in line.versions:
                title = f"{study.title}: {study.panel(panel).title}"
                cells = [title, line.name, f"{len(line.scores)}", score(line), against(line.alone), against(line.base)]
                made.append("| " + " | ".join([*cells, cost(line)]) + " |")
    return "\n\n" + ("\n".join(made) if len(made) > 2 else NOTHING) + "\n\n"


def _vote(tables: Tables, place: str, arms: Sequence[str]) -> str:
    """What the vote of a panel's mentors scores, in percent."""
    together = _table(tables, place, arms).mentors_vote
    return NOTHING if together is None else f"{100 * together:.1f}"


WRITERS: dict[str, Callable[[Tables, str, Sequence[str]], str]] = {
    "score": _score,
    "gain": _gain,
    "base": _base,
    "table": _short,
    "decision": _decision,
    "rows": _rows,
    "vote": _vote,
}
