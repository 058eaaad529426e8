"""The parts of the page about results: outcome, mentors, learning, classes, cost, settings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from classroomkd._stored import read_text
from classroomkd.errors import UserError
from classroomkd.report import charts
from classroomkd.report import vocabulary as words
from classroomkd.report.context import ReportContext
from classroomkd.report.files import read_json
from classroomkd.report.html import Html, card, details, el, lead, note, prose, section, table
from classroomkd.report.labels import seen
from classroomkd.report.records import Array
from classroomkd.report.rows import Row, mentor_rows
from classroomkd.report.stages import stages
from classroomkd.report.statistics import Difference, paired, spread
from classroomkd.report.summary import PROBE
from classroomkd.report.table import figure_columns, figure_rows, notes
from classroomkd.report.vocabulary import Vocabulary

__all__ = ["classes", "cost", "learning", "mentors", "outcome", "settings"]


def outcome(context: ReportContext) -> Html:
    """The result table, the dots of every seed, and the differences with their intervals."""
    if not context.summary.entries:
        return section("result", "Result", lead("No student has finished yet, so there is nothing to compare."))
    named = [name for name in ("none", "average") if any(row["vs"].get(name) for row in context.rows)]
    columns = [("arm", ""), ("n", "num"), (context.say.heading, "num")]
    columns += [(f"vs {words.alone(name)}", "num") for name in named]
    columns += [(f"at best val {context.say.measure.sign}", "num"), ("step", "num"), ("params", "num")]
    rows = [
        _result_row(context, row, named, colour) for row, colour in zip(context.rows, context.arm_colours, strict=True)
    ]
    dots = context.figure(
        f"Every seed, {context.say.heading}",
        "a dot is one student, the bar their mean",
        charts.scores(context.summary, context.arm_colours, context.ink),
        "The scores are in the table above.",
    )
    below = notes(context.rows, "reconstructed:")
    spans = []
    for name in named:
        if (chart := charts.differences(context.rows, name, context.ink)) is not None:
            title = f"Against {words.baseline_name(name)}, {context.say.measure.difference_sign}"
            text = "paired by seed, with 95 % interval"
            spans.append(context.figure(title, text, chart, "The differences are in the table above."))
    test, samples = context.summary.data.test, context.say.samples
    tested = f"{test:,} test {samples}" if test else f"the test {samples}"
    return section(
        "result",
        "Result",
        lead(f"{context.say.title} on {tested}; nothing was chosen on them."),
        card(table(columns, rows, "Result of every arm"), note(prose(" ".join(below)))),
        el("div", *map(card, (dots, *spans)), class_=_grid(1 + len(spans))),
        _further(context),
    )


def _result_row(context: ReportContext, row: Row, named: list[str], colour: str) -> list[str | None]:
    tag = "student alone" if row["method"] == "none" else row["status"]
    shown = "" if tag in ("baseline", "paper") else tag
    last, best = (
        words.plus_minus(row[key]["mean"], row[key]["sd"], context.decimals, context.say.measure)
        for key in ("test_last", "test_best")
    )
    cells: list[str | None] = [context.named(colour, row["arm"], shown), str(row["test_last"]["n"]), last]
    for baseline in named:
        difference = row["vs"].get(baseline)
        verdict = difference["verdict"] if difference else ""
        text = words.points(difference, context.decimals, context.say.measure)
        style = verdict if verdict in ("gain", "loss") else "dim" if text == words.DASH else None
        cells.append(el("span", text, class_=style))
    return [*cells, best, words.ratio(row["cost_ratio"]), words.count(row["parameters"])]


def _further(context: ReportContext) -> Html | None:
    """The figures beside the score that counts, a row a figure and a column an arm."""
    figures = [row for row in figure_rows(context.rows) if not row["figure"].endswith(PROBE)]
    if not figures:
        return None
    columns = figure_columns(context.rows)
    cells = [[column.cell(row, context.decimals) for column in columns] for row in figures]
    titles = [(column.title, "" if column.left else "num") for column in columns]
    text = "on the test part, of the last epoch's students; mean ± standard deviation over seeds"
    caption = el("figcaption", "Further figures", el("span", text))
    return card(el("figure", caption, table(titles, cells, "Further figures")))


def mentors(context: ReportContext) -> Html:
    """Who the mentors are, what they had seen, and how large they are beside the student."""
    known = mentor_rows(context.summary)
    if not known:
        return section("mentors", "Mentors", lead("This run has no mentors."))
    noted = any(row["note"] for row in known)
    say = context.say
    scores = (say.heading, f"val {say.measure.sign}")
    numbers = (*scores, "parameters", "multiply-adds", f"{say.seen} trained on")
    columns = [("mentor", ""), ("model", ""), *((title, "num") for title in numbers)]
    columns += [("note", "wrap")] if noted else []
    rows = []
    for row, colour in zip(known, context.mentor_colours, strict=False):
        cells = [context.named(colour, row["name"]), row["model"] or words.DASH]
        cells += [words.percent(row[key], measure=say.measure) for key in ("accuracy", "val_accuracy")]
        cells += [words.count(row[key]) for key in ("parameters", "multiply_adds")]
        cells.append(words.thousands(row["samples"]))
        rows.append(cells + ([row["note"] or words.DASH] if noted else []))
    if context.summary.mentors_vote is not None:
        together = words.percent(context.summary.mentors_vote, measure=say.measure)
        rows.append(["their vote, together", words.DASH, together, *[words.DASH] * (len(columns) - 3)])
    own, student = context.summary.data.student_train, context.summary.student
    text = f"The student, {student.model or 'unnamed'}, has {words.count(student.parameters)} parameters"
    taught = seen(context.summary.data, say) or (f"{own:,} {say.seen}" if own else "")
    text += f" and saw {taught}." if taught else "."
    return section("mentors", "Mentors", lead(text), card(table(columns, rows, "Mentors")))


def learning(context: ReportContext) -> Html:
    """The validation score over epochs."""
    warnings = [note(text) for log in context.logs for text in log.trouble]
    shown = [
        (log.label, log.mean_accuracy, colour)
        for log, colour in zip(context.logs, context.arm_colours, strict=True)
        if log.mean_accuracy is not None
    ]
    if not shown:
        return section("learning", "Learning", lead(f"No validation {context.say.val} has been logged."), *warnings)
    last = max(float(curve.x[-1]) for _, curve, _ in shown)
    measure = context.say.measure
    listed = ", ".join(
        f"{label} {words.percent(float(curve.y[-1]), measure=measure)} {measure.sign}" for label, curve, _ in shown
    )
    figures = []
    staged = "; a dashed line begins a stage" * any(len(log.stages) > 1 for log in context.logs)
    for title, start in ((f"Validation {context.say.val}, {measure.sign}", 0.0), ("The second half, larger", last / 2)):
        chart = charts.learning(context.logs, context.arm_colours, start, context.say)
        text = f"mean over seeds; single seeds faint{staged}"
        figures.append(context.figure(title, text, chart, f"At the end: {listed}."))
    return section(
        "learning",
        "Learning",
        lead(f"On the validation part, at the last epoch: {listed}."),
        context.legend([label for label, _, _ in shown], [colour for _, _, colour in shown]),
        el("div", *map(card, figures), class_="grid two"),
        stages(context),
        *warnings,
    )


def classes(context: ReportContext) -> Html:
    """What changed on each class or joint from the student alone to the taught one."""
    alone, main, names, say = context.alone, context.main, context.summary.data.classes, context.say
    logs = {log.label: log.per_class for log in context.logs if log.per_class}
    if alone is None or main is None or alone.label == main["arm"] or not {alone.label, main["arm"]} <= set(logs):
        return Html("")
    pair = (alone.label, main["arm"])
    average = [row["arm"] for row in context.rows if row["method"] == "average" and row["arm"] in logs]
    labels = list(dict.fromkeys([pair[0], *average, pair[1]]))
    changes = [_change(logs, pair, index, say) for index in range(len(names))]
    size = [abs(change.mean or 0.0) for change in changes]
    keep = sorted(sorted(range(len(names)), key=lambda index: -size[index])[: charts.MAX_CLASSES])
    means = {label: np.stack(list(logs[label].values())).mean(0)[keep] for label in labels}
    colours = {label: context.colour(label) for label in labels}
    figure = context.figure(
        f"Test {say.by_unit} on each {say.unit}, {say.measure.sign}",
        f"the bar runs from {pair[0]} to {pair[1]}: green where the {say.unit} gained, red where it lost",
        charts.class_changes([names[k] for k in keep], means, colours, pair, context.ink, say),
        f"The figures of all {say.units} are in teaching.json of every seed.",
        context.legend(labels, list(colours.values())),
    )
    text = _changes(names, changes, pair, say)
    if len(keep) < len(names):
        text += f" Drawn are the {len(keep)} {say.units} that changed most."
    return section("classes", f"What changed, {say.unit} by {say.unit}", lead(text), card(figure))


def _change(logs: dict[str, dict[int, Array]], pair: tuple[str, str], index: int, say: Vocabulary) -> Difference:
    """Of one class or joint, from the first arm of ``pair`` to the second, paired by seed."""
    alone, taught = ({seed: float(values[index]) for seed, values in logs[label].items()} for label in pair)
    return paired(taught, alone, higher_is_better=say.measure.higher_is_better)


def _changes(names: list[str], changes: list[Difference], pair: tuple[str, str], say: Vocabulary) -> str:
    measure = say.measure
    known = [
        (measure.rank(change.mean), name)
        for change, name in zip(changes, names, strict=True)
        if change.mean is not None
    ]
    if not known:
        return f"{pair[0]} and {pair[1]} share no seed, so {say.units} cannot be compared."
    gained, lost = (sum(1 for mean, _ in known if sign * mean > 0) for sign in (1, -1))
    sure = [sum(1 for change in changes if change.verdict == word) for word in ("gain", "loss")]
    (top, best), (bottom, worst) = max(known), min(known)
    text = f"From {pair[0]} to {pair[1]}, {gained} of {len(names)} {say.units} gained {say.by_unit} and {lost} lost it"
    if any(change.low is not None for change in changes):
        text += f"; beyond chance between seeds (a 95 % interval each): {sure[0]} gained, {sure[1]} lost"
    most, least = (words.signed(measure.rank(ranked), measure=measure) for ranked in (top, bottom))
    return f"{text}. Most: {best} {most} {measure.difference_sign}; least: {worst} {least}."


def cost(context: ReportContext) -> Html:
    """What a step, a student and the mentors cost, and what size buys."""
    columns = [("arm", ""), ("step, ms", "num"), ("alone, ms", "num"), ("step", "num"), ("a student", "num")]
    rows = []
    for row, colour in zip(context.rows, context.arm_colours, strict=True):
        floor = spread(context.summary.scores(row["arm"], "floor_ms").values()).mean
        numbers = [words.DASH if value is None else f"{value:.2f}" for value in (row["step_ms"], floor)]
        name = context.named(colour, row["arm"])
        rows.append([name, *numbers, words.ratio(row["cost_ratio"]), words.duration(row["seconds"])])
    cards = [card(table(columns, rows, "Cost of every arm"))]
    if (chart := charts.sizes(context.summary, context.arm_colours, context.mentor_colours)) is not None:
        names = [row["arm"] for row in context.rows] + [mentor.name for mentor in context.summary.mentors]
        figure = context.figure(
            f"{context.say.title} and size, test %",
            "squares are mentors, circles the student of each arm",
            chart,
            f"{context.say.scores} and parameter counts are in the tables above.",
            context.legend(names, context.arm_colours + context.mentor_colours),
        )
        cards.append(card(figure))
    grid = el("div", *cards, class_=_grid(len(cards)) + " start")
    return section("cost", "Cost", lead(" ".join(_spent(context))), grid)


def _spent(context: ReportContext) -> list[str]:
    summary = context.summary
    text = [f"The whole run took {words.duration(summary.seconds)}."] if summary.seconds else []
    ready = sum(mentor.seconds or 0.0 for mentor in summary.mentors)
    if ready:
        trained = any(mentor.samples is not None for mentor in summary.mentors)
        how = "training the mentors, which are kept for later runs, scoring them" if trained else "scoring the mentors"
        stored = " and storing their answers" if summary.bank else ""
        joined = how.replace(", scoring them", " and scoring them") if trained and not stored else how
        text.append(f"Of the work, {words.duration(ready)} went into {joined}{stored}.")
    if summary.mentors:
        text.append(_answered(context))
    return text


def _answered(context: ReportContext) -> str:
    """Where the mentors' answers came from."""
    bank = context.summary.bank
    if not bank:
        return "The mentors' answers were computed in every step (no bank)."
    now = int(bank.get("forwards") or 0) + sum(entry.mentor_answers or 0 for entry in context.summary.entries)
    online = [str(label) for label in bank.get("online") or ()]
    apart = f"; they answered every step of {', '.join(online)}" if online else ""
    if not now:
        return f"The mentors' answers came from the bank{apart}."
    return f"The mentors were asked {now:,} questions, whose answers are in the bank; all others came from it{apart}."


def settings(context: ReportContext) -> Html:
    """How to repeat it: the command, the resolved recipe, each arm's options, the environment."""
    root = context.summary.root
    parts = []
    if context.summary.command:
        parts.append(el("p", "Made by ", el("code", context.summary.command)))
    recipe = root / "recipe.yaml"
    if recipe.exists():
        try:
            text = el("pre", read_text(recipe, remedy="it is not shown"), tabindex="0")
        except UserError as error:
            text = note(str(error))
        parts.append(details("Recipe, resolved", text))
    options = []
    for arm in context.summary.arms:
        texts = (arm.status, _flat_text(_own(arm.options)), _flat_text(arm.cost))
        options.append([arm.label, arm.method, *(text or words.DASH for text in texts)])
    titles = [("arm", ""), ("method", ""), ("status", ""), ("options", "wrap"), ("cost, as planned", "wrap")]
    parts.append(details("Arms and their options", table(titles, options, "Options of every arm")))
    environment: Any = None
    try:
        if (root / "environment.json").exists():
            environment = read_json(root / "environment.json")
    except UserError as error:
        parts.append(note(str(error)))
    for title, content in (("Bank", context.summary.bank), ("Environment", environment)):
        if content:
            parts.append(details(title, table([("setting", ""), ("value", "wrap")], _flat(content), title)))
    return section("settings", "Settings", *parts)


def _grid(count: int) -> str:
    return "grid " + {1: "", 2: "two"}.get(count, "three")


def _own(options: dict[str, Any]) -> dict[str, Any]:
    """Options without the method's name in front where there is only one method, and without what was left open."""
    inner = next(iter(options.values())) if len(options) == 1 else options
    chosen = inner if isinstance(inner, dict) else options
    return {key: value for key, value in chosen.items() if value is not None}


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            pair for key, below in value.items() for pair in _flat(below, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _flat_text(value: dict[str, Any]) -> str:
    return ", ".join(f"{key} {text}" for key, text in _flat(value))
