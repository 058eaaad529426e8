"""What a run showed, in sentences: the same care for a loss as for a gain, and no claim without an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from classroomkd.report import vocabulary as words
from classroomkd.report.rows import Row
from classroomkd.report.summary import Summary

__all__ = ["cautions", "headline", "main_arm", "verdict"]

AGAINST_NONE = {
    "gain": "The mentors helped.",
    "loss": "The mentors hurt: the student alone is better.",
    "unclear": "No clear difference from the student alone.",
    "one seed": "One seed has no interval, so this shows nothing yet; run more seeds.",
}
AGAINST_AVERAGE = {
    "gain": "It did better than plain averaging of the same mentors.",
    "loss": "Plain averaging of the same mentors did better.",
    "unclear": "No clear difference from plain averaging of the same mentors.",
}


def main_arm(rows: Sequence[Row], summary: Summary) -> Row | None:
    """The arm the headline is about: of those that are no baseline, the best on *validation* (never on test).

    Without validation figures the first of them; if there are only baselines, the last one that has results.
    """
    finished = [row for row in rows if row["test_last"]["n"]]
    taught = [row for row in finished if row["method"] not in ("none", "average")] or finished[-1:]
    if not taught:
        return None

    rank = summary.say.measure.rank

    def on_validation(row: Row) -> float:
        values = [v for v in summary.scores(row["arm"], "val_last").values() if v is not None]
        return rank(sum(values) / len(values)) if values else -math.inf

    return max(taught, key=on_validation)


def headline(row: Row | None) -> str:
    """``classroomkd 81.2 ± 0.9 %, +5.1 [4.0, 6.2] points over the student alone; −0.3 [−1.1, 0.5] against …``."""
    if row is None:
        return "No student has finished yet."
    say = words.vocabulary_of([row])
    decimals = words.decimals_for(row["test"], say.measure)
    score = words.plus_minus(row["test_last"]["mean"], row["test_last"]["sd"], decimals, say.measure)
    score += f" {say.measure.sign}{say.suffix}"
    text = f"The student alone: {score}" if row["method"] == "none" else f"{row['arm']} {score}"
    parts: list[str] = []
    for index, (name, preposition) in enumerate((("none", "over"), ("average", "against"))):
        difference = row["vs"].get(name)
        if difference and difference["mean"] is not None:
            unit = f" {say.measure.difference_sign}" if index == 0 or not parts else ""
            number = words.points(difference, decimals, say.measure, mark=False)
            parts.append(f"{number}{unit} {preposition} {words.baseline_name(name)}")
    return f"{text}, {'; '.join(parts)}." if parts else f"{text}."


def verdict(row: Row | None, labels: bool = True) -> list[str]:
    """What the intervals allow one to say, one sentence a baseline; without ``labels`` there is no student alone."""
    if row is None:
        return []
    sentences = []
    for name, says in (("none", AGAINST_NONE), ("average", AGAINST_AVERAGE)):
        difference = row["vs"].get(name)
        if difference and difference["verdict"] in says:
            sentences.append(says[difference["verdict"]])
    if labels and not row["vs"].get("none") and row["method"] != "none":
        sentences.append("There is no student alone in this run, so it cannot tell whether the mentors helped.")
    return sentences


def cautions(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """What a careful reader should know before believing the headline; the data's own notes come last."""
    texts = []
    gaps = summary.missing()
    if gaps:
        listed = "; ".join(f"{label} lacks {', '.join(map(str, seeds))}" for label, seeds in gaps.items())
        texts.append(f"Unfinished: some seeds are missing ({listed}). Differences use the seeds both arms have.")
    if not summary.entries:
        texts.append("Unfinished: no student has finished yet.")
    taught = [row for row in rows if row["method"] not in ("none", "average") and row["test_last"]["n"]]
    if len(taught) > 1:
        texts.append(
            f"The headline is about the arm that is best on the validation part, of {len(taught)} taught ones."
        )
    if summary.say.spelled:
        texts.append(
            f"No test picture has a label: figures are {summary.say.spelled}, and a student that agrees with mentors "
            "who are wrong together is wrong, too. Label some for the test part to know."
        )
    seen, own = [m.samples for m in summary.mentors if m.samples], summary.data.student_train
    own = own if summary.data.labelled is None else summary.data.labelled
    noted = any("labels" in note and "student" in note for note in summary.data.notes)  # by the run, in more detail
    if seen and own and max(seen) > own and not noted:
        texts.append(
            f"Mentors were trained on up to {max(seen):,} {summary.say.seen}, the student on {own:,}: "
            "part of a gain over the student alone may be their extra data."
        )
    unknown = [m.name for m in summary.mentors if m.samples is None]
    if unknown:
        names = ", ".join(unknown[:6]) + (f" and {len(unknown) - 6} more" if len(unknown) > 6 else "")
        texts.append(f"What {names} had been trained on is not known to this run.")
    tests = sum(1 for row in rows for d in row["vs"].values() if d and d["low"] is not None)
    if tests >= 10:
        texts.append(
            f"{tests} intervals are shown, each at 95 % by itself: were there no differences at all, "
            f"about {max(1, round(tests / 20))} would exclude 0 by chance."
        )
    flat = [
        row["arm"]
        for row in rows
        if any(d and d["low"] is not None and d["low"] == d["high"] for d in row["vs"].values())
    ]
    if flat:
        texts.append(f"Every seed of {', '.join(flat)} differs by the same amount; check that the seeds really differ.")
    return texts + [note for note in summary.data.notes if note not in texts]
